"""What runs inside a warm Ray actor: one attempt after another of one job.

A plain class whose methods are called from several threads; `actors` makes an actor of it. Whoever calls brings a
fencing token, and is refused when somebody with a higher one has called before. Imports Ray only to ask where it runs,
and to end itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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

    attempt: AttemptId | None
    """The attempt that it runs, or ran last."""
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
        self._attempt: Attempt | None = None
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
                return Found(None, is_refused=True)
            if self._attempt is None or self._callers.is_over:
                return Found(None)
            self._attempt.ask_again()
            return Found(self._attempt.launch.attempt)

    def stay(self, token: int) -> None:
        """Somebody is still there, though there is nothing to do."""
        with self._callers.call(token):
            pass

    def run(self, token: int, launch: Launch, timeout_s: float) -> Reply:
        """Start an attempt; answers with its first events."""
        with self._callers.call(token) as admitted:
            if not admitted:
                return _REFUSED
            os.chdir(self._folder)  # the attempt before may have gone elsewhere
            place = replace(self._place, code=self._code())
            self._attempt = Attempt(self._job, launch, place)
            self._attempt.start(self._run, self._output)
        return self.poll(token, launch.attempt, 0, 0, timeout_s)

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
        if self._attempt is not None:
            self._attempt.stop()
            self._attempt.join(GRACE_S)
        import ray
        from ray.util.placement_group import remove_placement_group

        with suppress(Exception):  # Ray's head is away: then there is nobody who could mind
            if self._place.placement_group is not None:
                remove_placement_group(self._place.placement_group)
            ray.kill(ray.get_runtime_context().current_actor)
            time.sleep(GRACE_S)
        os._exit(1)

    def _current(self, attempt: AttemptId) -> Attempt | None:
        current = self._attempt
        return current if current is not None and current.launch.attempt == attempt else None

    def _run(self, attempt: Attempt) -> dict[str, float]:
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
