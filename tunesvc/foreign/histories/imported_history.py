"""A folder of Ray Tune as a stored study, and the study file of one that learns from it.

Trials are stored as Optuna stores a copied study. The study file has the space, `warm_start` and
whatever else could be found out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import TypeAdapter

from tunesvc.errors import SpecError, StudyExists
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats import ray_tuner
from tunesvc.foreign.histories import tried_space
from tunesvc.foreign.histories.ray_experiment import RayExperiment, read_experiment
from tunesvc.foreign.histories.ray_trial import ITERATION, RayTrial, metrics_of, number, value_at
from tunesvc.foreign.python_source import load_object
from tunesvc.space.directions import direction_of
from tunesvc.space.search_space import to_distribution
from tunesvc.spec import Parameter
from tunesvc.spec.choices import as_choices
from tunesvc.spec.yaml.document import SpecCheck, parse
from tunesvc.util.optuna_keys import METRIC_NAMES

TITLE = "results of Ray Tune"
_ENDED = ("TERMINATED", "")
_PARAMETER: TypeAdapter[Parameter] = TypeAdapter(Parameter)


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """Options of the import of a folder."""

    folder: Path
    goals: Mapping[str, str]
    """Goal by metric; empty to take it from the script."""
    space: str | None = None
    """Python file with the `Tuner` or the space."""
    program: str | None = None
    name: str | None = None
    """Name of the stored study; the folder's by default."""
    step: str = ITERATION


@dataclass(frozen=True, slots=True)
class ImportedHistory:
    """Trials to be stored, and the study file of the next study."""

    name: str
    goals: Mapping[str, str]
    trials: Sequence[FrozenTrial]
    study_text: str
    notes: Sequence[str]

    def store(self, storage: optuna.storages.BaseStorage) -> None:
        """Store the trials as a study of their own; all or none.

        Raises:
            StudyExists: the name is taken.
        """
        directions = [direction_of(goal) for goal in self.goals.values()]
        try:
            study = optuna.create_study(
                storage=storage, study_name=self.name, directions=directions
            )
        except optuna.exceptions.DuplicatedStudyError:
            text = f"a study named {self.name!r} exists already: give these trials another `--name`"
            raise StudyExists(text) from None
        try:
            study_id = storage.get_study_id_from_name(self.name)
            storage.set_study_system_attr(study_id, METRIC_NAMES, list(self.goals))
            study.add_trials(self.trials)
        except BaseException:
            optuna.delete_study(study_name=self.name, storage=storage)
            raise


def import_history(request: ImportRequest, extra_check: SpecCheck | None = None) -> ImportedHistory:
    """Read a folder of Ray Tune.

    Raises:
        SpecError: there are no results, or the metric is unknown; the text has the remedy.
    """
    experiment = read_experiment(request.folder)
    draft = Draft(request.folder.resolve().name, "", request.program, request.folder)
    if request.space is not None:
        _add_script(request.space, draft)
    goals = dict(request.goals) or _goals_of(draft) or _unknown(experiment)
    _set_goals(goals, draft)
    reported = _read(experiment, next(iter(goals)), request.step, draft)
    _add_space([trial.config for trial in reported], request.space is None, draft)
    trials = _frozen(reported, list(goals), draft)
    name = request.name or draft.filename
    draft.data |= {"name": f"{name}-2"} | ({"warm_start": [name]} if len(goals) == 1 else {})
    draft.set_defaults(name)
    for text in experiment.notes:
        draft.note(0, text)
    made = draft.study_text(TITLE)
    try:
        parse(made, "study.yaml", extra_check=extra_check)
    except SpecError as error:
        text = f"{draft.filename} gives a study that is not valid yet:\n{error}"
        raise SpecError(text) from None
    return ImportedHistory(name, goals, trials, made, draft.noted_lines())


# --- the metric and the reports ---


def _add_script(source: str, draft: Draft) -> None:
    found, names, path = load_object(source)
    if not ray_tuner.is_of_ray(found):
        raise SpecError(f"{source} has no `Tuner` or space of Ray Tune: name it, FILE.py:NAME")
    if isinstance(found, Mapping):
        ray_tuner.add_space(found, draft)
        draft.set_program(None)
    else:
        ray_tuner.convert_object(found, names, path, draft)


def _goals_of(draft: Draft) -> dict[str, str]:
    """Return the goals that a script names; a bare space names none."""
    listed = draft.data.get("metrics") or [draft.data.get("metric")]
    return {metric["name"]: metric["goal"] for metric in listed if metric}


def _set_goals(goals: Mapping[str, str], draft: Draft) -> None:
    metrics = [{"name": name, "goal": goal} for name, goal in goals.items()]
    draft.data.pop("metric", None)
    draft.data.pop("metrics", None)
    draft.data |= {"metric": metrics[0]} if len(metrics) == 1 else {"metrics": metrics}


