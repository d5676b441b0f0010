"""Result of a check, as text: a verdict and a sentence with the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "broken"]


@dataclass(frozen=True, slots=True)
class DatabaseFinding:
    """Result of one check."""

    name: str
    verdict: Verdict
    text: str
