"""`trial` as an Optuna objective knows it: Optuna's own `Trial` and `Study`, over an attempt as their storage.

Imports Optuna, no Ray.
"""

from __future__ import annotations

import datetime
import json
import pickle
from collections.abc import Container, Sequence
from copy import deepcopy as copied
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunasTrial

from tunesvc.execute.attempt import Attempt
from tunesvc.execute.failures import EntrypointError
from tunesvc.objective import Trial, as_number, as_step
from tunesvc.spec import as_choice
from tunesvc.store.ids import number_of, study_of, trial_id

_OURS = "tunesvc:"
"""System attributes that begin so belong to the study's sampler and pruner."""


class OptunaTrial(OptunasTrial):
    """The argument of `objective(trial)`.

    Where the study declares its parameters, `suggest_*` returns the value that the trial has. Where it declares none,
    the study's sampler is asked.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        study = AttemptStudy(attempt.job.study, AttemptStorage(attempt), RandomSampler(), AttemptPruner(attempt))
        super().__init__(study, attempt.launch.attempt.trial_id)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Optuna trial cannot travel to another process: hand `trial.tunesvc` over, whose `report` works there"
        )

    @property
    def params(self) -> dict[str, Any]:
        """The values suggested so far; all of them where the study declares them."""
        declared = {} if self._attempt.job.define_by_run else self._attempt.launch.params
        return {**declared, **super().params}

    @property
    def system_attrs(self) -> dict[str, Any]:
        """System attributes that were set in this attempt."""
        return self.storage.get_trial_system_attrs(self._trial_id)

    @property
    def tunesvc(self) -> Trial:
        """This trial with checkpoints and devices, see `tunesvc.Trial`."""
        return self._attempt.trial()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of `choices`, which may be lists and tuples, and return it as it stands there."""
        known = [_known_as(name, choice) for choice in choices]
        value = as_choice(self._suggest(name, CategoricalDistribution(known)))
        same = [c for c, k in zip(choices, known, strict=True) if type(k) is type(value) and k == value]
        return same[0] if same else value

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        trial = self._cached_frozen_trial
        if name not in trial.params:
            trial.distributions[name] = distribution
            is_asked = self._attempt.job.define_by_run
            trial.params[name] = self._ask(name, distribution) if is_asked else self._declared(name)
        return trial.params[name]

    def _ask(self, name: str, distribution: BaseDistribution) -> Any:
        constants = self._attempt.launch.params
        return constants[name] if name in constants else self._attempt.ask(name, distribution_to_json(distribution))

    def _declared(self, name: str) -> Any:
        params = self._attempt.launch.params
        if name not in params:
            known = ", ".join(params) or "none"
            raise EntrypointError(
                f"the objective asks for parameter `{name}`, which this trial does not have (it has: {known}): "
                "declare it in the study's `parameters`"
            )
        return params[name]


def _known_as(name: str, choice: Any) -> Any:
    """Return the scalar by which the search knows a choice: NumPy's as Python's, a list's or a mapping's JSON text."""
    plain = choice.tolist() if hasattr(choice, "tolist") else choice
    if plain is None or isinstance(plain, (bool, int, float, str)):
        return plain
    try:
        return json.dumps(plain)
    except (TypeError, ValueError):
        raise TypeError(
            f"parameter {name!r}: a choice of type {type(choice).__name__} cannot be stored: choose between names "
            "and look the value up in the objective"
        ) from None


class AttemptStudy(Study):
    """The study, from inside one of its trials."""

    @property
    def system_attrs(self) -> dict[str, Any]:
        """The study's system attributes, which Optuna 5 no longer shows but older objectives read."""
        return self._storage.get_study_system_attrs(self._study_id)

    def stop(self) -> NoReturn:
        """Refuse: the coordinator ends the study."""
        raise NotImplementedError(
            "an objective cannot end its study: give the metric a `target`, the budget `stop_when`, or use `tune stop`"
        )


class AttemptPruner(BasePruner):
    """The study's decision about the attempt, as `trial.should_prune()` asks for it."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the attempt has been asked to stop."""
        return self._attempt.stop_requested


class AttemptStorage(BaseStorage):
    """An attempt's study as an Optuna storage: writes become the attempt's events, other trials are asked for."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._trial_id = attempt.launch.attempt.trial_id
        self._study_id = study_of(self._trial_id)
        goals = attempt.job.goals or ("minimize",) * len(attempt.job.metrics)
        self._directions = [StudyDirection[goal.upper()] for goal in goals]
        self._own = _begun(attempt)

    # --- the study ----------------------------------------------------------------------------------

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self._attempt.job.study:
            raise KeyError(f"an objective sees its own study only, {self._attempt.job.study!r}")
        return self._study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._attempt.job.study

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._asked()[0]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._asked()[1]

    def get_all_studies(self) -> list[FrozenStudy]:
        user_attrs, system_attrs, _ = self._asked()
        name = self._attempt.job.study
        return [FrozenStudy(name, None, user_attrs, system_attrs, self._study_id, directions=self._directions)]

    # --- trials -------------------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id == self._trial_id:
            return self._own
        found = [trial for trial in self._trials() if trial._trial_id == trial_id]
        if not found:
            raise KeyError(f"study {self._attempt.job.study!r} has no trial of the id {trial_id}")
        return found[0]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        chosen = [t for t in self._trials() if states is None or t.state in states]
        return copied(chosen) if deepcopy else chosen

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._check_own(trial_id)
        self._attempt.set_user_attr(key, json.dumps(value))
        self._own.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._check_own(trial_id)
        if key.startswith(_OURS):
            raise ValueError(f"system attributes named {_OURS}... belong to the study: choose another name")
        self._attempt.set_system_attr(key, json.dumps(value))
        self._own.system_attrs[key] = value

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._check_own(trial_id)
        name = self._attempt.job.metrics[0]
        self._attempt.report(as_step(step), {name: as_number(name, intermediate_value)})
        self._own.intermediate_values[step] = intermediate_value

    def _trials(self) -> list[FrozenTrial]:
        """Ask for all trials; this one is as this process knows it."""
        trials: list[FrozenTrial] = self._asked()[2]
        for trial in trials:
            trial._trial_id = trial_id(self._study_id, trial.number)
        return [self._own if trial._trial_id == self._trial_id else trial for trial in trials]

    def _asked(self) -> tuple[dict[str, Any], dict[str, Any], list[FrozenTrial]]:
        return pickle.loads(self._attempt.ask_for_study())  # type: ignore[no-any-return]  # noqa: S301  # our own

    def _check_own(self, trial_id: int) -> None:
        if trial_id != self._trial_id:
            raise RuntimeError(f"an objective writes to its own trial only, number {self._own.number}")

    # --- what is the coordinator's ------------------------------------------------------------------

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"the study {self._attempt.job.study!r} is run by its coordinator: an objective may read it, report, and "
            "set attributes of its own trial"
        )

    create_new_study = delete_study = set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = _refuse


def _begun(attempt: Attempt) -> FrozenTrial:
    return FrozenTrial(
        number=number_of(attempt.launch.attempt.trial_id),
        trial_id=attempt.launch.attempt.trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.datetime.now(),  # Optuna's times are local and naive
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def as_optuna(value: object) -> object:
    """Return a result as Optuna reads it: whatever `float` accepts, such as True or "0.5", is a number."""
    if isinstance(value, (list, tuple)):
        return [as_optuna(item) for item in value]
    try:
        return float(value) if isinstance(value, (bool, str)) else value
    except ValueError:
        return value
