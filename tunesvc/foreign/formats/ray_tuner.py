"""`ray.tune.Tuner` objects, translated by `tunesvc.ray_tune`, and search spaces of Ray Tune."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesvc.execution.objectives.ray_tune_space import constants_of, from_ray, resources_of
from tunesvc.execution.ray_internals import given_to_tuner
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.python_source import leaves
from tunesvc.spec import Resources

TITLE = "a search space of Ray Tune"
_NOT_OF_THE_FILE = ("cluster", "progress", "trials", "wall", "metrics", "parameters", "constants")
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
        SpecError: something cannot be carried; the text names it and a remedy.
    """
    if isinstance(found, Mapping):
        add_space(found, draft)
        draft.note(0, "it names no metric: `loss`, to be minimized, is a guess")
        draft.data["metric"] = {"name": "loss", "goal": "minimize"}
        draft.set_program(None)
        return
    given = given_to_tuner(found)
    _add_options(given, draft)
    name = given["run_config"].name
    if name is not None and not _MADE_UP.search(name):
        draft.data["name"] = str(name)
    if given["run_config"].callbacks:
        draft.note(0, "`run_config.callbacks`: called by the `Tuner` of tunesvc.ray_tune only")
    default_run = type(given["run_config"])()
    for key in ("storage_path", "sync_config"):
        if getattr(given["run_config"], key, None) != getattr(default_run, key, None):
            draft.note(0, f"`run_config.{key}`: the variable TUNE_CHECKPOINTS says where they go")
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


def add_space(space: Mapping[str, Any], draft: Draft) -> None:
    """Add the parameters and constants of a search space."""
    _add_parameters({name: one.model_dump() for name, one in from_ray(space).items()}, draft)
    _add_constants(constants_of(space), draft)


def _add_options(given: Mapping[str, Any], draft: Draft) -> None:
    from tunesvc.ray_tune.tuner import study_options_of

    space = dict(given["param_space"] or {})
    options = study_options_of(space, given["tune_config"], given["run_config"])
    metrics = options["metrics"]
    draft.data.update({"metric": metrics[0]} if len(metrics) == 1 else {"metrics": metrics})
    _add_parameters(options["parameters"], draft)
    _add_constants(options["constants"], draft)
    budget = {key: options[key] for key in ("trials", "wall") if key in options}
    if budget:
        draft.data["budget"] = budget
    for key, value in options.items():
        if key in _NOT_OF_THE_FILE or value == {"error": 0}:
            continue
        if key == "enqueue":
            text = "`tune enqueue STUDY name=value` has a running study try them"
            draft.note(0, f"`points_to_evaluate`: {text}")
            continue
        if _is_plain(value):
            draft.data[key] = value
        else:
            draft.note(0, f"`{key}`: a {type(value).__name__} of Optuna is named by `class`")


def _add_parameters(parameters: Mapping[str, Mapping[str, Any]], draft: Draft) -> None:
    for name, parameter in parameters.items():
        kept = {
            key: value
            for key, value in parameter.items()
            if value is not None and value is not False
        }
        if "values" in kept:
            kept = {"values": json.loads(json.dumps(kept["values"]))}
        draft.add_parameter(name, kept)


def _add_constants(constants: Mapping[str, Any], draft: Draft) -> None:
    for name, value in constants.items():
        if _is_plain(value):
            draft.add_constant(name, value)
        else:
            kind = type(value).__name__
            draft.note(0, f"`{name}`: a {kind} cannot be stored: make it in the function")


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
