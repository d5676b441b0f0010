"""What runs inside a warm Ray actor: one attempt after another of one job.

A plain class whose methods are called from several threads; `ray_executor` makes an actor of it. Imports Ray only to
ask where it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cloudpickle

from tunesvc.execute import forms
from tunesvc.execute.attempt import Attempt, Place, Run
from tunesvc.execute.capture import OutputCapture
from tunesvc.execute.command import run_command
from tunesvc.execute.entrypoint import Objective, load
from tunesvc.execute.executor import AttemptId, Job, Launch
from tunesvc.execute.failures import EntrypointError
from tunesvc.execute.outbox import Numbered
from tunesvc.execute.source import digest_of
from tunesvc.spec import ParamValue


@dataclass(frozen=True, slots=True)
class Reply:
    """What an attempt said since the last poll."""

    events: Sequence[Numbered]
    is_reusable: bool
    """Whether the worker may run another attempt; decided when the outcome is among the events."""
    is_known: bool = True
    """False when the worker never got this attempt."""


class Worker:
    """Runs the attempts of one job, one at a time."""

    def __init__(self, job: Job, folder: str | None) -> None:
        """`folder` is the user's directory here; None for the one that Ray has put this process into."""
        self._job = job
        self._folder = Path(folder) if folder else Path.cwd()
        self._output = OutputCapture()
        self._attempt: Attempt | None = None
        if str(self._folder) not in sys.path:
            sys.path.insert(0, str(self._folder))

    def hello(self) -> Place:
        """Where this worker runs; answering says that it has its resources."""
        return self._place

    def run(self, launch: Launch, timeout_s: float) -> Reply:
        """Start an attempt; answers with its first events."""
        os.chdir(self._folder)  # the attempt before may have gone elsewhere
        place = replace(self._place, code=self._code())
        self._attempt = Attempt(self._job, launch, place)
        self._attempt.start(self._run, self._output)
        return self.poll(launch.attempt, 0, 0, timeout_s)

    def poll(self, attempt: AttemptId, after: int, acknowledged: int, timeout_s: float) -> Reply:
        """Events above `after`; waits up to `timeout_s` for the first. Those up to `acknowledged` are forgotten."""
        current = self._current(attempt)
        if current is None:
            return Reply((), is_reusable=False, is_known=False)
        events = current.take(after, acknowledged, timeout_s)
        return Reply(events, current.is_reusable)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop at its next report."""
        if current := self._current(attempt):
            current.stop()

    def answer(self, attempt: AttemptId, name: str, value: ParamValue) -> None:
        """The value of a parameter that the attempt asked for."""
        if current := self._current(attempt):
            current.answer(name, value)

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
