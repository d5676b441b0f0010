"""Protocols for a source of workers, as the executor uses it. `actors` implements them with Ray.

Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.executor import Job, NodeInfo
from tunesvc.execution.output.spool import Remains


class WorkerHandle(Protocol):
    """A worker, started by this coordinator or by an earlier one."""

    @property
    def name(self) -> str:
        """Name of the worker. Empty on a local Ray."""
        ...

    @property
    def actor(self) -> Any:
        """Ray actor handle: calls the methods of `Worker` remotely."""
        ...

    def kill(self) -> None:
        """Kill its process. Repeatable."""
        ...

    def end(self) -> None:
        """Kill its process and free its gang's resources. Repeatable."""
        ...


class WorkerBackend(Protocol):
    """Starts the workers of one job, and finds those of other coordinators."""

    @property
    def job(self) -> Job:
        """The job that the workers run."""
        ...

    @property
    def shared(self) -> bool:
        """True on a cluster: workers outlive this process, and others use the cluster too."""
        ...

    def nodes(self) -> list[NodeInfo]:
        """Return the living nodes. Any thread may call this."""
        ...

    def start(self, token: int) -> WorkerHandle:
        """Start one more worker. Returns at once."""
        ...

    def names(self) -> set[str]:
        """Return the names of all workers of this job. Slow.

        Includes starting ones and those of other coordinators.
        """
        ...

    def find(self) -> Sequence[WorkerHandle]:
        """Return all workers of this job, other coordinators' included. Slow."""
        ...

    def pending(self, workers: Sequence[WorkerHandle]) -> Sequence[WorkerHandle]:
        """Return the workers that are not up yet and so never ran an attempt. Slow."""
        ...

    def remains(self, info: WorkerInfo, positions: Mapping[str, int]) -> Remains:
        """Return a dead worker's output after the given position of each stream. Slow."""
        ...

    def end_named(self, name: str) -> None:
        """End a worker by its name. Repeatable."""
        ...

    def token_of(self, name: str) -> int:
        """Return the fencing token of the coordinator that started the worker of this name."""
        ...

    def close(self) -> None:
        """Leave the cluster, and end it if this process owns it. Repeatable."""
        ...
