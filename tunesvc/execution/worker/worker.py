"""The worker: a process that runs the attempts of one job one after the other.

Attempts that arrive while another one runs wait in a backlog. The worker begins the next one by
itself, so no time is lost to messages. An attempt can be canceled until it begins. One poll returns
the events of all attempts.

A plain class whose methods are called from several threads; `actors` turns it into an actor, and an
agent runs it in a process. Every call carries a fencing token and is refused if one with a higher
token came before. Imports no Ray: a `WorkerHost` knows where it is and how it ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesvc.errors import BadReport
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.executor import AttemptId, Job, Outcome
from tunesvc.execution.gang import gang_calls
from tunesvc.execution.objectives.objective_process import ProcessRunner
from tunesvc.execution.objectives.objective_runner import ObjectiveRunner
from tunesvc.execution.output.output_capture import OutputCapture
from tunesvc.execution.output.spool import Spool
from tunesvc.execution.worker.batching import BATCH_WINDOW_S, BatchSignal
from tunesvc.execution.worker.fencing import TokenFence
from tunesvc.execution.worker.garbage import Garbage
from tunesvc.execution.worker.objective_thread import ObjectiveThread
from tunesvc.execution.worker.outbox import Numbered
from tunesvc.execution.worker.worker_host import RayHost, WorkerHost
from tunesvc.execution.worker.worker_protocol import (
    AdoptResponse,
    PollRequest,
    PollResponse,
    WorkerCommand,
)
from tunesvc.util.clock import SystemClock

GRACE_S = 5.0
"""Grace period for the running attempt of an orphaned worker to end by itself."""
FULL_WAIT_S = 0.2
"""Maximum wait of a poll while an outbox is full.

