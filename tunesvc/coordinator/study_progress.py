"""How a running study stands: counts, the best so far, and what is left of the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from tunesvc.coordinator.live_attempts import LiveAttempt, LiveAttempts
from tunesvc.coordinator.progress_events import BestTrial, LiveTrial, Progress, ProgressEvent
from tunesvc.policy import ImprovementForecast, Usage, forecast, fraction_spent, time_left_s
from tunesvc.search.study_storage import BLAMED, FAILURE
from tunesvc.spec import StudySpec
from tunesvc.trial import is_better


class StudyProgress:
    """Counts finished trials as they come, so that a step costs the same however many there are."""

    def __init__(self, spec: StudySpec, trials: Sequence[FrozenTrial]) -> None:
        self.spec = spec
        self._counts: Counter[TrialState] = Counter()
        self._failed_by_themselves = 0
        self._unexplained = 0
        self._best: FrozenTrial | None = None
        self._incumbents: list[float | None] = []
        ended = [trial for trial in trials if trial.state.is_finished()]
        for trial in sorted(ended, key=lambda trial: (str(trial.datetime_complete), trial.number)):
            self.finished(trial)
        self._unexplained = 0  # a run begins: the cause of earlier failures may have been mended

    def finished(self, trial: FrozenTrial, stop_reason: str = "") -> list[ProgressEvent]:
        """Count a trial that is over; returns what is worth telling about it."""
        self._counts[trial.state] += 1
        failure = trial.system_attrs.get(FAILURE)
        self._failed_by_themselves += failure is not None
        self._unexplained += failure is not None and failure not in BLAMED
        notes = self._take_in(trial, stop_reason)
        self._incumbents.append(None if self._best is None else self._best.values[0])
        return notes

    def expected(self, usage: Usage) -> ImprovementForecast | None:
        """The improvement to come; None with several objectives, or while it is too early to tell."""
        if len(self.spec.metrics) > 1:
            return None
        return forecast(self.spec.budget.stop_when, self._incumbents, usage)

    def _take_in(self, trial: FrozenTrial, stop_reason: str) -> list[ProgressEvent]:
        if trial.state == TrialState.PRUNED:
            return [ProgressEvent("pruned", stop_reason or "pruned by the objective", trial.number)]
        if trial.state != TrialState.COMPLETE:
            return []
        improved = self._improves(trial)
        if improved:
            self._best = trial
        return [ProgressEvent("best" if improved else "complete", self._describe(trial), trial.number)]

    def progress(
        self,
        roster: LiveAttempts,
        usage: Usage,
        *,
        state: str,
        reason: str,
        paused: int,
        now_s: float,
        gpus_total: float,
    ) -> Progress:
        """A snapshot for observers."""
        fraction = fraction_spent(self.spec.budget, usage)
        expected = self.expected(usage)
        trials = [self._live(live, now_s) for live in roster]
        return Progress(
            study=self.spec.name,
            state=state,
            reason=reason,
            complete=self._counts[TrialState.COMPLETE],
            pruned=self._counts[TrialState.PRUNED],
            failed=self._failed_by_themselves,
            stopped=self._counts[TrialState.FAIL] - self._failed_by_themselves,
            paused=paused,
            running=tuple(trial for trial in trials if not trial.queued),
            queued=tuple(trial for trial in trials if trial.queued),
            budget_trials=self.spec.budget.trials,
            fraction=fraction,
            elapsed_s=usage.wall_s,
            left_s=time_left_s(fraction, usage.wall_s),
            gpu_hours=usage.gpu_hours,
            gpus_busy=sum(live.gpus for live in roster if live.started_s is not None),
            gpus_total=gpus_total,
            best=self.best,
            forecast="" if expected is None else expected.text,
        )

    @property
    def failed_and_others(self) -> tuple[int, int]:
        """How many trials failed, those left out that somebody stopped or took back; and how many came to a result."""
        return self._failed_by_themselves, self._counts.total() - self._counts[TrialState.FAIL]

    @property
    def unexplained(self) -> int:
        """How many trials of this run failed otherwise than by their parameters, from which samplers learn."""
        return self._unexplained

    @property
    def results(self) -> int:
        """How many trials came to a result."""
        return self._counts.total() - self._counts[TrialState.FAIL]

    @property
    def ended(self) -> int:
        """How many trials are over."""
        return self._counts.total()

    @property
    def best(self) -> BestTrial | None:
        """The best complete and feasible trial so far."""
        if self._best is None:
            return None
        return BestTrial(self._best.number, tuple(self._best.values), dict(self._best.params))

    def _improves(self, trial: FrozenTrial) -> bool:
        if any(excess > 0 for excess in trial.constraints.values()):
            return False
        if self._best is None:
            return True
        pairs = list(zip(trial.values, self._best.values, self.spec.directions, strict=True))
        better = [is_better(new, old, goal) for new, old, goal in pairs]
        worse = [is_better(old, new, goal) for new, old, goal in pairs]
        return any(better) and not any(worse)

    def _describe(self, trial: FrozenTrial) -> str:
        values = zip(self.spec.metrics, trial.values, strict=True)
        return ", ".join(f"{metric.name} = {value:.6g}" for metric, value in values)

    def _live(self, live: LiveAttempt, now_s: float) -> LiveTrial:
        step, value = live.curve.last.get(self.spec.metrics[0].name, (None, None))
        return LiveTrial(
            number=live.number,
            attempt=live.id.number,
            queued=live.started_s is None,
            params=live.params,
            step=step,
            value=value,
            elapsed_s=now_s - (live.opened_s if live.started_s is None else live.started_s),
            devices=live.devices,
        )
