"""The running study in memory: what samplers and pruners read, and what they change.

Optuna's samplers read and write through a storage at every call. Here that storage is memory. Each
change is also recorded in `TrialChanges`, which the caller owns and commits. Trial ids in here are
the trials' numbers.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.db.trial_changes import (
    Attr,
    Decision,
    NewParam,
    NewTrial,
    TrialChanges,
    TrialEnd,
)
from tunesvc.search.tracking.objectives import OTHERS
from tunesvc.search.tracking.pausing import PAUSED
from tunesvc.space.search_space import Space
from tunesvc.util.optuna_internals import EditableStorage
from tunesvc.util.optuna_keys import CONSTRAINT, METRIC_NAMES, RELATIVE_PARAMS

POINTS_MAX = 4_096
"""Most points of a trial's curve that samplers and pruners see. Of a longer curve they see every
2nd, 4th, 8th ... step. The database keeps all reports."""

FAILURE = "tunesvc:failure"
"""System attribute of a failed trial: class of what ended its last attempt,
see `policy.Failure`."""
BLAMED = frozenset({"gpu_oom", "nan"})
"""Failures that the trial's parameters caused, and would cause again nearby."""


class RecordingStorage(EditableStorage):
    """One study, in Optuna's storage contract.

    Intermediate values are not recorded: the database keeps reports by attempt.
    """

    def __init__(
        self,
        name: str,
        directions: Sequence[StudyDirection],
        trials: Iterable[FrozenTrial] = (),
        *,
        metrics: Sequence[str] = (),
        others: Mapping[int, Mapping[int, tuple[float, ...]]] | None = None,
    ) -> None:
        """Load a stored study.

        Args:
            metrics: names of the objectives.
            others: values of the objectives after the first, by trial and step.
        """
        super().__init__()
        self._recording = False
        self._strides: dict[int, int] = {}
        self._infeasible: dict[int, FrozenTrial] = {}
        self.resumed: list[int] = []
        """Numbers of trials that were paused and are no longer, in order;
        `FinishedTrials` reads it."""
        self._transferred: Sequence[FrozenTrial] = ()
        self.changes = 0
        """Counts every change that a pruner can see."""
        self.recorded = TrialChanges()
        """Target of recorded changes; see `record_into`."""
        self.study_id = self.create_new_study(directions, name)
        if metrics:
            super().set_study_system_attr(self.study_id, METRIC_NAMES, list(metrics))
        for trial in trials:
            number = self.load_trial(self.study_id, trial)
            if others and number in others:
                self.get_trial(number).system_attrs[OTHERS] = dict(others[number])
            self._thin_out(number)
            self._mark_infeasible(number)
        self._recording = True

    @property
    def count(self) -> int:
        """Number of trials, without making a list of them."""
        return self.count_trials(self.study_id)

    def record_into(self, changes: TrialChanges) -> None:
        """Record changes into `changes` from now on."""
        self.recorded = changes

    @contextmanager
    def recording_apart(self) -> Iterator[TrialChanges]:
        """Record the block's changes separately, and restore the count of changes after it."""
        before, count = self.recorded, self.changes
        self.recorded = TrialChanges()
        try:
            yield self.recorded
        finally:
            self.recorded, self.changes = before, count

    def record_error(
        self,
        number: int | None,
        component: str,
        error: Exception,
    ) -> None:
        """Record that a user's sampler or pruner raised."""
        self.note(number, f"{component} raised {type(error).__name__}: {error}")

    def note(
        self,
        number: int | None,
        text: str,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a remark on a trial, or on the study."""
        self.recorded.decisions.append(Decision(number, "sampler", text, details or {}))

    def restore_attrs(
        self,
        user: dict[str, Any],
        system: dict[str, Any],
    ) -> None:
        """Restore a stored study's attributes without recording them again."""
        for key, value in user.items():
            super().set_study_user_attr(self.study_id, key, value)
        for key, value in system.items():
            super().set_study_system_attr(self.study_id, key, value)

    def update_distributions(self, space: Space) -> None:
        """Give all trials the distributions of a wider space. Stored trials keep their own."""
        shown = [*self._infeasible.values(), *self.masked.values()]
        self.changes += 1
        for trial in [
            *super().get_all_trials(self.study_id, deepcopy=False),
            *shown,
        ]:
            trial.distributions = space.with_distributions(trial).distributions
        self.replace_distributions(self.study_id, space.distributions)

    def truncate_curve(self, number: int, step: int) -> None:
        """Drop the trial's intermediate values after a step, from which a new attempt continues."""
        trial = self.get_trial(number)
        self.changes += 1
        points = trial.intermediate_values
        trial.intermediate_values = {s: value for s, value in points.items() if s <= step}
        self._keep_others(trial)

    def forget_params(self, number: int) -> None:
        """Remove a new trial's parameters, which are recorded but not committed yet."""
        trial = self.get_trial(number)
        trial.params, trial.distributions = {}, {}
        self.recorded.params = [param for param in self.recorded.params if param.number != number]
        self.changes += 1

    def pop_last(self, count: int) -> None:
        """Remove the last trials without a trace. Nothing of them has been recorded."""
        self.remove_last(self.study_id, count)
        self.changes += 1

    def pause(self, number: int) -> None:
        """Show the trial to samplers and pruners as a pruned one from now on."""
        self.resume(number)
        self.mask(number, shown_as_pruned(self.get_trial(number)))

    def resume(self, number: int) -> None:
        """Show the trial as it is again, if it was paused."""
        self.changes += 1
        if self.unmask(number):
            self.resumed.append(number)

    @contextmanager
    def with_extra_trials(
        self,
        trials: Sequence[FrozenTrial],
    ) -> Iterator[None]:
        """Show trials of other studies beside this study's own within the block.

        Their numbers are negative, so they come first and clash with no other.
        """
        self._transferred = trials
        try:
            yield
        finally:
            self._transferred = ()

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return trials as Optuna does, plus infeasible ones for readers of pruned trials.

        Samplers ask for pruned trials. They also get the trials that failed because of their
        parameters, so that they learn to avoid them. Paused trials appear as pruned ones.
        """
        trials = super().get_all_trials(study_id, deepcopy, states)
        if self._transferred:
            trials = [
                *(trial for trial in self._transferred if states is None or trial.state in states),
                *trials,
            ]
        if states is None or TrialState.PRUNED not in states or not self._infeasible:
            return trials
        return sorted(
            [*trials, *self._infeasible.values()],
            key=lambda trial: trial.number,
        )

    def create_new_trial(
        self,
        study_id: int,
        template_trial: FrozenTrial | None = None,
    ) -> int:
        number = super().create_new_trial(study_id, template_trial)
        self.changes += 1
        if self._recording:
            state = TrialState.RUNNING if template_trial is None else template_trial.state
            self.recorded.trials.append(NewTrial(number, state.name.lower()))
            if template_trial is not None:
                self._record_attrs(number, template_trial)
        return number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        super().set_trial_param(
            trial_id,
            param_name,
            param_value_internal,
            distribution,
        )
        self.changes += 1
        position = len(self.get_trial(trial_id).params) - 1
        written = distribution_to_json(distribution)
        self.recorded.params.append(
            NewParam(
                trial_id,
                param_name,
                position,
                float(param_value_internal),
                written,
            )
        )

    def set_trial_state_values(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None = None,
    ) -> bool:
        changed = super().set_trial_state_values(trial_id, state, values)
        self.changes += changed
        if changed and state == TrialState.RUNNING:
            self.recorded.restarted.append(trial_id)
        elif changed and state.is_finished():
            self._forget_relative_params(trial_id)
            self._mark_infeasible(trial_id)
            kept = None if values is None else [float(value) for value in values]
            self.recorded.finished.append(TrialEnd(trial_id, state.name.lower(), kept))
        return changed

    def set_trial_intermediate_value(
        self,
        trial_id: int,
        step: int,
        intermediate_value: float,
    ) -> None:
        # Optuna's own method copies the curve at every report, for readers in other threads. Here
        # there are none, so it is changed in place.
        trial = self.get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        self.changes += 1
        points = trial.intermediate_values
        if (step - next(iter(points), step)) % self._strides.get(
            trial_id,
            1,
        ) == 0:
            if step in points:  # readers notice a change by a curve's length or its identity
                points = trial.intermediate_values = dict(points)
            points[step] = intermediate_value
            self._thin_out(trial_id)

    def set_others(
        self,
        number: int,
        step: int,
        values: Sequence[float | None],
    ) -> None:
        """Set the values of the objectives after the first at a step.

        Dropped unless all are there.
        """
        trial = self.get_trial(number)
        others = trial.system_attrs.setdefault(OTHERS, {})
        others.pop(step, None)
        if step in trial.intermediate_values and None not in values:
            others[step] = tuple(values)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        self.recorded.attrs.append(Attr(trial_id, "user", key, json.dumps(value)))

    def set_trial_system_attr(
        self,
        trial_id: int,
        key: str,
        value: Any,
    ) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        if not key.startswith(RELATIVE_PARAMS):  # no other process needs them
            self.recorded.attrs.append(Attr(trial_id, "system", key, json.dumps(value)))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_user_attr(study_id, key, value)
        self.recorded.attrs.append(Attr(None, "user", key, json.dumps(value)))

    def set_study_system_attr(
        self,
        study_id: int,
        key: str,
        value: Any,
    ) -> None:
        super().set_study_system_attr(study_id, key, value)
        self.recorded.attrs.append(Attr(None, "system", key, json.dumps(value)))

    def _forget_relative_params(self, number: int) -> None:
        trial = self.get_trial(number)
        attrs = trial.system_attrs
        kept = {key: value for key, value in attrs.items() if not key.startswith(RELATIVE_PARAMS)}
        trial.system_attrs = kept

    def _mark_infeasible(self, number: int) -> None:
        """Remember how samplers see a trial that failed because of its parameters."""
        shown = shown_as_infeasible(self.get_trial(number))
        if shown is not None:
            self._infeasible[number] = shown

    def _thin_out(self, number: int) -> None:
        """Halve the resolution of a long curve.

        Steps count from the first one, so that trials that report alike stay comparable.
        """
        trial = self.get_trial(number)
        while len(trial.intermediate_values) > POINTS_MAX:
            stride = self._strides[number] = self._strides.get(number, 1) * 2
            first = next(iter(trial.intermediate_values))
            points = trial.intermediate_values
            kept = {step: value for step, value in points.items() if (step - first) % stride == 0}
            trial.intermediate_values = kept
            self._keep_others(trial)

    def _keep_others(self, trial: FrozenTrial) -> None:
        """Drop the other objectives' values at steps that the first objective's curve lacks."""
        if others := trial.system_attrs.get(OTHERS):
            points = trial.intermediate_values
            kept = {step: values for step, values in others.items() if step in points}
            trial.system_attrs[OTHERS] = kept

    def _record_attrs(self, number: int, trial: FrozenTrial) -> None:
        for key, value in trial.user_attrs.items():
            self.recorded.attrs.append(Attr(number, "user", key, json.dumps(value)))
        for key, value in trial.system_attrs.items():
            self.recorded.attrs.append(Attr(number, "system", key, json.dumps(value)))


def shown_as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """Return a paused trial as samplers and pruners see it."""
    last = trial.intermediate_values[trial.last_step] if trial.last_step is not None else math.nan
    shown = copy.copy(trial)
    shown.state = TrialState.PRUNED
    shown.values = [last] if math.isfinite(last) and not trial.system_attrs.get(OTHERS) else None
    shown.system_attrs = {
        **trial.system_attrs,
        PAUSED: len(trial.intermediate_values),
    }
    return shown


def shown_as_infeasible(trial: FrozenTrial) -> FrozenTrial | None:
    """Return a trial that failed because of its parameters as samplers see it.

    None for any other.
    """
    if trial.state != TrialState.FAIL or trial.system_attrs.get(FAILURE) not in BLAMED:
        return None
    shown = copy.copy(trial)
    shown.state, shown.values = TrialState.PRUNED, None
    shown.system_attrs = {**trial.system_attrs, CONSTRAINT + FAILURE: 1.0}
    return shown
