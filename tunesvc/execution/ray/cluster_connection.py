"""Connects to Ray: a local one, a cluster by address, or the one that this process already uses.

Owns Ray's start options and its log settings, and turns failures to start or reach it into errors.
Imports Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesvc.errors import ExecutorError
from tunesvc.execution import ray_internals

NAMESPACE = "tunesvc"
_REACH_S = 5.0
_REASON_CHARS_MAX = 500
_WORKER = "tunesvc.execution.worker.worker"
"""Imported by Ray's processes before they get an actor, so that no attempt waits for the import."""
_OBJECT_STORE_BYTES = 512 * 2**20
"""Size on a local Ray.

Objectives rarely use the store, and the default takes a third of the memory.
"""


@dataclass(frozen=True, slots=True)
class LocalResources:
    """Resources of a local Ray. None means all of the machine."""

    cpu: int | None = None
    gpu: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[str, ...] | None = None
    """The GPUs, named as in `CUDA_VISIBLE_DEVICES`. None means those that this process sees."""

    @classmethod
    def from_environment(cls) -> LocalResources:
        """Return the machine's resources.

        `TUNE_LOCAL_GPUS=2` pretends two GPUs, to try placement without hardware.

        Raises:
            ExecutorError: the variable is not an integer.
        """
        gpus = os.environ.get("TUNE_LOCAL_GPUS", "")
        if gpus and not gpus.isdecimal():
            raise ExecutorError(
                f"TUNE_LOCAL_GPUS is {gpus!r}: write how many GPUs the local Ray has, such as 2",
            )
        return cls(gpu=int(gpus) if gpus else None)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection to Ray."""

    owned: bool
    """True if `connect` started or joined Ray, so that `close` must leave it."""
    remote: bool
    """True if workers may run on other machines, so that code has to be uploaded."""

    def close(self) -> None:
        """Leave Ray, and end a local one that this process started. Repeatable."""
        import ray

        if self.owned and ray.is_initialized():
            ray.shutdown()


def connect(
    address: str | None = None,
    local: LocalResources | None = None,
) -> Connection:
    """Use the Ray of this process, or join a cluster, or start a local Ray.

    The cluster is the one at `address`, or else at RAY_ADDRESS.

    Raises:
        ExecutorError: Ray could not be started or reached. The text contains a remedy.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # errors of calls to dead workers are handled elsewhere
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    import ray

    if ray.is_initialized():
        return Connection(owned=False, remote=False)
    address = address or os.environ.get("RAY_ADDRESS")
    with _quiet(), _signals_kept():
        if address and address != "local":
            _join(address)
            return Connection(owned=True, remote=True)
        _start(local or LocalResources.from_environment())
        return Connection(owned=True, remote=False)


def _start(local: LocalResources) -> None:
    if local.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(local.devices)
    with ray_internals.lean_local_ray():
        _init(
            "Ray could not be started on this machine",
            "`tune doctor` checks this machine; `cluster: HOST:PORT` or RAY_ADDRESS uses a Ray that"
            " runs elsewhere",
            address="local",
            num_cpus=local.cpu,
            num_gpus=local.gpu,
            resources=dict(local.custom) or None,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _system_config={"preload_python_modules": [_WORKER]},
        )


def _join(address: str) -> None:
    _check_reachable(address)
    if address != "auto":
        _match_authentication(address)
    _init(
        f"the Ray cluster at {address} could not be joined",
        "its Ray and Python must be of the same version as here",
        address=address,
    )


def _match_authentication(address: str) -> None:
    """Use token authentication if and only if the cluster does.

    If only the driver uses it, the cluster takes the driver for dead and never runs its actors. The
    mere presence of a token in the home directory must not decide, because every local Ray leaves
    one there.

    Raises:
        ExecutorError: the cluster requires a token that is not configured here.
    """
    from ray.exceptions import AuthenticationError

    if os.environ.get("RAY_AUTH_MODE"):
        return
    try:
        _check_alive(address)
    except AuthenticationError:
        ray_internals.enable_token_authentication()
        try:
            _check_alive(address)
        except AuthenticationError as error:
            raise ExecutorError(
                f"the Ray cluster at {address} asks for a token: put its own into RAY_AUTH_TOKEN, "
                "into the file that RAY_AUTH_TOKEN_PATH names, or into ~/.ray/auth_token",
            ) from error


def _check_alive(address: str) -> None:
    with _stderr_muted():  # a refusal also raises an exception
        ray_internals.check_head(address, _REACH_S)


def _init(failure: str, remedy: str, **options: Any) -> None:
    import ray

    # Attempts have a worker's last messages in their outcome.
    ray_internals.mute_worker_logs()

    try:
        ray.init(
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except Exception as error:
        ray.shutdown()
        reason = " ".join(str(error).split())[:_REASON_CHARS_MAX] or type(error).__name__
        raise ExecutorError(
            f"{failure}: {reason.rstrip('.')}. {remedy[0].upper()}{remedy[1:]}.",
        ) from error


def _check_reachable(address: str) -> None:
    """Fail at once for an unreachable address. Ray itself would retry for minutes."""
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise ExecutorError(
            f"{address!r} is an address of Ray Client, which would end all trials with its server: "
            "write HOST:PORT of the cluster's head, such as `ray-head:6379`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ExecutorError(
            f"{address!r} is no address of a Ray cluster: write HOST:PORT, such as `ray-head:6379`",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExecutorError(
            f"the Ray cluster at {address} cannot be reached: {reason}. "
            "Is it running (`ray start --head`), is the port right (6379 unless changed), "
            "and may this machine connect to it?",
        ) from error


@contextlib.contextmanager
def _stderr_muted() -> Iterator[None]:
    """Keep Ray's compiled parts from writing to the terminal."""
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Ray's warnings about its own future versions, which the user cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the SIGTERM handler, which `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
