"""The part of Ray's private interface that tunesvc uses: the place to look when an upgrade breaks.

Each function documents why Ray's public interface does not suffice. Imports Ray only when a
function is called.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any


def free_resources_by_node() -> dict[str, dict[str, float]]:
    """Return the free resources of each node. The public function returns only their sum."""
    from ray._private import state

    per_node: Any = state.available_resources_per_node  # untyped
    free: dict[str, dict[str, float]] = per_node()
    return free


def actor_state(handle: Any) -> str:
    """Return an actor's state.

    `ray.util.state` needs the dashboard, which not every cluster has.
    """
    from ray._private import state

    known: dict[str, Any] = state.actors(actor_id=handle._actor_id.hex())
    return str(known.get("State", ""))


def log_folder() -> str | None:
    """Return the folder of this node's logs, or None if Ray is not loaded or not connected.

    There is no public function.
    """
    ray = sys.modules.get("ray")
    node = ray._private.worker._global_node if ray is not None else None
    if node is None:
        return None
    return str(node.get_logs_dir_path())


def is_worker() -> bool:
    """Return True in a process that Ray has started for tasks and actors.

    The public context does not tell it from a driver.
    """
    ray = sys.modules.get("ray")
    return ray is not None and ray._private.worker.global_worker.mode == ray.WORKER_MODE


def bundle_index() -> int | None:
    """Return the bundle of a placement group in which this process is, or None.

    The public function returns the resources without it. Ray may take each resource of an actor
    from another bundle; this is the bundle of its cores if it has any, so that actors differ.
    """
    import ray

    worker: Any = ray._private.worker.global_worker
    held = worker.core_worker.resource_ids()
    found = (re.search(r"_group_(\d+)_[0-9a-f]+$", name) for name in sorted(held))
    return next((int(match[1]) for match in found if match), None)


def accelerator_counts() -> dict[str, int]:
    """Return Ray's count of this machine's accelerators by resource name."""
    from ray._private.accelerators import get_all_accelerator_managers

    counts = {}
    for manager in get_all_accelerator_managers():
        counts[manager.get_resource_name()] = manager.get_current_node_num_accelerators()
    return counts


def given_to_tuner(tuner: Any) -> dict[str, Any]:
    """Return what a `ray.tune.Tuner` was made with, by the names of its arguments.

    It keeps them to itself.
    """
    inner = tuner._local_tuner
    return {
        "trainable": inner.trainable,
        "param_space": inner.param_space,
        "tune_config": inner._tune_config,
        "run_config": inner._run_config,
    }


def package_of(folder: str, *, whole: bool) -> str:
    """Return the address at which a cluster gets a copy of a folder: it names the content.

    The public way, `working_dir` of `ray.init`, is one folder for a driver and all its jobs. An
    actor's own may only be an address.

    Args:
        folder: the folder.
        whole: take all files; otherwise those that Ray takes for a driver, without `.gitignore`d.
    """
    from ray._private.runtime_env import packaging

    excludes, gitignore = _left_out(whole=whole)
    address: str = packaging.get_uri_for_directory(
        folder, include_gitignore=gitignore, excludes=excludes
    )
    return address


def upload_package(address: str, folder: str, *, whole: bool) -> None:
    """Give a cluster a copy of a folder, unless it has it, and keep it there for ten minutes.

    Raises:
        Exception: it is too large, or the cluster does not answer.
    """
    from ray._private.runtime_env import packaging

    excludes, gitignore = _left_out(whole=whole)
    with tempfile.TemporaryDirectory(prefix="tunesvc-") as scratch:
        packaging.upload_package_if_needed(
            address,
            scratch,
            folder,
            include_gitignore=gitignore,
            excludes=excludes,
            logger=logging.getLogger(__name__),
        )


def _left_out(*, whole: bool) -> tuple[list[str], bool]:
    """Return the patterns to leave out, and whether to read `.gitignore`, as `ray.init` does."""
    from ray._private import ray_constants

    if whole:
        return [], False
    excludes: list[str] = ray_constants.get_runtime_env_default_excludes()
    return excludes, os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"


def mute_worker_logs() -> None:
    """Print no output of workers.

    `log_to_driver=False` still prints a raylet's messages about a dead worker.
    """
    from ray._private import worker

    worker._worker_logs_enabled = False


def enable_token_authentication() -> None:
    """Use the token of this machine from now on.

    The public way is an environment variable, which Ray reads only when it is imported.
    """
    from ray._private.authentication.authentication_token_setup import _enable_token_auth

    _enable_token_auth()


def check_head(address: str, timeout_s: float) -> None:
    """Ask the head of a cluster for its nodes.

    Raises:
        ray.exceptions.AuthenticationError: the head requires a token.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, and without stubs

    GcsClient(address=address).check_alive([], timeout_s)


@contextlib.contextmanager
def tune_session(session: object) -> Iterator[None]:
    """Let the functions of `ray.tune` use this session, wherever they were imported.

    Ray's own session needs a Ray storage, and would block every report until its controller has
    fetched it.
    """
    from ray.train._internal import session as module

    module._session = session  # type: ignore[assignment]  # it has all that ray.tune uses
    try:
        yield
    finally:
        module._session = None


def restorable(checkpoint: Any, metrics: dict[str, Any]) -> Any:
    """Return what `Trainable.restore` takes beside a path, which has no step: not exported."""
    from ray.train._internal.session import _TrainingResult

    return _TrainingResult(checkpoint, metrics)


def requested_resources(function: object) -> Any:
    """Return the request of `ray.tune.with_resources`, which nothing public reads; or None."""
    return getattr(function, "_resources", None)


def wrapped_errors(error: BaseException) -> list[BaseException]:
    """Return the exceptions that one of Ray has in its fields, instead of as its cause.

    Ray Train's exceptions of workers have their originals in a private field.
    """
    failures = getattr(error, "worker_failures", None)
    fields = ("controller_failure", "health_check_failure", "_base_exc", "cause")
    found = [*failures.values()] if isinstance(failures, dict) else []
    found += [getattr(error, name, None) for name in fields]
    return [one for one in found if isinstance(one, BaseException)]


def is_parameter_registry(value: object) -> bool:
    """Return True for what `ray.tune.with_parameters` hides in a function's closure.

    Compares names, so that Ray is not imported.
    """
    kind = type(value)
    return (kind.__module__, kind.__name__) == ("ray.tune.registry", "_ParameterRegistry")


@contextlib.contextmanager
def lean_local_ray() -> Iterator[None]:
    """Let a local Ray start without autoscaler, log monitor and dashboard server.

    Each is a Python process that imports Ray and competes for the CPU while Ray starts. Ray even
    waits for the dashboard server, which `include_dashboard=False` starts without pages. `ray
    start` has options for the first two, `ray.init` has none.
    """
    from ray._private import node, parameter

    params, serve = parameter.RayParams, node.Node.start_api_server
    options: dict[str, Any] = {"no_monitor": True, "include_log_monitor": False}  # typed as str
    parameter.RayParams = functools.partial(params, **options)  # type: ignore[misc, assignment]
    node.Node.start_api_server = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        parameter.RayParams = params  # type: ignore[misc]
        node.Node.start_api_server = serve  # type: ignore[method-assign]
