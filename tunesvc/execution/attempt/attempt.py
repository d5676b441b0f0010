"""One attempt inside its worker: the objective's thread, its channel and its outcome.

Owns the order of the last events: all output, then the outcome. Knows nothing of how objectives are
called, and imports no Ray.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesvc.errors import Pruned
from tunesvc.execution.attempt import asyncio_loop, scratch
from tunesvc.execution.attempt.batching import BatchSignal
from tunesvc.execution.attempt.checkpoints import Checkpoints, step_of
from tunesvc.execution.attempt.child_processes import ChildProcesses, leave
from tunesvc.execution.attempt.failures import outcome_of
from tunesvc.execution.attempt.leftover_threads import describe, find_leftovers
from tunesvc.execution.attempt.out_of_memory import out_of_memory
from tunesvc.execution.attempt.outbox import Numbered, Outbox
from tunesvc.execution.attempt.output import OutputCapture
from tunesvc.execution.executor import (
    STUDY,
    AttrSet,
    Checkpointed,
    Failed,
    Finished,
    Job,
    Launch,
    Outcome,
    Reported,
    Started,
    StoppedEarly,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.instrumentation import event_log, failpoints
from tunesvc.spec import ParamValue
from tunesvc.subprocess_trial import PipeChannel
from tunesvc.trial import Trial

Run = Callable[["Attempt"], Mapping[str, float]]
"""Runs the objective for an attempt and returns the final metrics."""
OnFinished = Callable[["Attempt", Outcome], None]
"""Receives an attempt and its outcome. The outbox has all other events."""
_OUTPUT_TAIL_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Location of a worker: its node, process and devices."""

    node: str
    pid: int
    devices: tuple[str, ...] = ()
    placement_group: object = None
    node_id: str = ""
    """Ray's ID of the node."""
    spool: str = ""
    """Folder on that node that keeps the worker's output, see `spool`."""