def _unknown(experiment: RayExperiment) -> dict[str, str]:
    if experiment.metric is not None:
        raise SpecError(
            f"{experiment.folder} was tuned by `{experiment.metric}`, and Ray keeps the mode in a"
            f" pickle only: give `--minimize {experiment.metric}` or `--maximize"
            f" {experiment.metric}`"
        )
    names = ", ".join(_candidates(experiment)) or "none of its trials has reported a number"
    raise SpecError(
        f"{experiment.folder} does not say which metric decides: give `--minimize NAME` or"
        f" `--maximize NAME`, of {names}"
    )


def _candidates(experiment: RayExperiment) -> list[str]:
    """Return the numbers of the first report that is found."""
    for trial in experiment.trials:
        if found := next(filter(None, trial.reports()), None):
            return sorted(metrics_of(found))
    return []


def _read(experiment: RayExperiment, metric: str, step: str, draft: Draft) -> list[RayTrial]:
    """Read all reports; return the trials that have any, or an error."""
    unreadable = 0
    for trial in experiment.trials:
        trial.read(metric, step)
        unreadable += trial.unreadable
    found = [trial for trial in experiment.trials if trial.last or trial.error]
    if not any(number(value_at(trial.last, metric)) is not None for trial in found):
        names = ", ".join(_candidates(experiment)) or "no number at all"
        raise SpecError(f"no trial of {experiment.folder} has reported `{metric}`, but {names}")
    if silent := len(experiment.trials) - len(found):
        draft.note(0, f"trials without a report, left out: {silent}")
    if unreadable:
        draft.note(0, f"reports that are cut off or damaged, left out: {unreadable}")
    return found


# --- the space ---


def _add_space(configs: Sequence[Mapping[str, Any]], is_derived: bool, draft: Draft) -> None:
    """Add what was tried as the space, unless a script has one; then the program."""
    if not is_derived:
        return
    parameters, constants, objects = tried_space.split(configs)
    if not parameters:
        raise SpecError(
            f"{draft.filename} has tried one value of each parameter, which is no space: name the"
            " script that has it, `--space FILE.py`"
        )
    draft.note(0, "the space is what was tried: ranges, scales and choices are worth a look")
    for name in objects:
        draft.note(0, f"`{name}`: an object of Python was no text that can be read: left out")
    for name, dimension in parameters.items():
        draft.add_parameter(name, dimension)
        if missing := sum(name not in config for config in configs):
            text = f"trials without it, which teach nothing: {missing}; a `when` may be due"
            draft.note(0, f"`{name}`: {text}")
    for name, value in constants.items():
        draft.add_constant(name, value)
    draft.set_program(None)


def _distributions(
    configs: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]
) -> dict[str, BaseDistribution]:
    """Return distributions of all that was tried, which may be more than a script's space."""
    made = {}
    for name, dimension in parameters.items():
        tried = [config[name] for config in configs if name in config]
        wider = tried_space.widened(dimension, tried)
        made[name] = to_distribution(_PARAMETER.validate_python({"type": "categorical"} | wider))
    return made


# --- the trials ---


def _frozen(trials: Sequence[RayTrial], metrics: Sequence[str], draft: Draft) -> list[FrozenTrial]:
    configs = [trial.config for trial in trials]
    distributions = _distributions(configs, draft.data["parameters"])
    longest = max((one.step for one in trials if one.status in _ENDED), default=0)
    made = [_frozen_trial(one, metrics, longest, distributions) for one in trials]
    if count := sum(trial.state == TrialState.PRUNED for trial in made):
        text = "trials that a scheduler or the run's end cut short, stored as pruned"
        draft.note(0, f"{text}: {count}")
    return made


def _frozen_trial(
    trial: RayTrial,
    metrics: Sequence[str],
    longest: int,
    distributions: Mapping[str, BaseDistribution],
) -> FrozenTrial:
    values = [number(value_at(trial.last, name)) for name in metrics]
    known = [value for value in values if value is not None and not math.isnan(value)]
    state = _state_of(trial, len(known) == len(metrics), longest)
    given = [name for name in distributions if name in trial.config]
    params = as_choices({name: trial.config[name] for name in given})
    others = {name: value for name, value in metrics_of(trial.last).items() if name not in metrics}
    attrs: dict[str, Any] = {"ray_trial": trial.key, **others}
    if trial.error:
        attrs["error"] = trial.error
    made = create_trial(
        state=state,
        values=known if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs=attrs,
        intermediate_values=trial.curve if len(metrics) == 1 else {},
    )
    made.datetime_start, made.datetime_complete = trial.times
    return made


def _state_of(trial: RayTrial, is_known: bool, longest: int) -> TrialState:
    """Return Optuna's state. Ray says that a trial was ended, and not by what."""
    if trial.error or trial.status == "ERROR":
        return TrialState.FAIL
    is_short = trial.step < longest and not trial.has_met_its_stop
    is_cut = trial.status not in _ENDED and not trial.was_stopped
    if is_cut or (is_short and (trial.was_stopped or not trial.status)):
        return TrialState.PRUNED
    return TrialState.COMPLETE if is_known else TrialState.FAIL
