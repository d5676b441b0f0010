"""The coordinator: one study, one loop, one writer.

A step takes in what attempts said, decides, commits all of it in one transaction, and only then acts: acknowledges,
answers, stops, launches. So whatever was acted on is recorded, and a crash at any point leaves a state from which
`recover` goes on. See docs/decisions for why one transaction per step.

Everything concrete is handed in: the ledger that writes, the optimizer that searches, the executor that runs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from tunesvc import policy
from tunesvc.clock import Clock, SystemClock
from tunesvc.coordinator.commands import carry_out
from tunesvc.coordinator.effects import Effects
from tunesvc.coordinator.intake import Ended, Intake
from tunesvc.coordinator.outcome import Conclusion, conclude
from tunesvc.coordinator.progress import Note, Observer, SilentObserver
from tunesvc.coordinator.roster import Curve, History, LiveAttempt, Roster
from tunesvc.coordinator.scoreboard import Scoreboard
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.executor import Executor, Launch, Lost
from tunesvc.policy import Failure, StopCause, Usage
from tunesvc.search.optimizer import Optimizer
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.store.batch import AttemptEnd, Batch, Decision, OpenedAttempt, StopRequest
from tunesvc.store.ids import trial_id
from tunesvc.store.ledger import Ledger
from tunesvc.store.recovery import UnfinishedTrial
from tunesvc.store.states import AttemptState, StudyState

RENEW_S = 5.0
"""A lease is renewed at least this often."""
COMMANDS_S = 1.0
"""How often the coordinator looks for commands."""
SLOTS_S = 10.0
"""How often it asks how much the cluster holds: nodes come and go."""
WAIT_S = 0.2
"""The longest that a step waits for an event."""
SAMPLER_ERRORS_MAX = 3
"""So many asks in a row that the sampler could not answer pause the study."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The study runs no further: nothing more is asked, and when nothing runs any more the loop ends."""

    state: StudyState | None
    """The study's state afterwards; None to leave it as it is, so that `resume` goes on."""
    reason: str
    stop: StopCause | None
    """Why running attempts are stopped; None to let them come to their end."""


