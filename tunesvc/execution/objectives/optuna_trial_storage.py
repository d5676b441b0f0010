"""An Optuna storage for a single attempt.

Writes become events of the attempt. Attributes of the study and other trials come from the
coordinator. Imports Optuna, no Ray.
"""

from __future__ import annotations

import datetime
import json
import pickle
from collections.abc import Container
from copy import deepcopy as make_deepcopy
from typing import Any, NoReturn

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.db.schema.ids import number_of, study_of, trial_id
from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.space.directions import direction_of
from tunesvc.trial import as_number, as_step
from tunesvc.util.optuna_internals import FrozenStudy, renumber, trial_id_of

_OURS = "tunesvc:"
"""Prefix of the system attributes that belong to the study's sampler and pruner."""


class WorkerStorage(BaseStorage):
    """Reads the whole study, but writes only to the attempt's trial."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._trial_id = attempt.launch.attempt.trial_id
        self._study_id = study_of(self._trial_id)
        goals = attempt.job.goals or ("minimize",) * len(attempt.job.metrics)
        self._directions = [direction_of(goal) for goal in goals]
        self._own = _running_trial(attempt)

    # --- the study ------------------------------------------------------------------------------

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self._attempt.job.study:
            raise KeyError(
                f"an objective sees its own study only, {self._attempt.job.study!r}",
            )
        return self._study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._attempt.job.study

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._fetch_study()[0]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._fetch_study()[1]

    def get_all_studies(self) -> list[FrozenStudy]:
        name, (user, system, _) = self._attempt.job.study, self._fetch_study()
        directions = self._directions
        return [
            FrozenStudy(
                name,
                None,
                user,
                system,
                self._study_id,
                directions=directions,
            ),
        ]

    # --- trials ---------------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id == self._trial_id:
            return self._own
        for trial in self._trials():
            if trial_id_of(trial) == trial_id:
                return trial
        raise KeyError(
            f"study {self._attempt.job.study!r} has no trial of the id {trial_id}",
        )

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = self._trials()
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return make_deepcopy(trials) if deepcopy else trials

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._check_own(trial_id)
        self._attempt.set_user_attr(key, json.dumps(value))
        self._own.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._check_own(trial_id)
        if key.startswith(_OURS):
            raise ValueError(
                f"system attributes {_OURS}... belong to the study: choose another name",
            )
        self._attempt.set_system_attr(key, json.dumps(value))
        self._own.system_attrs[key] = value

    def set_trial_intermediate_value(
        self,
        trial_id: int,
        step: int,
        intermediate_value: float,
    ) -> None:
        self._check_own(trial_id)
        name = self._attempt.job.metrics[0]
        self._attempt.report(as_step(step), {name: as_number(name, intermediate_value)})
        self._own.intermediate_values[step] = intermediate_value

    def _trials(self) -> list[FrozenTrial]:
        """Fetch all trials. The attempt's own trial is replaced by the one in this process."""
        fetched: list[FrozenTrial] = self._fetch_study()[2]
        trials = []
        for trial in fetched:
            renumber(trial, trial.number, trial_id(self._study_id, trial.number))
            trials.append(self._own if trial.number == self._own.number else trial)
        return trials

    def _fetch_study(self) -> tuple[dict[str, Any], dict[str, Any], list[FrozenTrial]]:
        """Return the study's user attributes, system attributes and trials."""
        packed = self._attempt.ask_for_study()
        return pickle.loads(packed)  # type: ignore[no-any-return]  # noqa: S301  # from the coordinator

    def _check_own(self, trial_id: int) -> None:
        if trial_id != self._trial_id:
            raise RuntimeError(
                f"an objective writes to its own trial only, {self._own.number}",
            )

    # --- refused: only the coordinator may do this ----------------------------------------------

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"the study {self._attempt.job.study!r} is run by its coordinator: an objective may "
            "read it, report, and set attributes of its own trial",
        )

    create_new_study = delete_study = set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = _refuse


def _running_trial(attempt: Attempt) -> FrozenTrial:
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
