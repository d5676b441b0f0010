"""What runs inside a warm Ray actor: one attempt after another of one job.

Attempts that come while another runs stand in line and begin one after the other, without anybody being asked: nobody
waits while messages travel. Each may be withdrawn until then. What all of them say is heard with one call.

A plain class whose methods are called from several threads; `actors` makes an actor of it. Whoever calls brings a
fencing token, and is refused when somebody with a higher one has called before. Imports Ray only to ask where it runs,
and to end itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from tunesvc.execution.attempt.attempt import Attempt, Run, WorkerInfo
from tunesvc.execution.attempt.batching import BATCH_WINDOW_S, BatchSignal
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.attempt.output import OutputCapture
from tunesvc.execution.attempt.spool import Spool
from tunesvc.execution.executor import AttemptId, Job, Outcome
from tunesvc.execution.objectives import adapters
from tunesvc.execution.objectives.command import run_command
from tunesvc.execution.objectives.entrypoint import Objective, load
from tunesvc.execution.objectives.pickled_function import unpickle_function
from tunesvc.execution.objectives.script_environment import imitate_interpreter
from tunesvc.execution.objectives.source_digest import digest_of
from tunesvc.execution.worker.fencing import TokenFence
from tunesvc.execution.worker.garbage import Garbage
from tunesvc.execution.worker.worker_protocol import AdoptResponse, PollRequest, PollResponse, WorkerCommand
from tunesvc.util.clock import SystemClock

GRACE_S = 5.0
"""How long an attempt that nobody listens to any more has to end by itself."""
FULL_WAIT_S = 0.2
"""How long a listener waits while an attempt may say nothing more before it is told what of it is recorded."""
BATCH_MAX = 200
"""So many events do not wait for more."""

_REFUSED = PollResponse(is_refused=True)


class Worker:
    """Runs the attempts of one job, one at a time."""

    def __init__(self, job: Job, folder: str | None, token: int = 0, orphan_s: float | None = None) -> None:
        """`folder` is the user's directory here; None for the one that Ray has put this process into.

        With `orphan_s` the process ends when nobody has called for so long.
        """
        self._job = job
        self._folder = Path(folder) if folder else Path.cwd()
        self._output = OutputCapture(Spool(_spool_folder()))
        self._signal = BatchSignal(BATCH_WINDOW_S)
        self._lock = self._signal.lock
        self._attempts: dict[AttemptId, Attempt] = {}
        """Those whose end may not be recorded yet, the one that runs, and those in line."""
        self._running: Attempt | None = None
        self._backlog: deque[Attempt] = deque()
        self._is_reusable = True
        self._garbage = Garbage(SystemClock())
        self._fence = TokenFence(token)
        self._latest = token, 0
        """The token and the number of the newest call."""
        if orphan_s is not None:
            self._fence.watch(orphan_s, self._shut_down)
        imitate_interpreter(job, self._folder, is_copy=folder is None)
        os.register_at_fork(before=self._before_fork)

    def info(self) -> WorkerInfo:
        """Where this worker runs; answering says that it has its resources."""
        return self._info

    def adopt(self, token: int) -> AdoptResponse:
        """Obey a new coordinator; a question that was not answered is asked again, for the answer may be lost."""
        with self._fence.admit(token) as admitted:
            if not admitted:
                return AdoptResponse((), is_refused=True)
            if self._fence.is_expired:
                return AdoptResponse(())
            with self._lock:
                self._supersede_polls(token, 0)
                attempts = list(self._attempts.values())
            for attempt in attempts:
                attempt.ask_again()
            return AdoptResponse(tuple(attempt.launch.attempt for attempt in attempts))

    def heartbeat(self, token: int) -> None:
        """Somebody is still there, though there is nothing to do."""
        with self._fence.admit(token):
            pass

    def poll(self, token: int, request: PollRequest, timeout_s: float) -> PollResponse:
        """Do what is ordered, and answer with what was said; waits up to `timeout_s` for the first of it, and a little
        for what follows it, unless somebody waits for what it means.
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
                return self._response(request) if self._is_newest(token, request) else PollResponse()

    # --- one call -----------------------------------------------------------------------------------

    def _acknowledge(self, request: PollRequest) -> None:
        for attempt, (_, acknowledged) in request.cursors.items():
            if known := self._attempts.get(attempt):
                known.acknowledge(acknowledged)
        for _, command in request.commands:
            # its outcome is recorded, and with it all that it said
            if command.kind == "forget" and (known := self._attempts.get(command.attempt)):
                known.acknowledge(sys.maxsize)

    def _take_commands(self, token: int, request: PollRequest) -> None:
        for number, command in request.commands:
            if (token, number) > self._latest:
                self._execute(command)
        self._supersede_polls(token, request.number)

    def _supersede_polls(self, token: int, number: int) -> None:
        """Have calls before this one come back."""
        self._latest = max(self._latest, (token, number))
        self._signal.notify_urgent()

    def _is_newest(self, token: int, request: PollRequest) -> bool:
        return (token, request.number) == self._latest

    def _wait(self, token: int, request: PollRequest, timeout_s: float) -> None:
        def is_due() -> bool:
            return not self._is_newest(token, request) or self._must_flush or self._pending_events(request) >= BATCH_MAX

        if any(attempt.outbox.is_full for attempt, _ in self._with_cursors(request) if attempt):
            timeout_s = min(timeout_s, FULL_WAIT_S)  # what is recorded meanwhile is told with the next call only
        self._signal.wait(
            lambda: not self._is_newest(token, request) or self._pending_events(request) > 0, is_due, timeout_s
        )

    def _pending_events(self, request: PollRequest) -> int:
        """How many events there are to hear. What is not here is worth telling at once."""
        return sum(
            attempt.outbox.count(after) if attempt else BATCH_MAX for attempt, after in self._with_cursors(request)
        )

    def _with_cursors(self, request: PollRequest) -> list[tuple[Attempt | None, int]]:
        return [(self._attempts.get(attempt), after) for attempt, (after, _) in request.cursors.items()]

    @property
    def _must_flush(self) -> bool:
        """Whether we wait for whoever listens: nothing runs, or what does has asked something."""
        running = self._running
        return running is None or running.is_asking or (running.outbox.is_closed and not self._backlog)

    def _response(self, request: PollRequest) -> PollResponse:
        events_of, absent, is_open = [], [], False
        for attempt, (after, _) in request.cursors.items():
            known = self._attempts.get(attempt)
            if known is None:
                absent.append(attempt)
            elif not is_open:
                events_of.append((attempt, events := known.take(after)))
                is_open = not (events and isinstance(events[-1][1], Outcome))
        self._signal.reset()
        return PollResponse([(attempt, events) for attempt, events in events_of if events], absent, self._is_reusable)

    def _execute(self, command: WorkerCommand) -> None:
        known = self._attempts.get(command.attempt)
        match command.kind:
            case "run" if known is None and self._is_reusable:
                self._submit(Attempt(self._job, command.values[0], self._info, self._signal))
            case "cancel" if known and known in self._backlog:
                self._backlog.remove(known)
                del self._attempts[command.attempt]
            case "forget":
                self._attempts.pop(command.attempt, None)
            case "stop" if known:
                known.stop()
            case "answer" if known:
                known.answer(*command.values)

    # --- what runs ----------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        """Let a child process of the objective report: it has nothing else to do so with."""
        if (running := self._running) is not None and not running.outbox.is_closed:
            running.open_to_children()

    def _shut_down(self) -> None:
        """End this process, which nobody wants any more, as Ray takes it for intended; its gang's bundles are freed."""
        with self._lock:
            self._backlog.clear()
            running = self._running
        if running is not None:
            running.stop()
            running.join(GRACE_S)
        import ray
        from ray.util.placement_group import remove_placement_group

        with suppress(Exception):  # Ray's head is away: then there is nobody who could mind
            if self._info.placement_group is not None:
                remove_placement_group(self._info.placement_group)
            ray.kill(ray.get_runtime_context().current_actor)
            time.sleep(GRACE_S)
        os._exit(1)

    def _submit(self, attempt: Attempt) -> None:
        self._attempts[attempt.launch.attempt] = attempt
        if self._running is None:
            self._begin(attempt)
        else:
            self._backlog.append(attempt)

    def _begin(self, attempt: Attempt) -> None:
        self._running = attempt
        attempt.start(
            self._run, self._output, self._on_finished, source_digest=self._source_digest(), note=self._garbage.note()
        )

    def _on_finished(self, attempt: Attempt, outcome: Outcome) -> None:
        """Begin the next in line, if the process is fit for it and when it has freed what this one left."""
        if attempt.is_reusable and self._garbage.is_due:
            attempt.outbox.put(outcome)  # it neither waits for the collection nor is lost if that crashes
            self._garbage.collect()
        with self._lock:
            attempt.outbox.put(outcome)  # so that one reply has the outcome and the start of the next; once is enough
            self._is_reusable = attempt.is_reusable
            self._running = None
            while self._backlog and not self._is_reusable:
                del self._attempts[self._backlog.popleft().launch.attempt]
            if not self._backlog:
                return
            try:
                self._begin(self._backlog.popleft())
            except BaseException:  # noqa: BLE001  # this thread's end would be heard by nobody, that of the process is
                os._exit(1)

    def _run(self, attempt: Attempt) -> dict[str, float]:
        try:
            os.chdir(self._folder)  # the attempt before may have gone elsewhere
        except OSError as error:
            raise EntrypointError(f"the study's folder {self._folder} is not there: {error.strerror}") from None
        return dict(self._runner(attempt))

    @cached_property
    def _runner(self) -> Run:
        """How the job's objective is run. Made in the first attempt, so that a failing import is that attempt's."""
        return run_command if self._job.command else adapters.prepare(self._load())

    def _source_digest(self) -> str:
        """Programs are read anew for each attempt; a module stays as it was when this process imported it."""
        return digest_of(self._job, self._folder) if self._job.command else self._imported_digest

    @cached_property
    def _imported_digest(self) -> str:
        return digest_of(self._job, self._folder)

    def _load(self) -> Objective:
        if self._job.entrypoint is not None:
            return load(self._job.entrypoint, self._folder)
        return unpickle_function(self._job.function or b"")

    @cached_property
    def _info(self) -> WorkerInfo:
        import ray

        context = ray.get_runtime_context()
        group = ray.util.get_current_placement_group() if self._job.resources.workers > 1 else None
        node = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        devices = tuple(context.get_accelerator_ids().get("GPU", ()))
        spool = str(self._output.spool.folder)
        return WorkerInfo(node, os.getpid(), devices, group, context.get_node_id(), spool)


def _spool_folder() -> Path:
    """Return a folder of its own for this process: among Ray's logs, which last as long as the machine keeps them."""
    ray = sys.modules.get("ray")
    node = ray._private.worker._global_node if ray is not None else None
    logs = Path(node.get_logs_dir_path() if node is not None else tempfile.mkdtemp(prefix="tunesvc-"))
    return logs / f"tunesvc-{os.getpid()}"
