"""Studies with made-up trials, for tests of what is read and shown: rows as a coordinator would
have written them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from tests.support.specs import make_spec
from tunesvc.db import notifications, study_records
from tunesvc.db.engine.database import Database

_TRIALS = """
INSERT INTO trials (trial_id, study_id, number, state, "values", started_at, ended_at)
SELECT (CAST(:study AS bigint) << 32) | n, :study, n,
       CASE WHEN n >= :ended THEN 'running' WHEN n % 7 = 5 AND n > 12 THEN 'pruned' ELSE 'complete' END,
       CASE WHEN n < :ended THEN ARRAY[{values}] END,
       now() - make_interval(secs => (:ended - n) * 3 + 20),
       CASE WHEN n < :ended THEN now() - make_interval(secs => (:ended - n) * 3 + 12) END
FROM generate_series(:first, :last) n
"""
_PARAMS = """
INSERT INTO trial_params (trial_id, name, position, value, distribution)
SELECT trial_id, CAST(:name AS text), :position, {value}, :distribution
FROM trials WHERE study_id = :study AND number >= :first
"""
_ATTEMPTS = """
INSERT INTO attempts (trial_id, number, token, state, opened_at, started_at, ended_at, node, pid)
SELECT trial_id, 1, 1, CASE state WHEN 'complete' THEN 'finished' ELSE state END, started_at, started_at, ended_at,
       'node-1', 100 + number % 4
FROM trials WHERE study_id = :study AND number >= :first
"""
_REPORTS = """
INSERT INTO reports (trial_id, attempt, step, value)
SELECT trial_id, 1, step, coalesce("values"[1], 0.5) + 1.0 / (1 + step)
FROM trials, generate_series(0, 5) step
WHERE study_id = :study AND number >= :first AND (state <> 'pruned' OR step < 2)
"""
_DECISIONS = """
INSERT INTO decisions (study_id, trial_number, kind, reason, details)
SELECT study_id, number, 'ask', 'drawn evenly', jsonb_build_object('phase', CASE WHEN number < 5 THEN 'start' ELSE 'model' END)
FROM trials WHERE study_id = :study AND number >= :first
"""
# made of the number, so that a study comes out the same each time
_UNIT = "(n * {factor} % 1000) / 1000.0"
_FLOAT = json.dumps(
    {
        "name": "FloatDistribution",
        "attributes": {"low": 0.0, "high": 1.0, "step": None, "log": False},
    }
)
_INT = json.dumps(
    {"name": "IntDistribution", "attributes": {"low": 1, "high": 8, "step": 1, "log": False}}
)


def fill(
    database: Database, trials: int = 40, running: int = 2, *, objectives: int = 1, **spec: Any
) -> int:
    """A running study whose best value is where `x` is 0.3; its id."""
    with database.engine.begin() as connection:
        study = study_records.create(connection, make_spec(**spec)).study_id
        connection.execute(
            sa.text(
                "UPDATE studies SET state = 'running', active_s = 60, next_number = :n WHERE study_id = :study"
            ),
            {"study": study, "n": trials},
        )
        connection.execute(
            sa.text(
                "INSERT INTO leases (study_id, owner, token, batch, expires_at) "
                "VALUES (:study, 'box:1', 1, 1, now() + interval '1 h')"
            ),
            {"study": study},
        )
        add(
            connection,
            study,
            0,
            trials,
            running,
            objectives=objectives,
            names=list(make_spec(**spec).parameters),
        )
    return study


def add(
    connection: sa.Connection,
    study: int,
    first: int,
    trials: int,
    running: int = 0,
    *,
    objectives: int = 1,
    names: Sequence[str] = ("x", "n"),
) -> None:
    """Trials `first` and following, of which the last `running` run.

    The second parameter is a whole number.
    """
    x = _UNIT.format(factor=617)
    values = [f"power({x} - 0.3, 2) + 0.05", f"1.0 - {x}", x][:objectives]
    base = {"study": study, "first": first}
    last = first + trials - 1
    connection.execute(
        sa.text(_TRIALS.format(values=", ".join(values))),
        {**base, "last": last, "ended": last + 1 - running},
    )
    for position, name in enumerate(names):
        value = (
            "1 + number % 8"
            if position == 1
            else _UNIT.format(factor=617 + 48 * position).replace("n", "number")
        )
        distribution = _INT if position == 1 else _FLOAT
        connection.execute(
            sa.text(_PARAMS.format(value=value)),
            {**base, "name": name, "position": position, "distribution": distribution},
        )
    for statement in (_ATTEMPTS, _REPORTS, _DECISIONS):
        connection.execute(sa.text(statement), base)
    connection.execute(sa.text("UPDATE leases SET batch = batch + 1 WHERE study_id = :study"), base)
    connection.execute(
        sa.text("UPDATE studies SET next_number = :n WHERE study_id = :study"),
        {**base, "n": last + 1},
    )
    notifications.notify(connection, study)
