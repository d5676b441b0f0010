"""The pruning policy of a study: which trials stop, which paused ones resume, and why.

A pruner is an Optuna `BasePruner` and may be any user's code: if it raises, nothing is stopped and
the error is recorded. Imports no sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason, reason_of
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.objectives import cut, orientations_of, points_of
from tunesvc.search.tracking.pausing import RESUMED, Alternative, PausingPruner
from tunesvc.search.tracking.study_history import history_of
from tunesvc.util.optuna_internals import clear_trial_cache


@dataclass(frozen=True, slots=True)
class PruneDecision:
    """The pruner wants a trial stopped, with its reason."""

    reason: str
    details: Mapping[str, Any]
    stop: bool = True
    """False for an audit: the trial would have been stopped, and runs on to check the pruner."""
    pause: bool = False
    """True if the trial is only paused and may be promoted later."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A paused trial resumes, with the reason."""

    number: int
    reason: str
    details: Mapping[str, Any]


class PruningPolicy:
    """Asks the pruner of one study in memory."""

    def __init__(
        self,
        memory: RecordingStorage,
        study: Study,
        pruner_name: str,
        prune_before_step: int | None,
    ) -> None:
        """`prune_before_step`: from this step on a trial counts as nearly finished, and runs on."""
        self._memory = memory
        self._study = study
        self._pruner_name = pruner_name
        self._prune_before_step = prune_before_step
        self._audited: set[int] = set()
        """Trials that would have been stopped, and run on as an audit."""
        self.paused: dict[int, int] = {}
        """Number -> step after which the trial would resume; -1: from the start."""
        self._none_promoted: tuple[Alternative, int] | None = None
        """Alternative and count of changes when the pruner last promoted no trial."""

    @property
    def pauses(self) -> bool:
        """True if trials are paused instead of stopped."""
        return isinstance(self._study.pruner, PausingPruner) and self._study.pruner.pauses

    def verdict(
        self,
        number: int,
        steps: Sequence[int] | None = None,
    ) -> PruneDecision | None:
        """Return the pruner's decision to stop the trial; None if it runs on.

        Args:
            steps: steps that the pruner has not seen yet; by default the last one. It is asked
                about each in turn, as if the later ones did not exist, so that reports that arrive
                together are treated like reports that arrive one by one. Steps before a trial's
                promotion are skipped.
        """
        whole = self._memory.get_trial(number)
        known = points_of(whole, len(self._study.directions))
        if not known:
            return None
        passed = whole.system_attrs.get(RESUMED, {}).get("step", -1)
        new_steps = [step for step in steps or [max(known)] if step in known and step > passed]
        for step in sorted(new_steps):
            if self._prune_before_step is not None and step >= self._prune_before_step:
                return None
            trial = cut(self._memory.get_trial(number), step)
            if self._is_poor(trial):
                return self._explain(trial, step)
            if number in self._audited:
                continue
            audit = self._audit(number)
            if audit is not None:
                return audit
        return None

    def pause(self, number: int, after_step: int) -> None:
        """Pause a trial, which may be promoted later.

        Args:
            after_step: step after which it would resume; -1: from the start.
        """
        self.paused[number] = after_step
        self._memory.pause(number)

    def promotion(self, alternative: Alternative) -> Promotion | None:
        """Return the paused trial to resume now, if the pruner prefers that to the alternative."""
        if not self.paused or not self.pauses:
            return None
        clear_trial_cache(self._study)
        if self._none_promoted == (alternative, self._memory.changes):
            return None  # the same curves give the same answer, and asking can take long
        pruner: Any = self._study.pruner
        try:
            number = pruner.promotion(self._study, self.paused, alternative)
        except Exception as error:  # noqa: BLE001  # a user's pruner
            self._memory.record_error(
                None,
                f"pruner {self._pruner_name}",
                error,
            )
            return None
        if number is None:
            self._none_promoted = alternative, self._memory.changes
            return None
        reason = self._pruner_reason(number) or Reason(
            f"chosen by {self._pruner_name}",
            {},
        )
        details = {
            "pruner": self._pruner_name,
            "instead": alternative,
            "after_step": self.paused[number],
        }
        return Promotion(number, reason.text, {**reason.details, **details})

    def promote(self, number: int, details: Mapping[str, Any]) -> None:
        """Mark a paused trial as running.

        The caller drops what it reported after its checkpoint.
        """
        step = self._memory.get_trial(number).last_step
        passed = {
            "step": -1 if step is None else step,
            "chance": details.get("chance"),
        }
        self._memory.set_trial_system_attr(number, RESUMED, passed)
        self._memory.resume(number)
        del self.paused[number]

    def on_trial_end(self, number: int) -> None:
        """Forget what belongs to a running trial."""
        self._audited.discard(number)
        self.paused.pop(number, None)
        self._memory.resume(number)

    def _is_poor(self, trial: FrozenTrial) -> bool:
        clear_trial_cache(self._study)
        try:
            return self._study.pruner.prune(self._study, trial)
        except Exception as error:  # noqa: BLE001  # a user's pruner; the trial runs on
            self._memory.record_error(
                trial.number,
                f"pruner {self._pruner_name}",
                error,
            )
            return False

    def _explain(self, trial: FrozenTrial, step: int) -> PruneDecision:
        """Return the decision with the pruner's reason, or else the rank of the value."""
        reason = self._pruner_reason(trial.number) or Reason("", {})
        text = reason.text or f"pruner {self._pruner_name} stopped it"
        details = reason.details
        if len(self._study.directions) == 1 and "rank" not in details:
            rank_text, ranks = self._rank_at(trial, step)
            text, details = reason.text or rank_text, {**ranks, **details}
        return PruneDecision(
            text,
            {"step": step, "pruner": self._pruner_name, **details},
            pause=self.pauses,
        )

    def _rank_at(
        self,
        trial: FrozenTrial,
        step: int,
    ) -> tuple[str, Mapping[str, Any]]:
        """Describe the rank of the trial's value among all trials at the step."""
        value = trial.intermediate_values[step]
        orientation = float(orientations_of(self._study)[0])
        history = history_of(
            self._study,
            self._study.get_trials(deepcopy=False),
        )
        at = history.rank_at(trial.number, step, value)
        text = (
            f"{value:.6g} at step {step}, where {at.rank_finished - 1} of {at.finished} finished "
            f"trials were better, and {at.rank - 1} of all {at.of - 1} others "
            f"(pruner {self._pruner_name})"
        )
        details: dict[str, Any] = {
            "value": value,
            "rank": at.rank,
            "of": at.of,
            "best": None if at.best is None else orientation * at.best,
            "rank_finished": at.rank_finished,
            "finished": at.finished,
        }
        return text, details

    def _audit(self, number: int) -> PruneDecision | None:
        """Return an audit, once per trial, if the pruner lets it run on as a check."""
        reason = self._pruner_reason(number)
        if reason is None or not reason.details.get("audit"):
            return None
        self._audited.add(number)
        details = {"pruner": self._pruner_name, **reason.details}
        return PruneDecision(reason.text, details, stop=False)

    def _pruner_reason(self, number: int) -> Reason | None:
        return reason_of(self._study.pruner, number, self._memory.record_error)
