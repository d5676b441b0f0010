"""Reads the spools of other nodes. Imports Ray when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from tunesvc.execution.output.spool import Remains, read_remains

SpoolId = tuple[str, str]
"""Ray's ID of a node, and a spool's folder there."""
Positions = Mapping[str, int]
"""Stream -> position up to which it was received."""


def read_on_nodes(
    received: Mapping[SpoolId, Positions], timeout_s: float
) -> dict[SpoolId, Remains]:
    """Return what was not received of each spool. Repeatable.

    One task on each node reads all its spools; all tasks run at the same time. The spools of a node
    that is gone, or does not answer within `timeout_s`, are absent from the result.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    by_node: dict[str, dict[str, Positions]] = {}
    for (node_id, folder), positions in received.items():
        by_node.setdefault(node_id, {})[folder] = dict(positions)
    nodes = {}
    for node_id, spools in by_node.items():
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        read = ray.remote(_read).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        nodes[read.remote(spools)] = node_id
    if not nodes:
        return {}
    tasks = [*nodes]
    done, late = ray.wait(tasks, num_returns=len(tasks), timeout=timeout_s)
    for task in late:
        ray.cancel(task, force=True)
    found = {}
    for task in done:
        with suppress(ray.exceptions.RayError):  # its node is gone
            for folder, remains in ray.get(task).items():
                found[nodes[task], folder] = remains
    return found


def _read(spools: Mapping[str, Positions]) -> dict[str, Remains]:
    return {folder: read_remains(folder, positions) for folder, positions in spools.items()}
