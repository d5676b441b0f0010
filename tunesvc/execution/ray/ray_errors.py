"""Turns Ray's error about a dead worker into an outcome with a reason. Imports Ray."""

from __future__ import annotations

import re

from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from tunesvc.execution.attempt.failures import MESSAGE_CHARS_MAX, TRACEBACK_CHARS_MAX, clean
from tunesvc.execution.executor import Failed, Lost

_EXIT = re.compile(r"exit detail: (.+?)(?:\n|$)", re.IGNORECASE)
_NO_TRACE = (
    "died without a trace, as by SIGKILL: the kernel sends that when memory runs out, or another"
    " process did"
)
_OUT_OF_MEMORY = (
    "the node ran out of memory and Ray killed the worker: ask for `resources: {memory: ...}`"
)
_OOM_SIGNS = (
    "memory pressure",
    "OutOfMemory",
    "running low on memory",
    "NODE_OUT_OF_MEMORY",
    "out-of-memory",
)


def outcome_of_death(
    error: BaseException,
    *,
    killed: bool,
    end: str = "",
) -> Failed | Lost:
    """Return the outcome of an attempt whose worker has died with Ray's `error`.

    `end` describes how the process ended, if its spool has a trace.
    """
    text = str(error)
    if killed:
        return Lost("the worker was killed")
    if isinstance(error, RuntimeEnvSetupError):
        reason = text.strip().splitlines()[-1].strip()
        message = f"the workers' environment (`environment: pip`) cannot be made: {reason}"
        return Failed(
            "entrypoint",
            clean(message, MESSAGE_CHARS_MAX),
            clean(text, TRACEBACK_CHARS_MAX),
        )
    if isinstance(error, ActorUnschedulableError):
        return Failed(
            "entrypoint",
            clean(f"no worker can be placed: {text}", MESSAGE_CHARS_MAX),
        )
    if isinstance(error, OutOfMemoryError) or any(sign in text for sign in _OOM_SIGNS):
        return Failed("host_oom", _OUT_OF_MEMORY)
    if isinstance(error, RayTaskError):
        message = f"the worker failed: {text.strip().splitlines()[-1]}"
        return Failed("error", clean(message, MESSAGE_CHARS_MAX), text)
    if getattr(error, "preempted", False):
        return Lost("the worker's node was taken back", "preempted")
    if isinstance(error, NodeDiedError) or "node has died" in text or "node was dead" in text:
        return Lost("the worker's node went away", "node")
    return Lost(clean(_lost(error, text, end), MESSAGE_CHARS_MAX))


def _lost(error: BaseException, text: str, end: str) -> str:
    if "error_on_init" in text or "creation task" in text:
        return f"the worker could not start: {text}"
    if isinstance(error, RayActorError):
        return f"the worker's process {end or _end_by_ray(text)}"
    if isinstance(error, RayError):
        return f"the worker cannot be reached: {text}"
    return f"the worker is gone: {type(error).__name__}: {text}"


def _end_by_ray(text: str) -> str:
    """Describe the end of a process that left no trace.

    Ray sees a closed connection, or a signal that it handles.
    """
    if "SIGTERM" in text:
        return "was ended by SIGTERM"
    detail = _EXIT.search(text)
    if detail is None or "connection error code 2" in detail[1]:
        return _NO_TRACE
    return f"died: {detail[1].split('. ')[0].strip()}"
