"""Experiment configurations of Determined."""

from __future__ import annotations

import math
from typing import Any

from tunesvc.foreign import dimensions
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats.determined_parameters import add_hyperparameters
from tunesvc.foreign.section import Section

TITLE = "an experiment of Determined"
_ASHA = ("adaptive_asha", "asha", "async_halving")


def recognises(top: Section) -> bool:
    """Return True for an experiment."""
    return top.has_section("searcher") and "hyperparameters" in top


def convert(top: Section, draft: Draft) -> None:
    """Make a study of an experiment."""
    if (name := top.take("name")) is not None:
        draft.data["name"] = str(name)
    if (description := top.take("description")) is not None:
        draft.data["description"] = str(description)
    if (parameters := top.section("hyperparameters")) is not None:
        add_hyperparameters(parameters, draft)
    searcher = top.section("searcher")
    if searcher is not None:
        _searcher(searcher, draft)
        searcher.close()
    if (resources := top.section("resources")) is not None:
        if "slots_per_trial" in resources:
            draft.data["resources"] = {"gpu": resources.number("slots_per_trial")}
        resources.close()
    if "max_restarts" in top:
        draft.data["retries"] = {"error": top.number("max_restarts")}
    _program(top, draft)
    top.close()


def _searcher(searcher: Section, draft: Draft) -> None:
    metric = searcher.need("metric", "metric: validation_loss")
    smaller = searcher.take("smaller_is_better", True)
    draft.data["metric"] = {"name": metric, "goal": "minimize" if smaller else "maximize"}
    name = searcher.need("name", "name: adaptive_asha")
    if name in ("random", "grid"):
        draft.data["sampler"] = name
    elif name == "single":
        draft.data["budget"] = {"trials": 1}
    elif name in _ASHA:
        eta: Any = searcher.number("divisor") if "divisor" in searcher else 4
        draft.data["pruner"] = {"name": "asha", "eta": int(eta)}
    else:
        searcher.note("name", f"`{name}`: the default of `tune` is used")
    if "max_trials" in searcher:
        draft.data["budget"] = {"trials": searcher.number("max_trials")}
    elif name == "grid":
        sizes = [dimensions.size(one) for one in draft.data.get("parameters", {}).values()]
        draft.data["budget"] = {"trials": math.prod(size or 1 for size in sizes)}
    if (at_once := "max_concurrent_trials") in searcher:
        draft.data["parallelism"] = searcher.number(at_once) or None
    text = "the program decides how long it trains; give it a constant such as `epochs`"
    searcher.drop(text, "max_length", "max_time", "time_metric")


def _program(top: Section, draft: Draft) -> None:
    entrypoint = top.take("entrypoint")
    words = entrypoint if isinstance(entrypoint, list) else str(entrypoint or "").split()
    if len(words) > 1:
        text = "it finds hyperparameters in the variable TUNE_PARAMS, and reports by tunesvc"
        draft.note(top.at("entrypoint").line, f"`{words[0]} ...`: {text}")
        draft.set_program(words)
    else:
        if words:
            text = f"`{words[0]}` is a trial class of Determined: write a function or a program"
            draft.note(top.at("entrypoint").line, text)
        draft.set_program(None)
