"""Connecting to Ray: a local one of our own, a cluster by address, or the one that this process already uses.

Owns Ray's start-up options, its noise, and the errors of a Ray that cannot be started or reached. Imports Ray.
"""

from __future__ import annotations

import contextlib
import functools
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

NAMESPACE = "tunesvc"
_REACH_S = 5.0
_REASON_CHARS_MAX = 500
_WORKER = "tunesvc.execution.worker.worker"
"""Imported by Ray's processes while they wait for an actor: afterwards everybody would wait for that."""
_OBJECT_STORE_BYTES = 512 * 2**20
"""Of the local Ray: objectives rarely use it, and the default takes a third of the memory."""


@dataclass(frozen=True, slots=True)
class LocalResources:
    """What a local Ray claims to have; None is what the machine has."""

    cpu: int | None = None
    gpu: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[str, ...] | None = None
    """The GPUs, as `CUDA_VISIBLE_DEVICES` names them; None is those that this process sees."""

    @classmethod
    def from_environment(cls) -> LocalResources:
        """What the machine has; `TUNE_LOCAL_GPUS=2` pretends two GPUs, to try placement without hardware.

        Raises:
            ExecutorError: it is no whole number.
        """
        gpus = os.environ.get("TUNE_LOCAL_GPUS", "")
        if gpus and not gpus.isdecimal():
            raise ExecutorError(f"TUNE_LOCAL_GPUS is {gpus!r}: write how many GPUs the local Ray has, such as 2")
        return cls(gpu=int(gpus) if gpus else None)


@dataclass(frozen=True, slots=True)
class Connection:
    """A Ray that can be used."""

    owned: bool
    """Whether this process started or joined it for us, so that closing has to leave it."""
    remote: bool
    """Whether workers may run on other machines, so that code has to travel."""

    def close(self) -> None:
        """Leave Ray, and end it if it is our own local one. Repeatable."""
        import ray

        if self.owned and ray.is_initialized():
            ray.shutdown()


def connect(
    address: str | None = None, local: LocalResources | None = None, *, source: str | None = None
) -> Connection:
    """Use the Ray of this process, or join the cluster at `address` (or `RAY_ADDRESS`), or start a local Ray.

    A cluster gets a copy of the folder `source`, in which its workers then start.

    Raises:
        ExecutorError: it could not be started or reached; the text says what to do.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # a stop that a dead worker never got is no news
    import ray

    if ray.is_initialized():
        return Connection(owned=False, remote=False)
    address = address or os.environ.get("RAY_ADDRESS")
    with _quiet(), _signals_kept():
        if address and address != "local":
            _join(address, source)
            return Connection(owned=True, remote=True)
        _start(local or LocalResources.from_environment())
        return Connection(owned=True, remote=False)


def _start(local: LocalResources) -> None:
    if local.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(local.devices)
    with _without_idlers():
        _init(
            "Ray could not be started on this machine",
            "`tune doctor` checks this machine; `cluster: HOST:PORT` or RAY_ADDRESS uses a Ray that runs elsewhere",
            address="local",
            num_cpus=local.cpu,
            num_gpus=local.gpu,
            resources=dict(local.custom) or None,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _system_config={"preload_python_modules": [_WORKER]},
        )


@contextlib.contextmanager
def _without_idlers() -> Iterator[None]:
    """Start no autoscaler, for there is one node, no log monitor, for nothing listens to it, and no dashboard server.

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


def _join(address: str, source: str | None) -> None:
    _check_reachable(address)
    if not address.startswith("ray://") and address != "auto":
        _agree_on_token(address)
    _init(
        f"the Ray cluster at {address} could not be joined",
        "its Ray and Python must be of the same version as here",
        address=address,
        runtime_env={"working_dir": source} if source else None,  # Ray uploads only what it is told here
    )


def _agree_on_token(address: str) -> None:
    """Use token authentication if, and only if, the cluster does.

    A driver that uses it on a cluster that does not is taken for dead by the cluster, and its actors never run: so a
    token in the home directory alone, which every local Ray leaves there, must not decide.

    Raises:
        ExecutorError: the cluster asks for a token that we do not have.
    """
    from ray._private.authentication.authentication_token_setup import _enable_token_auth
    from ray.exceptions import AuthenticationError

    if os.environ.get("RAY_AUTH_MODE"):
        return
    try:
        _greet(address)
    except AuthenticationError:
        _enable_token_auth()
        try:
            _greet(address)
        except AuthenticationError as error:
            raise ExecutorError(
                f"the Ray cluster at {address} asks for a token: put its own into RAY_AUTH_TOKEN, into the file that "
                "RAY_AUTH_TOKEN_PATH names, or into ~/.ray/auth_token"
            ) from error


def _greet(address: str) -> None:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, and without stubs

    with _stderr_muted():  # the refusal comes as an exception too
        GcsClient(address=address).check_alive([], _REACH_S)


def _init(failure: str, remedy: str, **options: Any) -> None:
    import ray
    from ray._private import worker

    # a raylet's last words would be printed to stdout even so; what concerns an attempt is in its outcome
    worker._worker_logs_enabled = False

    try:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        ray.shutdown()
        reason = " ".join(str(error).split())[:_REASON_CHARS_MAX] or type(error).__name__
        raise ExecutorError(f"{failure}: {reason.rstrip('.')}. {remedy[0].upper()}{remedy[1:]}.") from error


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise ExecutorError(f"{address!r} is no address of a Ray cluster: write HOST:PORT, such as `ray-head:6379`")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExecutorError(
            f"the Ray cluster at {address} cannot be reached: {reason}. Is it running (`ray start --head`), is the "
            "port right (6379 unless changed), and may this machine connect to it?"
        ) from error


@contextlib.contextmanager
def _stderr_muted() -> Iterator[None]:
    """Keep Ray's compiled parts from writing to the terminal."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray announces its own future behaviour; nothing that our user could act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """`ray.init` takes SIGTERM for itself; whoever runs us decides what it means."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
