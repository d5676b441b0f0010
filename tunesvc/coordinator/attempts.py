"""Attempts of a study's trials: opened, stopped, ended; and what their end means for the trial.

Writes into the step's batch and effects; the coordinator commits and performs them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from optuna.trial import TrialState

from tunesvc import policy
from tunesvc.coordinator.attempt_results import AttemptResult, conclude
from tunesvc.coordinator.deadlines import Deadlines
from tunesvc.coordinator.event_handler import EndedAttempt
from tunesvc.coordinator.live_attempts import LiveAttempt, LiveAttempts, MetricTracker
from tunesvc.coordinator.post_commit_actions import PostCommitActions
from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.coordinator.step_committer import UnitOfWork
from tunesvc.coordinator.study_progress import StudyProgress
from tunesvc.db.recovery import StoredAttempt, UnfinishedTrial
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import AttemptState, StudyState
from tunesvc.db.study_changes import AliveAttempt, AttemptEnd, OpenedAttempt, StopRequest, StudyChanges
from tunesvc.db.trial_changes import Decision
from tunesvc.execution.executor import AttemptId, Launch, Lost, StoppedEarly
from tunesvc.policy import Failure, StopCause
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.pruning import Promotion
from tunesvc.search.training_seeds import SEED, training_seed
from tunesvc.spec import StudySpec, as_given
from tunesvc.util.clock import Clock

JUDGED_MAX = 64
"""How many of an attempt's new reports the pruner is asked about in one step."""
JUDGE_S = 1.0
"""A step judges no longer than this: the study's lease has to be renewed, and what was heard to be recorded."""
LEASE_SLACK = 0.1
"""An attempt's lease lasts longer than `limits.stall` by this part of it, and is renewed only when it has lost that."""
MUTE_S = 1.0
"""How often an attempt is looked at that nothing was heard of since it was adopted."""


