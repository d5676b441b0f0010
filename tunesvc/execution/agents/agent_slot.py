"""A slot of an agent: a thread that runs one attempt at a time, in a worker's process.

The process is reused for the next attempt, unless the last one left something behind.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

from tunesvc.execution.agents.launch_runner import LaunchRunner
from tunesvc.execution.agents.worker_process import StartWorker, WorkerProcess
from tunesvc.execution.executor import Job
from tunesvc.spec import Resources


class SlotOwner(Protocol):
    """The agent, as its slots see it. Any thread may use it."""

    @property
    def job(self) -> Job:
        """The job of the study, with this machine's folders."""
        ...

    @property
    def name(self) -> str:
        """Its name at the server."""
        ...

    @property
    def home(self) -> Path:
        """Folder for its files."""
        ...

    @property
    def is_ending(self) -> bool:
        """True if no more launches follow those that wait."""
        ...

    def next_launch(self) -> LaunchRunner | None:
        """Wait a little for a launch."""
        ...

    def on_begun(self, runner: LaunchRunner) -> None:
        """Note that a slot runs an attempt."""
        ...

    def on_ended(self, runner: LaunchRunner) -> None:
        """Note that a slot is free."""
        ...


class AgentSlot(threading.Thread):
    """One slot."""

    def __init__(self, owner: SlotOwner, number: int, devices: tuple[str, ...]) -> None:
        """`devices`: the accelerators of this slot."""
        super().__init__(name=f"slot-{number}", daemon=True)
        self._owner = owner
        self._number = number
        self._devices = devices
        self._process: WorkerProcess | None = None
        self._starts = count(1)

    def run(self) -> None:
        """Run attempts until the agent ends."""
        while True:
            runner = self._owner.next_launch()
            if runner is not None:
                self._owner.on_begun(runner)
                runner.run(self._worker)
                self._owner.on_ended(runner)
            elif self._owner.is_ending:
                break
        if self._process is not None:
            self._process.end()

    def _worker(self) -> WorkerProcess:
        """Return the process of the last attempt if it may run another one, else a new one."""
        process, job = self._process, self._owner.job
        if process is not None:
            if process.is_alive and process.is_reusable and process.job == job:
                return process
            process.end()
        spool = self._owner.home / f"slot-{self._number}" / str(next(self._starts))
        self._process = WorkerProcess(
            StartWorker(job, job.source or ".", self._owner.name, self._devices, str(spool))
        )
        return self._process


def devices_of_slots(
    resources: Resources, cpus: float, gpus: tuple[str, ...]
) -> Sequence[tuple[str, ...]]:
    """Return the accelerators of each slot, for as many trials as fit at a time."""
    by_cpu = math.floor(cpus / resources.cpu + 1e-9) if resources.cpu else max(1, math.floor(cpus))
    if resources.gpu == 0:
        return [()] * by_cpu
    if resources.gpu < 1:
        shares = math.floor(1 / resources.gpu + 1e-9)
        return [(name,) for _ in range(shares) for name in gpus][:by_cpu]
    size = math.ceil(resources.gpu)
    return [gpus[at : at + size] for at in range(0, len(gpus) - size + 1, size)][:by_cpu]
