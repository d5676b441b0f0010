"""Why a sampler proposed what it proposed, and why a pruner stopped a trial or let it go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Reason:
    """A choice in words, and in numbers."""

    text: str
    """One sentence."""
    details: Mapping[str, Any]
    """What the sentence rests on; JSON can hold it."""


@runtime_checkable
class Explains(Protocol):
    """A sampler or pruner that gives reasons."""

    def explain(self, number: int) -> Reason | None:
        """Why the last choice for the trial of this number was made; None when it made none, or long ago."""
        ...
