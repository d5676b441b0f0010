"""A folder that Ray Tune wrote: the state of the experiment, and a folder for each trial.

The state is JSON, with pickled parts that are left alone. Written by Ray 2.7 and later it lists
`trial_data`, by earlier ones `checkpoints`. A run that was killed may lack it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.foreign.histories.ray_trial import RayTrial, flattened, read_params

_STATE = "experiment_state*.json"


@dataclass(slots=True)
class RayExperiment:
    """An experiment before the reports of its trials are read."""

    folder: Path
    metric: str | None
    """The metric of Ray's `TuneConfig`; its mode is stored in a pickle only."""
    trials: list[RayTrial]
    """In Ray's order."""
    notes: list[str] = field(default_factory=list)


def read_experiment(folder: Path) -> RayExperiment:
    """Return the experiment of a folder.

    Raises:
        SpecError: there is none, or there are several.
    """
    _require_one(folder)
    state, notes = _state_of(folder)
    trials: dict[str, RayTrial] = {}
    for entry in _entries(state):
        trial = _listed(entry, _folder_of(entry, folder))
        trials[trial.key if trial.folder is None else trial.folder.name] = trial
    for place in _trial_folders(folder):
        if place.name not in trials:
            config = flattened(read_params(place) or {})
            trials[place.name] = RayTrial(place.name, config, place)
    metric = _mapping(state.get("runner_data")).get("_metric")
    ordered = sorted(trials.values(), key=lambda trial: _order(trial.key))
    return RayExperiment(folder, metric if isinstance(metric, str) else None, ordered, notes)


def _require_one(folder: Path) -> None:
    if any(folder.glob(_STATE)) or next(_trial_folders(folder), None) is not None:
        return
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    names = [
        path.name
        for path in inner
        if any(path.glob(_STATE)) or next(_trial_folders(path), None) is not None
    ]
    if names:
        text = f"{folder} has several experiments of Ray Tune" if len(names) > 1 else f"{folder}"
        raise SpecError(f"{text}: import one folder at a time, {', '.join(names)}")
    raise SpecError(
        f"{folder} is no folder of Ray Tune's results: it has no experiment_state-*.json, and no"
        " folder with a params.json or result.json; `tune import` takes a file otherwise"
    )


def _state_of(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    """Return the newest state that can be read; a restored run has written several."""
    notes = []
    for path in sorted(folder.glob(_STATE), key=lambda path: path.name, reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        except (ValueError, RecursionError):
            notes.append(f"`{path.name}` is cut off or damaged, and was left out")
            continue
        if isinstance(found, dict):
            return found, notes
    notes.append("without the experiment's state nothing says which trials ended by themselves")
    return {}, notes


def _entries(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what the state says of each trial, of any version of Ray."""
    listed = state.get("trial_data") or state.get("checkpoints") or ()
    for entry in listed if isinstance(listed, list) else ():
        parts = entry if isinstance(entry, list) else [entry]
        merged: dict[str, Any] = {}
        for part in parts:
            merged |= _mapping(part)
        if merged:
            yield merged


def _listed(entry: Mapping[str, Any], place: Path | None) -> RayTrial:
    given = None if place is None else read_params(place)
    config = given if given is not None else _mapping(entry.get("config"))
    began = entry.get("start_time")
    return RayTrial(
        key=str(entry.get("trial_id") or entry.get("experiment_tag") or "trial"),
        config=flattened(config),
        folder=place,
        known=_mapping(entry.get("last_result")),
        status=str(entry.get("status", "")),
        stop={
            name: end
            for name, end in _mapping(entry.get("stopping_criterion")).items()
            if isinstance(end, (int, float))
        },
        began_s=began if isinstance(began, (int, float)) else None,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping, also from its JSON text; an empty one for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _folder_of(entry: Mapping[str, Any], folder: Path) -> Path | None:
    """Return a trial's folder; only its name counts, since results may have moved."""
    for key in ("relative_logdir", "logdir", "_logdir"):
        name = PurePosixPath(str(entry.get(key) or "")).name
        if name and (folder / name).is_dir():
            return folder / name
    return None


def _trial_folders(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if any((path / name).is_file() for name in ("params.json", "result.json", "progress.csv")):
            yield path


def _order(key: str) -> tuple[object, ...]:
    """Return a sort key that puts 2 before 10."""
    parts = re.split(r"(\d+)", key)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
