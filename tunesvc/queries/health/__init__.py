"""Is the study well? Checks with a stated criterion each, and advice where one finds something.

    evidence       the rows that checks look at: a bounded number
    finding        what they return
    space_checks   too narrow, too wide
    search_checks  noise, stuck, stalled or cut short
    run_checks     pruning, failures, idle workers

A check says when it is too early to judge, so that a small study raises no alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunesvc.db.engine.database import Database
from tunesvc.queries.health.evidence import Evidence, gather
from tunesvc.queries.health.finding import Action, Check, Health, HealthFinding, InsufficientData, Severity
from tunesvc.queries.health.run_checks import failures, idle, pruning
from tunesvc.queries.health.search_checks import noise, stalled, stuck
from tunesvc.queries.health.space_checks import narrow, wide
from tunesvc.queries.rows import StudyView

CHECKS: tuple[tuple[str, str, Callable[[Evidence], Sequence[HealthFinding] | InsufficientData]], ...] = (
    ("narrow", "Is the space too narrow?", narrow),
    ("wide", "Is the space too wide?", wide),
    ("noise", "Is the metric noisy?", noise),
    ("pruning", "Is pruning too eager?", pruning),
    ("stuck", "Is the sampler stuck?", stuck),
    ("stalled", "Has improvement stalled?", stalled),
    ("idle", "Are workers idle?", idle),
    ("failures", "Are failures clustered?", failures),
)
_GRAVITY = {"warn": 0, "note": 1, None: 2}


def health(database: Database, study: StudyView) -> Health:
    """Examine a study. Costs about as much for a large study as for one of a few thousand trials."""
    return examine(gather(database, study))


def examine(evidence: Evidence) -> Health:
    """Ask every check."""
    checks = [_answer(name, question, check(evidence)) for name, question, check in CHECKS]
    return Health(tuple(sorted(checks, key=lambda check: _GRAVITY[check.severity])))


def _answer(name: str, question: str, answer: Sequence[HealthFinding] | InsufficientData) -> Check:
    if isinstance(answer, InsufficientData):
        return Check(name, question, (), answer)
    return Check(name, question, tuple(answer), None)


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
