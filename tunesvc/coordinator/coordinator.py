"""The coordinator: one study, one loop, one writer.

A step takes in what attempts said, decides, commits all of it in one transaction, and only then acts: acknowledges,
answers, stops, launches. So whatever was acted on is recorded, and a crash at any point leaves a state from which
`recover` goes on. See docs/decisions for why one transaction per step.

Everything concrete is handed in: the ledger that writes, the optimizer that searches, the executor that runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import replace
from typing import get_args

from optuna.trial import FrozenTrial

from tunesvc import policy
from tunesvc.coordinator.attempts import Attempts
from tunesvc.coordinator.commands import carry_out
from tunesvc.coordinator.event_handler import EventHandler
from tunesvc.coordinator.live_attempts import LiveAttempts
from tunesvc.coordinator.post_commit_actions import AdoptAction, PostCommitActions
from tunesvc.coordinator.prefetch import AttemptPrefetch, ProposalPrefetch
from tunesvc.coordinator.progress_events import Observer, ProgressEvent, SilentObserver
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.coordinator.step_committer import StepCommitter, UnitOfWork
from tunesvc.coordinator.study_progress import StudyProgress
from tunesvc.db.recovery import UnfinishedTrial
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Decision
from tunesvc.errors import DatabaseUnavailable, ExecutorError, UnsatisfiableRequest
from tunesvc.execution.executor import Event, Executor, Outcome, SuggestRequested
from tunesvc.instrumentation import event_log, failpoints
from tunesvc.policy import StopCause, Usage
from tunesvc.search.exhaustion import is_distinct
from tunesvc.search.optimizer import Optimizer
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.util.clock import Clock, SystemClock

RENEW_S = 2.5
"""The leases of the study and of its attempts are renewed at least this often; a step asks for no longer."""
COMMANDS_S = 1.0
"""How often the coordinator looks for commands."""
SLOTS_S = 2.0
"""How often it asks how much the cluster holds for the study: nodes come and go, and so do other studies."""
NODES_S = 10.0
"""How often it records what the cluster has."""
WAIT_S = 0.2
"""The longest that a step waits for an event."""
GATHER_S = 0.05
"""Reports that come sooner than this after a commit are written together with those that follow."""
ASK_S = 0.03
"""A step asks no longer than this, or than the rest of it took, when workers wait for what it has asked already."""
ASK_AHEAD_S = 0.1
"""The same when all workers have something to do: what is asked then stands in their lines and travels together."""
SHOW_S = 0.2
"""Observers are told no more often than this while all that changes is what running trials report."""
SHOW_SHARE = 0.03
"""Of the time, at most, that goes into telling them: of thousands of running trials there is a lot to tell."""
GAP_S = 5.0
"""Who has not listened for so long has missed something."""
SETTLE_S = 15.0
"""So long after such a gap nothing is concluded from silence: every worker has spoken by then, if it can."""
SAMPLER_ERRORS_MAX = 3
"""So many asks in a row that the sampler could not answer pause the study."""


class Coordinator:
    """Runs one study under one lease."""

    def __init__(
        self,
        spec: StudySpec,
        *,
        ledger: StudyWriter,
        optimizer: Optimizer,
        executor: Executor,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
        observer: Observer | None = None,
        active_s: float = 0.0,
        gpu_hours: float = 0.0,
        code: str | None = None,
        refit: Callable[[StudySpec], None],
        gather_s: float = GATHER_S,
        beside: futures.Executor | None = None,
    ) -> None:
        """Args besides its parts.

        active_s, gpu_hours: what earlier runs of the study have spent.
        code: digest of what they ran.
        refit: has the optimizer go on in a wider space.
        gather_s: see `GATHER_S`.
        beside: a thread in which steps are committed while proposals are drawn ahead.
        """
        self.spec = spec
        self._refit = refit
        self._ledger = ledger
        self._optimizer = optimizer
        self._executor = executor
        self._clock = clock or SystemClock()
        self._observer = observer or SilentObserver()
        self._roster = LiveAttempts(spec.metrics)
        self._step = UnitOfWork(optimizer)
        self._intake = EventHandler(spec, self._roster, optimizer, self._clock.now, self._observer, code=code)
        self._scoreboard = StudyProgress(spec, optimizer.trials)
        self._attempts = Attempts(
            spec,
            ledger.study_id,
            roster=self._roster,
            optimizer=optimizer,
            step=self._step,
            scoreboard=self._scoreboard,
            clock=self._clock,
            observer=self._observer,
            close=self.close,
            gpu_hours=gpu_hours,
        )
        self._proposals = ProposalPrefetch(optimizer, self._clock.now)
        self._backlog = AttemptPrefetch(executor.handover_s)
        self._gather_s = gather_s
        self._is_asking = False
        self._writer = StepCommitter(
            ledger, executor, clock=self._clock, sleep=sleep, observer=self._observer, beside=beside
        )
        self._closing: Shutdown | None = None
        self._closed: Shutdown | None = None
        self._under_way: dict[int, str] = {}
        self._trouble = self._lack = ""
        self._sampler_errors = 0
        self._spent_wall_s = active_s
        now = self._clock.now()
        self._counted_s = self._renewed_s = self._listened_s = now
        self._settled_s = now
        self._looked_s = self._slots_s = self._told_s = self._written_s = self._shown_s = -1e9
        self._shown: tuple[object, ...] = ()
        self._show_took_s = 0.0
        self._slots = 1
        self._gpus_total = executor.capacity().gpu

    # --- the loop -----------------------------------------------------------------------------------

    def recover(self, unfinished: Sequence[UnfinishedTrial], *, standby: bool = False) -> None:
        """Take up what an earlier coordinator left: what still runs is gone on with, the rest is run again.

        A request to stop or pause that it did not bring to its end is still meant when a standby takes over; when
        somebody resumes the study, it is not.
        """
        found = [trial.describe() for trial in unfinished]
        event_log.record("recover", token=self._ledger.token, found=found, trials=self._optimizer.count)
        self._batch.adopts = True
        for command in self._ledger.commands():
            if command.kind in ("pause", "stop", "resume") and not standby and self._ledger.predates_lease(command):
                self._batch.answered[command.command_id] = "the run that this was meant for had ended"
        effects = PostCommitActions()
        for trial in unfinished:
            self._attempts.recover(trial, effects)
        if self._roster:  # they have spoken to nobody since the last coordinator
            self._settled_s = self._clock.now() + SETTLE_S
        self._batch.alive = self._attempts.leases(None)
        self._batch.study_state = (StudyState.RUNNING, "")
        effects.adoption = AdoptAction(self._ledger.token, {live.id: live.cursor for live in self._roster})
        self._commit(effects)
        failpoints.reach("recovered")

    def run(self, interrupt: threading.Event | None = None) -> Shutdown:
        """Step until the study is over, or until `interrupt` is set and what runs has stopped.

        Raises:
            LeaseLost: another coordinator took over.
            DatabaseUnavailable: interrupted while the database is away.
            ExecutorError: interrupted while Ray is away, so that nobody hears whether trials have stopped.
        """
        while True:
            if interrupt is not None and interrupt.is_set():
                if self._writer.is_behind:
                    raise DatabaseUnavailable(self._interrupted("the database", self._writer.trouble))
                if self._trouble and self._attempts.all_overdue:
                    raise ExecutorError(self._interrupted("Ray", self._trouble))
                self.close(Shutdown(None, "interrupted", StopCause.SHUTDOWN))
            closing = self.step()
            if closing is not None:
                return closing

    def step(self, wait_s: float = WAIT_S) -> Shutdown | None:
        """One step; returns how the study closed when it has, None while it goes on.

        While the database is away, a step is another try at committing the one before.

        Raises:
            LeaseLost: another coordinator took over; nothing of this step was written or done.
        """
        saved = self._writer.try_again(wait_s) if self._writer.is_behind else self._decide(wait_s)
        self._publish_progress()
        return self._closed if saved else None

    def _decide(self, wait_s: float) -> bool:
        """Take in, decide, commit, act; False when the database is away."""
        effects = PostCommitActions()
        self._optimizer.stamp_prefetched(self._ledger.moment)
        self._attempts.start_grace_periods()
        events = self._listen(wait_s)
        self._detect_pause()
        failpoints.reach("heard")
        over = self._intake.take(events, self._step.changes, effects)
        self._attempts.judge(effects)
        stalled = self._writer.pop_expired()
        over += self._attempts.expire(stalled if self._is_settled else (), effects)
        failpoints.reach("judged")
        for ended in over:
            if ended.live.started_s is not None:
                now = self._clock.now()
                self._backlog.ended(now - ended.live.started_s, now)
            self._attempts.end(ended)
        self._proposals.freed(len(over))
        self._look_for_commands()
        self._check_executor()
        self._record_nodes()
        self._attempts.watch_limits(effects, hearing=self._is_settled)
        self._optimizer.on_step_end()
        self._move(effects)
        self._closed = self._closing if not self._roster else None
        if self._closed is not None and self._closed.state is not None:
            self._batch.study_state = (self._closed.state, self._closed.reason)
            self._batch.answered.update(dict.fromkeys(self._under_way, ""))
        failpoints.reach("decided")
        return self._commit(effects)

    def _listen(self, wait_s: float) -> list[Event]:
        """What attempts say. While nobody waits for an answer, reports gather, and proposals are drawn ahead."""
        until_s = self._clock.now() + wait_s
        heard = list(self._executor.events(0.0))
        while self._roster and not self._is_asking and not any(isinstance(e.payload, _URGENT) for e in heard):
            due_s = min(until_s, self._written_s + self._gather_s) if heard else until_s
            left_s = due_s - self._clock.now()
            if left_s <= 0:
                break
            is_drawn = self._draw_ahead(self._ledger.moment)
            more = self._executor.events(0.0 if is_drawn else left_s)
            if not more and not is_drawn:
                break
            heard += more
        return heard

    def _draw_ahead(self, moment: str | None = None) -> bool:
        """Have one more proposal ready; False when that is not wanted, or cannot be."""
        if self._closing is not None:
            return False
        budget, slots = self.spec.budget.trials, self._parallelism()
        slots += self._backlog.wanted(slots)
        left = slots if budget is None else budget - self._usage().trials
        return self._proposals.fill(slots, left, moment)

    def close(self, closing: Shutdown) -> None:
        """Begin to close. What stops trials overrides what lets them finish; else the first reason stands."""
        if self._closing is None or (closing.stop is not None and self._closing.stop is None):
            if closing.state is None and self._closing is not None:
                closing = replace(closing, state=self._closing.state)  # interrupted while it was being paused
            self._closing = closing
            self._note("study", closing.reason)

    # --- what a command may do ----------------------------------------------------------------------

    def trial(self, number: int) -> FrozenTrial | None:
        """A trial of the study, or None when there is no such number."""
        return self._optimizer.trial(number) if number < self._optimizer.count else None

    def pause(self) -> str:
        """Ask for nothing more, let what runs finish."""
        self.close(Shutdown(StudyState.PAUSED, "paused by request", None))
        return ""

    def unpause(self) -> str:
        """Take a pause back that has not come to its end."""
        if self._closing is not None and self._closing.state is StudyState.PAUSED:
            self._closing = None
            self._sampler_errors = 0
        for command_id in [key for key, kind in self._under_way.items() if kind == "pause"]:
            self._batch.answered[command_id] = "taken back"
            del self._under_way[command_id]
        return ""

    def stop(self) -> str:
        """Stop what runs and end the study."""
        self.unpause()
        self.close(Shutdown(StudyState.STOPPED, "stopped by request", StopCause.COMMAND))
        return ""

    @property
    def trials(self) -> int:
        """Trials that count against the budget, those that wait included."""
        return self._optimizer.count - self._optimizer.cancelled

    def change_spec(self, spec: StudySpec) -> None:
        """Go on under a changed budget or parallelism."""
        self.spec = self._scoreboard.spec = spec
        self._optimizer.is_distinct = is_distinct(spec, self._optimizer.space)
        self._batch.spec = spec.model_dump_json()

    def widen(self, spec: StudySpec, decision: Decision) -> None:
        """Go on in a wider space, and record that."""
        self._refit(spec)
        self.change_spec(spec)
        self._batch.decisions.append(decision)

    def enqueue(self, params: Mapping[str, ParamValue], origin: str) -> int:
        """Have a trial with these values asked next; returns its number."""
        return self._optimizer.enqueue(params, origin)

    def stop_trial(self, number: int, reason: str) -> str:
        """End a trial that is not over, and go on with the others."""
        return self._attempts.stop_one(number, reason)

    # --- deciding -----------------------------------------------------------------------------------

    def _move(self, effects: PostCommitActions) -> None:
        if self._closing is None:
            effects.parallelism, effects.line = self._parallelism(), self._backlog.line
            slots = effects.parallelism + self._backlog.wanted(effects.parallelism)
            usage = self._usage()
            expected = None if self.spec.budget.stop_when is None else self._scoreboard.expected(usage)
            exhausted = self._optimizer.exhausted
            move = policy.next_move(self.spec.budget, usage, slots, exhausted=exhausted, expected=expected)
            match move:
                case policy.Halt():
                    self.close(Shutdown(StudyState.FINISHED, move.reason, move.cause))
                case policy.Finish():
                    if not (move.promotes and self._promote(slots, effects, asks=0)):
                        self.close(Shutdown.at_budget(move.reason, *self._scoreboard.failed_and_others))
                case policy.Drain():
                    self._attempts.reopen(slots, effects)
                    if move.promotes:
                        self._promote(slots, effects, asks=0)
                case policy.AskForTrials():
                    self._attempts.reopen(slots, effects)
                    self._promote(slots, effects, asks=move.trials)
                    self._ask(min(move.trials, slots - self._attempts.unfinished), effects)
        if self._closing is not None:
            self._attempts.stop_all(self._closing, effects)

    def _promote(self, slots: int, effects: PostCommitActions, *, asks: int) -> bool:
        """Go on with paused trials while there are slots, before anything new is asked; returns whether any does."""
        began_s, promoted = self._clock.now(), False
        while self._attempts.unfinished < slots and self._clock.now() - began_s <= RENEW_S:
            promotion = self._optimizer.promotion(asks=asks > 0)
            if promotion is None:
                break
            self._attempts.promote(promotion, effects)
            promoted = True
        return promoted

    def _ask(self, trials: int, effects: PostCommitActions) -> None:
        began_s = self._clock.now()
        self._is_asking = False
        is_ahead = effects.parallelism is not None and self._attempts.unfinished >= effects.parallelism
        longest_s = max(ASK_AHEAD_S if is_ahead else ASK_S, began_s - self._listened_s)
        for _ in range(trials):
            if self._closing is not None or self._optimizer.exhausted:
                return
            if self._clock.now() - began_s > longest_s:
                self._is_asking = True
                return
            proposal = self._proposals.ask()
            self._batch.decisions.append(Decision(proposal.number, "ask", proposal.reason, proposal.details))
            self._watch_sampler(proposal.number, proposal.sampler_error, proposal.reason)
            self._attempts.open(proposal.number, effects)

    def _watch_sampler(self, number: int, error: str | None, reason: str) -> None:
        if error is None:
            self._sampler_errors = 0
            return
        self._sampler_errors += 1
        self._batch.decisions.append(Decision(number, "sampler", error, {}))
        self._observer.on_event(ProgressEvent("warning", reason, number))
        if self._sampler_errors >= SAMPLER_ERRORS_MAX:
            told = f"the sampler failed {SAMPLER_ERRORS_MAX} times in a row: {error}"
            self.close(Shutdown(StudyState.PAUSED, told, None))

    def _look_for_commands(self) -> None:
        now = self._clock.now()
        if self._roster and now - self._looked_s < COMMANDS_S:  # with nothing running, the study may end in this step
            return
        self._looked_s = now
        try:
            commands = self._ledger.commands()
        except DatabaseUnavailable:
            return  # the commit, which follows, says so and waits
        for command in commands:
            if command.command_id in self._under_way:
                continue
            answer = carry_out(command, self)
            if command.kind in ("pause", "stop"):  # until the study is closed, whoever takes over has to know of it
                self._under_way[command.command_id] = command.kind
            else:
                self._batch.answered[command.command_id] = answer

    def _detect_pause(self) -> None:
        """An outage, a freeze, a slow step, or Ray's absence: what was missed meanwhile has to be heard first."""
        now = self._clock.now()
        if now - self._listened_s > GAP_S or self._trouble:
            self._settled_s = now + SETTLE_S
        self._listened_s = now

    @property
    def _is_settled(self) -> bool:
        return self._clock.now() >= self._settled_s

    def _check_executor(self) -> None:
        trouble = self._executor.health_error()
        if trouble != self._trouble:
            self._trouble = trouble
            self._note("warning", trouble) if trouble else self._note("study", "Ray is back")

    def _record_nodes(self) -> None:
        """Record what the cluster has, for whoever wants to know what waits and why."""
        now = self._clock.now()
        if now - self._told_s >= NODES_S and not self._trouble:
            self._told_s = now
            self._batch.nodes = self._executor.capacity().by_node

    def _usage(self) -> Usage:
        return Usage(
            trials=self.trials - self._optimizer.enqueued,
            running=self._attempts.unfinished,
            wall_s=self._spent_wall_s + self._clock.now() - self._counted_s,
            gpu_hours=self._attempts.gpu_hours,
        )

    def _parallelism(self) -> int:
        now = self._clock.now()
        if now - self._slots_s >= SLOTS_S:
            self._slots_s = now
            self._slots = self._count_slots()
        return min(self._slots, self.spec.parallelism or self._slots)

    def _count_slots(self) -> int:
        try:
            slots = self._executor.slots()
        except (
            UnsatisfiableRequest
        ) as error:  # it could be met when the run began, so nodes have gone and may come back
            if str(error) != self._lack:
                self._note("warning", str(error))
            self._lack = str(error)
            return self._slots
        self._lack = ""
        return slots

    # --- acting -------------------------------------------------------------------------------------

    @property
    def _batch(self) -> StudyChanges:
        return self._step.changes

    def _commit(self, effects: PostCommitActions) -> bool:
        now = self._clock.now()
        is_due = now - self._renewed_s >= RENEW_S
        if is_due:
            self._renewed_s = now
            alive = self._executor.heartbeats()
            if not self._trouble:
                self._attempts.hear(alive)
            self._batch.alive = self._attempts.leases(alive if self._is_settled else None)
        if not self._batch and not is_due:
            effects.perform(self._executor)
            return True
        self._batch.active_s = now - self._counted_s
        self._spent_wall_s += now - self._counted_s
        self._counted_s = now
        meanwhile = self._draw_ahead if self._proposals.is_quick else None
        written = self._writer.write(self._step.take(), effects, meanwhile)
        self._written_s = self._clock.now()
        return written

    def _publish_progress(self) -> None:
        state, reason = self._standing()
        standing = state, reason, self._scoreboard.ended, self._attempts.paused, len(self._roster)
        began_s = self._clock.now()
        pause_s = max(self._show_took_s / SHOW_SHARE, SHOW_S if standing == self._shown else 0.0)
        if began_s - self._shown_s < pause_s and self._closed is None:
            return
        progress = self._scoreboard.progress(
            self._roster,
            self._usage(),
            state=state,
            reason=reason,
            paused=self._attempts.paused,
            now_s=began_s,
            gpus_total=self._gpus_total,
        )
        self._observer.progress(progress)
        self._shown, self._shown_s = standing, began_s
        self._show_took_s = self._clock.now() - began_s

    def _standing(self) -> tuple[str, str]:
        if self._writer.trouble:
            return "waiting", f"the database is away: {self._writer.trouble}"
        if self._trouble or self._lack:
            return "waiting", self._trouble or self._lack
        return ("running", "") if self._closing is None else ("closing", self._closing.reason)

    def _interrupted(self, part: str, trouble: str) -> str:
        return (
            f"interrupted while {part} is away: {trouble}. What was recorded is safe; "
            f"`{self.spec.resume_command}` continues when it is back."
        )

    def _note(self, kind: str, text: str) -> None:
        self._observer.on_event(ProgressEvent(kind, text))


_URGENT = (*get_args(Outcome), SuggestRequested)
"""After these somebody waits: a worker for its next trial, or an attempt for the value of a parameter."""
