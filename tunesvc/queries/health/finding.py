"""What an examination of a study finds: sentences with the numbers that they rest on, and what to do about it.

Values only.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["warn", "note"]
"""`warn`: something is probably wrong. `note`: worth knowing, and may be meant so."""


@dataclass(frozen=True, slots=True)
class Action:
    """A request to the study that would help, as `api.request` takes it."""

    kind: Literal["stop", "extend", "widen", "parallelism"]
    payload: Mapping[str, Any]
    label: str
    """What a button says."""

    def command(self, study: str) -> str:
        """The same for a shell."""
        return shlex.join(["tune", self.kind, study, *self._arguments()])

    def _arguments(self) -> Iterator[str]:
        match self.kind:
            case "extend":
                for name, amount in self.payload.items():
                    yield from (f"--{name.replace('_', '-')}", f"{amount:g}s" if name == "wall" else f"{amount:g}")
            case "parallelism":
                yield str(self.payload["trials"])
            case "widen":
                for name, ends in self.payload["parameters"].items():
                    yield f"{name}={ends.get('min', '')}..{ends.get('max', '')}"


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """One thing that was found."""

    severity: Severity
    text: str
    """A sentence with the numbers that it rests on."""
    advice: str
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class InsufficientData:
    """Nothing was found."""

    text: str
    """What was looked at, or why there is nothing to look at."""
    is_early: bool = False
    """Whether there is too little to judge by."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question that was asked of a study, and its answer."""

    name: str
    """A word to find it by."""
    question: str
    findings: tuple[HealthFinding, ...]
    silence: InsufficientData | None
    """Set when there are no findings."""

    @property
    def severity(self) -> Severity | None:
        """The gravest of its findings; None without any."""
        severities = {finding.severity for finding in self.findings}
        return "warn" if "warn" in severities else "note" if severities else None


@dataclass(frozen=True, slots=True)
class Health:
    """All checks of a study, those with findings first, the gravest of them on top."""

    checks: tuple[Check, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{check.name}: {finding.text} {finding.advice}".rstrip() for check, finding in self.findings]
        return "\n".join(lines) or "nothing found"

    @property
    def findings(self) -> tuple[tuple[Check, HealthFinding], ...]:
        """What was found, with its check."""
        return tuple((check, finding) for check in self.checks for finding in check.findings)
