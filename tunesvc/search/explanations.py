"""Reasons of samplers and pruners for their decisions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

RECENT_MAX = 256
"""Number of trials that are remembered."""
REPEATS = "repeats"
"""Detail of a proposal that measures a configuration again deliberately: number of that trial."""
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason of a decision, as text and as data."""

    text: str
    """One sentence."""
    details: Mapping[str, Any]
    """Data behind the sentence; JSON can hold it."""


class RecentEntries(dict[int, Kept]):
    """Entries of the latest trials, by number: a new one replaces the oldest.

    Several studies may share a sampler, each in its own thread, so it needs a lock of its own.
    """

    def __setitem__(self, number: int, value: Kept) -> None:
        with _CHANGING:
            super().__setitem__(number, value)
            if len(self) > RECENT_MAX:
                del self[next(iter(self))]

    def pop(self, number: int, *default: Any) -> Any:
        with _CHANGING:
            return super().pop(number, *default)


_CHANGING = threading.Lock()


@runtime_checkable
class Explainable(Protocol):
    """A sampler or pruner that gives reasons."""

    def explain(self, number: int) -> Reason | None:
        """Return the reason of the last decision on this trial.

        None if there is none, or no longer.
        """
        ...


def reason_of(
    chooser: object,
    number: int,
    complain: Callable[[int, str, Exception], None],
) -> Reason | None:
    """Return a sampler's or pruner's reason for its last decision.

    An error in it is only recorded.
    """
    # Checking for the protocol takes thirty times as long.
    explain = getattr(chooser, "explain", None)
    if explain is None:
        return None
    try:
        reason: Reason | None = explain(number)
        return reason
    except Exception as error:  # noqa: BLE001  # a user's code; the decision stands without it
        complain(number, type(chooser).__name__, error)
        return None