class Attempt:
    """Runs one launch. Implements `tunesvc.trial.Channel`."""

    def __init__(
        self,
        job: Job,
        launch: Launch,
        worker: WorkerInfo,
        signal: BatchSignal,
    ) -> None:
        """Prepare the attempt. Every event notifies `signal`."""
        self.job = job
        self.launch = launch
        self.worker = worker
        self.outbox = Outbox(signal)
        self.is_reusable = False
        """True if the process may run another attempt. Valid once the outcome is known."""
        self._restored = Path(launch.checkpoint) if launch.checkpoint else None
        self._checkpoints = Checkpoints(
            Path(job.checkpoint_root),
            launch.trial_number,
            launch.attempt.number,
            job.keep,
            maximize=job.goals[:1] == ("maximize",),
        )
        self._directory: Path | None = None
        self._pid = os.getpid()
        self._children: ChildProcesses | None = None
        self._unrecorded: dict[int, Path] = {}
        self._stop = threading.Event()
        self._stop_was_seen = False
        self._answers: dict[str, ParamValue | bytes] = {}
        self._answered = threading.Condition(signal.lock)
        self._question: SuggestRequested | StudyRequested | None = None
        self._output_tail = dict.fromkeys(("stdout", "stderr"), "")
        self._thread: threading.Thread | None = None

    # --- from the worker --------------------------------------------------------------------------

    def start(
        self,
        run: Run,
        output: OutputCapture,
        on_finished: OnFinished,
        *,
        source_digest: str = "",
        note: str = "",
    ) -> None:
        """Run the objective in a thread, which calls `on_finished` with the outcome.

        Args:
            run: runs the objective.
            output: captures the process's output for the attempt's log.
            on_finished: called in the objective's thread.
            source_digest: digest of the objective's source code.
            note: a text about the worker for the attempt's log.
        """
        self.outbox.put(
            Started(self.worker.node, self.worker.pid, self.worker.devices, source_digest),
        )
        if note:
            self.outbox.log("stderr", note)
        # Not a daemon: threads that the objective starts would inherit that, see
        # `leftover_threads`.
        self._thread = threading.Thread(
            target=self._run,
            args=(run, output, on_finished),
            name="objective",
            daemon=False,
        )
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for the objective to end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def acknowledge(self, acknowledged: int) -> None:
        """Acknowledge events and delete checkpoints that need not be kept.

        Deleting may take a while.
        """
        recorded = [seq for seq in list(self._unrecorded) if seq <= acknowledged]
        for seq in sorted(recorded):
            # another poll may have taken it first
            if path := self._unrecorded.pop(seq, None):
                self._checkpoints.forget_before(path)
        self.outbox.acknowledge(acknowledged)

    def take(self, after: int) -> Sequence[Numbered]:
        """Return the events above `after`, see `Outbox.take`."""
        events = self.outbox.take(after)
        for seq, payload in events:
            if isinstance(payload, Checkpointed):
                self._unrecorded[seq] = Path(payload.path)
        return events

    @property
    def is_asking(self) -> bool:
        """True while the objective waits for an answer."""
        return self._question is not None

    def stop(self) -> None:
        """Ask the objective to stop at its next report."""
        self._stop.set()
        with self._answered:
            self._answered.notify_all()
            if self._children is not None:
                self._children.stop()

    def answer(self, name: str, value: ParamValue | bytes) -> None:
        """Supply the value of a parameter that `ask` waits for, or the study."""
        with self._answered:
            self._answers[name] = value
            self._answered.notify_all()

    def ask_again(self) -> None:
        """Repeat the unanswered question, if there is one."""
        with self._answered:
            question = self._question
            if question is not None and _name_of(question) not in self._answers:
                self.outbox.put(question)

    # --- from the objective: the channel ----------------------------------------------------------

    @property
    def stop_requested(self) -> bool:
        """True if the attempt was asked to stop. Reading it counts for `noticed_stop`."""
        if self._forked is not None:
            return self._forked.stop_requested
        if self._stop.is_set():
            self._stop_was_seen = True
        return self._stop_was_seen

    @property
    def noticed_stop(self) -> bool:
        """True if the objective or a child process has seen a request to stop.

        An objective that returns without having seen it has finished normally.
        """
        if self._stop_was_seen:
            return True
        return self._children is not None and self._children.noticed_stop

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put a report into the outbox. Only the first report of a step counts."""
        if self._forked is not None:
            self._forked.report(step, metrics)
            return
        self._checkpoints.note(step, metrics.get(self.job.metrics[0]))
        self.outbox.report(Reported(step, metrics))
        event_log.record("said", attempt=self.launch.attempt, step=step)
        failpoints.reach("said")

    def checkpoint(self, path: Path, step: int | None) -> None:
        """Copy the state and report the copy's path."""
        if self._forked is not None:
            self._forked.checkpoint(path, step)
            return
        after = -1 if step is None else step
        kept = self._checkpoints.save(path, after)
        self.outbox.put(Checkpointed(str(kept), after if after >= 0 else None))

    def set_user_attr(self, name: str, value: str) -> None:
        """Put an attribute of the trial into the outbox. The value is JSON."""
        if self._forked is not None:
            self._forked.set_user_attr(name, value)
            return
        self.outbox.put(AttrSet(name, value))

    def set_system_attr(self, name: str, value: str) -> None:
        """Put a system attribute of the trial into the outbox. The value is JSON."""
        if self._forked is not None:
            raise RuntimeError("set system attributes before the process is forked")
        self.outbox.put(AttrSet(name, value, "system"))

    @property
    def directory(self) -> Path:
        """The attempt's scratch folder. Created empty on first use and removed at the end."""
        if self._directory is None:
            launch = self.launch
            self._directory = scratch.make(f"{launch.trial_number}-{launch.attempt.number}")
        return self._directory

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as a channel that writes to this attempt through a pipe."""
        channel = self.open_to_children().channel
        return PipeChannel, (channel.reports, channel.checkpoints, channel.directory)

    def open_to_children(self) -> ChildProcesses:
        """Open the pipe for child processes. Must happen before one of them writes to it."""
        if self._children is None and os.getpid() == self._pid:
            directory = self.directory
            with self._answered:
                self._children = self._children or ChildProcesses(
                    self.trial(),
                    directory,
                    self.job.metrics,
                )
                if self._stop.is_set():
                    self._children.stop()
        if self._children is None:
            raise RuntimeError(
                "this process was forked by other code than Python's, so its trial cannot be used",
            )
        return self._children

    @property
    def _forked(self) -> PipeChannel | None:
        """Channel to the attempt from a forked child. None in the worker itself."""
        if os.getpid() == self._pid:
            return None
        return self.open_to_children().channel

    def ask(self, name: str, distribution: str) -> ParamValue:
        """Ask the study's sampler for a parameter and wait for its value.

        Raises:
            Pruned: the attempt was asked to stop meanwhile.
        """
        question = SuggestRequested(name, distribution)
        with self._answered:
            return self._wait_for_answer(question)  # type: ignore[no-any-return]  # a scalar

    def ask_for_study(self) -> bytes:
        """Ask for the study's attributes and trials, packed by `Optimizer.packed_study`.

        Raises:
            Pruned: the attempt was asked to stop meanwhile.
        """
        with self._answered:
            self._answers.pop(STUDY, None)  # the study may have changed since
            return self._wait_for_answer(StudyRequested())  # type: ignore[no-any-return]  # bytes

    def _wait_for_answer(self, question: SuggestRequested | StudyRequested) -> Any:
        if self._forked is not None:
            raise RuntimeError(
                "ask for parameters and for the study before the process is forked",
            )
        name = _name_of(question)
        self._question = question
        self.outbox.put(question)
        self._answered.wait_for(lambda: name in self._answers or self.stop_requested)
        self._question = None
        if name in self._answers:
            return self._answers[name]
        raise Pruned(
            f"trial {self.launch.trial_number} was asked to stop while it waited for an answer",
        )

    def trial(self) -> Trial:
        """Return the trial object that the objective uses."""
        return Trial(
            self,
            number=self.launch.trial_number,
            params=self.launch.params,
            seed=self.launch.seed,
            attempt=self.launch.attempt.number,
            restored=self._restored,
            metrics=self.job.metrics,
            devices=self.worker.devices,
            last_step=step_of(self._restored),
            placement_group=self.worker.placement_group,
        )

    # --- the thread -------------------------------------------------------------------------------

    def _run(self, run: Run, output: OutputCapture, on_finished: OnFinished) -> None:
        event_log.record("run", phase="begin", attempt=self.launch.attempt)
        failpoints.reach("begun")
        before = set(threading.enumerate())
        with output.into(self._log):
            with asyncio_loop.offer_loop():
                outcome = self._outcome(run)
            error = self._children.close() if self._children is not None else None
            if error is not None and isinstance(outcome, Finished):
                outcome = outcome_of(error, stop_requested=False)
        if isinstance(outcome, Failed) and self.job.command:
            outcome = self._with_output_tail(outcome)
        if self._directory is not None:
            scratch.remove(self._directory)
        self.is_reusable = not isinstance(outcome, Failed) and self._has_no_leftovers(
            before,
        )
        failpoints.reach("ending")
        event_log.record("run", phase="end", attempt=self.launch.attempt)
        on_finished(self, outcome)

    def _has_no_leftovers(self, before: set[threading.Thread]) -> bool:
        """Return True if all threads of the objective have ended. Name the others in the log."""
        leftovers = find_leftovers(before)
        if leftovers:
            self.outbox.log("stderr", describe(leftovers))
        return not leftovers

    def _outcome(self, run: Run) -> Outcome:
        if self._restored is not None and not self._restored.exists():
            self._start_over(self._restored)
        try:
            metrics = run(self)
            is_finished = bool(metrics) or not self.noticed_stop
            outcome: Outcome = Finished(metrics) if is_finished else StoppedEarly()
        except BaseException as error:  # noqa: BLE001  # any exception of user code is an outcome
            self._leave_if_forked(error)
            return outcome_of(error, stop_requested=self._stop.is_set())
        self._leave_if_forked(None)
        return outcome

    def _leave_if_forked(self, error: BaseException | None) -> None:
        if os.getpid() != self._pid:
            leave(error)

    def _start_over(self, lost: Path) -> None:
        """Run without a checkpoint that is gone, rather than lose the trial."""
        self._restored, self.launch = None, replace(self.launch, checkpoint=None)
        self.outbox.log(
            "stderr",
            f"[tunesvc: the trial starts over: "
            f"its checkpoint {lost} was not found on {self.worker.node}. It was "
            "deleted, or TUNE_CHECKPOINTS names a folder that not all nodes share]\n",
        )

    def _log(self, stream: str, text: str, end: int) -> None:
        self._output_tail[stream] = (self._output_tail[stream] + text)[-_OUTPUT_TAIL_CHARS:]
        self.outbox.log(stream, text, end)

    def _with_output_tail(self, failed: Failed) -> Failed:
        """Add the end of a program's stderr to its failure, in place of a traceback.

        Both streams are searched for out-of-memory errors, because some programs print them to
        stdout.
        """
        stderr = self._output_tail["stderr"]
        lines = stderr.strip().splitlines()
        message = f"{failed.message}: {lines[-1]}" if lines else failed.message
        kind = failed.kind
        if kind == "error":
            kind = out_of_memory("\n".join(self._output_tail.values())) or kind
        return replace(failed, kind=kind, message=message, traceback=stderr)


def _name_of(question: SuggestRequested | StudyRequested) -> str:
    return question.name if isinstance(question, SuggestRequested) else STUDY