class Coordinator:
    """Runs one study under one lease."""

    def __init__(
        self,
        spec: StudySpec,
        *,
        ledger: Ledger,
        optimizer: Optimizer,
        executor: Executor,
        clock: Clock | None = None,
        observer: Observer | None = None,
        active_s: float = 0.0,
        gpu_hours: float = 0.0,
        code: str | None = None,
    ) -> None:
        """`active_s`, `gpu_hours`: what earlier runs of the study have spent; `code`: digest of what they ran."""
        self.spec = spec
        self._ledger = ledger
        self._optimizer = optimizer
        self._executor = executor
        self._clock = clock or SystemClock()
        self._observer = observer or SilentObserver()
        self._roster = Roster(spec.metrics)
        self._intake = Intake(spec, self._roster, optimizer, self._clock.now, self._observer, code=code)
        self._scoreboard = Scoreboard(spec, optimizer.trials)
        self._relaunch: deque[int] = deque()
        self._closing: Closing | None = None
        self._sampler_errors = 0
        self._spent_gpu_s = gpu_hours * 3600
        self._spent_wall_s = active_s
        now = self._clock.now()
        self._counted_s = self._committed_s = now
        self._looked_s = self._slots_s = -1e9
        self._slots = 1
        self._gpus_total = executor.capacity().gpu

    # --- the loop -----------------------------------------------------------------------------------

    def recover(self, unfinished: Sequence[UnfinishedTrial]) -> None:
        """Take up what an earlier coordinator left: its trials run on in new attempts, from their checkpoints."""
        self._batch.adopts = True
        for trial in unfinished:
            self._recover_trial(trial)
        self._batch.study_state = (StudyState.RUNNING, "")
        self._commit(Effects())

    def run(self, interrupt: threading.Event | None = None) -> Closing:
        """Step until the study is over, or until `interrupt` is set and what runs has stopped."""
        while True:
            if interrupt is not None and interrupt.is_set():
                self.close(Closing(None, "interrupted", StopCause.SHUTDOWN))
            closing = self.step()
            if closing is not None:
                return closing

    def step(self, wait_s: float = WAIT_S) -> Closing | None:
        """One step; returns how the study closed when it has, None while it goes on.

        Raises:
            LeaseLost: another coordinator took over; nothing of this step was written or done.
            DatabaseError: the database is gone; nothing of this step was done.
        """
        effects = Effects()
        events = self._executor.events(wait_s if self._roster else 0.0)
        for ended in self._intake.take(events, effects):
            self._end(ended)
        self._look_for_commands()
        self._judge(effects)
        self._watch_limits(effects)
        self._move(effects)
        over = self._closing is not None and not self._roster
        if over and self._closing is not None and self._closing.state is not None:
            self._batch.study_state = (self._closing.state, self._closing.reason)
        self._commit(effects)
        self._show()
        return self._closing if over else None

    def close(self, closing: Closing) -> None:
        """Begin to close. A shutdown overrides everything, since the user waits; else the first reason stands."""
        if self._closing is None or (closing.stop is StopCause.SHUTDOWN and self._closing.stop is None):
            self._closing = closing
            self._note("study", closing.reason)

    # --- what a command may do ----------------------------------------------------------------------

    def pause(self) -> None:
        """Ask for nothing more, let what runs finish."""
        self.close(Closing(StudyState.PAUSED, "paused by request", None))

    def unpause(self) -> None:
        """Take a pause back that has not come to its end."""
        if self._closing is not None and self._closing.state is StudyState.PAUSED:
            self._closing = None
            self._sampler_errors = 0

    def stop(self) -> None:
        """Stop what runs and end the study."""
        self.unpause()
        self.close(Closing(StudyState.STOPPED, "stopped by request", StopCause.COMMAND))

    def change_spec(self, spec: StudySpec) -> None:
        """Go on under a changed budget."""
        self.spec = self._scoreboard.spec = spec
        self._batch.spec = spec.model_dump_json()

    def enqueue(self, params: Mapping[str, ParamValue]) -> int:
        """Have a trial with these values asked next; returns its number."""
        return self._optimizer.enqueue(params)

    # --- deciding -----------------------------------------------------------------------------------

    def _move(self, effects: Effects) -> None:
        if self._optimizer.exhausted:
            self.close(Closing(StudyState.FINISHED, "the sampler has nothing left to propose", None))
        if self._closing is None:
            move = policy.next_move(self.spec.budget, self._usage(), self._parallelism())
            match move:
                case policy.Halt():
                    self.close(Closing(StudyState.FINISHED, move.reason, move.cause))
                case policy.Finish():
                    self.close(Closing(StudyState.FINISHED, move.reason, None))
                case policy.Ask():
                    self._fill(move.trials, effects)
                case policy.Drain():
                    self._fill(0, effects)
        if self._closing is not None and self._closing.stop is not None:
            for live in self._roster:
                self._stop(live, self._closing.stop, self._closing.reason, effects)

    def _fill(self, asks: int, effects: Effects) -> None:
        """Launch what has to be run again first, then new trials."""
        while self._relaunch and len(self._roster) < self._parallelism():
            self._open(self._relaunch.popleft(), effects)
        for _ in range(asks):
            if self._closing is None:
                self._open(self._ask(), effects)

    def _ask(self) -> int:
        proposal = self._optimizer.ask()
        self._batch.decisions.append(Decision(proposal.number, "ask", proposal.reason, proposal.details))
        if proposal.sampler_error is None:
            self._sampler_errors = 0
            return proposal.number
        self._sampler_errors += 1
        self._batch.decisions.append(Decision(proposal.number, "sampler", proposal.sampler_error, {}))
        self._note("warning", proposal.reason, proposal.number)
        if self._sampler_errors >= SAMPLER_ERRORS_MAX:
            reason = f"the sampler failed {SAMPLER_ERRORS_MAX} times in a row: {proposal.sampler_error}"
            self.close(Closing(StudyState.PAUSED, reason, None))
        return proposal.number

    def _judge(self, effects: Effects) -> None:
        for live in self._roster:
            if not live.unjudged or live.stop_cause is not None:
                continue
            live.unjudged = False
            verdict = self._optimizer.verdict(live.number)
            if verdict is not None:
                self._batch.decisions.append(Decision(live.number, "prune", verdict.reason, verdict.details))
                self._stop(live, StopCause.PRUNE, verdict.reason, effects)

    def _watch_limits(self, effects: Effects) -> None:
        now = self._clock.now()
        for live in self._roster:
            if live.stop_by_s is not None and now >= live.stop_by_s and not live.killed:
                live.killed = True
                effects.kills.append(live.id)
            if live.started_s is None or live.stop_cause is not None:
                continue
            exceeded = policy.overdue(self.spec.limits, now - live.started_s, now - live.heard_s)
            if exceeded is not None:
                cause, reason = exceeded
                self._batch.decisions.append(Decision(live.number, "stop", reason, {}))
                self._stop(live, cause, reason, effects)

    def _look_for_commands(self) -> None:
        now = self._clock.now()
        if now - self._looked_s >= COMMANDS_S:
            self._looked_s = now
            for command in self._ledger.commands():
                self._batch.answered[command.command_id] = carry_out(command, self)

    def _usage(self) -> Usage:
        now = self._clock.now()
        held_gpu_s = sum(live.gpus * live.held_s(now) for live in self._roster)
        return Usage(
            trials=len(self._optimizer.trials) - self._optimizer.enqueued,
            running=len(self._roster) + len(self._relaunch),
            wall_s=self._spent_wall_s + now - self._counted_s,
            gpu_hours=(self._spent_gpu_s + held_gpu_s) / 3600,
        )

    def _parallelism(self) -> int:
        now = self._clock.now()
        if now - self._slots_s >= SLOTS_S:
            self._slots_s = now
            self._slots = self._count_slots()
        return min(self._slots, self.spec.parallelism or self._slots)

    def _count_slots(self) -> int:
        try:
            return self._executor.slots()
        except UnsatisfiableRequest as error:
            if not self._roster:
                raise
            self._note("warning", str(error))
            return self._slots

    # --- attempts -----------------------------------------------------------------------------------

    def _open(self, number: int, effects: Effects) -> None:
        resources = self.spec.resources
        history = self._roster.history(number)
        after_step = history.after_step
        if history.attempts:
            self._optimizer.memory.forget_after(number, after_step)
        live = self._roster.open(
            trial_id(self._ledger.study_id, number),
            number,
            self._optimizer.trial(number).params,
            gpus=resources.gpu * resources.workers,
            now_s=self._clock.now(),
        )
        self._batch.opened.append(OpenedAttempt(*live.key(), resources.cpu * resources.workers, live.gpus, after_step))
        params = {**self.spec.constants, **live.params}
        seed = (self.spec.seed or 0) * 1_000_003 + number
        effects.launches.append(Launch(live.id, number, params, seed % 2**32, history.checkpoint))

    def _stop(self, live: LiveAttempt, cause: StopCause, reason: str, effects: Effects) -> None:
        """Ask the attempt to stop; the first cause stands, but for a shutdown, which must not count as a result."""
        if live.stop_cause is not None:
            return
        live.stop_cause, live.stop_reason = cause, reason
        live.stop_by_s = self._clock.now() + self.spec.limits.grace
        self._batch.stops.append(StopRequest(*live.key(), cause))
        effects.stops.append(live.id)

    def _end(self, ended: Ended) -> None:
        live = ended.live
        conclusion = conclude(self.spec, live.curve, ended.outcome, live.stop_cause)
        self._spent_gpu_s += live.gpus * live.held_s(self._clock.now())
        self._record_end(live, conclusion)
        if conclusion.attempt_state is AttemptState.INTERRUPTED:
            self._roster.close(live)
            self._relaunch.append(live.number)
        elif conclusion.failure is not None:
            self._fail(live, conclusion, conclusion.failure)
        else:
            self._tell(live, conclusion)

    def _record_end(self, live: LiveAttempt, conclusion: Conclusion) -> None:
        failure = None if conclusion.failure is None else str(conclusion.failure)
        end = AttemptEnd(
            *live.key(),
            state=conclusion.attempt_state.value,
            failure=failure,
            message=conclusion.message,
            traceback=conclusion.traceback,
            at_last_word=live.adopted,
        )
        self._batch.ends.append(end)

    def _fail(self, live: LiveAttempt, conclusion: Conclusion, failure: Failure) -> None:
        history = self._roster.history(live.number)
        decision = policy.after_failure(failure, history.failures, self.spec.retries)
        history.failures[failure] += 1
        message = conclusion.message or ""
        if isinstance(decision, policy.Retry):
            self._batch.decisions.append(Decision(live.number, "retry", decision.reason, {"message": message}))
            self._roster.close(live)
            self._relaunch.append(live.number)
            self._note("retry", f"{decision.reason}: {message}", live.number)
            return
        self._batch.decisions.append(Decision(live.number, "fail", decision.reason, {"message": message}))
        self._optimizer.tell(live.number, TrialState.FAIL, conclusion.values, attrs=conclusion.metrics)
        self._roster.forget(live)
        self._scoreboard.finished(self._optimizer.trial(live.number))
        self._note("failed", f"{failure}: {message}", live.number)
        if failure.ends_study:
            self.close(Closing(StudyState.FAILED, message, StopCause.COMMAND))
        elif self._scoreboard.is_hopeless:
            reason = f"every trial failed, {policy.FAILURES_AT_FIRST} of them; the last one: {failure}: {message}"
            self.close(Closing(StudyState.FAILED, reason, StopCause.COMMAND))

    def _tell(self, live: LiveAttempt, conclusion: Conclusion) -> None:
        if conclusion.trial_state is None:
            raise AssertionError("an attempt without failure decides its trial's state")
        self._optimizer.tell(
            live.number,
            conclusion.trial_state,
            conclusion.values,
            constraints=conclusion.constraints,
            attrs=conclusion.metrics,
        )
        self._roster.forget(live)
        trial = self._optimizer.trial(live.number)
        for note in self._scoreboard.finished(trial, live.stop_reason):
            self._observer.note(note)
        if trial.state == TrialState.COMPLETE and policy.reached_target(self.spec.metrics, trial.values):
            self.close(Closing(StudyState.FINISHED, f"trial {live.number} reached the target", StopCause.TARGET))

    def _recover_trial(self, trial: UnfinishedTrial) -> None:
        history = self._roster.history(trial.number)
        _fill_history(history, trial, self._roster.new_curve(), self.spec)
        last = trial.attempts[-1] if trial.attempts else None
        if last is None or last.state.is_terminal:
            self._relaunch.append(trial.number)
            return
        live = self._roster.adopt(trial.trial_id, trial.number, self._optimizer.trial(trial.number).params)
        # A stop that was decided stands; else the end of its coordinator is no fault of the attempt's.
        live.stop_cause = StopCause(last.stop_cause) if last.stop_cause else StopCause.SHUTDOWN
        for step, value, metrics in trial.reports:
            live.curve.add(step, _with_objective(self.spec, value, metrics))
        self._end(Ended(live, Lost("its coordinator ended")))

    # --- acting -------------------------------------------------------------------------------------

    @property
    def _batch(self) -> Batch:
        return self._optimizer.memory.batch

    def _commit(self, effects: Effects) -> None:
        now = self._clock.now()
        if self._batch or now - self._committed_s >= RENEW_S:
            self._committed_s = now
            self._batch.active_s = now - self._counted_s
            self._spent_wall_s += now - self._counted_s
            self._counted_s = now
            self._ledger.commit(self._optimizer.memory.take_batch())
        effects.perform(self._executor)

    def _show(self) -> None:
        closing = self._closing
        progress = self._scoreboard.progress(
            self._roster,
            self._usage(),
            state="running" if closing is None else "closing",
            reason="" if closing is None else closing.reason,
            now_s=self._clock.now(),
            gpus_total=self._gpus_total,
        )
        self._observer.progress(progress)

    def _note(self, kind: str, text: str, number: int | None = None) -> None:
        self._observer.note(Note(kind, text, number))


def _fill_history(history: History, trial: UnfinishedTrial, curve: Curve, spec: StudySpec) -> None:
    """What the trial's earlier attempts left, from the store."""
    history.attempts = max((attempt.number for attempt in trial.attempts), default=0)
    history.failures.update(Failure(a.failure) for a in trial.attempts if a.failure is not None)
    for attempt in trial.attempts:
        if attempt.checkpoint is not None:
            history.checkpoint, history.checkpoint_step = attempt.checkpoint, attempt.checkpoint_step
    history.curve = curve
    for step, value, metrics in trial.reports:
        if step <= history.after_step:
            curve.add(step, _with_objective(spec, value, metrics))


def _with_objective(spec: StudySpec, value: float | None, metrics: Mapping[str, float]) -> Mapping[str, float]:
    return metrics if value is None else {spec.metrics[0].name: value, **metrics}
