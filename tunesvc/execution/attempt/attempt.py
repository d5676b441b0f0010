"""One attempt inside its worker: the objective in a thread, its channel, and the outcome at the end.

Owns the order of the last events (all output, then the outcome). Knows no calling forms and imports no Ray.
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
"""Runs the objective for an attempt; returns the final metrics."""
OnFinished = Callable[["Attempt", Outcome], None]
"""Gets an attempt that has said everything but its outcome, and that."""
_OUTPUT_TAIL_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Where a worker runs."""

    node: str
    pid: int
    devices: tuple[str, ...] = ()
    placement_group: object = None
    node_id: str = ""
    """Ray's."""
    spool: str = ""
    """The folder there that keeps its output, see `spool`."""


class Attempt:
    """Runs one launch. Implements `tunesvc.trial.Channel`."""

    def __init__(self, job: Job, launch: Launch, worker: WorkerInfo, signal: BatchSignal) -> None:
        """`bell`: rung when it says something."""
        self.job = job
        self.launch = launch
        self.worker = worker
        self.outbox = Outbox(signal)
        self.is_reusable = False
        """Whether the process may run another attempt; known with the outcome."""
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
        self, run: Run, output: OutputCapture, on_finished: OnFinished, *, source_digest: str = "", note: str = ""
    ) -> None:
        """Run the objective, whose source has the digest `code`, in a thread that calls `then` with its outcome.

        `note`: about the worker, for the log.
        """
        self.outbox.put(Started(self.worker.node, self.worker.pid, self.worker.devices, source_digest))
        if note:
            self.outbox.log("stderr", note)
        # no daemon, for then every thread that the objective starts would be one too, see `leftover_threads`
        self._thread = threading.Thread(
            target=self._run, args=(run, output, on_finished), name="objective", daemon=False
        )
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the objective has ended, but not for ever."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def acknowledge(self, acknowledged: int) -> None:
        """See `Outbox.acknowledge`; checkpoints that need not be kept are deleted, which may take a while."""
        for seq in sorted(seq for seq in list(self._unrecorded) if seq <= acknowledged):
            if path := self._unrecorded.pop(seq, None):  # a second listener may have been faster
                self._checkpoints.forget_before(path)
        self.outbox.acknowledge(acknowledged)

    def take(self, after: int) -> Sequence[Numbered]:
        """See `Outbox.take`."""
        events = self.outbox.take(after)
        self._unrecorded |= {seq: Path(p.path) for seq, p in events if isinstance(p, Checkpointed)}
        return events

    @property
    def is_asking(self) -> bool:
        """Whether the objective waits for an answer."""
        return self._question is not None

    def stop(self) -> None:
        """Ask the objective to stop at its next report."""
        self._stop.set()
        with self._answered:
            self._answered.notify_all()
            if self._children is not None:
                self._children.stop()

    def answer(self, name: str, value: ParamValue | bytes) -> None:
        """The value of a parameter that `ask` waits for, or the study."""
        with self._answered:
            self._answers[name] = value
            self._answered.notify_all()

    def ask_again(self) -> None:
        """Repeat the question that waits for its answer, if there is one."""
        with self._answered:
            question = self._question
            if question is not None and _name_of(question) not in self._answers:
                self.outbox.put(question)

    # --- from the objective: the channel ----------------------------------------------------------

    @property
    def stop_requested(self) -> bool:
        """Tell the objective whether it has been asked to stop; see `noticed_stop`."""
        if self._forked is not None:
            return self._forked.stop_requested
        if self._stop.is_set():
            self._stop_was_seen = True
        return self._stop_was_seen

    @property
    def noticed_stop(self) -> bool:
        """Tell whether the objective or a child process has seen a request to stop.

        One that has not, and returns, has come to its own end.
        """
        return self._stop_was_seen or (self._children is not None and self._children.noticed_stop)

    def wait_for_stop(self, timeout_s: float) -> bool:
        """Wait until the attempt is asked to stop; whether it was."""
        return self._stop.wait(timeout_s)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put a report into the outbox; the first of a step stands."""
        if self._forked is not None:
            self._forked.report(step, metrics)
            return
        self._checkpoints.note(step, metrics.get(self.job.metrics[0]))
        self.outbox.report(Reported(step, metrics))
        event_log.record("said", attempt=self.launch.attempt, step=step)
        failpoints.reach("said")

    def checkpoint(self, path: Path, step: int | None) -> None:
        """Copy the state and say where it lies."""
        if self._forked is not None:
            self._forked.checkpoint(path, step)
            return
        after = -1 if step is None else step
        kept = self._checkpoints.save(path, after)
        self.outbox.put(Checkpointed(str(kept), after if after >= 0 else None))

    def set_user_attr(self, name: str, value: str) -> None:
        """Put an attribute of the trial into the outbox, its value as JSON."""
        if self._forked is not None:
            self._forked.set_user_attr(name, value)
            return
        self.outbox.put(AttrSet(name, value))

    def set_system_attr(self, name: str, value: str) -> None:
        """Put a system attribute of the trial into the outbox, its value as JSON."""
        if self._forked is not None:
            raise RuntimeError("set system attributes before the process is forked")
        self.outbox.put(AttrSet(name, value, "system"))

    @property
    def directory(self) -> Path:
        """The attempt's scratch folder, empty when it is first asked for and removed at the end."""
        if self._directory is None:
            launch = self.launch
            self._directory = scratch.make(f"{launch.trial_number}-{launch.attempt.number}")
        return self._directory

    def __reduce__(self) -> tuple[object, ...]:
        """A trial that travels to another process speaks from there through a pipe."""
        channel = self.open_to_children().channel
        return PipeChannel, (channel.reports, channel.checkpoints, channel.directory)

    def open_to_children(self) -> ChildProcesses:
        """Have the pipe ready before a child process may write to it."""
        if self._children is None and os.getpid() == self._pid:
            directory = self.directory
            with self._answered:
                self._children = self._children or ChildProcesses(self.trial(), directory, self.job.metrics)
                if self._stop.is_set():
                    self._children.stop()
        if self._children is None:
            raise RuntimeError("this process was forked by other code than Python's, so its trial cannot be used")
        return self._children

    @property
    def _forked(self) -> PipeChannel | None:
        """The way to the attempt from a forked child; None in the worker itself."""
        return None if os.getpid() == self._pid else self.open_to_children().channel

    def ask(self, name: str, distribution: str) -> ParamValue:
        """Ask the study's sampler for a parameter and wait for its value.

        Raises:
            Pruned: the attempt was asked to stop meanwhile.
        """
        with self._answered:
            return self._wait_for_answer(SuggestRequested(name, distribution))  # type: ignore[no-any-return]  # a scalar

    def ask_for_study(self) -> bytes:
        """Ask for the study's attributes and trials, as `Optimizer.packed_study` writes them.

        Raises:
            Pruned: the attempt was asked to stop meanwhile.
        """
        with self._answered:
            self._answers.pop(STUDY, None)  # it may have changed
            return self._wait_for_answer(StudyRequested())  # type: ignore[no-any-return]  # bytes

    def _wait_for_answer(self, question: SuggestRequested | StudyRequested) -> Any:
        if self._forked is not None:
            raise RuntimeError("ask for parameters and for the study before the process is forked")
        name = _name_of(question)
        self._question = question
        self.outbox.put(question)
        self._answered.wait_for(lambda: name in self._answers or self.stop_requested)
        self._question = None
        if name in self._answers:
            return self._answers[name]
        raise Pruned(f"trial {self.launch.trial_number} was asked to stop while it waited for an answer")

    def trial(self) -> Trial:
        """What the objective sees."""
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

    # --- the thread ---------------------------------------------------------------------------------

    def _run(self, run: Run, output: OutputCapture, on_finished: OnFinished) -> None:
        event_log.record("run", phase="begin", attempt=self.launch.attempt)
        failpoints.reach("begun")
        before = set(threading.enumerate())
        with output.into(self._log):
            with asyncio_loop.offer_loop():
                outcome = self._outcome(run)
            if self._children is not None and (error := self._children.close()):
                outcome = outcome_of(error, stop_requested=False) if isinstance(outcome, Finished) else outcome
        if isinstance(outcome, Failed) and self.job.command:
            outcome = self._with_output_tail(outcome)
        if self._directory is not None:
            scratch.remove(self._directory)
        self.is_reusable = not isinstance(outcome, Failed) and self._has_no_leftovers(before)
        failpoints.reach("ending")
        event_log.record("run", phase="end", attempt=self.launch.attempt)
        on_finished(self, outcome)

    def _has_no_leftovers(self, before: set[threading.Thread]) -> bool:
        """Return whether the objective has ended its threads; those that it has not are named in the log."""
        leftovers = find_leftovers(before)
        if leftovers:
            self.outbox.log("stderr", describe(leftovers))
        return not leftovers

    def _outcome(self, run: Run) -> Outcome:
        if self._restored is not None and not self._restored.exists():
            self._start_over(self._restored)
        try:
            metrics = run(self)
            outcome: Outcome = Finished(metrics) if metrics or not self.noticed_stop else StoppedEarly()
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is the attempt's outcome
            self._leave_if_forked(error)
            return outcome_of(error, stop_requested=self._stop.is_set())
        self._leave_if_forked(None)
        return outcome

    def _leave_if_forked(self, error: BaseException | None) -> None:
        if os.getpid() != self._pid:
            leave(error)

    def _start_over(self, lost: Path) -> None:
        """Do without a checkpoint that is gone: what it saved costs time, the trial would cost a result."""
        self._restored, self.launch = None, replace(self.launch, checkpoint=None)
        self.outbox.log(
            "stderr",
            f"[tunesvc: the trial starts over: its checkpoint {lost} was not found on {self.worker.node}. It was "
            "deleted, or TUNE_CHECKPOINTS names a folder that not all nodes share]\n",
        )

    def _log(self, stream: str, text: str, end: int) -> None:
        self._output_tail[stream] = (self._output_tail[stream] + text)[-_OUTPUT_TAIL_CHARS:]
        self.outbox.log(stream, text, end)

    def _with_output_tail(self, failed: Failed) -> Failed:
        """Add what a program wrote to stderr, which is to it what a traceback is to a function.

        Some print why they end to stdout, so both streams tell whether memory has run out.
        """
        stderr = self._output_tail["stderr"]
        lines = stderr.strip().splitlines()
        message = f"{failed.message}: {lines[-1]}" if lines else failed.message
        out_of = out_of_memory("\n".join(self._output_tail.values())) if failed.kind == "error" else None
        return replace(failed, kind=out_of or failed.kind, message=message, traceback=stderr)


def _name_of(question: SuggestRequested | StudyRequested) -> str:
    return question.name if isinstance(question, SuggestRequested) else STUDY
