"""What a check found, for people: a verdict and a sentence with the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "broken"]


@dataclass(frozen=True, slots=True)
class DatabaseFinding:
    """What one check found."""

    name: str
    verdict: Verdict
    text: str