class Attempts:
    """The executions of one study's trials."""

    def __init__(
        self,
        spec: StudySpec,
        study_id: int,
        *,
        roster: LiveAttempts,
        optimizer: Optimizer,
        step: UnitOfWork,
        scoreboard: StudyProgress,
        clock: Clock,
        observer: Observer,
        close: Callable[[Shutdown], None],
        gpu_hours: float,
    ) -> None:
        """`close`: called when an end means that the whole study is over; `gpu_hours`: what was spent before."""
        self._spec = spec
        self._study_id = study_id
        self._roster = roster
        self._optimizer = optimizer
        self._step = step
        self._scoreboard = scoreboard
        self._clock = clock
        self._observer = observer
        self._close = close
        self._spent_gpu_hours = gpu_hours
        self._relaunch: deque[int] = deque()
        self._paused: dict[int, MetricTracker] = {}
        self._told_no_checkpoint = False
        self._unwanted: dict[int, str] = {}
        self._deadlines = Deadlines()
        self._stopped: list[LiveAttempt] = []
        """Those whose grace has not begun."""
        self._deaf_until_s = 0.0
        self._sign_round = 0
        self._wound_up: Shutdown | None = None

    @property
    def unfinished(self) -> int:
        """Trials that are under way or wait to be run again."""
        return len(self._roster) + len(self._relaunch)

    @property
    def paused(self) -> int:
        """Trials that hold nothing and may be promoted."""
        return len(self._paused)

    @property
    def gpu_hours(self) -> float:
        """What ended and live attempts have held so far."""
        return self._spent_gpu_hours + self._roster.gpu_s(self._clock.now()) / 3600

    # --- opening ------------------------------------------------------------------------------------

    def reopen(self, slots: int, effects: PostCommitActions) -> None:
        """Open new attempts for trials that have to be run again, while there are slots."""
        while self._relaunch and len(self._roster) < slots:
            self.open(self._relaunch.popleft(), effects)

    def promote(self, promotion: Promotion, effects: PostCommitActions) -> None:
        """Go on with a paused trial, from its last checkpoint."""
        number = promotion.number
        history = self._roster.history(number)
        where = f"resumes from step {history.after_step}" if history.checkpoint else "restarts: it has no checkpoint"
        reason = f"{promotion.reason}; {where}"
        del self._paused[number]
        self._optimizer.promote(number, promotion.details)
        self._decide(number, "promote", reason, promotion.details)
        self._note("promoted", reason, number)
        self._warn_without(history.checkpoint, number)
        self.open(number, effects)

    def _warn_without(self, checkpoint: str | None, number: int) -> None:
        if checkpoint is None and not self._told_no_checkpoint:
            self._told_no_checkpoint = True
            self._note("warning", "starts over: with trial.checkpoint(...) promoted trials would continue", number)

    def open(self, number: int, effects: PostCommitActions) -> None:
        """Open the trial's next attempt, from its last checkpoint."""
        resources = self._spec.resources
        history = self._roster.history(number)
        after_step = history.after_step
        if history.attempts:
            self._optimizer.memory.truncate_curve(number, after_step)
        trial = self._optimizer.trial(number)
        live = self._roster.open(
            trial_id(self._study_id, number),
            number,
            trial.params,
            gpus=resources.gpu * resources.workers,
            now_s=self._clock.now(),
        )
        self._schedule_check(live, live.opened_s)
        live.leased_s = live.opened_s
        cpus = resources.cpu * resources.workers
        self._batch.opened.append(OpenedAttempt(*live.key(), cpus, live.gpus, after_step, self._lease_s))
        params = {**self._spec.constants, **as_given(live.params, self._spec.parameters)}
        seed = trial.system_attrs.get(SEED, training_seed(self._spec.seed or 0, number, self._spec.seeds))
        launch = Launch(live.id, number, params, seed, history.checkpoint, effects.parallelism, effects.line)
        effects.launches.append(launch)

    # --- stopping -----------------------------------------------------------------------------------

    def stop(self, live: LiveAttempt, cause: StopCause, reason: str, effects: PostCommitActions) -> None:
        """Ask the attempt to stop; the first cause stands."""
        if live.stop_cause is not None:
            return
        live.stop_cause, live.stop_reason = cause, reason
        self._stopped.append(live)
        self._batch.stops.append(StopRequest(*live.key(), cause))
        effects.stops.append(live.id)

    def stop_one(self, number: int, reason: str) -> str:
        """End a trial alone, at once or as soon as its worker obeys; returns what there is to say about it."""
        live = next((live for live in self._roster if live.number == number), None)
        if live is not None and live.stop_cause is StopCause.PAUSE:
            live.stop_cause = None  # it stops for good instead
        if live is not None and live.stop_cause is not None:
            return f"it is being stopped already: {live.stop_reason or live.stop_cause}"
        self._decide(number, "stop", reason)
        if live is not None:
            self._unwanted[number] = reason
        elif number in self._relaunch:
            self._relaunch.remove(number)
            self._end_unstarted(number, StopCause.REQUEST, reason)
        elif number in self._paused:
            self._end_paused(number, reason)
        else:
            self._optimizer.cancel(number)
            return "it had not been started, and never will be"
        return ""

    def start_grace_periods(self) -> None:
        """At a step's beginning: from now on those count their grace that the step before, once committed, stopped."""
        stopped, self._stopped = self._stopped, []
        for live in stopped:
            if live.stop_by_s is None:
                live.stop_by_s = self._clock.now() + self._spec.limits.grace
                self._deadlines.put(live.stop_by_s, live.id)

    @property
    def all_overdue(self) -> bool:
        """Whether everything that runs was asked to stop, and its grace is over."""
        now = self._clock.now()
        return all(live.stop_by_s is not None and now >= live.stop_by_s for live in self._roster)

    def judge(self, effects: PostCommitActions) -> None:
        """Stop those whose new reports the pruner finds too poor. Whom there is no time for is judged next time."""
        until_s = self._clock.now() + JUDGE_S
        while self._clock.now() <= until_s and (live := self._roster.take_reported()) is not None:
            steps, live.unjudged = live.unjudged, []
            if live.stop_cause is not None:
                continue
            verdict = self._optimizer.verdict(live.number, _thinned(steps))
            if verdict is None or live.over:
                continue
            if not verdict.stop:
                self._decide(live.number, "keep", verdict.reason, verdict.details)
                continue
            cause = StopCause.PAUSE if verdict.pause else StopCause.PRUNE
            self._decide(live.number, cause, verdict.reason, verdict.details)
            self.stop(live, cause, verdict.reason, effects)

    def watch_limits(self, effects: PostCommitActions, *, hearing: bool = True) -> None:
        """Stop those that exceed a limit or that nobody wants any more, and kill those that did not obey.

        Nobody is silent while the executor hears nothing (`hearing` is off), and nothing is known of an attempt that
        gave no sign since it was adopted.
        """
        now = self._clock.now()
        if not hearing:
            self._deaf_until_s = now
        unwanted, self._unwanted = self._unwanted, {}
        for live in self._roster if unwanted else ():
            if live.number in unwanted:
                self.stop(live, StopCause.REQUEST, unwanted[live.number], effects)
        for attempt in self._deadlines.take_due(now):
            if (due := self._roster.get(attempt)) is not None:
                self._check_limits(due, now, effects)

    def _check_limits(self, live: LiveAttempt, now: float, effects: PostCommitActions) -> None:
        """Stop or kill an attempt whose time is over, or put that off if it is not."""
        if live.stop_by_s is not None and now >= live.stop_by_s and not live.killed:
            live.killed = True
            effects.kills.append(live.id)
        if live.stop_cause is not None:
            return
        exceeded = None
        if live.started_s is not None and live.last_word_s is None:
            silent_s = now - max(live.heard_s, self._deaf_until_s)
            exceeded = policy.overdue(self._spec.limits, now - live.started_s, silent_s)
        if exceeded is None:
            self._schedule_check(live, now)
        else:
            cause, reason = exceeded
            self._decide(live.number, "stop", reason)
            self.stop(live, cause, reason, effects)

    def _schedule_check(self, live: LiveAttempt, now: float) -> None:
        """Look at the attempt as soon as it may have exceeded a limit."""
        limits = self._spec.limits
        if limits.wall is None and limits.silence is None:
            return
        began_s = now if live.started_s is None else live.started_s
        ends_s = min(
            math.inf if limits.wall is None else began_s + limits.wall,
            math.inf if limits.silence is None else max(began_s, live.heard_s, self._deaf_until_s) + limits.silence,
        )
        self._deadlines.put(ends_s if live.last_word_s is None else now + MUTE_S, live.id)

    def stop_all(self, closing: Shutdown, effects: PostCommitActions) -> None:
        """Stop what runs, if that is how the study closes, and end what is paused or would be run again."""
        if closing.stop is not None and closing is not self._wound_up:
            self._wound_up = closing
            # the reason is the study's: "pruned: every trial failed" would be no reason of a trial
            is_over = closing.stop is not StopCause.SHUTDOWN
            reason = f"the study ended: {closing.reason}" if is_over else closing.reason
            for live in self._roster:
                self.stop(live, closing.stop, reason, effects)
        if not closing.ends_trials:
            return
        while self._relaunch:
            number = self._relaunch.popleft()
            self._decide(number, "stop", closing.reason)
            self._end_unstarted(number, closing.stop or StopCause.PRUNE, closing.reason)
        if self._paused:
            text = f"{len(self._paused)} trials are still paused: they count as pruned"
            self._observer.on_event(ProgressEvent("study", text))
        for number in list(self._paused):
            self._decide(number, "stop", f"still paused when the study ended: {closing.reason}")
            self._end_paused(number, "", quietly=True)

    def _end_unstarted(self, number: int, cause: StopCause, reason: str) -> None:
        """End a trial that waits to be run again, with all that it has reported."""
        curve = self._roster.new_curve()
        for step, value in self._optimizer.trial(number).intermediate_values.items():
            curve.add(step, {self._spec.metrics[0].name: value})
        self._tell(number, conclude(self._spec, curve, StoppedEarly(), cause, reason), reason)

    def _end_paused(self, number: int, reason: str, *, quietly: bool = False) -> None:
        """End a paused trial at what it came to."""
        curve = self._paused.pop(number)
        self._tell(number, conclude(self._spec, curve, StoppedEarly(), StopCause.PRUNE), reason, quietly=quietly)

    # --- leases ----------------------------------------------------------------------------------------

    def hear(self, alive: Iterable[AttemptId]) -> None:
        """These gave a sign of life: those among them that were adopted do run."""
        for attempt in alive:
            if (live := self._roster.get(attempt)) is not None:
                self._roster.speak(live)

    def leases(self, alive: Iterable[AttemptId] | None) -> list[AliveAttempt]:
        """The leases to renew, of attempts that gave a sign of life, if they were not renewed just now.

        `alive`: None when nothing can be concluded from silence; then all of them are renewed.
        """
        now, lease_s, renewed = self._clock.now(), self._lease_s, []
        due_s = now - (lease_s - self._stall_s)
        self._sign_round += 1
        for live in self._roster if alive is None else filter(None, map(self._roster.get, alive)):
            live.sign_round = self._sign_round
            if alive is None or live.leased_s <= due_s:
                live.leased_s = now
                renewed.append(AliveAttempt(*live.key(), lease_s))
        return renewed

    def expire(self, stalled: Iterable[tuple[int, int]], effects: PostCommitActions) -> list[EndedAttempt]:
        """End attempts whose lease has run out; whatever they say from here on is refused.

        One that gave a sign of life all the same has its lease renewed: nobody had found it necessary before.
        """
        ended = []
        for number, attempt in stalled:
            live = self._roster.get(AttemptId(trial_id(self._study_id, number), attempt))
            if live is not None and live.sign_round == self._sign_round:
                live.leased_s = -math.inf
            elif live is not None and not live.over:
                live.over = True
                effects.kills.append(live.id)
                reason = f"no heartbeat from its worker for {self._stall_s:g} s (limits.stall)"
                ended.append(EndedAttempt(live, Lost(reason, "stalled")))
        return ended

    @property
    def _stall_s(self) -> float:
        return self._spec.limits.stall

    @property
    def _lease_s(self) -> float:
        return (1 + LEASE_SLACK) * self._stall_s

    # --- ending -------------------------------------------------------------------------------------

    def end(self, ended: EndedAttempt) -> None:
        """Record an attempt's end, and what it means for its trial."""
        live = ended.live
        outcome = live.doom or ended.outcome
        conclusion = conclude(self._spec, live.curve, outcome, live.stop_cause, live.stop_reason)
        self._roster.close(live, self._clock.now())
        self._record_end(live, conclusion)
        if conclusion.attempt_state is AttemptState.INTERRUPTED:
            self._relaunch.append(live.number)
        elif conclusion.attempt_state is AttemptState.PAUSED:
            self._pause(live.number, live.curve)
            self._note("paused", live.stop_reason, live.number)
        elif conclusion.failure is not None:
            self._fail(live.number, conclusion, conclusion.failure)
        else:
            self._tell(live.number, conclusion, live.stop_reason)

    def recover(self, trial: UnfinishedTrial, effects: PostCommitActions) -> None:
        """Take up a trial that an earlier coordinator left unfinished."""
        history = self._roster.history(trial.number)
        history.attempts = max((attempt.number for attempt in trial.attempts), default=0)
        history.failures.update(Failure(a.failure) for a in trial.attempts if a.failure is not None)
        for attempt in trial.attempts:
            if attempt.checkpoint is not None:
                history.checkpoint, history.checkpoint_step = attempt.checkpoint, attempt.checkpoint_step
        history.curve = self._curve_of(trial, up_to=history.after_step)
        last = trial.attempts[-1] if trial.attempts else None
        if last is not None and last.state is AttemptState.PAUSED:
            self._pause(trial.number, self._curve_of(trial))
        elif last is None or last.state.is_terminal:
            self._relaunch.append(trial.number)
        else:
            self._adopt(trial, last, effects)

    def _pause(self, number: int, curve: MetricTracker) -> None:
        self._paused[number] = curve
        self._optimizer.pause(number, self._roster.history(number).after_step)

    def _adopt(self, trial: UnfinishedTrial, last: StoredAttempt, effects: PostCommitActions) -> None:
        now = self._clock.now()
        params = self._optimizer.trial(trial.number).params
        live = self._roster.adopt(trial.trial_id, last, trial.number, params, now_s=now)
        live.curve = self._curve_of(trial)
        self._schedule_check(live, now)
        if last.stop_cause is not None:  # a stop that was decided stands, and may not have reached the worker
            live.stop_cause, live.stop_reason = StopCause(last.stop_cause), "stopped by the earlier coordinator"
            self._stopped.append(live)
            effects.stops.append(live.id)

    def _curve_of(self, trial: UnfinishedTrial, up_to: float = float("inf")) -> MetricTracker:
        curve = self._roster.new_curve()
        objective = self._spec.metrics[0].name
        for step, value, metrics in trial.reports:
            if step <= up_to:
                curve.add(step, metrics if value is None else {objective: value, **metrics})
        return curve

    def _record_end(self, live: LiveAttempt, conclusion: AttemptResult) -> None:
        end = AttemptEnd(
            *live.key(),
            state=conclusion.attempt_state.value,
            failure=None if conclusion.failure is None else str(conclusion.failure),
            message=conclusion.message,
            traceback=conclusion.traceback,
            at_last_word=live.last_word_s is not None,
        )
        self._batch.ends.append(end)

    def _fail(self, number: int, conclusion: AttemptResult, failure: Failure) -> None:
        failures = self._roster.history(number).failures
        decision = policy.after_failure(failure, failures, self._spec.retries)
        failures[failure] += 1
        message = conclusion.message or ""
        if isinstance(decision, policy.Retry):
            self._decide(number, "retry", decision.reason, {"message": message})
            self._relaunch.append(number)
            self._note("retry", f"{decision.reason}: {message}", number)
            return
        self._decide(number, "fail", decision.reason, {"message": message})
        # As in Optuna, a failed trial has no values; the attempt's message says what was returned.
        self._optimizer.tell(number, TrialState.FAIL, attrs=conclusion.metrics, failure=str(failure))
        self._roster.forget(number)
        self._scoreboard.finished(self._optimizer.trial(number))
        self._note("failed", message if failure is Failure.ERROR else f"{message} ({failure})", number)
        unexplained, results = self._scoreboard.unexplained, self._scoreboard.results
        is_broken = policy.is_broken(failure, unexplained, results, self._spec.limits)
        if is_broken and not self._paused and not self._may_succeed(failure):
            limit = "" if failure.is_of_every_trial else f" (limits.failures: {self._spec.limits.failures})"
            told = f"every trial failed{limit}; the last one: {message}"
            self._close(Shutdown(StudyState.FAILED, told, StopCause.COMMAND))

    def _may_succeed(self, failure: Failure) -> bool:
        """Tell whether a live attempt has reported something that the failed one had not."""
        if failure is Failure.WRONG_METRIC:
            names = {metric.name for metric in self._spec.metrics}
            return any(names & live.curve.last.keys() for live in self._roster)
        return any(live.curve.last for live in self._roster)

    def _tell(self, number: int, conclusion: AttemptResult, stop_reason: str, *, quietly: bool = False) -> None:
        if conclusion.trial_state is None:
            raise AssertionError("an attempt without failure decides its trial's state")
        self._optimizer.tell(
            number,
            conclusion.trial_state,
            conclusion.values,
            constraints=conclusion.constraints,
            attrs=conclusion.metrics,
        )
        self._roster.forget(number)
        trial = self._optimizer.trial(number)
        for note in self._scoreboard.finished(trial, stop_reason):
            if not quietly:
                self._observer.on_event(note)
        if trial.state == TrialState.FAIL:
            self._note("failed", conclusion.message or f"stopped: {stop_reason}", number)
        feasible = all(excess <= 0 for excess in conclusion.constraints.values())
        if trial.state == TrialState.COMPLETE and feasible and policy.reached_target(self._spec.metrics, trial.values):
            self._close(Shutdown(StudyState.FINISHED, f"trial {number} reached the target", StopCause.TARGET))

    @property
    def _batch(self) -> StudyChanges:
        return self._step.changes

    def _decide(self, number: int, kind: str, reason: str, details: Mapping[str, Any] | None = None) -> None:
        self._batch.decisions.append(Decision(number, kind, reason, details or {}))

    def _note(self, kind: str, text: str, number: int) -> None:
        self._observer.on_event(ProgressEvent(kind, text, number))


def _thinned(steps: Sequence[int]) -> Sequence[int]:
    """At most so many steps, the last one among them: a flood of reports must not hold up everybody else."""
    return steps[:: -(1 + len(steps) // JUDGED_MAX)]
