"""Progress of a running study: counts, the best trial so far, and the remaining budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from tunesvc.coordinator.attempt_state.live_attempts import LiveAttempt, OpenTrials
from tunesvc.coordinator.progress_events import BestTrial, LiveTrial, Progress, ProgressEvent
from tunesvc.policy import ImprovementForecast, Usage, forecast, fraction_spent, time_left_s
from tunesvc.search.study_storage import BLAMED, FAILURE
from tunesvc.spec import StudySpec
from tunesvc.trial import is_better


@dataclass(frozen=True, slots=True)
class RunStatus:
    """State of a run, as observers see it."""

    state: str
    """`running`, `waiting` or `closing`."""
    reason: str
    paused: int
    """Number of paused trials."""


class StudyProgress:
    """Counts trials as they finish, so that a step costs the same for any number of trials."""

    def __init__(self, spec: StudySpec, trials: Sequence[FrozenTrial]) -> None:
        self.spec = spec
        self._counts: Counter[TrialState] = Counter()
        self._failed_by_themselves = 0
        self._unexplained = 0
        self._best: FrozenTrial | None = None
        self._incumbents: list[float | None] = []
        finished = [trial for trial in trials if trial.state.is_finished()]
        for trial in sorted(finished, key=_end_order):
            self.finished(trial)
        # The cause of earlier failures may have been fixed before this run.
        self._unexplained = 0

    def finished(
        self,
        trial: FrozenTrial,
        stop_reason: str = "",
    ) -> list[ProgressEvent]:
        """Count a finished trial; return the events that observers should get."""
        self._counts[trial.state] += 1
        failure = trial.system_attrs.get(FAILURE)
        self._failed_by_themselves += failure is not None
        self._unexplained += failure is not None and failure not in BLAMED
        events = self._update_best(trial, stop_reason)
        self._incumbents.append(None if self._best is None else self._best.values[0])
        return events

    def expected(self, usage: Usage) -> ImprovementForecast | None:
        """Return the expected improvement; None for several objectives, or while unknown."""
        if len(self.spec.metrics) > 1:
            return None
        return forecast(self.spec.budget.stop_when, self._incumbents, usage)

    def _update_best(
        self,
        trial: FrozenTrial,
        stop_reason: str,
    ) -> list[ProgressEvent]:
        if trial.state == TrialState.PRUNED:
            reason = stop_reason or "pruned by the objective"
            return [ProgressEvent("pruned", reason, trial.number)]
        if trial.state != TrialState.COMPLETE:
            return []
        kind = "complete"
        if self._improves(trial):
            kind = "best"
            self._best = trial
        return [ProgressEvent(kind, self._describe(trial), trial.number)]

    def snapshot(
        self,
        live_attempts: OpenTrials,
        usage: Usage,
        status: RunStatus,
        *,
        now_s: float,
        gpus_total: float,
    ) -> Progress:
        """Return a snapshot for observers."""
        fraction = fraction_spent(self.spec.budget, usage)
        expected = self.expected(usage)
        trials = [self._live_trial(live, now_s) for live in live_attempts]
        return Progress(
            study=self.spec.name,
            state=status.state,
            reason=status.reason,
            complete=self._counts[TrialState.COMPLETE],
            pruned=self._counts[TrialState.PRUNED],
            failed=self._failed_by_themselves,
            stopped=self._counts[TrialState.FAIL] - self._failed_by_themselves,
            paused=status.paused,
            running=tuple(trial for trial in trials if not trial.queued),
            queued=tuple(trial for trial in trials if trial.queued),
            budget_trials=self.spec.budget.trials,
            fraction=fraction,
            elapsed_s=usage.wall_s,
            left_s=time_left_s(fraction, usage.wall_s),
            gpu_hours=usage.gpu_hours,
            cost="" if self.spec.cost is None else self.spec.cost.format(usage.cost),
            gpus_busy=sum(live.gpus for live in live_attempts if live.started_s is not None),
            gpus_total=gpus_total,
            best=self.best,
            forecast="" if expected is None else expected.text,
        )

    @property
    def failed_and_others(self) -> tuple[int, int]:
        """Number of failed trials, stopped and cancelled ones excluded; number of results."""
        return self._failed_by_themselves, self.results

    @property
    def unexplained(self) -> int:
        """Failures in this run that are not caused by parameters; samplers learn from those."""
        return self._unexplained

    @property
    def results(self) -> int:
        """Number of trials with a result."""
        return self._counts.total() - self._counts[TrialState.FAIL]

    @property
    def ended(self) -> int:
        """Number of finished trials."""
        return self._counts.total()

    @property
    def best(self) -> BestTrial | None:
        """The best complete and feasible trial so far."""
        if self._best is None:
            return None
        return BestTrial(
            self._best.number,
            tuple(self._best.values),
            dict(self._best.params),
        )

    def _improves(self, trial: FrozenTrial) -> bool:
        if any(excess > 0 for excess in trial.constraints.values()):
            return False
        if self._best is None:
            return True
        pairs = list(
            zip(
                trial.values,
                self._best.values,
                self.spec.directions,
                strict=True,
            )
        )
        better = [is_better(new, old, goal) for new, old, goal in pairs]
        worse = [is_better(old, new, goal) for new, old, goal in pairs]
        return any(better) and not any(worse)

    def _describe(self, trial: FrozenTrial) -> str:
        values = zip(self.spec.metrics, trial.values, strict=True)
        return ", ".join(f"{metric.name} = {value:.6g}" for metric, value in values)

    def _live_trial(self, live: LiveAttempt, now_s: float) -> LiveTrial:
        step, value = live.curve.last.get(self.spec.metrics[0].name, (None, None))
        began_s = live.opened_s if live.started_s is None else live.started_s
        return LiveTrial(
            number=live.number,
            attempt=live.id.number,
            queued=live.started_s is None,
            params=live.params,
            step=step,
            value=value,
            elapsed_s=now_s - began_s,
            devices=live.devices,
        )


def _end_order(trial: FrozenTrial) -> tuple[str, int]:
    return str(trial.datetime_complete), trial.number
