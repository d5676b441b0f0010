"""Error rate of a study's pruner, measured on audited trials.

An audited trial finished although the pruner would have stopped it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesvc.db.engine.database import Database
from tunesvc.queries.rows import StudyView


@dataclass(frozen=True, slots=True)
class Audit:
    """The measured false-prune rate of a study."""

    audited: int
    """Finished trials that the pruner would have stopped."""
    wrong: int
    """Audited trials that were the new best, or on the front."""
    rate: float | None
    """`wrong / audited`; None without an audited trial."""
    low: float
    high: float
    """Ends of the 95 % interval."""
    allowed: float
    """The pruner's `chance`."""
    text: str

    def __str__(self) -> str:
        return self.text


def get_audit(database: Database, view: StudyView) -> Audit | None:
    """Return the measured error rate of the pruner; None if it audits nothing."""
    if view.spec is None or view.spec.pruner.name not in ("auto", "curve"):
        return None
    from tunesvc.queries.health.evidence import directions_of, list_audited
    from tunesvc.search.pruners.audit import measured
    from tunesvc.search.pruners.curve.curve_pruner import CHANCE

    with database.engine.connect() as connection:
        audited = list_audited(connection, view.study_id)
    found = measured(audited, *directions_of(view))
    allowed = float(view.spec.pruner.options.get("chance", CHANCE))
    if not found.audited:
        text = "no audited trial has finished yet"
        return Audit(0, 0, None, found.low, found.high, allowed, text)
    what = "the new best" if len(view.objectives) == 1 else "on the front"
    interval = f"{_percent(found.low)} to {_percent(found.high)}"
    text = (
        f"of {found.audited} audited trials {found.wrong} would have been {what}: false-prune "
        f"rate {_percent(found.rate)} (95 %: {interval}), allowed {_percent(allowed)}"
    )
    return Audit(
        found.audited,
        found.wrong,
        found.rate,
        found.low,
        found.high,
        allowed,
        text,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
