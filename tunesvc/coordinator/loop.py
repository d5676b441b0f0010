"""The coordinator: one study, one loop, one writer.

A step takes in what attempts said, decides, commits all of it in one transaction, and only then acts: acknowledges,
answers, stops, launches. So whatever was acted on is recorded, and a crash at any point leaves a state from which
`recover` goes on. See docs/decisions for why one transaction per step.

Everything concrete is handed in: the ledger that writes, the optimizer that searches, the executor that runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from tunesvc import policy
from tunesvc.clock import Clock, SystemClock
from tunesvc.coordinator.attempts import Attempts
from tunesvc.coordinator.closing import Closing
from tunesvc.coordinator.commands import carry_out
from tunesvc.coordinator.effects import Effects
from tunesvc.coordinator.intake import Intake
from tunesvc.coordinator.progress import Note, Observer, SilentObserver
from tunesvc.coordinator.roster import Roster
from tunesvc.coordinator.scoreboard import Scoreboard
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.executor import Executor
from tunesvc.policy import StopCause, Usage
from tunesvc.search.optimizer import Optimizer
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.store.batch import Batch, Decision
from tunesvc.store.ledger import Ledger
from tunesvc.store.recovery import UnfinishedTrial
from tunesvc.store.states import StudyState

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
        self._attempts = Attempts(
            spec,
            ledger.study_id,
            roster=self._roster,
            optimizer=optimizer,
            scoreboard=self._scoreboard,
            clock=self._clock,
            observer=self._observer,
            close=self.close,
            gpu_hours=gpu_hours,
        )
        self._closing: Closing | None = None
        self._sampler_errors = 0
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
        for command in self._ledger.commands():
            if command.kind in ("pause", "stop", "resume"):
                self._batch.answered[command.command_id] = "the run that this was meant for had ended"
        for trial in unfinished:
            self._attempts.recover(trial)
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
        over = self._intake.take(events, effects)
        self._attempts.judge(effects)
        for ended in over:
            self._attempts.end(ended)
        self._look_for_commands()
        self._attempts.watch_limits(effects)
        self._move(effects)
        closed = self._closing if not self._roster else None
        if closed is not None and closed.state is not None:
            self._batch.study_state = (closed.state, closed.reason)
        self._commit(effects)
        self._show()
        return closed

    def close(self, closing: Closing) -> None:
        """Begin to close. What stops trials overrides what lets them finish; else the first reason stands."""
        if self._closing is None or (closing.stop is not None and self._closing.stop is None):
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
        if self._closing is None:
            slots = self._parallelism()
            move = policy.next_move(self.spec.budget, self._usage(), slots, exhausted=self._optimizer.exhausted)
            match move:
                case policy.Halt():
                    self.close(Closing(StudyState.FINISHED, move.reason, move.cause))
                case policy.Finish():
                    self.close(Closing(StudyState.FINISHED, move.reason, None))
                case policy.Ask() | policy.Drain():
                    self._attempts.reopen(slots, effects)
                    self._ask(move.trials if isinstance(move, policy.Ask) else 0, effects)
        if self._closing is not None:
            self._attempts.wind_up(self._closing, effects)

    def _ask(self, trials: int, effects: Effects) -> None:
        for _ in range(trials):
            if self._closing is not None or self._optimizer.exhausted:
                return
            proposal = self._optimizer.ask()
            self._batch.decisions.append(Decision(proposal.number, "ask", proposal.reason, proposal.details))
            self._watch_sampler(proposal.number, proposal.sampler_error, proposal.reason)
            self._attempts.open(proposal.number, effects)

    def _watch_sampler(self, number: int, error: str | None, reason: str) -> None:
        if error is None:
            self._sampler_errors = 0
            return
        self._sampler_errors += 1
        self._batch.decisions.append(Decision(number, "sampler", error, {}))
        self._observer.note(Note("warning", reason, number))
        if self._sampler_errors >= SAMPLER_ERRORS_MAX:
            told = f"the sampler failed {SAMPLER_ERRORS_MAX} times in a row: {error}"
            self.close(Closing(StudyState.PAUSED, told, None))

    def _look_for_commands(self) -> None:
        now = self._clock.now()
        if now - self._looked_s >= COMMANDS_S:
            self._looked_s = now
            for command in self._ledger.commands():
                self._batch.answered[command.command_id] = carry_out(command, self)

    def _usage(self) -> Usage:
        return Usage(
            trials=len(self._optimizer.trials) - self._optimizer.enqueued,
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
            return self._executor.slots()
        except UnsatisfiableRequest as error:
            if not self._roster:
                raise
            self._note("warning", str(error))
            return self._slots

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

    def _note(self, kind: str, text: str) -> None:
        self._observer.note(Note(kind, text))
