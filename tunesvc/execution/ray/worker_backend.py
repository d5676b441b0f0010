"""The workers of one job as the executor sees them, wherever they come from: `actors` has them from Ray.

Protocols only; imports no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.attempt.spool import Remains
from tunesvc.execution.executor import Job, NodeInfo


class WorkerHandle(Protocol):
    """A worker that was started, by us or by an earlier coordinator."""

    @property
    def name(self) -> str:
        """Empty on a local Ray."""
        ...

    @property
    def actor(self) -> Any:
        """Calls the methods of `Worker` remotely, as an actor's handle does."""
        ...

    def kill(self) -> None:
        """Kill its process. Repeatable."""
        ...

    def end(self) -> None:
        """Kill its process, and free what its gang holds. Repeatable."""
        ...


class WorkerBackend(Protocol):
    """Starts workers, finds those that others started, and knows what there is room for."""

    @property
    def job(self) -> Job:
        """What the workers are started for."""
        ...

    @property
    def shared(self) -> bool:
        """Whether the workers outlive us, on a cluster that others use too."""
        ...

    def nodes(self) -> list[NodeInfo]:
        """The living nodes. Any thread may ask."""
        ...

    def start(self, token: int) -> WorkerHandle:
        """Ask for one more worker; returns at once."""
        ...

    def names(self) -> set[str]:
        """The names of all workers of this job that live or come up, whoever started them. May take a while."""
        ...

    def find(self) -> Sequence[WorkerHandle]:
        """All workers of this job, whoever started them. May take a while."""
        ...

    def pending(self, workers: Sequence[WorkerHandle]) -> Sequence[WorkerHandle]:
        """Those that have not come up yet, so that they never ran anything. May take a while."""
        ...

    def remains(self, info: WorkerInfo, positions: Mapping[str, int]) -> Remains:
        """What a worker that died there has left, beyond what was heard of each stream. May take a while."""
        ...

    def end_named(self, name: str) -> None:
        """End a worker that is known by its name only. Repeatable."""
        ...

    def token_of(self, name: str) -> int:
        """The fencing token of whoever started the worker of this name."""
        ...

    def close(self) -> None:
        """Leave the cluster, and end it if it is our own. Repeatable."""
        ...
