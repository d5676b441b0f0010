"""The judge of a study: asks its pruner which trials stop and which paused ones go on, and says why.

A pruner is Optuna's `BasePruner`, anybody's code: one that raises stops nothing, and that is said. Knows no sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason, reason_of
from tunesvc.search.study_storage import RecordingStorage, clear_trial_cache
from tunesvc.search.tracking.objectives import cut, orientations_of, points_of
from tunesvc.search.tracking.pausing import RESUMED, Alternative, PausingPruner
from tunesvc.search.tracking.study_history import history_of


@dataclass(frozen=True, slots=True)
class PruneDecision:
    """The pruner wants a trial stopped, and this is what it rests on."""

    reason: str
    details: Mapping[str, Any]
    stop: bool = True
    """False: it would have been stopped, and goes on to show whether that would have been right (an audit)."""
    pause: bool = False
    """Whether it is only paused: it may be promoted later."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A paused trial goes on, and this is why."""

    number: int
    reason: str
    details: Mapping[str, Any]


class PruningPolicy:
    """Of one study, in memory."""

    def __init__(
        self,
        memory: RecordingStorage,
        study: Study,
        pruner_name: str,
        prune_before_step: int | None,
    ) -> None:
        """`prune_before_step`: from this step on a trial is as good as finished, and is left to finish."""
        self._memory = memory
        self._study = study
        self._pruner_name = pruner_name
        self._prune_before_step = prune_before_step
        self._kept: set[int] = set()
        """Those that would have been stopped, and finish as an audit."""
        self.paused: dict[int, int] = {}
        """Number -> the step after which it would go on; -1: from the start."""
        self._nobody: tuple[Alternative, int] | None = None
        """What was to be done instead, and after how many changes, when the pruner let nobody go on."""

    @property
    def pauses(self) -> bool:
        """Whether what is stopped is paused."""
        return isinstance(self._study.pruner, PausingPruner) and self._study.pruner.pauses

    def verdict(
        self,
        number: int,
        steps: Sequence[int] | None = None,
    ) -> PruneDecision | None:
        """Whether the pruner wants the trial stopped, and why.

        Args:
            steps: those that it has not seen yet, all of them or the last one by default. It is asked about each in
                turn, as if the later ones were not there: reports that arrive together must not be judged otherwise
                than reports that arrive one by one. A trial that was promoted is not judged where it had been before.
        """
        whole = self._memory.get_trial(number)
        known = points_of(whole, len(self._study.directions))
        if not known:
            return None
        passed = whole.system_attrs.get(RESUMED, {}).get("step", -1)
        for step in sorted(step for step in steps or [max(known)] if step in known and step > passed):
            if self._prune_before_step is not None and step >= self._prune_before_step:
                return None
            trial = cut(self._memory.get_trial(number), step)
            if self._is_poor(trial):
                return self._explain(trial, step)
            if number not in self._kept and (audit := self._audit(number)) is not None:
                return audit
        return None

    def pause(self, number: int, after_step: int) -> None:
        """The trial holds its worker no longer; it may be promoted.

        Args:
            after_step: where it would go on; -1: from the start.
        """
        self.paused[number] = after_step
        self._memory.pause(number)

    def promotion(self, alternative: Alternative) -> Promotion | None:
        """The paused trial that goes on now, if its pruner wants that more than what would be done instead."""
        if not self.paused or not self.pauses:
            return None
        clear_trial_cache(self._study)
        if self._nobody == (alternative, self._memory.changes):
            return None  # it decides from curves alone, which can take long, and they are as they were
        try:
            number = self._study.pruner.promotion(self._study, self.paused, alternative)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001  # a pruner is anybody's code
            self._memory.record_error(None, f"pruner {self._pruner_name}", error)
            return None
        if number is None:
            self._nobody = alternative, self._memory.changes
            return None
        told = self._told(number) or Reason(f"chosen by {self._pruner_name}", {})
        details = {
            "pruner": self._pruner_name,
            "instead": alternative,
            "after_step": self.paused[number],
        }
        return Promotion(number, told.text, {**told.details, **details})

    def promote(self, number: int, details: Mapping[str, Any]) -> None:
        """The trial runs again. What it had reported after its checkpoint is to be forgotten beside this."""
        step = self._memory.get_trial(number).last_step
        passed = {"step": -1 if step is None else step, "chance": details.get("chance")}
        self._memory.set_trial_system_attr(number, RESUMED, passed)
        self._memory.resume(number)
        del self.paused[number]

    def over(self, number: int) -> None:
        """The trial has ended."""
        self._kept.discard(number)
        self.paused.pop(number, None)
        self._memory.resume(number)

    def _is_poor(self, trial: FrozenTrial) -> bool:
        clear_trial_cache(self._study)
        try:
            return self._study.pruner.prune(self._study, trial)
        except Exception as error:  # noqa: BLE001  # a pruner is anybody's code; without its word the trial goes on
            self._memory.record_error(
                trial.number,
                f"pruner {self._pruner_name}",
                error,
            )
            return False

    def _explain(self, trial: FrozenTrial, step: int) -> PruneDecision:
        """The pruner's reason, or else what the value looks like beside those of the other trials at the same step."""
        told = self._told(trial.number) or Reason("", {})
        reason, details = (
            told.text or f"pruner {self._pruner_name} stopped it",
            told.details,
        )
        if len(self._study.directions) == 1 and "rank" not in details:
            beside, ranks = self._rank_at(trial, step)
            reason, details = told.text or beside, {**ranks, **details}
        return PruneDecision(
            reason,
            {"step": step, "pruner": self._pruner_name, **details},
            pause=self.pauses,
        )

    def _rank_at(self, trial: FrozenTrial, step: int) -> tuple[str, Mapping[str, Any]]:
        """What the trial's value at a step looks like beside those of all others there."""
        value, orientation = trial.intermediate_values[step], float(orientations_of(self._study)[0])
        place = history_of(self._study, self._study.get_trials(deepcopy=False)).place(
            trial.number,
            step,
            value,
        )
        reason = (
            f"{value:.6g} at step {step}, where {place.rank_finished - 1} of {place.finished} finished trials were "
            f"better, and {place.rank - 1} of all {place.of - 1} others (pruner {self._pruner_name})"
        )
        best = None if place.best is None else orientation * place.best
        details: dict[str, Any] = {
            "value": value,
            "rank": place.rank,
            "of": place.of,
            "best": best,
        }
        return reason, {
            **details,
            "rank_finished": place.rank_finished,
            "finished": place.finished,
        }

    def _audit(self, number: int) -> PruneDecision | None:
        """The pruner's word that the trial goes on only to show whether stopping it would have been right; once."""
        told = self._told(number)
        if told is None or not told.details.get("audit"):
            return None
        self._kept.add(number)
        return PruneDecision(
            told.text,
            {"pruner": self._pruner_name, **told.details},
            stop=False,
        )

    def _told(self, number: int) -> Reason | None:
        return reason_of(self._study.pruner, number, self._memory.record_error)
