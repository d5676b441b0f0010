"""Sweep files of Weights & Biases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tunesvc.foreign import dimensions
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats.wandb_parameters import add_parameters
from tunesvc.foreign.section import Section

TITLE = "a sweep of Weights & Biases"
_SAMPLERS = {"bayes": None, "random": "random", "grid": "grid"}
_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]
_WORDS: Mapping[str, list[str]] = {"${env}": [], "/usr/bin/env": [], "${interpreter}": ["python"]}
_OPTIONS = {
    "${args}": "--{name}=${{{name}}}",
    "${args_no_hyphens}": "{name}=${{{name}}}",
    "${args_no_boolean_flags}": "${{--{name}}}",
}


def recognises(top: Section) -> bool:
    """Return True for a sweep."""
    return top.has_section("parameters") and ("method" in top or "program" in top)


def convert(top: Section, draft: Draft) -> None:
    """Make a study of a sweep."""
    if (name := top.take("name")) is not None:
        draft.data["name"] = str(name)
    if (description := top.take("description")) is not None:
        draft.data["description"] = str(description)
    _metric(top, draft)
    if (parameters := top.section("parameters")) is None:
        top.need("parameters", "parameters: {lr: {min: 0.001, max: 0.1}}")
    else:
        add_parameters(parameters, draft)
    _method(top, draft)
    _hyperband(top, draft)
    _command(top, draft)
    top.drop("runs are not sent to a project of Weights & Biases", "project", "entity")
    top.close()


def _metric(top: Section, draft: Draft) -> None:
    metric = top.section("metric")
    if metric is None:
        top.refuse("metric", "`metric` is missing: write `metric: {name: ..., goal: minimize}`")
        return
    made = {"name": metric.need("name", "name: val_loss"), "goal": metric.take("goal", "minimize")}
    if "target" in metric:
        made["target"] = metric.number("target")
    draft.data["metric"] = made
    draft.note(0, "wandb.log reports nothing here: the program reports by tunesvc as well")
    metric.close()


def _method(top: Section, draft: Draft) -> None:
    method = top.take("method", "bayes")
    if method not in _SAMPLERS:
        top.refuse("method", f"`{method}` is no method: write one of {', '.join(_SAMPLERS)}")
    elif (sampler := _SAMPLERS[method]) is not None:
        draft.data["sampler"] = sampler
    if "run_cap" in top:
        draft.data["budget"] = {"trials": top.number("run_cap")}
    elif method == "grid":
        sizes = [dimensions.size(one) for one in draft.data.get("parameters", {}).values()]
        draft.data["budget"] = {"trials": math.prod(size or 1 for size in sizes)}


def _hyperband(top: Section, draft: Draft) -> None:
    early = top.section("early_terminate")
    if early is None:
        return
    if early.take("type") != "hyperband":
        early.refuse("type", "the only `type` is hyperband")
    eta: Any = early.number("eta") if "eta" in early else 3
    first: Any = early.number("min_iter") if "min_iter" in early else None
    if first is None and "max_iter" in early:
        brackets: Any = early.number("s") if "s" in early else 2
        first = max(1, int((early.number("max_iter") or 1) / eta**brackets))
    draft.data["pruner"] = {"name": "asha", "min": int(first or 1), "eta": int(eta)}
    early.close()


def _command(top: Section, draft: Draft) -> None:
    program = top.take("program")
    words: list[str] = []
    for word in map(str, top.take("command", _COMMAND)):
        if word in _OPTIONS:
            words += [_OPTIONS[word].format(name=name) for name in draft.names()]
        elif word == "${program}":
            words.append(str(program))
        elif word.startswith("${args_json"):
            top.note("command", f"`{word}`: the variable TUNE_PARAMS has the parameters as JSON")
        elif word.startswith("${envvar:"):
            top.note("command", f"`{word}`: write its value, or read it in the program")
        else:
            words += _WORDS.get(word, [word.replace("${", "$${")])
    draft.set_program(words if program is not None else None)
