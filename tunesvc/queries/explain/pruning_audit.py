"""Error rate of a study's pruner, measured on audited trials.

An audited trial finished although the pruner would have stopped it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.study import StudyDirection

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import trial_attrs, trials
from tunesvc.queries.rows import Objective, StudyView
from tunesvc.queries.sql import in_study


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
    from tunesvc.search.pruners.audit import AUDIT, measured
    from tunesvc.search.pruners.curve.curve_pruner import CHANCE

    query = (
        sa.select(trials.c["values"], trial_attrs.c.value)
        .join(trial_attrs, trial_attrs.c.trial_id == trials.c.trial_id)
        .where(in_study(trials.c.trial_id, view.study_id), trials.c.state == "complete")
        .where(trial_attrs.c.kind == "system", trial_attrs.c.name == AUDIT)
    )
    with database.engine.connect() as connection:
        results = [(values, json.loads(verdict)) for values, verdict in connection.execute(query)]
    directions = [_direction(objective) for objective in view.objectives]
    found = measured(results, *directions)
    allowed = float(view.spec.pruner.options.get("chance", CHANCE))
    if not found.audited:
        text = "no audited trial has finished yet"
        return Audit(0, 0, None, found.low, found.high, allowed, text)
    what = "the new best" if len(directions) == 1 else "on the front"
    interval = f"{_percent(found.low)} to {_percent(found.high)}"
    text = (
        f"of {found.audited} audited trials {found.wrong} would have been {what}: false-prune "
        f"rate {_percent(found.rate)} (95 %: {interval}), allowed {_percent(allowed)}"
    )
    return Audit(found.audited, found.wrong, found.rate, found.low, found.high, allowed, text)


def _direction(objective: Objective) -> StudyDirection:
    return StudyDirection.MAXIMIZE if objective.maximize else StudyDirection.MINIMIZE


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
