"""Why a sampler proposed what it proposed, and why a pruner stopped a trial or let it go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

RECENT_MAX = 256
"""Trials of which something is kept."""
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Reason:
    """A choice in words, and in numbers."""

    text: str
    """One sentence."""
    details: Mapping[str, Any]
    """What the sentence rests on; JSON can hold it."""


class LRUDict(dict[int, Kept]):
    """What is kept of the latest trials, by number: a new one takes the place of the oldest.

    Several studies may share a sampler, each in a thread of its own, so no lock of a study keeps it whole.
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
        """Why the last choice for the trial of this number was made; None when it made none, or long ago."""
        ...


def reason_of(
    chooser: object,
    number: int,
    complain: Callable[[int, str, Exception], None],
) -> Reason | None:
    """What a sampler or pruner says of its last choice; an error in that is complained of, and no more."""
    explain = getattr(
        chooser,
        "explain",
        None,
    )  # checking for a protocol takes thirty times as long
    if explain is None:
        return None
    try:
        told: Reason | None = explain(number)
        return told
    except Exception as error:  # noqa: BLE001  # anybody's code; a choice without its reason is still a choice
        complain(number, type(chooser).__name__, error)
        return None
