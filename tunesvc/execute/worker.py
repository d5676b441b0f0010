"""What runs inside a warm Ray actor: one attempt after another of one job.

An attempt that comes while another runs stands in line and begins when that has ended, without anybody being asked:
nobody trains while messages travel. It may be withdrawn until then.

A plain class whose methods are called from several threads; `actors` makes an actor of it. Whoever calls brings a
fencing token, and is refused when somebody with a higher one has called before. Imports Ray only to ask where it runs,
and to end itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cloudpickle

from tunesvc.execute import forms
from tunesvc.execute.attempt import Attempt, Place, Run
from tunesvc.execute.callers import Callers
from tunesvc.execute.capture import OutputCapture
from tunesvc.execute.command import run_command
from tunesvc.execute.entrypoint import Objective, load
from tunesvc.execute.executor import AttemptId, Job, Launch
from tunesvc.execute.failures import EntrypointError
from tunesvc.execute.outbox import Numbered
from tunesvc.execute.source import digest_of
from tunesvc.spec import ParamValue

GRACE_S = 5.0
"""How long an attempt that nobody listens to any more has to end by itself."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an attempt said since the last poll."""

    events: Sequence[Numbered]
    is_reusable: bool
    """Whether the worker may run another attempt; decided when the outcome is among the events."""
    is_known: bool = True
    """False when the worker never got this attempt."""
    is_refused: bool = False
    """Whether somebody with a higher token has taken the worker over."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker says to a new coordinator."""

    attempts: Sequence[AttemptId]
    """What it runs and what follows that, after those whose end it keeps; in the order in which they run."""
    is_refused: bool = False
    """Whether the coordinator is not the new one at all."""


_REFUSED = Reply((), is_reusable=False, is_refused=True)


