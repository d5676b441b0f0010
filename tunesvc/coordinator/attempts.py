"""Lifecycle of a study's attempts: opening, stopping, ending, and the consequences for the trial.

Writes into the step's changes and actions; the coordinator commits and performs them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optuna.trial import TrialState

from tunesvc import policy
from tunesvc.coordinator.attempt_state.attempt_leases import Leases
from tunesvc.coordinator.attempt_state.attempt_results import Conclusion, conclude
from tunesvc.coordinator.attempt_state.deadlines import Deadlines
from tunesvc.coordinator.attempt_state.launch_blocks import blocks_of
from tunesvc.coordinator.attempt_state.live_attempts import (
    Ending,
    LiveAttempt,
    MetricTracker,
    OpenTrials,
    TrialRecord,
)
from tunesvc.coordinator.post_commit_actions import PostCommitActions
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.coordinator.slot_grant import SlotGrant
from tunesvc.coordinator.step_committer import UnitOfWork
from tunesvc.coordinator.study_context import StudyContext
from tunesvc.coordinator.study_progress import StudyProgress
from tunesvc.db.recovery import StoredExecution, UnfinishedTrial
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import AttemptState, StudyState
from tunesvc.db.study_changes import EndRecord, LaunchRecord, StopRecord, StudyChanges
from tunesvc.db.trial_changes import Decision
from tunesvc.execution.executor import (
    AttemptId,
    Block,
    Finished,
    Launch,
    Lost,
    Outcome,
    StoppedEarly,
    Stretch,
)
from tunesvc.policy import Failure, StopCause
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.population.population import Copy
from tunesvc.search.pruning import Promotion
from tunesvc.search.tracking.lineage import parent_of
from tunesvc.search.tracking.objectives import is_feasible
from tunesvc.search.training_seeds import SEED
from tunesvc.spec import as_given

PRUNER_STEPS_MAX = 64
"""Most new steps of an attempt that the pruner checks in one step of the coordinator."""
PRUNER_S = 1.0
"""Longest time for the pruner per step: the lease must be renewed, and reports recorded."""
SILENT_CHECK_S = 1.0
"""Interval of checks of an adopted attempt that has not sent a heartbeat yet."""


class Lifecycle:
    """Opens, stops and ends the attempts of one study's trials."""

    def __init__(
        self,
        context: StudyContext,
        *,
        live_attempts: OpenTrials,
        optimizer: Optimizer,
        step: UnitOfWork,
        progress: StudyProgress,
        close: Callable[[Shutdown], None],
    ) -> None:
        """`close`: called when an attempt's end also ends the study."""
        self._spec = context.spec
        self._study_id = context.study_id
        self._clock = context.clock
        self._notify = context.notify
        self._observer = context.observer
        self._live_attempts = live_attempts
        self._optimizer = optimizer
        self._progress = progress
        self._step = step
        self._close = close
        self.leases = Leases(context, live_attempts)
        self._relaunch: deque[int] = deque()
        """Trials that wait to be run again."""
        self._paused: dict[int, MetricTracker] = {}
        self._has_warned_of_restarts = False
        self._requested_stops: dict[int, str] = {}
        """Reason by trial number, until the step sends the stops: a command has no actions."""
        self._earlier_checkpoints: dict[AttemptId, tuple[str | None, int | None]] = {}
        """Last checkpoint or fold of each attempt at the time when room was asked for."""
        self._deadlines = Deadlines()
        self._stopped: list[LiveAttempt] = []
        """Attempts with a decided stop, before their grace period."""
        self._muted_until_s = 0.0
        self._stopped_for: Shutdown | None = None

    @property
    def unfinished(self) -> int:
        """Number of trials that are live or wait to be run again."""
        return len(self._live_attempts) + len(self._relaunch)

    @property
    def paused(self) -> int:
        """Number of paused trials, which use no resources and may be promoted."""
        return len(self._paused)

    @property
    def gpu_hours(self) -> float:
        """GPU hours that all attempts of the study have used so far."""
        return self._live_attempts.gpu_hours(self._clock.now())

    @property
    def cost(self) -> float:
        """Cost of all attempts of the study so far; 0 without prices."""
        if self._spec.cost is None:
            return 0.0
        cpu_hours = self._live_attempts.cpu_hours(self._clock.now())
        return self._spec.cost.cost(cpu_hours, self.gpu_hours)

    # --- opening --------------------------------------------------------------------------------

    def reopen(self, slots: int, actions: PostCommitActions) -> None:
        """Open new attempts of trials that wait to be run again, while there are slots."""
        while self._relaunch and len(self._live_attempts) < slots:
            self.open(self._relaunch.popleft(), actions)

    def promote(self, promotion: Promotion, actions: PostCommitActions) -> None:
        """Resume a paused trial from its last checkpoint."""
        number = promotion.number
        record = self._live_attempts.record_of(number)
        start = "restarts: it has no checkpoint"
        if record.checkpoint or record.after_step >= 0:
            start = f"resumes from step {record.after_step}"
        reason = f"{promotion.reason}; {start}"
        del self._paused[number]
        self._optimizer.promote(number, promotion.details)
        self._record_decision(number, "promote", reason, promotion.details)
        self._notify("promoted", reason, number)
        if record.checkpoint is None and record.after_step < 0:
            self._warn_of_restart(number)
        self.open(number, actions)

    def _warn_of_restart(self, number: int) -> None:
        if not self._has_warned_of_restarts:
            self._has_warned_of_restarts = True
            text = "starts over: with trial.checkpoint(...) promoted trials would continue"
            self._notify("warning", text, number)

    def replace(self, copy: Copy) -> None:
        """End the paused trial that a copy of another one replaces, if there is one."""
        if copy.replaces is not None:
            self._record_decision(copy.replaces, "exploit", copy.reason, copy.details)
            self._end_paused(copy.replaces, copy.reason)

    def _record_of(self, number: int) -> TrialRecord:
        """Return a trial's record; a copy begins with its parent's checkpoint."""
        record = self._live_attempts.record_of(number)
        if record.checkpoint is None:
            parent = parent_of(self._optimizer.trial(number))
            if parent is not None:
                record.checkpoint, record.checkpoint_step = parent.checkpoint, parent.step
        return record

    def open(self, number: int, actions: PostCommitActions) -> None:
        """Open the trial's next attempt, from its last checkpoint."""
        resources = self._spec.resources
        record = self._record_of(number)
        after_step = record.after_step
        if record.attempts:
            self._optimizer.memory.truncate_curve(number, after_step)
        trial = self._optimizer.trial(number)
        live = self._live_attempts.open(
            trial_id(self._study_id, number),
            number,
            trial.params,
            cpus=resources.cpu * resources.workers,
            gpus=resources.gpu * resources.workers,
            now_s=self._clock.now(),
        )
        live.until = self._stop_after(after_step)
        self._schedule_check(live, live.opened_s)
        live.leased_s = live.opened_s
        opened = LaunchRecord(
            *live.key(),
            live.cpus,
            live.gpus,
            after_step,
            self.leases.lease_s,
        )
        self._changes.opened.append(opened)
        blocks = blocks_of(self._spec, number, trial.system_attrs.get(SEED))
        actions.launches.append(self._launch(live, blocks, record, actions))

    def _launch(
        self,
        live: LiveAttempt,
        blocks: Sequence[Block],
        record: TrialRecord,
        actions: PostCommitActions,
    ) -> Launch:
        params = {**self._spec.constants, **as_given(live.params, self._spec.parameters)}
        return Launch(
            live.id,
            live.number,
            params,
            blocks[0].seed,
            record.checkpoint,
            actions.parallelism,
            actions.worker_backlog,
            self._stretch(live),
            tuple(block for block in blocks if block.step > record.after_step),
        )

    def _stop_after(self, step: int) -> int | None:
        return None if self._spec.search is None else self._spec.search.next_stop(step)

    def _stretch(self, live: LiveAttempt) -> Stretch | None:
        if self._spec.search is None or live.until is None:
            return None
        is_last = live.until >= self._spec.search.last_step
        return Stretch(live.until, is_last, self._optimizer.kept_checkpoints(live.number))

    # --- stopping -------------------------------------------------------------------------------

    def stop(
        self,
        live: LiveAttempt,
        cause: StopCause,
        reason: str,
        actions: PostCommitActions,
    ) -> None:
        """Ask the attempt to stop, unless it has been asked before: the first cause counts."""
        if live.stop_cause is not None:
            return
        live.stop_cause, live.stop_reason = cause, reason
        self._stopped.append(live)
        self._changes.stops.append(StopRecord(*live.key(), cause))
        actions.stops.append(live.id)

    def stop_one(self, number: int, reason: str) -> str:
        """End one trial, at once or as soon as its worker stops; return the answer to the user."""
        live = self._live_attempts.of_trial(number)
        if live is not None and live.stop_cause is StopCause.PAUSE:
            live.stop_cause = None  # The stop replaces the pause.
        if live is not None and live.stop_cause is not None:
            return f"it is being stopped already: {live.stop_reason or live.stop_cause}"
        self._record_decision(number, "stop", reason)
        if live is not None:
            self._requested_stops[number] = reason
        elif number in self._relaunch:
            self._relaunch.remove(number)
            self._end_unstarted(number, StopCause.TRIAL_STOPPED, reason)
        elif number in self._paused:
            self._end_paused(number, reason)
        else:
            self._optimizer.cancel(number)
            return "it had not been started, and never will be"
        return ""

    def send_requested_stops(self, actions: PostCommitActions) -> None:
        """Stop the attempts of trials that `stop_one` accepted since the step before."""
        requested, self._requested_stops = self._requested_stops, {}
        for live in self._live_attempts if requested else ():
            if live.number in requested:
                self.stop(live, StopCause.TRIAL_STOPPED, requested[live.number], actions)

    def make_room(self, grant: SlotGrant, actions: PostCommitActions) -> None:
        """Stop attempts while more are live than a grant's ceiling; their trials continue later.

        Attempts that have not started stop at once, any other one with its next checkpoint, so that
        no work is lost. An attempt that saves none is not stopped.
        """
        if grant.ceiling is None:
            self._earlier_checkpoints.clear()
            return
        staying = [live for live in self._live_attempts if live.stop_cause is None]
        excess = len(staying) - grant.ceiling
        if excess <= 0:
            return
        for live in reversed(staying):  # the newest first
            record = self._live_attempts.record_of(live.number)
            saved = record.checkpoint, record.checkpoint_step
            earlier = self._earlier_checkpoints.setdefault(live.id, saved)
            if live.started_s is None or saved != earlier:
                self._record_decision(live.number, "pause", f"makes room: {grant.reason}")
                self.stop(live, StopCause.PREEMPT, grant.reason, actions)
                excess -= 1
            if not excess:
                return

    def take_back(self, most: int, actions: PostCommitActions) -> None:
        """Stop attempts that have not started, the newest first, while more than `most` are live.

        Without that, they would start in a part of the cluster that is another study's by now.
        """
        staying = [live for live in self._live_attempts if live.stop_cause is None]
        unstarted = [live for live in staying if live.started_s is None]
        for live in unstarted[::-1][: max(0, len(staying) - most)]:
            reason = "makes room: the study's part of the cluster has become smaller"
            self._record_decision(live.number, "pause", reason)
            self.stop(live, StopCause.PREEMPT, reason, actions)

    def start_grace_periods(self) -> None:
        """Start the grace periods of attempts that the step before, now committed, stopped."""
        stopped, self._stopped = self._stopped, []
        for live in stopped:
            if live.stop_by_s is None:
                live.stop_by_s = self._clock.now() + self._spec.limits.grace
                self._deadlines.put(live.stop_by_s, live.id)

    @property
    def all_overdue(self) -> bool:
        """True if all live attempts were asked to stop and their grace periods have ended."""
        now = self._clock.now()
        deadlines = [live.stop_by_s for live in self._live_attempts]
        return all(stop_by_s is not None and now >= stop_by_s for stop_by_s in deadlines)

    def run_pruner(self, actions: PostCommitActions) -> None:
        """Stop attempts with new reports that the pruner rejects.

        Attempts that do not fit into the time of this step are checked in the next one.
        """
        until_s = self._clock.now() + PRUNER_S
        while self._clock.now() <= until_s:
            live = self._live_attempts.pop_reported()
            if live is None:
                return
            steps, live.unchecked_steps = live.unchecked_steps, []
            if live.stop_cause is None:
                self._apply_pruner(live, steps, actions)

    def _apply_pruner(
        self,
        live: LiveAttempt,
        steps: Sequence[int],
        actions: PostCommitActions,
    ) -> None:
        decision = self._optimizer.verdict(live.number, _thinned(steps))
        if decision is None or live.finished:
            return
        if not decision.stop:
            self._record_decision(live.number, "keep", decision.reason, decision.details)
            return
        cause = StopCause.PAUSE if decision.pause else StopCause.PRUNE
        if self._spec.is_stepwise:
            live.forecast = decision.details.get("predicted")
        self._record_decision(live.number, cause, decision.reason, decision.details)
        self.stop(live, cause, decision.reason, actions)

    def check_limits(
        self,
        actions: PostCommitActions,
        *,
        trusts_silence: bool = True,
    ) -> None:
        """Stop attempts that exceed a limit; kill those past their grace.

        Args:
            trusts_silence: False while the executor may miss reports; then no attempt counts as
                silent. Nor does an adopted one before its first heartbeat.
        """
        now = self._clock.now()
        if not trusts_silence:
            self._muted_until_s = now
        for attempt in self._deadlines.pop_due(now):
            due = self._live_attempts.get(attempt)
            if due is not None:
                self._check_limits_of(due, now, actions)

    def _check_limits_of(
        self,
        live: LiveAttempt,
        now: float,
        actions: PostCommitActions,
    ) -> None:
        """Stop or kill an attempt that has exceeded a limit, or schedule its next check."""
        if live.stop_by_s is not None and now >= live.stop_by_s and not live.killed:
            live.killed = True
            actions.kills.append(live.id)
        if live.stop_cause is not None:
            return
        exceeded = None
        if live.started_s is not None and live.silent_since_s is None:
            silent_s = now - max(live.last_report_s, self._muted_until_s)
            exceeded = policy.overdue(
                self._spec.limits,
                now - live.started_s,
                silent_s,
            )
        if exceeded is None:
            self._schedule_check(live, now)
            return
        cause, reason = exceeded
        self._record_decision(live.number, "stop", reason)
        self.stop(live, cause, reason, actions)

    def _schedule_check(self, live: LiveAttempt, now: float) -> None:
        """Schedule a check for the earliest time at which the attempt may exceed a limit."""
        limits = self._spec.limits
        if limits.wall is None and limits.silence is None:
            return
        if live.silent_since_s is not None:
            self._deadlines.put(now + SILENT_CHECK_S, live.id)
            return
        began_s = now if live.started_s is None else live.started_s
        ends_s = math.inf
        if limits.wall is not None:
            ends_s = began_s + limits.wall
        if limits.silence is not None:
            heard_s = max(began_s, live.last_report_s, self._muted_until_s)
            ends_s = min(ends_s, heard_s + limits.silence)
        self._deadlines.put(ends_s, live.id)

    def stop_all(self, shutdown: Shutdown, actions: PostCommitActions) -> None:
        """Stop live attempts if the shutdown says so, and end paused and waiting trials."""
        if shutdown.stop is not None and shutdown is not self._stopped_for:
            self._stopped_for = shutdown
            reason = shutdown.reason
            if shutdown.stop is not StopCause.SHUTDOWN:
                # The reason is the study's: "pruned: every trial failed" would explain no trial.
                reason = f"the study ended: {reason}"
            for live in self._live_attempts:
                self.stop(live, shutdown.stop, reason, actions)
        if shutdown.ends_trials:
            self._end_waiting(shutdown)

    def _end_waiting(self, shutdown: Shutdown) -> None:
        while self._relaunch:
            number = self._relaunch.popleft()
            self._record_decision(number, "stop", shutdown.reason)
            self._end_unstarted(
                number,
                shutdown.stop or StopCause.PRUNE,
                shutdown.reason,
            )
        if self._paused:
            text = f"{len(self._paused)} trials are still paused: they count as pruned"
            self._notify("study", text)
        for number in list(self._paused):
            self._record_decision(
                number,
                "stop",
                f"still paused when the study ended: {shutdown.reason}",
            )
            self._end_paused(number, "", quietly=True)

    def _end_unstarted(self, number: int, cause: StopCause, reason: str) -> None:
        """End a trial that waits to be run again, with its reports so far."""
        curve = self._live_attempts.new_curve()
        for step, value in self._optimizer.trial(number).intermediate_values.items():
            curve.add(step, {self._spec.metrics[0].name: value})
        self._tell(
            number,
            conclude(self._spec, curve, StoppedEarly(), cause, reason),
            reason,
        )

    def _end_paused(self, number: int, reason: str, *, quietly: bool = False) -> None:
        """End a paused trial as pruned, with its last value."""
        curve = self._paused.pop(number)
        result = conclude(self._spec, curve, StoppedEarly(), StopCause.PRUNE)
        self._tell(number, result, reason, quietly=quietly)

    # --- ending ---------------------------------------------------------------------------------

    def end(self, ended: Ending) -> None:
        """Record an attempt's end, and apply its result to the trial."""
        live = ended.live
        outcome = live.forced_outcome or self._outcome_of_member(live, ended.outcome)
        result = conclude(
            self._spec,
            live.curve,
            outcome,
            live.stop_cause,
            live.stop_reason,
            live.forecast,
        )
        self._live_attempts.close(live, self._clock.now())
        self._record_end(live, result)
        if result.attempt_state is AttemptState.INTERRUPTED:
            self._relaunch.append(live.number)
        elif result.attempt_state is AttemptState.PAUSED:
            self._pause(live.number, live.curve)
            self._notify("paused", live.stop_reason, live.number)
        elif result.failure is not None:
            self._fail(live.number, result, result.failure)
        else:
            self._tell(live.number, result, live.stop_reason)

    def _outcome_of_member(self, live: LiveAttempt, outcome: Outcome) -> Outcome:
        """Return the outcome of an attempt by what is recorded, if it ran a stretch to its end.

        With its report and its checkpoint recorded, the stretch is done, however the attempt ended.
        """
        search, last = self._spec.search, live.curve.last.get(self._spec.metrics[0].name)
        if search is None or live.until is None or last is None or last[0] < live.until:
            return outcome
        is_stopped = isinstance(outcome, StoppedEarly) and live.stop_cause is None
        saved_step = self._record_of(live.number).after_step
        if live.until >= search.last_step:
            is_done = is_stopped or saved_step >= live.until
            return Finished() if is_done and not isinstance(outcome, Finished) else outcome
        if isinstance(outcome, Finished):
            return outcome
        if saved_step < live.until:
            text = f"the checkpoint of step {last[0]} was not stored"
            return Lost(text) if is_stopped else outcome
        if live.stop_cause is None or live.stop_cause.continues_trial:
            live.stop_cause, live.stop_reason = StopCause.PAUSE, f"at step {saved_step}"
        return outcome

    def recover(self, trial: UnfinishedTrial, actions: PostCommitActions) -> None:
        """Restore a trial that an earlier coordinator left unfinished."""
        record = self._live_attempts.record_of(trial.number)
        for attempt in trial.attempts:
            record.attempts = max(record.attempts, attempt.number)
            if attempt.failure is not None:
                record.failures[Failure(attempt.failure)] += 1
            if attempt.checkpoint is not None:
                record.checkpoint = attempt.checkpoint
                record.checkpoint_step = attempt.checkpoint_step
        if self._live_attempts.is_stepwise:
            record.checkpoint_step = self._last_evaluated(trial)
        self._record_of(trial.number)
        record.curve = self._curve_of(trial, up_to=record.after_step)
        last = trial.attempts[-1] if trial.attempts else None
        if last is not None and last.state is AttemptState.PAUSED:
            self._pause(trial.number, self._curve_of(trial))
        elif last is None or last.state.is_terminal:
            self._relaunch.append(trial.number)
        else:
            self._adopt(trial, last, actions)

    def _pause(self, number: int, curve: MetricTracker) -> None:
        self._paused[number] = curve
        record = self._record_of(number)
        self._optimizer.pause(number, record.after_step, record.checkpoint)

    def _adopt(
        self,
        trial: UnfinishedTrial,
        last: StoredExecution,
        actions: PostCommitActions,
    ) -> None:
        now = self._clock.now()
        params = self._optimizer.trial(trial.number).params
        live = self._live_attempts.adopt(
            trial.trial_id,
            last,
            trial.number,
            params,
            now_s=now,
        )
        live.curve = self._curve_of(trial)
        live.until = self._stop_after(self._began_after(trial))
        self._schedule_check(live, now)
        if last.stop_cause is not None:
            # The stop stays decided, but the request may not have reached the worker.
            live.stop_cause = StopCause(last.stop_cause)
            live.stop_reason = "stopped by the earlier coordinator"
            if self._live_attempts.is_stepwise and live.stop_cause is StopCause.PRUNE:
                live.forecast = trial.forecast
            self._stopped.append(live)
            actions.stops.append(live.id)

    def _last_evaluated(self, trial: UnfinishedTrial) -> int | None:
        """Return the step of the last fold or repeat before the first without a finite value."""
        last = None
        for step, metrics in self._reports_of(trial):
            if not self._live_attempts.is_evaluated(metrics):
                break
            last = step
        return last

    def _began_after(self, trial: UnfinishedTrial) -> int:
        """Return the step after which a trial's last attempt began."""
        saved = [one.checkpoint_step for one in trial.attempts[:-1] if one.checkpoint is not None]
        parent = parent_of(self._optimizer.trial(trial.number))
        step = saved[-1] if saved else None if parent is None else parent.step
        return -1 if step is None else step

    def _curve_of(
        self,
        trial: UnfinishedTrial,
        up_to: float = math.inf,
    ) -> MetricTracker:
        curve = self._live_attempts.new_curve()
        for step, metrics in self._reports_of(trial):
            if step <= up_to:
                curve.add(step, metrics)
        return curve

    def _reports_of(self, trial: UnfinishedTrial) -> Iterator[tuple[int, Mapping[str, float]]]:
        """Yield step and all metrics of a trial's reports, by step."""
        objective = self._spec.metrics[0].name
        for step, value, others in trial.reports:
            yield step, others if value is None else {objective: value, **others}

    def _record_end(self, live: LiveAttempt, result: Conclusion) -> None:
        end = EndRecord(
            *live.key(),
            state=result.attempt_state.value,
            failure=None if result.failure is None else str(result.failure),
            message=result.message,
            traceback=result.traceback,
            at_last_report=live.silent_since_s is not None,
        )
        self._changes.ends.append(end)

    def _fail(self, number: int, result: Conclusion, failure: Failure) -> None:
        failures = self._live_attempts.record_of(number).failures
        decision = policy.after_failure(failure, failures, self._spec.retries)
        failures[failure] += 1
        message = result.message or ""
        if isinstance(decision, policy.Retry):
            self._record_decision(number, "retry", decision.reason, {"message": message})
            self._relaunch.append(number)
            self._notify("retry", f"{decision.reason}: {message}", number)
            return
        self._record_decision(number, "fail", decision.reason, {"message": message})
        # As in Optuna, a failed trial has no values; the attempt's message has what was returned.
        self._optimizer.tell(
            number,
            TrialState.FAIL,
            attrs=result.metrics,
            failure=str(failure),
        )
        self._live_attempts.forget(number)
        self._progress.finished(self._optimizer.trial(number))
        text = message if failure is Failure.ERROR else f"{message} ({failure})"
        self._notify("failed", text, number)
        self._close_if_broken(failure, message)

    def _close_if_broken(self, failure: Failure, message: str) -> None:
        """End the study if every trial fails."""
        unexplained, results = self._progress.unexplained, self._progress.results
        is_broken = policy.is_broken(failure, unexplained, results, self._spec.limits)
        if not is_broken or self._paused or self._may_succeed(failure):
            return
        limit = f" (limits.failures: {self._spec.limits.failures})"
        if failure.affects_every_trial:
            limit = ""
        reason = f"every trial failed{limit}; the last one: {message}"
        self._close(Shutdown(StudyState.FAILED, reason, StopCause.STUDY_STOPPED))

    def _may_succeed(self, failure: Failure) -> bool:
        """Return True if a live attempt has reported something that the failed one had not."""
        if failure is Failure.WRONG_METRIC:
            names = {metric.name for metric in self._spec.metrics}
            return any(names & live.curve.last.keys() for live in self._live_attempts)
        return any(live.curve.last for live in self._live_attempts)

    def _tell(
        self,
        number: int,
        result: Conclusion,
        stop_reason: str,
        *,
        quietly: bool = False,
    ) -> None:
        if result.trial_state is None:
            raise AssertionError("an attempt without failure decides its trial's state")
        self._optimizer.tell(
            number,
            result.trial_state,
            result.values,
            constraints=result.constraints,
            attrs=result.metrics,
        )
        self._live_attempts.forget(number)
        trial = self._optimizer.trial(number)
        events = self._progress.finished(trial, stop_reason)
        if not quietly:
            for event in events:
                self._observer.on_event(event)
        if trial.state == TrialState.FAIL:
            self._notify("failed", result.message or f"stopped: {stop_reason}", number)
        if trial.state != TrialState.COMPLETE or not is_feasible(trial):
            return
        if policy.reached_target(self._spec.metrics, trial.values):
            reason = f"trial {number} reached the target"
            self._close(Shutdown(StudyState.FINISHED, reason, StopCause.TARGET))

    @property
    def _changes(self) -> StudyChanges:
        return self._step.changes

    def _record_decision(
        self,
        number: int,
        kind: str,
        reason: str,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self._changes.decisions.append(Decision(number, kind, reason, details or {}))


def _thinned(steps: Sequence[int]) -> Sequence[int]:
    """Return every n-th step, the last one included, so that a flood of reports delays no other."""
    return steps[:: -(1 + len(steps) // PRUNER_STEPS_MAX)]
