"""The coordinator: one study, one loop, one writer.

A step handles the attempts' events, decides, commits everything in one transaction, and only then
acts: it acknowledges, answers, stops and launches. So every action is recorded before it happens,
and a crash at any point leaves a state from which `recover` resumes. The decision records explain
why a step is one transaction.

All parts are handed in: the study writer, the optimizer that searches, the executor that runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from typing import get_args

from optuna.trial import FrozenTrial

from tunesvc import policy
from tunesvc.coordinator.attempt_state.live_attempts import OpenTrials
from tunesvc.coordinator.attempts import Lifecycle
from tunesvc.coordinator.commands import carry_out
from tunesvc.coordinator.event_handler import EventHandler
from tunesvc.coordinator.executor_monitor import ExecutorMonitor
from tunesvc.coordinator.post_commit_actions import AdoptAction, PostCommitActions
from tunesvc.coordinator.prefetch import Prefetcher, ProposalPrefetch
from tunesvc.coordinator.progress_events import Observer, SilentObserver
from tunesvc.coordinator.progress_publisher import ProgressPublisher
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.coordinator.slot_grant import SlotGrant
from tunesvc.coordinator.step_committer import StepCommitter, UnitOfWork
from tunesvc.coordinator.study_context import StudyContext
from tunesvc.coordinator.study_progress import RunStatus, StudyProgress
from tunesvc.db.recovery import UnfinishedTrial
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Decision
from tunesvc.errors import DatabaseUnavailable, ExecutorError
from tunesvc.execution.executor import Event, Executor, Outcome, SuggestRequested
from tunesvc.instrumentation import event_log, failpoints, latency
from tunesvc.policy import StopCause, Usage
from tunesvc.search.exhaustion import repetition
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.population.population import Continuation, Copy
from tunesvc.search.prefetched_proposals import Proposal
from tunesvc.search.pruning import Promotion
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.util.clock import Clock, SystemClock

RENEW_S = 2.5
"""Interval of renewing the leases of study and attempts; a step promotes no longer than this."""
COMMANDS_S = 1.0
"""Interval of looking for commands."""
WAIT_S = 0.2
"""Longest time that a step waits for an event."""
BATCH_WINDOW_S = 0.05
"""Time after a commit in which reports are collected, to be written together."""
ASK_S = 0.03
"""Longest time of asking in a step while workers wait for what it has already asked for; longer if
the rest of the step took longer."""
ASK_PREFETCH_S = 0.1
"""The same while all workers are busy: new attempts then only queue, and travel together."""
SAMPLER_ERRORS_MAX = 3
"""Number of consecutive sampler errors that pauses the study."""

_Move = policy.AskForTrials | policy.Drain | policy.Halt | policy.Finish


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """Resources that earlier runs of the study have used, and the code that they ran."""

    active_s: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    code: str | None = None
    """Digest of the objective's source."""


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Clock and threads of the loop; tests replace them."""

    clock: Clock = field(default_factory=SystemClock)
    sleep: Callable[[float], None] = time.sleep
    batch_window_s: float = BATCH_WINDOW_S
    commit_thread: futures.Executor | None = None
    """Commits steps while proposals are prefetched; None: a step waits for its commit."""


class Coordinator:
    """Runs one study under one lease."""

    def __init__(
        self,
        spec: StudySpec,
        *,
        study_writer: StudyWriter,
        optimizer: Optimizer,
        executor: Executor,
        refit: Callable[[StudySpec], None],
        observer: Observer | None = None,
        earlier: EarlierRuns | None = None,
        timing: StepTiming | None = None,
    ) -> None:
        """`refit`: makes the optimizer continue in the wider space of a spec."""
        earlier, timing = earlier or EarlierRuns(), timing or StepTiming()
        clock, observer = timing.clock, observer or SilentObserver()
        context = StudyContext(spec, study_writer.study_id, clock, observer)
        self.spec = spec
        self.grant = SlotGrant()
        """The part of the cluster that it may use; any thread may replace it."""
        self._applied_grant = self.grant
        self._refit = refit
        self._study_writer = study_writer
        self._optimizer = optimizer
        self._executor = executor
        self._clock = clock
        self._notify = context.notify
        self._batch_window_s = timing.batch_window_s
        self._live_attempts = OpenTrials(
            spec.metrics,
            earlier_cpu_hours=earlier.cpu_hours,
            earlier_gpu_hours=earlier.gpu_hours,
            is_stepwise=spec.is_stepwise,
        )
        self._event_handler = EventHandler(
            context,
            self._live_attempts,
            optimizer,
            code=earlier.code,
        )
        self._step = UnitOfWork(optimizer)
        self._progress = StudyProgress(spec, optimizer.trials)
        self._publisher = ProgressPublisher(self._progress, clock, observer)
        self._attempts = Lifecycle(
            context,
            live_attempts=self._live_attempts,
            optimizer=optimizer,
            step=self._step,
            progress=self._progress,
            close=self.close,
        )
        self._proposal_prefetch = ProposalPrefetch(optimizer, clock.now)
        self._attempt_prefetch = Prefetcher(executor.handover_s)
        self._monitor = ExecutorMonitor(executor, clock, observer)
        self._committer = StepCommitter(
            study_writer,
            executor,
            clock=clock,
            sleep=timing.sleep,
            observer=observer,
            commit_thread=timing.commit_thread,
        )
        self._is_asking = False
        """True if the last step asked for fewer trials than there are slots, for lack of time."""
        self._shutdown: Shutdown | None = None
        """The shutdown that has begun."""
        self._completed: Shutdown | None = None
        """The same, once nothing runs any more."""
        self._open_commands: dict[int, str] = {}
        """Kind by id of commands that take effect only when the study has ended."""
        self._sampler_errors = 0
        self._spent_wall_s = earlier.active_s
        self._counted_s = self._renewed_s = clock.now()
        self._commands_s = self._written_s = -1e9

    # --- the loop -------------------------------------------------------------------------------

    def recover(
        self,
        unfinished: Sequence[UnfinishedTrial],
        *,
        standby: bool = False,
    ) -> None:
        """Restore what an earlier coordinator left: adopt live attempts, rerun the other trials.

        A pending command to pause, stop or resume remains valid when a standby takes over. When a
        user resumes the study, it does not.
        """
        found = [trial.describe() for trial in unfinished]
        token = self._study_writer.token
        event_log.record(
            "recover",
            study=self._study_writer.study_id,
            token=token,
            found=found,
            trials=self._optimizer.count,
        )
        self._changes.adopts = True
        if not standby:
            self._reject_old_commands()
        actions = PostCommitActions()
        for trial in unfinished:
            self._attempts.recover(trial, actions)
        if self._live_attempts:
            # Their reports since the last coordinator's end have not arrived yet.
            self._monitor.distrust_silence()
        self._changes.alive = self._attempts.leases.renewals(None)
        self._changes.study_state = (StudyState.RUNNING, "")
        cursors = {live.id: live.cursor for live in self._live_attempts}
        actions.adoption = AdoptAction(token, cursors)
        self._commit(actions)
        failpoints.reach("recovered")

    def _reject_old_commands(self) -> None:
        for command in self._study_writer.commands():
            if command.kind not in ("pause", "stop", "resume"):
                continue
            if self._study_writer.predates_lease(command):
                answer = "the run that this was meant for had ended"
                self._changes.answered[command.command_id] = answer

    def run(
        self,
        interrupt: threading.Event | None = None,
        *,
        hands_over: bool = False,
    ) -> Shutdown:
        """Step until the study ends, or until `interrupt` is set and live attempts have stopped.

        Args:
            interrupt: ends the run in order.
            hands_over: return at once when interrupted. Attempts run on, as after a crash, and the
                next coordinator adopts them.

        Raises:
            LeaseLost: another coordinator took over.
            DatabaseUnavailable: interrupted while the database is away.
            ExecutorError: interrupted while Ray is away, so that the stop cannot be confirmed.
        """
        while True:
            if interrupt is not None and interrupt.is_set():
                if hands_over and not self._committer.is_behind:
                    failpoints.reach("leaving")
                    self._notify("study", Shutdown.handover().reason)
                    return Shutdown.handover()
                self._interrupt()
            shutdown = self.step()
            if shutdown is not None:
                return shutdown

    def _interrupt(self) -> None:
        if self._committer.is_behind:
            error = self._committer.database_error
            raise DatabaseUnavailable(self._interrupted("the database", error))
        if self._monitor.health_error and self._attempts.all_overdue:
            raise ExecutorError(self._interrupted("Ray", self._monitor.health_error))
        self.close(Shutdown(None, "interrupted", StopCause.SHUTDOWN))

    def step(self, wait_s: float = WAIT_S) -> Shutdown | None:
        """Perform one step; return the shutdown once it is complete, else None.

        While the database is away, a step retries the commit of the one before.

        Raises:
            LeaseLost: another coordinator took over; nothing of this step was written or done.
        """
        retries = self._committer.is_behind
        is_saved = self._committer.try_again(wait_s) if retries else self._run_step(wait_s)
        self._publisher.publish(
            self._live_attempts,
            self._usage(),
            self._status(),
            gpus_total=self._monitor.gpus_total,
            is_last=self._completed is not None,
        )
        return self._completed if is_saved else None

    def _run_step(self, wait_s: float) -> bool:
        """Handle events, decide, commit, act; return False when the database is away."""
        actions = PostCommitActions()
        self._optimizer.stamp_prefetched(self._study_writer.committed_at)
        self._attempts.start_grace_periods()
        events = self._listen(wait_s)
        self._monitor.on_listened()
        failpoints.reach("heard")
        self._end_attempts(events, actions)
        self._look_for_commands()
        self._monitor.check_health()
        nodes = self._monitor.nodes_if_due()
        if nodes is not None:
            self._changes.nodes = nodes
        self._attempts.send_requested_stops(actions)
        self._attempts.check_limits(actions, trusts_silence=self._monitor.trusts_silence)
        self._make_room(actions)
        self._optimizer.on_step_end()
        self._apply_policy(actions)
        self._complete_shutdown()
        failpoints.reach("decided")
        return self._commit(actions)

    def _make_room(self, actions: PostCommitActions) -> None:
        """Stop attempts that no longer have a part of the cluster."""
        grant, before = self.grant, self._applied_grant
        self._applied_grant = grant
        self._attempts.make_room(grant, actions)
        if grant.slots != before.slots:
            actions.worker_limits.append(grant.slots)
        if grant.slots is not None and (before.slots is None or grant.slots < before.slots):
            prefetched = self._attempt_prefetch.target(grant.slots)
            self._attempts.take_back(grant.slots + prefetched, actions)

    def _end_attempts(
        self,
        events: Sequence[Event],
        actions: PostCommitActions,
    ) -> None:
        """Handle events, run the pruner, and end the attempts that finished or were lost."""
        ended = self._event_handler.handle(events, self._step.changes, actions)
        self._attempts.run_pruner(actions)
        stalled = self._committer.pop_expired()
        if self._monitor.trusts_silence:
            ended += self._attempts.leases.expire(stalled, actions)
        failpoints.reach("handled")
        for attempt in ended:
            if attempt.live.started_s is not None:
                now = self._clock.now()
                self._attempt_prefetch.ended(now - attempt.live.started_s, now)
            self._attempts.end(attempt)
        self._proposal_prefetch.freed(len(ended))

    def _complete_shutdown(self) -> None:
        """Record the study's final state once nothing runs any more."""
        self._completed = self._shutdown if not self._live_attempts else None
        if self._completed is None or self._completed.state is None:
            return
        self._changes.study_state = (self._completed.state, self._completed.reason)
        self._changes.answered.update(dict.fromkeys(self._open_commands, ""))

    def _listen(self, wait_s: float) -> list[Event]:
        """Collect events; unless one is urgent, batch reports and prefetch proposals meanwhile."""
        until_s = self._clock.now() + wait_s
        # Without a slot there is nothing to decide before something changes.
        has_slots = self.grant.slots != 0
        events = list(self._executor.events(0.0 if self._live_attempts or has_slots else wait_s))
        while self._live_attempts and not self._is_asking and not _has_urgent(events):
            due_s = until_s
            if events:
                due_s = min(until_s, self._written_s + self._batch_window_s)
            left_s = due_s - self._clock.now()
            if left_s <= 0:
                break
            is_drawn = self._prefetch_proposal(self._study_writer.committed_at)
            more = self._executor.events(0.0 if is_drawn else left_s)
            if not more and not is_drawn:
                break
            events += more
        return events

    def _prefetch_proposal(self, step_time: str | None = None) -> bool:
        """Draw one more proposal in advance; return False when none is needed or possible."""
        if self._shutdown is not None:
            return False
        budget, slots = self.spec.budget.trials, self._parallelism()
        slots += self._attempt_prefetch.target(slots)
        left = slots if budget is None else budget - self._usage().trials
        return self._proposal_prefetch.fill(slots, left, step_time)

    def close(self, shutdown: Shutdown) -> None:
        """Begin a shutdown.

        The first one counts, but one that stops trials replaces one that lets them finish.
        """
        current = self._shutdown
        if current is not None and (shutdown.stop is None or current.stop is not None):
            return
        if shutdown.state is None and current is not None:
            # Interrupted during a pause: the study becomes paused all the same.
            shutdown = replace(shutdown, state=current.state)
        self._shutdown = shutdown
        self._notify("study", shutdown.reason)

    # --- operations of commands, see `ControllableStudy` ----------------------------------------

    def trial(self, number: int) -> FrozenTrial | None:
        """Return a trial of the study, or None when there is no such number."""
        return self._optimizer.trial(number) if number < self._optimizer.count else None

    def pause(self) -> str:
        """Ask for no more trials, and let live attempts finish."""
        self.close(Shutdown(StudyState.PAUSED, "paused by request", None))
        return ""

    def unpause(self) -> str:
        """Cancel a pause that is not complete yet."""
        if self._shutdown is not None and self._shutdown.state is StudyState.PAUSED:
            self._shutdown = None
            self._sampler_errors = 0
        for command_id, kind in list(self._open_commands.items()):
            if kind == "pause":
                self._changes.answered[command_id] = "taken back"
                del self._open_commands[command_id]
        return ""

    def stop(self) -> str:
        """Stop live attempts and end the study."""
        self.unpause()
        self.close(
            Shutdown(
                StudyState.STOPPED,
                "stopped by request",
                StopCause.STUDY_STOPPED,
            )
        )
        return ""

    @property
    def trials(self) -> int:
        """Number of trials that count against the budget, waiting ones included."""
        return self._optimizer.count - self._optimizer.cancelled

    def change_spec(self, spec: StudySpec) -> None:
        """Continue with a changed budget or parallelism."""
        self.spec = self._progress.spec = spec
        self._optimizer.repetition = repetition(spec, self._optimizer.space)
        self._changes.spec = spec.model_dump_json()

    def widen(self, spec: StudySpec, decision: Decision) -> None:
        """Continue in a wider space, and record the decision."""
        self._refit(spec)
        self.change_spec(spec)
        self._changes.decisions.append(decision)

    def enqueue(self, params: Mapping[str, ParamValue], origin: str) -> int:
        """Have a trial with these values run next; return its number."""
        return self._optimizer.enqueue(params, origin)

    def stop_trial(self, number: int, reason: str) -> str:
        """End an unfinished trial; the others continue."""
        return self._attempts.stop_one(number, reason)

    # --- deciding -------------------------------------------------------------------------------

    def _apply_policy(self, actions: PostCommitActions) -> None:
        """Apply the policy's next move, and the shutdown if there is one."""
        if self._shutdown is None:
            self._apply_move(actions)
        if self._shutdown is not None:
            self._attempts.stop_all(self._shutdown, actions)

    def _apply_move(self, actions: PostCommitActions) -> None:
        parallelism = self._parallelism()
        actions.parallelism = parallelism
        actions.worker_backlog = self._attempt_prefetch.worker_backlog
        slots = parallelism + self._attempt_prefetch.target(parallelism)
        match self._next_move(slots):
            case policy.Halt() as move:
                self.close(Shutdown(StudyState.FINISHED, move.reason, move.cause))
            case policy.Finish() as move:
                if not (move.promotes and self._promote(slots, actions, asks=0)):
                    failed, results = self._progress.failed_and_others
                    results += self._attempts.paused  # they end as pruned, with their last value
                    self.close(Shutdown.at_budget(move.reason, failed, results))
            case policy.Drain() as move:
                self._attempts.reopen(slots, actions)
                if move.promotes:
                    self._promote(slots, actions, asks=0)
            case policy.AskForTrials() as move if self._optimizer.population is not None:
                self._attempts.reopen(slots, actions)
                self._move_members(slots, actions, asks=move.trials)
            case policy.AskForTrials() as move:
                self._attempts.reopen(slots, actions)
                self._promote(slots, actions, asks=move.trials)
                self._ask(min(move.trials, slots - self._attempts.unfinished), actions)

    def _next_move(self, slots: int) -> _Move:
        usage = self._usage()
        expected = None
        if self.spec.budget.stop_when is not None:
            expected = self._progress.expected(usage)
        exhausted = self._optimizer.exhausted
        return policy.next_move(
            self.spec.budget,
            usage,
            slots,
            exhausted=exhausted,
            expected=expected,
        )

    def _promote(self, slots: int, actions: PostCommitActions, *, asks: int) -> bool:
        """Resume paused trials while there are slots, before new ones; return True if any was."""
        if self._optimizer.population is not None:
            return self._move_members(slots, actions, asks=asks)
        began_s, promoted = self._clock.now(), False
        while self._attempts.unfinished < slots and self._clock.now() - began_s <= RENEW_S:
            promotion = self._optimizer.promotion(asks=asks > 0)
            if promotion is None:
                break
            self._attempts.promote(promotion, actions)
            promoted = True
        return promoted

    def _move_members(self, slots: int, actions: PostCommitActions, *, asks: int) -> bool:
        """Continue, copy and begin members while there are slots; return True if any was."""
        began_s, moved = self._clock.now(), False
        while self._attempts.unfinished < slots and self._clock.now() - began_s <= RENEW_S:
            move = self._optimizer.next_move(asks=asks > 0)
            if move is None or self._shutdown is not None:
                break
            moved = True
            if isinstance(move, Continuation):
                self._attempts.promote(Promotion(move.number, move.reason, move.details), actions)
                continue
            if isinstance(move, Copy):
                self._attempts.replace(move)
                self._open_proposal(self._optimizer.ask_copy(move), actions)
            else:
                self._open_proposal(self._optimizer.ask(), actions)
            asks -= 1
        return moved

    def _ask(self, trials: int, actions: PostCommitActions) -> None:
        """Ask for trials and open their attempts, as long as the time of a step allows."""
        began_s = self._clock.now()
        self._is_asking = False
        longest_s = self._longest_ask_s(actions, began_s)
        for _ in range(trials):
            if self._shutdown is not None or self._optimizer.exhausted:
                return
            if self._clock.now() - began_s > longest_s:
                self._is_asking = True
                return
            with latency.timed("ask"):
                proposal = self._proposal_prefetch.ask()
            self._open_proposal(proposal, actions)

    def _open_proposal(self, proposal: Proposal, actions: PostCommitActions) -> None:
        """Record a new trial with its reason, and open its first attempt."""
        number, reason = proposal.number, proposal.reason
        self._changes.decisions.append(Decision(number, "ask", reason, proposal.details))
        self._watch_sampler(number, proposal.sampler_error, reason)
        self._attempts.open(number, actions)

    def _longest_ask_s(self, actions: PostCommitActions, began_s: float) -> float:
        """Return the time for asking: at least as long as the rest of the step has taken."""
        limit_s = ASK_S
        if actions.parallelism is not None and self._attempts.unfinished >= actions.parallelism:
            limit_s = ASK_PREFETCH_S
        return max(limit_s, began_s - self._monitor.listened_s)

    def _watch_sampler(self, number: int, error: str | None, reason: str) -> None:
        """Pause the study after too many sampler errors in a row."""
        if error is None:
            self._sampler_errors = 0
            return
        self._sampler_errors += 1
        self._changes.decisions.append(Decision(number, "sampler", error, {}))
        self._notify("warning", reason, number)
        if self._sampler_errors >= SAMPLER_ERRORS_MAX:
            reason = f"the sampler failed {SAMPLER_ERRORS_MAX} times in a row: {error}"
            self.close(Shutdown(StudyState.PAUSED, reason, None))

    def _look_for_commands(self) -> None:
        now = self._clock.now()
        # With nothing running, the study may end in this step: then commands cannot wait.
        if self._live_attempts and now - self._commands_s < COMMANDS_S:
            return
        self._commands_s = now
        try:
            commands = self._study_writer.commands()
        except DatabaseUnavailable:
            return  # The commit at the end of this step reports that, and waits.
        for command in commands:
            if command.command_id in self._open_commands:
                continue
            answer = carry_out(command, self)
            if command.kind in ("pause", "stop"):
                # Open until the study has ended, so that a coordinator that takes over sees it.
                self._open_commands[command.command_id] = command.kind
            else:
                self._changes.answered[command.command_id] = answer

    def _usage(self) -> Usage:
        return Usage(
            trials=self.trials - self._optimizer.enqueued,
            running=self._attempts.unfinished,
            wall_s=self._spent_wall_s + self._clock.now() - self._counted_s,
            gpu_hours=self._attempts.gpu_hours,
            cost=self._attempts.cost,
            currency="" if self.spec.cost is None else self.spec.cost.currency,
        )

    def _parallelism(self) -> int:
        slots = self._monitor.slots()
        granted = slots if self.grant.slots is None else self.grant.slots
        return min(slots, self.spec.parallelism or slots, granted)

    # --- acting ---------------------------------------------------------------------------------

    @property
    def _changes(self) -> StudyChanges:
        return self._step.changes

    def _commit(self, actions: PostCommitActions) -> bool:
        now = self._clock.now()
        is_due = now - self._renewed_s >= RENEW_S
        if is_due:
            self._renewed_s = now
            self._renew_leases()
        if not self._changes and not is_due:
            actions.perform(self._executor)
            return True
        self._changes.active_s = now - self._counted_s
        self._spent_wall_s += now - self._counted_s
        self._counted_s = now
        meanwhile = self._prefetch_proposal if self._proposal_prefetch.is_quick else None
        is_written = self._committer.write(self._step.take(), actions, meanwhile)
        self._written_s = self._clock.now()
        return is_written

    def _renew_leases(self) -> None:
        alive = self._executor.heartbeats()
        leases = self._attempts.leases
        if not self._monitor.health_error:
            leases.record_heartbeats(alive)
        self._changes.alive = leases.renewals(alive if self._monitor.trusts_silence else None)

    def _status(self) -> RunStatus:
        paused = self._attempts.paused
        if self._committer.database_error:
            reason = f"the database is away: {self._committer.database_error}"
            return RunStatus("waiting", reason, paused)
        error = self._monitor.health_error or self._monitor.capacity_error
        if error:
            return RunStatus("waiting", error, paused)
        if self._shutdown is not None:
            return RunStatus("closing", self._shutdown.reason, paused)
        return RunStatus("running", "", paused)

    def _interrupted(self, part: str, error: str) -> str:
        return (
            f"interrupted while {part} is away: {error}. What was recorded is safe; "
            f"`{self.spec.resume_command}` continues when it is back."
        )


_URGENT = (*get_args(Outcome), SuggestRequested)
"""Events after which something waits: a worker for a trial, or an attempt for a value."""


def _has_urgent(events: Sequence[Event]) -> bool:
    return any(isinstance(event.payload, _URGENT) for event in events)
