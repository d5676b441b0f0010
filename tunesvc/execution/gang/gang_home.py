"""The process that runs a gang's trial, as the gang's other processes call it through Ray.

Imports Ray when a call is made.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunesvc.errors import BadReport
from tunesvc.execution.executor import AttemptId

CONCURRENCY_GROUP = "gang"
"""Threads of the actor that answer these calls."""


@dataclass(frozen=True, slots=True)
class GangHome:
    """Names the actor that runs a gang's trial."""

    name: str
    namespace: str
    node_id: str

    @property
    def is_here(self) -> bool:
        """True on the actor's node."""
        import ray

        node_id: str = ray.get_runtime_context().get_node_id()
        return node_id == self.node_id

    def call(self, method: str, *values: Any) -> Any:
        """Call a method of the actor and return its result.

        Raises:
            BadReport: the actor has ended, and the trial with it.
        """
        import ray

        try:
            actor = _actor(self.name, self.namespace)
        except ValueError:
            raise BadReport("the process that runs this trial has ended") from None
        call = getattr(actor, method).options(concurrency_group=CONCURRENCY_GROUP)
        return ray.get(call.remote(*values))

    def call_attempt(self, attempt: AttemptId, verb: str, *values: Any) -> Any:
        """Execute a call of `gang_calls` on an attempt, and return its result."""
        return self.call("call_from_gang", attempt, verb, *values)


@lru_cache(maxsize=8)
def _actor(name: str, namespace: str) -> Any:
    import ray

    return ray.get_actor(name, namespace)


def is_in_ray() -> bool:
    """Return True in a process of Ray, such as an actor; False in one that it has started."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def nodes_of_bundles(group: Any) -> tuple[str, ...]:
    """Return Ray's ID of each bundle's node. All bundles are placed."""
    from ray.util.placement_group import placement_group_table

    nodes: dict[int, str] = placement_group_table(group)["bundles_to_node_id"]
    return tuple(nodes[index] for index in sorted(nodes))
