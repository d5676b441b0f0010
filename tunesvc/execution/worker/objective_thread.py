"""The thread of a worker that runs an attempt's objective, and the outbox of its events.

Owns the order of the last events: all output, then the outcome. Imports no Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.attempt.out_of_memory import out_of_memory
from tunesvc.execution.executor import Checkpointed, Failed, Job, Launch, Outcome, Started
from tunesvc.execution.output.output_capture import OutputCapture
from tunesvc.execution.worker.batching import BatchSignal
from tunesvc.execution.worker.leftover_threads import describe, find_leftovers
from tunesvc.execution.worker.outbox import Numbered, Outbox
from tunesvc.instrumentation import event_log, failpoints

Execute = Callable[[Attempt], Outcome]
"""Runs the objective for an attempt, here or in a child process, and returns the outcome."""
OnFinished = Callable[["ObjectiveThread", Outcome], None]
"""Receives an outcome. The outbox has all other events."""
_OUTPUT_TAIL_CHARS = 4_000


class ObjectiveThread:
    """Runs one attempt in a worker, and keeps its events until they are recorded."""

    def __init__(
        self,
        job: Job,
        launch: Launch,
        worker: WorkerInfo,
        signal: BatchSignal,
    ) -> None:
        """Prepare the attempt. Every event notifies `signal`."""
        self.outbox = Outbox(signal)
        self.attempt = Attempt(job, launch, worker, self.outbox, signal.lock)
        self.is_reusable = False
        """True if the worker may run another attempt. Valid once the outcome is known."""
        self.id = launch.attempt
        self._unrecorded: dict[int, str] = {}
        """Number of an event -> the checkpoint that it reports."""
        self._output_tail = dict.fromkeys(("stdout", "stderr"), "")
        self._thread: threading.Thread | None = None

    def start(
        self,
        execute: Execute,
        output: OutputCapture,
        on_finished: OnFinished,
        *,
        source_digest: str = "",
        note: str = "",
    ) -> None:
        """Start the thread, which calls `on_finished` with the outcome.

        Args:
            execute: runs the objective.
            output: captures the process's output for the attempt's log.
            on_finished: called in the thread.
            source_digest: digest of the objective's source code.
            note: a text about the worker for the attempt's log.
        """
        worker = self.attempt.worker
        self.outbox.put(
            Started(
                worker.node,
                worker.pid,
                worker.devices,
                source_digest,
                worker.bundle_nodes,
            )
        )
        if note:
            self.outbox.log("stderr", note)
        # Not a daemon: threads that the objective starts would inherit that, see
        # `leftover_threads`.
        self._thread = threading.Thread(
            target=self._run,
            args=(execute, output, on_finished),
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
                self.attempt.forget_checkpoints_before(path)
        self.outbox.acknowledge(acknowledged)

    def take(self, after: int) -> Sequence[Numbered]:
        """Return the events above `after`, see `Outbox.take`."""
        events = self.outbox.take(after)
        for seq, payload in events:
            if isinstance(payload, Checkpointed):
                self._unrecorded[seq] = payload.path
        return events

    def _run(
        self,
        execute: Execute,
        output: OutputCapture,
        on_finished: OnFinished,
    ) -> None:
        event_log.record("run", phase="begin", attempt=self.id)
        failpoints.reach("begun")
        before = set(threading.enumerate())
        with output.into(self._log):
            outcome = execute(self.attempt)
        if isinstance(outcome, Failed) and self.attempt.job.command:
            outcome = self._with_output_tail(outcome)
        self.attempt.remove_directory()
        # The loss of a process of its own leaves this one as it was; gangs never use theirs again.
        self.is_reusable = not isinstance(outcome, Failed) and self._has_no_leftovers(before)
        failpoints.reach("ending")
        event_log.record("run", phase="end", attempt=self.id)
        on_finished(self, outcome)

    def _has_no_leftovers(self, before: set[threading.Thread]) -> bool:
        """Return True if all threads of the objective have ended. Name the others in the log."""
        leftovers = find_leftovers(before)
        if leftovers:
            self.outbox.log("stderr", describe(leftovers))
        return not leftovers

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
