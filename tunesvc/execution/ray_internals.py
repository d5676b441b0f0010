"""Ray's private interface, as far as tunesvc needs it: the one place to look when an upgrade of Ray breaks something.

Each function says why Ray's public interface does not do. Ray is imported when a function is called.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any


def free_resources_by_node() -> dict[str, dict[str, float]]:
    """Return what each node has free; publicly, Ray tells the sum over all nodes only."""
    from ray._private import state

    free: dict[str, dict[str, float]] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def actor_state(handle: Any) -> str:
    """Return the state of an actor; `ray.util.state` would ask the dashboard, which not every cluster has."""
    from ray._private import state

    known: dict[str, Any] = state.actors(actor_id=handle._actor_id.hex())
    return str(known.get("State", ""))


def log_folder() -> str | None:
    """Return the folder of this node's logs if Ray is loaded and connected; Ray names it nowhere else."""
    ray = sys.modules.get("ray")
    node = ray._private.worker._global_node if ray is not None else None
    return None if node is None else str(node.get_logs_dir_path())


def accelerator_counts() -> dict[str, int]:
    """Return how many accelerators of each resource name this machine has, as Ray will count them."""
    from ray._private.accelerators import get_all_accelerator_managers

    managers = get_all_accelerator_managers()
    return {manager.get_resource_name(): manager.get_current_node_num_accelerators() for manager in managers}


def mute_worker_logs() -> None:
    """Print no output of workers: `log_to_driver=False` still prints what a raylet writes when a worker dies."""
    from ray._private import worker

    worker._worker_logs_enabled = False


def enable_token_authentication() -> None:
    """Use the token of this machine from now on; publicly, an environment variable decides when Ray is imported."""
    from ray._private.authentication.authentication_token_setup import _enable_token_auth

    _enable_token_auth()


def check_head(address: str, timeout_s: float) -> None:
    """Ask the head of a cluster for its nodes.

    Raises:
        ray.exceptions.AuthenticationError: it asks for a token.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, and without stubs

    GcsClient(address=address).check_alive([], timeout_s)


@contextlib.contextmanager
def lean_local_ray() -> Iterator[None]:
    """Let a local Ray start without autoscaler, log monitor and dashboard server.

    Each is a Python process that imports Ray, while everything waits for a processor; Ray waits for the last one, which
    `include_dashboard=False` starts with no pages to serve. `ray start` has options for the first two, `ray.init` has
    none.
    """
    from ray._private import node, parameter

    params, serve = parameter.RayParams, node.Node.start_api_server
    parameter.RayParams = functools.partial(params, no_monitor=True, include_log_monitor=False)  # type: ignore[misc, assignment, arg-type]
    node.Node.start_api_server = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        parameter.RayParams = params  # type: ignore[misc]
        node.Node.start_api_server = serve  # type: ignore[method-assign]
