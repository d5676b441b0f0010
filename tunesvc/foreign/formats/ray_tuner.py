"""`ray.tune.Tuner` objects, and search spaces of Ray Tune."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.execution.objectives.ray_tune_space import constants_of, from_ray, resources_of
from tunesvc.execution.ray_internals import given_to_tuner
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.python_source import leaves
from tunesvc.spec import Resources

TITLE = "a search space of Ray Tune"
_SCHEDULERS = {
    "ASHAScheduler": "asha",
    "AsyncHyperBandScheduler": "asha",
    "HyperBandScheduler": "asha",
    "MedianStoppingRule": "median",
    "FIFOScheduler": "none",
}
_SEARCHERS = {
    "OptunaSearch": "tpe",
    "HyperOptSearch": "tpe",
    "BayesOptSearch": "gp",
    "BasicVariantGenerator": "random",
}
_MADE_UP = re.compile(r"_\d{4}-\d\d-\d\d_")
"""A name that Ray makes of the time."""


def is_of_ray(found: object) -> bool:
    """Return True for a `Tuner`, or for a mapping with a domain of Ray Tune."""
    if isinstance(found, Mapping):
        kinds = [type(leaf).__module__ for leaf in leaves(found)]
        is_grid = any(isinstance(leaf, Mapping) for leaf in leaves(found))
        return is_grid or any(kind.startswith("ray.tune.") for kind in kinds)
    return type(found).__module__.startswith("ray.tune.") and type(found).__name__ == "Tuner"


def convert_object(found: Any, names: Mapping[str, Any], path: Path, draft: Draft) -> None:
    """Make a study of a `Tuner` or a search space.

    Raises:
        SpecError: a domain cannot be carried; the text names the parameter and a remedy.
    """
    if isinstance(found, Mapping):
        _add_space(found, draft)
        draft.note(0, "it names no metric: `loss`, to be minimized, is a guess")
        draft.data["metric"] = {"name": "loss", "goal": "minimize"}
        draft.set_program(None)
        return
    given = given_to_tuner(found)
    _add_space(given["param_space"] or {}, draft)
    _add_config(given["tune_config"], draft)
    _add_run(given["run_config"], draft)
    if (resources := resources_of(given["trainable"])) is not None:
        default = Resources()
        draft.data["resources"] = {
            key: value for key, value in resources.items() if value != getattr(default, key)
        }
    named = [name for name, value in names.items() if value is given["trainable"]]
    if named and draft.program is None:
        draft.data["entrypoint"] = f"{path.name}:{named[0]}"
    else:
        draft.set_program(None)


def _add_space(space: Mapping[str, Any], draft: Draft) -> None:
    for name, parameter in from_ray(space).items():
        kept = parameter.model_dump(mode="json", exclude_defaults=True)
        kind = {} if "values" in kept else {"type": parameter.type}
        draft.add_parameter(name, {**kind, **kept})
    for name, value in constants_of(space).items():
        try:
            json.dumps(value)
        except TypeError:
            draft.note(
                0, f"`{name}`: a {type(value).__name__} cannot be stored: make it in the function"
            )
        else:
            draft.add_constant(name, value)


def _add_config(config: Any, draft: Draft) -> None:
    if config.metric is None:
        draft.note(0, "it names no metric: `loss` is a guess")
    goal = {"max": "maximize", "min": "minimize"}.get(config.mode or "min", "minimize")
    draft.data["metric"] = {"name": config.metric or "loss", "goal": goal}
    budget: dict[str, Any] = {"trials": config.num_samples} if config.num_samples > 0 else {}
    if config.time_budget_s is not None:
        seconds = getattr(config.time_budget_s, "total_seconds", lambda: config.time_budget_s)()
        budget["wall"] = float(seconds)
    if budget:
        draft.data["budget"] = budget
    if config.max_concurrent_trials:
        draft.data["parallelism"] = config.max_concurrent_trials
    for key, given, known in (
        ("sampler", config.search_alg, _SEARCHERS),
        ("pruner", config.scheduler, _SCHEDULERS),
    ):
        kind = type(given).__name__
        if given is not None and kind in known:
            draft.data[key] = known[kind]
            draft.note(0, f"`{kind}` becomes `{key}: {known[kind]}`, without its options")
        elif given is not None:
            draft.note(0, f"`{kind}`: the default `{key}` of `tune` is used")


def _add_run(config: Any, draft: Draft) -> None:
    if config.name is not None and not _MADE_UP.search(config.name):
        draft.data["name"] = str(config.name)
    if isinstance(config.stop, Mapping):
        draft.add_constant("stop", dict(config.stop))
    elif config.stop is not None:
        raise SpecError("`stop` is a function: stop in the trainable, or name metrics and bounds")
    failures = getattr(config.failure_config, "max_failures", 0)
    if failures > 0:
        draft.data["retries"] = {"error": failures}
    default = type(config)()
    for key in ("storage_path", "callbacks", "checkpoint_config", "sync_config"):
        if getattr(config, key, None) != getattr(default, key, None):
            draft.note(0, f"`run_config.{key}` has no counterpart here")