class Worker:
    """Runs the attempts of one job, one at a time."""

    def __init__(self, job: Job, folder: str | None, token: int = 0, orphan_s: float | None = None) -> None:
        """`folder` is the user's directory here; None for the one that Ray has put this process into.

        With `orphan_s` the process ends when nobody has called for so long.
        """
        self._job = job
        self._folder = Path(folder) if folder else Path.cwd()
        self._output = OutputCapture()
        self._lock = threading.Lock()
        self._attempts: dict[AttemptId, Attempt] = {}
        """Those whose end may not be recorded yet, the one that runs, and those in line."""
        self._running: Attempt | None = None
        self._line: deque[Attempt] = deque()
        self._withdrawn: set[AttemptId] = set()
        self._callers = Callers(token)
        if orphan_s is not None:
            self._callers.watch(orphan_s, self._retire)
        if str(self._folder) not in sys.path:
            sys.path.insert(0, str(self._folder))

    def hello(self) -> Place:
        """Where this worker runs; answering says that it has its resources."""
        return self._place

    def adopt(self, token: int) -> Found:
        """Obey a new coordinator; a question that was not answered is asked again, for the answer may be lost."""
        with self._callers.call(token) as admitted:
            if not admitted:
                return Found((), is_refused=True)
            if self._callers.is_over:
                return Found(())
            with self._lock:
                attempts = list(self._attempts.values())
            for attempt in attempts:
                attempt.ask_again()
            return Found(tuple(attempt.launch.attempt for attempt in attempts))

    def stay(self, token: int) -> None:
        """Somebody is still there, though there is nothing to do."""
        with self._callers.call(token):
            pass

    def run(
        self, token: int, launch: Launch, timeout_s: float, recorded: Collection[AttemptId] = (), again: bool = False
    ) -> Reply:
        """Start an attempt, as soon as none runs; answers with its first events.

        What those said that are `recorded` is forgotten. With `again` it was withdrawn here before, and is meant to
        begin after all. Calls may overtake each other.
        """
        with self._callers.call(token) as admitted:
            if not admitted:
                return _REFUSED
            with self._lock:
                if again:
                    self._withdrawn.discard(launch.attempt)
                if launch.attempt not in self._withdrawn and launch.attempt not in self._attempts:
                    self._enter(Attempt(self._job, launch, self._place))
                for attempt in recorded:
                    self._attempts.pop(attempt, None)
        return self.poll(token, launch.attempt, 0, 0, timeout_s)

    def withdraw(self, token: int, attempt: AttemptId) -> bool:
        """Whether an attempt has not begun, and now never will. May arrive before the attempt does."""
        with self._callers.call(token) as admitted, self._lock:
            known = self._attempts.get(attempt)
            if not admitted or not (known is None or known in self._line):
                return False
            self._withdrawn.add(attempt)
            if known is not None:
                self._line.remove(known)
                del self._attempts[attempt]
            return True

    def poll(self, token: int, attempt: AttemptId, after: int, acknowledged: int, timeout_s: float) -> Reply:
        """Events above `after`; waits up to `timeout_s` for the first. Those up to `acknowledged` are forgotten."""
        with self._callers.call(token) as admitted:
            if not admitted:
                return _REFUSED
            current = self._current(attempt)
            if current is None:
                return Reply((), is_reusable=False, is_known=False)
            events = current.take(after, acknowledged, timeout_s)
            return Reply(events, current.is_reusable) if self._callers.holds(token) else _REFUSED

    def stop(self, token: int, attempt: AttemptId) -> None:
        """Ask the attempt to stop at its next report."""
        with self._callers.call(token) as admitted:
            if admitted and (current := self._current(attempt)):
                current.stop()

    def answer(self, token: int, attempt: AttemptId, name: str, value: ParamValue) -> None:
        """The value of a parameter that the attempt asked for."""
        with self._callers.call(token) as admitted:
            if admitted and (current := self._current(attempt)):
                current.answer(name, value)

    def _retire(self) -> None:
        """End this process, which nobody wants any more, as Ray takes it for intended; its gang's bundles are freed."""
        with self._lock:
            self._line.clear()
            running = self._running
        if running is not None:
            running.stop()
            running.join(GRACE_S)
        import ray
        from ray.util.placement_group import remove_placement_group

        with suppress(Exception):  # Ray's head is away: then there is nobody who could mind
            if self._place.placement_group is not None:
                remove_placement_group(self._place.placement_group)
            ray.kill(ray.get_runtime_context().current_actor)
            time.sleep(GRACE_S)
        os._exit(1)

    def _current(self, attempt: AttemptId) -> Attempt | None:
        with self._lock:
            return self._attempts.get(attempt)

    def _enter(self, attempt: Attempt) -> None:
        self._attempts[attempt.launch.attempt] = attempt
        if self._running is None:
            self._begin(attempt)
        else:
            self._line.append(attempt)

    def _begin(self, attempt: Attempt) -> None:
        self._running = attempt
        attempt.start(self._run, self._output, self._ended, code=self._code())

    def _ended(self, attempt: Attempt) -> None:
        """Go on with the next in line; whoever told it to stand there takes it back from a worker that is not fit."""
        with self._lock:
            self._running = None
            if not (self._line and attempt.is_reusable):
                return
            try:
                self._begin(self._line.popleft())
            except BaseException:  # noqa: BLE001  # this thread's end would be heard by nobody, that of the process is
                os._exit(1)

    def _run(self, attempt: Attempt) -> dict[str, float]:
        os.chdir(self._folder)  # the attempt before may have gone elsewhere
        return dict(self._runner(attempt))

    @cached_property
    def _runner(self) -> Run:
        """How the job's objective is run. Made in the first attempt, so that a failing import is that attempt's."""
        return run_command if self._job.command else forms.prepare(self._load())

    def _code(self) -> str:
        """Programs are read anew for each attempt; a module stays as it was when this process imported it."""
        return digest_of(self._job, self._folder) if self._job.command else self._code_at_first

    @cached_property
    def _code_at_first(self) -> str:
        return digest_of(self._job, self._folder)

    def _load(self) -> Objective:
        if self._job.entrypoint is not None:
            return load(self._job.entrypoint, self._folder)
        try:
            return cloudpickle.loads(self._job.function or b"")  # type: ignore[no-any-return]
        except Exception as error:
            raise EntrypointError(
                f"the function cannot be loaded on the worker: {type(error).__name__}: {error}"
            ) from error

    @cached_property
    def _place(self) -> Place:
        import ray

        context = ray.get_runtime_context()
        group = ray.util.get_current_placement_group() if self._job.resources.workers > 1 else None
        node = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        devices = tuple(context.get_accelerator_ids().get("GPU", ()))
        return Place(node, os.getpid(), devices, group)
