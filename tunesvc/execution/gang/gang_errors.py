"""Errors that an objective gets from its gang's processes: causes in Ray's wrappers, and losses.

Imports no Ray, but recognizes its exceptions by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesvc.execution import ray_internals
from tunesvc.execution.executor import LossKind, Lost

_DEATHS = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "PreemptionError")
_MESSAGE_CHARS_MAX = 500
_ACTOR = re.compile(r"class_name: (\S+).*? pid: (\d+).*? ip: (\S+)")
_NO_TRACE = "connection error code 2"


def linked_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its chain of causes, and those that Ray has put into its fields."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        context = None if cause.__suppress_context__ else cause.__context__
        links = (*ray_internals.wrapped_errors(cause), cause.__cause__ or context)
        waiting += [link for link in links if link is not None]


def loss_in(error: BaseException) -> Lost | None:
    """Return the loss if a process of the gang has died, or None for another error."""
    for cause in linked_errors(error):
        if _is_death(cause):
            return Lost(f"a process of the gang died: {_summary(cause)}", _kind(cause))
    return None


def _is_death(error: BaseException) -> bool:
    names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("ray")]
    return any(name in _DEATHS for name in names)


def _kind(error: BaseException) -> LossKind:
    text = str(error)
    if getattr(error, "preempted", False) or type(error).__name__ == "PreemptionError":
        return "preempted"
    if "node has died" in text or "node was dead" in text or "NodeDied" in type(error).__name__:
        return "node"
    return "lost"


def _summary(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if found := _ACTOR.search(text):
        name, pid, address = found.groups()
        process = f"{name}, process {pid} on {address}"
        return f"{process}, without a trace, as by SIGKILL" if _NO_TRACE in text else process
    return text if len(text) <= _MESSAGE_CHARS_MAX else f"{text[:_MESSAGE_CHARS_MAX]}..."
