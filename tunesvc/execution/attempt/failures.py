"""Turns an exception of the objective into an outcome, with a traceback of the user's frames only.

Imports neither Ray, Optuna nor torch, but recognizes their exceptions by name.
"""

from __future__ import annotations

import traceback
from pathlib import Path

from tunesvc.errors import BadReport, Pruned
from tunesvc.execution.attempt.out_of_memory import OutOfMemory, out_of_memory
from tunesvc.execution.executor import Failed, Outcome, StoppedEarly
from tunesvc.execution.gang.gang_errors import linked_errors
from tunesvc.util.characters import storable

MESSAGE_CHARS_MAX = 4_000
TRACEBACK_CHARS_MAX = 32_000
_OUR_FOLDER = str(Path(__file__).resolve().parents[2])
_NOT_THE_MAIN_THREAD = (
    " (an objective runs in a thread of its worker: `environment: {isolation: process}` runs it"
    " in the main thread of a process of its own, unless a trial has several `workers`)"
)
"""A remedy, which the error of `signal.signal` lacks."""
_RAYS_WRAPPER = "ray/util/tracing/tracing_helper.py"
"""Ray wraps the methods of actors, so its frame precedes ours in a traceback."""


class EntrypointError(Exception):
    """The objective cannot be found, imported or called with the study's parameters.

    No trial can run.
    """


class CheckpointGone(Exception):
    """The checkpoint of a member of a population is gone: it must not start over unnoticed."""

    def __init__(self, location: str, node: str) -> None:
        super().__init__(
            f"its checkpoint {location} was not found on {node}, and a member of a population does "
            "not start over. It was deleted, or TUNE_CHECKPOINTS names a folder that not all nodes "
            "share"
        )


def outcome_of(error: BaseException, *, stop_requested: bool) -> Outcome:
    """Return the outcome for an exception of the objective.

    `SystemExit` and `KeyboardInterrupt` count as an early stop if a stop was requested, otherwise
    as a failure.
    """
    if is_pruned(error):
        return StoppedEarly()
    if stop_requested and isinstance(error, (SystemExit, KeyboardInterrupt)):
        return StoppedEarly()
    shown = traceback.TracebackException.from_exception(error)
    return Failed(_kind(error), _message(error, shown), _users_traceback(shown))


def is_pruned(error: BaseException) -> bool:
    """Return True for our `Pruned` and Optuna's `TrialPruned`.

    Also of a child process of PyTorch, from which only text arrives.
    """
    if _is_named(error, "ProcessRaisedException", package="torch"):
        return f"{Pruned.__module__}.{Pruned.__qualname__}: " in _text(error)
    if _is_named(error, "TrainingFailedError", package="ray"):
        return any(_is_pruned(one) for one in linked_errors(error))
    return _is_pruned(error)


def _is_pruned(error: BaseException) -> bool:
    return isinstance(error, Pruned) or _is_named(error, "TrialPruned", package="optuna")


def _kind(error: BaseException) -> str:
    if isinstance(error, BadReport):
        return "bad_report"
    if isinstance(error, EntrypointError):
        return "entrypoint"
    for cause in linked_errors(error):
        if out_of := _out_of_memory_kind(cause):
            return out_of
    return "error"


def _out_of_memory_kind(error: BaseException) -> OutOfMemory | None:
    """Return which memory ran out, or None for another error."""
    if _is_named(error, "OutOfMemoryError", package="ray"):  # a node's memory
        return "host_oom"
    if _is_named(error, "OutOfMemoryError"):  # torch's and CuPy's
        return "gpu_oom"
    if isinstance(error, MemoryError):
        return "gpu_oom" if out_of_memory(_text(error)) == "gpu_oom" else "host_oom"
    return out_of_memory(_text(error))


def _message(error: BaseException, shown: traceback.TracebackException) -> str:
    if isinstance(error, (BadReport, EntrypointError, CheckpointGone)):
        return clean(_text(error), MESSAGE_CHARS_MAX)
    message = "".join(shown.format_exception_only()).strip()
    if isinstance(error, ValueError) and "main thread" in message:
        message += _NOT_THE_MAIN_THREAD
    return clean(message, MESSAGE_CHARS_MAX)


def _users_traceback(shown: traceback.TracebackException) -> str:
    _drop_our_frames(shown)
    return clean("".join(shown.format()), TRACEBACK_CHARS_MAX)


def _drop_our_frames(shown: traceback.TracebackException) -> None:
    users = [frame for frame in shown.stack if not _is_ours(frame.filename)]
    shown.stack = traceback.StackSummary.from_list(users)
    for linked in (shown.__cause__, shown.__context__):
        if linked is not None:
            _drop_our_frames(linked)


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OUR_FOLDER) or filename.endswith(_RAYS_WRAPPER)


def clean(text: str, chars_max: int) -> str:
    """Return text that the database accepts: no NUL or lone surrogates, and not too long."""
    text = storable(text)
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # the user's __str__ may raise anything
        return f"<{type(error).__name__} that cannot be shown>"


def _is_named(error: BaseException, name: str, package: str = "") -> bool:
    return any(c.__name__ == name and c.__module__.startswith(package) for c in type(error).__mro__)
