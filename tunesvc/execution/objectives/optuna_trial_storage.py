"""An attempt's study as an Optuna storage.

Writes become the attempt's events; attributes and other trials are asked of the coordinator.
Imports Optuna, no Ray.
"""

from __future__ import annotations

import datetime
import json
import pickle
from collections.abc import Container
from copy import deepcopy as copied
from typing import Any, NoReturn

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from tunesvc.db.schema.ids import number_of, study_of, trial_id
from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.trial import as_number, as_step

_OURS = "tunesvc:"
"""System attributes that begin so belong to the study's sampler and pruner."""


class AttemptStorage(BaseStorage):
    """Reads the whole study, and writes to the attempt's own trial."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._trial_id = attempt.launch.attempt.trial_id
        self._study_id = study_of(self._trial_id)
        goals = attempt.job.goals or ("minimize",) * len(attempt.job.metrics)
        self._directions = [StudyDirection[goal.upper()] for goal in goals]
        self._own = _begun(attempt)

    # --- the study ------------------------------------------------------------------------------

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
        name, (user, system, _) = self._attempt.job.study, self._asked()
        directions = self._directions
        return [FrozenStudy(name, None, user, system, self._study_id, directions=directions)]

    # --- trials ---------------------------------------------------------------------------------

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
            raise ValueError(f"system attributes {_OURS}... belong to the study: choose another name")
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
        packed = self._attempt.ask_for_study()
        return pickle.loads(packed)  # type: ignore[no-any-return]  # noqa: S301  # the coordinator's

    def _check_own(self, trial_id: int) -> None:
        if trial_id != self._trial_id:
            raise RuntimeError(f"an objective writes to its own trial only, {self._own.number}")

    # --- what is the coordinator's --------------------------------------------------------------

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"the study {self._attempt.job.study!r} is run by its coordinator: an objective may "
            "read it, report, and set attributes of its own trial"
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
