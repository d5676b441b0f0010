"""Health checks of a study. Each states its criterion and gives advice for its findings.

    evidence       the rows that checks examine: a bounded number
    finding        results of checks
    space_checks   too narrow, too wide
    search_checks  noise, stuck, stalled or cut short
    run_checks     pruning, failures, idle workers
    worth_checks   gain of more trials, cost of failures, parallelism

A check reports when there is too little data to judge, so that a small study raises no alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunesvc.db.engine.database import Database
from tunesvc.queries.health.evidence import Evidence, gather
from tunesvc.queries.health.finding import (
    Action,
    Check,
    Health,
    HealthFinding,
    InsufficientData,
    Severity,
)
from tunesvc.queries.health.run_checks import failures, idle, pruning
from tunesvc.queries.health.search_checks import noise, stalled, stuck
from tunesvc.queries.health.space_checks import narrow, wide
from tunesvc.queries.health.worth_checks import parallel, wasted, worth
from tunesvc.queries.rows import StudyView

CHECKS: tuple[
    tuple[str, str, Callable[[Evidence], Sequence[HealthFinding] | InsufficientData]],
    ...,
] = (
    ("narrow", "Is the space too narrow?", narrow),
    ("wide", "Is the space too wide?", wide),
    ("noise", "Is the metric noisy?", noise),
    ("pruning", "Is pruning too eager?", pruning),
    ("stuck", "Is the sampler stuck?", stuck),
    ("stalled", "Has improvement stalled?", stalled),
    ("idle", "Are workers idle?", idle),
    ("failures", "Are failures clustered?", failures),
    ("worth", "Are more trials worth their cost?", worth),
    ("wasted", "Was most of it paid for failures?", wasted),
    ("parallel", "Is parallelism too high for the budget?", parallel),
)
_SEVERITY_ORDER = {"warn": 0, "note": 1, None: 2}


def health(database: Database, study: StudyView) -> Health:
    """Examine a study. A large one takes about as long as one of a few thousand trials."""
    return examine(gather(database, study))


def examine(evidence: Evidence) -> Health:
    """Run every check; the most severe findings come first."""
    checks = [_to_check(name, question, check(evidence)) for name, question, check in CHECKS]
    checks.sort(key=lambda check: _SEVERITY_ORDER[check.severity])
    return Health(tuple(checks))


def _to_check(
    name: str,
    question: str,
    result: Sequence[HealthFinding] | InsufficientData,
) -> Check:
    if isinstance(result, InsufficientData):
        return Check(name, question, (), result)
    return Check(name, question, tuple(result), None)


__all__ = [
    "Action",
    "Check",
    "Evidence",
    "Health",
    "HealthFinding",
    "InsufficientData",
    "Severity",
    "examine",
    "gather",
    "health",
]
