"""Findings of health checks: sentences with their numbers, advice and actions. Values only."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["warn", "note"]
"""`warn`: something is probably wrong. `note`: worth knowing, may be intended."""


@dataclass(frozen=True, slots=True)
class Action:
    """A request to the study that would help, in the form of `api.request`."""

    kind: Literal["stop", "extend", "widen", "parallelism"]
    payload: Mapping[str, Any]
    label: str
    """Label of a button."""

    def command(self, study: str) -> str:
        """Return the equivalent shell command."""
        return shlex.join(["tune", self.kind, study, *self._arguments()])

    def _arguments(self) -> Iterator[str]:
        match self.kind:
            case "extend":
                for name, amount in self.payload.items():
                    yield f"--{name.replace('_', '-')}"
                    yield f"{amount:g}s" if name == "wall" else f"{amount:g}"
            case "parallelism":
                yield str(self.payload["trials"])
            case "widen":
                for name, ends in self.payload["parameters"].items():
                    yield f"{name}={ends.get('min', '')}..{ends.get('max', '')}"


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """One finding of a check."""

    severity: Severity
    text: str
    """A sentence with its numbers."""
    advice: str
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class InsufficientData:
    """Result of a check without a finding."""

    text: str
    """Summary of the examined data, or the reason why there is none."""
    is_early: bool = False
    """True if there is too little data to judge."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a study with its result."""

    name: str
    """Short name of the check."""
    question: str
    findings: tuple[HealthFinding, ...]
    silence: InsufficientData | None
    """Set when there are no findings."""

    @property
    def severity(self) -> Severity | None:
        """Severity of the most severe finding; None without findings."""
        severities = {finding.severity for finding in self.findings}
        if "warn" in severities:
            return "warn"
        return "note" if severities else None


@dataclass(frozen=True, slots=True)
class Health:
    """All checks of a study, the most severe findings first."""

    checks: tuple[Check, ...] = field(default=())

    def __str__(self) -> str:
        lines = []
        for check, finding in self.findings:
            lines.append(f"{check.name}: {finding.text} {finding.advice}".rstrip())
        return "\n".join(lines) or "nothing found"

    @property
    def findings(self) -> tuple[tuple[Check, HealthFinding], ...]:
        """Findings with their checks."""
        return tuple((check, finding) for check in self.checks for finding in check.findings)