Only the next poll can bring its acknowledgements.
"""
BATCH_MAX = 200
"""This many events are sent without waiting for more."""

_REFUSED = PollResponse(is_refused=True)


class Worker:
    """Runs the attempts of one job, one at a time."""

    def __init__(
        self,
        job: Job,
        folder: str | None,
        token: int = 0,
        orphan_s: float | None = None,
        host: WorkerHost | None = None,
    ) -> None:
        """Take over this process.

        Args:
            job: the job whose attempts to run.
            folder: the user's directory on this node. None means the working directory, a copy made
                by Ray.
            token: fencing token of the coordinator that starts the worker.
            orphan_s: the process ends if no call arrives for this long. None means never.
            host: what runs this process; Ray by default.
        """
        self._job = job
        self._host = host = host or RayHost()
        self._output = OutputCapture(Spool(host.spool_folder()))
        self._signal = BatchSignal(BATCH_WINDOW_S)
        self._lock = self._signal.lock
        self._threads: dict[AttemptId, ObjectiveThread] = {}
        """Outboxes of unrecorded finished attempts, the running one, and the backlog."""
        self._running: ObjectiveThread | None = None
        self._backlog: deque[ObjectiveThread] = deque()
        self._is_reusable = True
        self._garbage = Garbage(SystemClock())
        self._fence = TokenFence(token)
        self._latest = token, 0
        """Token and number of the newest poll."""
        if orphan_s is not None:
            self._fence.watch(orphan_s, self._shut_down)
        if job.data is not None:
            host.provide_data(job.data)
        self._runner = _runner_of(job, folder, host)
        os.register_at_fork(before=self._before_fork, after_in_child=_end_by_sigterm)

    def info(self) -> WorkerInfo:
        """Return this worker's location. An answer means that the worker is up."""
        return self._info

    def adopt(self, token: int) -> AdoptResponse:
        """Obey a new coordinator. Repeat an unanswered question, because its answer may be lost."""
        with self._fence.admit(token) as admitted:
            if not admitted:
                return AdoptResponse((), is_refused=True)
            if self._fence.is_expired:
                return AdoptResponse(())
            with self._lock:
                self._supersede_polls(token, 0)
                threads = list(self._threads.values())
            for thread in threads:
                thread.attempt.ask_again()
            return AdoptResponse(tuple(thread.id for thread in threads))

    def call_from_gang(self, attempt: AttemptId, verb: str, *values: Any) -> Any:
        """Execute a call of another process of the running trial's gang, see `gang_calls`.

        Raises:
            BadReport: the attempt has ended.
        """
        thread = self._threads.get(attempt)
        if thread is None or thread.outbox.is_closed:
            raise BadReport("the trial's attempt has ended")
        return gang_calls.execute(thread.attempt, verb, values)

    def shared_parts(self) -> Mapping[str, Any]:
        """Return references to the files of the study's data in Ray's object store."""
        return self._host.shared_parts

    def heartbeat(self, token: int) -> None:
        """Note that the coordinator is alive, without a poll."""
        with self._fence.admit(token):
            pass

    def poll(self, token: int, request: PollRequest, timeout_s: float) -> PollResponse:
        """Execute the request's commands and return new events.

        Waits up to `timeout_s` for the first event. Then waits a little for more, unless the worker
        needs a reply.
        """
        with self._fence.admit(token) as admitted:
            if not admitted:
                return _REFUSED
            self._acknowledge(request)
            with self._lock:
                self._take_commands(token, request)
                self._wait(token, request, timeout_s)
                if not self._fence.is_current(token):
                    return _REFUSED
                if not self._is_newest(token, request):
                    return PollResponse()
                return self._make_response(request)

    # --- polls ------------------------------------------------------------------------------------

    def _acknowledge(self, request: PollRequest) -> None:
        for attempt, (_, acknowledged) in request.cursors.items():
            if known := self._threads.get(attempt):
                known.acknowledge(acknowledged)
        for _, command in request.commands:
            known = self._threads.get(command.attempt)
            # its outcome is recorded, and so are all events before it
            if command.kind == "forget" and known:
                known.acknowledge(sys.maxsize)

    def _take_commands(self, token: int, request: PollRequest) -> None:
        for number, command in request.commands:
            if (token, number) > self._latest:
                self._execute(command)
        self._supersede_polls(token, request.number)

    def _supersede_polls(self, token: int, number: int) -> None:
        """Make polls older than this one return."""
        self._latest = max(self._latest, (token, number))
        self._signal.notify_urgent()

    def _is_newest(self, token: int, request: PollRequest) -> bool:
        return (token, request.number) == self._latest

    def _wait(self, token: int, request: PollRequest, timeout_s: float) -> None:
        def is_superseded() -> bool:
            return not self._is_newest(token, request)

        def is_ready() -> bool:
            return is_superseded() or self._pending_events(request) > 0

        def is_urgent() -> bool:
            if is_superseded() or self._must_flush:
                return True
            return self._pending_events(request) >= BATCH_MAX

        threads = [thread for thread, _ in self._with_cursors(request) if thread]
        if any(thread.outbox.is_full for thread in threads):
            timeout_s = min(timeout_s, FULL_WAIT_S)
        self._signal.wait(is_ready, is_urgent, timeout_s)

    def _pending_events(self, request: PollRequest) -> int:
        """Count the events to send.

        An absent attempt counts as a full batch, to be reported at once.
        """
        events = 0
        for thread, after in self._with_cursors(request):
            events += BATCH_MAX if thread is None else thread.outbox.count(after)
        return events

    def _with_cursors(self, request: PollRequest) -> list[tuple[ObjectiveThread | None, int]]:
        cursors = request.cursors.items()
        return [(self._threads.get(attempt), after) for attempt, (after, _) in cursors]

    @property
    def _must_flush(self) -> bool:
        """True if the worker waits for the coordinator, because it is idle or has a question."""
        running = self._running
        if running is None or running.attempt.is_asking:
            return True
        return running.outbox.is_closed and not self._backlog

    def _make_response(self, request: PollRequest) -> PollResponse:
        batches: list[tuple[AttemptId, Sequence[Numbered]]] = []
        absent: list[AttemptId] = []
        is_open = False  # true after the first attempt without an outcome in its batch
        for attempt, (after, _) in request.cursors.items():
            known = self._threads.get(attempt)
            if known is None:
                absent.append(attempt)
            elif not is_open:
                events = known.take(after)
                if events:
                    batches.append((attempt, events))
                is_open = not (events and isinstance(events[-1][1], Outcome))
        self._signal.reset()
        return PollResponse(batches, absent, self._is_reusable)

    def _execute(self, command: WorkerCommand) -> None:
        known = self._threads.get(command.attempt)
        match command.kind:
            case "run" if known is None and self._is_reusable:
                launch = command.values[0]
                self._submit(
                    ObjectiveThread(
                        self._job,
                        launch,
                        self._info,
                        self._signal,
                    )
                )
            case "cancel" if known and known in self._backlog:
                self._backlog.remove(known)
                del self._threads[command.attempt]
            case "forget":
                self._threads.pop(command.attempt, None)
            case "stop" if known:
                known.attempt.stop()
            case "answer" if known:
                known.attempt.answer(*command.values)

    # --- attempts ---------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        """Open the running attempt's pipe, a forked child's only way to report."""
        running = self._running
        if running is not None and not running.outbox.is_closed:
            running.attempt.open_to_children()

    def _shut_down(self) -> None:
        """End this orphaned process, after the running attempt's grace period."""
        with self._lock:
            self._backlog.clear()
            running = self._running
        if running is not None:
            running.attempt.stop()
            running.join(GRACE_S)
        self._host.end_process(self._info)
        os._exit(1)

    def _submit(self, thread: ObjectiveThread) -> None:
        self._threads[thread.id] = thread
        if self._running is None:
            self._begin(thread)
        else:
            self._backlog.append(thread)

    def _begin(self, thread: ObjectiveThread) -> None:
        self._running = thread
        thread.start(
            self._runner,
            self._output,
            self._on_finished,
            source_digest=self._runner.source_digest(),
            note=self._garbage.note(),
        )

    def _on_finished(self, thread: ObjectiveThread, outcome: Outcome) -> None:
        """Collect garbage if due, then begin the next attempt of the backlog.

        If the process is not reusable, drop the backlog instead.
        """
        is_reusable = thread.is_reusable and self._runner.leaves_process_clean
        if is_reusable and self._garbage.is_due:
            # Before the collection: the outcome must not wait for it, nor be lost if it crashes.
            thread.outbox.put(outcome)
            self._garbage.collect()
        with self._lock:
            # Under the lock, so that one response has the outcome and the start of the next
            # attempt. Ignored if the outcome was put above.
            thread.outbox.put(outcome)
            self._is_reusable = is_reusable
            self._running = None
            while self._backlog and not self._is_reusable:
                del self._threads[self._backlog.popleft().id]
            if not self._backlog:
                return
            try:
                self._begin(self._backlog.popleft())
            except BaseException:  # noqa: BLE001  # Ray notices a dead process, but not a thread
                os._exit(1)

    @cached_property
    def _info(self) -> WorkerInfo:
        return self._host.locate(self._job, str(self._output.spool.folder))


def _runner_of(
    job: Job,
    folder: str | None,
    host: WorkerHost,
) -> ObjectiveRunner | ProcessRunner:
    """Return what runs the job's objective. See `Worker` for `folder`."""
    path, is_copy = Path(folder) if folder else Path.cwd(), folder is None or host.is_remote
    # A gang needs this process's placement group, and a program is a process already.
    if job.environment.isolation == "reuse" or job.command or job.resources.workers > 1:
        return ObjectiveRunner(job, path, is_copy=is_copy)
    return ProcessRunner(job, path, is_copy=is_copy, environment=host.environment())


def _end_by_sigterm() -> None:
    """Let SIGTERM end a forked child of the objective at once.

    Ray's handler raises `SystemExit` in Python code, which a child that waits for a lock may never
    reach: `Pool.terminate` then waits for ever.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
