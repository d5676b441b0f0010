"""Connecting to Ray: a local one of our own, a cluster by address, or the one that this process already uses.

Owns Ray's start-up options, its noise, and the errors of a Ray that cannot be started or reached. Imports Ray.
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
from pathlib import Path
from typing import Any

from tunesvc.errors import ExecutorError

NAMESPACE = "tunesvc"
_REACH_S = 5.0
_OBJECT_STORE_BYTES = 512 * 2**20
"""Of the local Ray: objectives rarely use it, and the default takes a third of the memory."""


@dataclass(frozen=True, slots=True)
class LocalResources:
    """What a local Ray claims to have; None is what the machine has."""

    cpu: int | None = None
    gpu: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

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


def connect(address: str | None = None, local: LocalResources | None = None) -> Connection:
    """Use the Ray of this process, or join the cluster at `address` (or `RAY_ADDRESS`), or start a local Ray.

    Raises:
        ExecutorError: it could not be started or reached; the text says what to do.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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
    _init(
        "Ray could not be started on this machine",
        "`tune doctor` checks this machine; `cluster: HOST:PORT` or RAY_ADDRESS uses a Ray that runs elsewhere",
        address="local",
        num_cpus=local.cpu,
        num_gpus=local.gpu,
        resources=dict(local.custom) or None,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
    )


def _join(address: str) -> None:
    _check_reachable(address)
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    _init(
        f"the Ray cluster at {address} could not be joined",
        "its Ray and Python must be of the same version as here, and its token must be in RAY_AUTH_TOKEN or "
        "~/.ray/auth_token",
        address=address,
    )


def _init(failure: str, remedy: str, **options: Any) -> None:
    import ray

    try:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        ray.shutdown()
        text = str(error).strip() or type(error).__name__
        raise ExecutorError(f"{failure}: {text.splitlines()[0]}. {remedy[0].upper()}{remedy[1:]}.") from error


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


def _has_token() -> bool:
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or (Path.home() / ".ray" / "auth_token").exists()


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
