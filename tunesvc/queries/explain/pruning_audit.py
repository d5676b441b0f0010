"""How often a study's pruner errs, as the trials show that it wanted stopped and that finished all the same."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.study import StudyDirection

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import trial_attrs, trials
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import in_study


@dataclass(frozen=True, slots=True)
class Audit:
    """The measured false-prune rate of a study."""

    audited: int
    """Trials that the pruner wanted stopped, and that have finished."""
    wrong: int
    """Those of them that would have been the new best, or on the front."""
    rate: float | None
    """None without an audited trial."""
    low: float
    high: float
    """Ends of the 95 % interval."""
    allowed: float
    """The pruner's `chance`."""
    text: str

    def __str__(self) -> str:
        return self.text


def get_audit(database: Database, view: StudyView) -> Audit | None:
    """How often the pruner errs; None where it audits nothing."""
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
        ends = [(values, json.loads(kept)) for values, kept in connection.execute(query)]
    directions = [StudyDirection.MAXIMIZE if one.maximize else StudyDirection.MINIMIZE for one in view.objectives]
    found = measured(ends, *directions)
    allowed = float(view.spec.pruner.options.get("chance", CHANCE))
    if not found.audited:
        return Audit(0, 0, None, found.low, found.high, allowed, "no audited trial has finished yet")
    what = "the new best" if len(directions) == 1 else "on the front"
    text = (
        f"of {found.audited} audited trials {found.wrong} would have been {what}: false-prune rate "
        f"{_percent(found.rate)} (95 %: {_percent(found.low)} to {_percent(found.high)}), allowed {_percent(allowed)}"
    )
    return Audit(found.audited, found.wrong, found.rate, found.low, found.high, allowed, text)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
