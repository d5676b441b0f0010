"""The statements of a step find their rows by an index, however large the study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from tests.support.stored_studies import fill
from tunesvc.db.engine.database import Database
from tunesvc.db.study_changes import (
    Checkpoint,
    EndRecord,
    HeartbeatRecord,
    LaunchRecord,
    LogLine,
    Report,
    StartRecord,
    StopRecord,
    StudyChanges,
)
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Attr, Decision, NewParam, NewTrial, TrialEnd

TRIALS = 20_000
GROWS = {"trials", "attempts", "reports", "decisions", "trial_params", "trial_attrs", "logs"}
SCANS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"}
"""All but the first read what an index names: rows by their key, or the few attempts that live."""


def everything(number: int, new: int) -> StudyChanges:
    """A batch with something in all its lists: a trial that ends, one that is run again, and a
    new one."""
    return StudyChanges(
        trials=[NewTrial(new, "running")],
        params=[NewParam(new, "x", 0, 0.5, "{}")],
        attrs=[Attr(new, "user", "a", "1"), Attr(None, "user", "a", "1")],
        opened=[
            LaunchRecord(new, 1, 1.0, 0.0, -1, 60.0),
            LaunchRecord(number - 1, 2, 1.0, 0.0, 3, 60.0),
        ],
        alive=[HeartbeatRecord(number, 1, 60.0)],
        started=[StartRecord(number, 1, "node", 1, ("0",), "code")],
        reports=[Report(number, 1, step, 0.5, {"other": 1.0}) for step in range(10, 20)],
        logs=[LogLine(number, 1, 3, "stdout", "100 % done\n")],
        checkpoints=[Checkpoint(number, 1, "there", 5)],
        stops=[StopRecord(number, 1, "prune")],
        ends=[
            EndRecord(number, 1, "finished", None, None, None, at_last_report=True),
            EndRecord(number - 1, 1, "interrupted", None, None, None, at_last_report=False),
        ],
        cursors={(number, 1): 30},
        finished=[TrialEnd(number, "complete", [0.5])],
        decisions=[Decision(number, "stop", "because", {}), Decision(None, "sampler", "so", {})],
        answered={7: "done"},
        active_s=1.0,
    )


def test_a_step_costs_the_same_whatever_the_study_holds(database: Database) -> None:
    study = fill(database, TRIALS, running=2)
    with database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM leases"))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    study_writer = StudyWriter.open(database, study)
    study_writer.commit(StudyChanges(adopts=True))
    scans = list(_scans(database, study_writer, everything(TRIALS - 1, TRIALS)))
    assert {table for table, _, _ in scans} >= {"trials", "attempts", "reports"}
    unguided = [
        (table, statement)
        for table, is_guided, statement in scans
        if table in GROWS and not is_guided
    ]
    assert unguided == []
    with database.engine.connect() as connection:
        ended = connection.execute(
            sa.text(
                "SELECT t.state, a.state, a.cursor FROM trials t JOIN attempts a USING (trial_id) WHERE t.number = :n"
            ),
            {"n": TRIALS - 1},
        ).one()
        assert tuple(ended) == ("complete", "finished", 30)
        assert connection.execute(sa.text("SELECT text FROM logs")).scalars().all() == [
            "100 % done\n"
        ]


def _scans(
    database: Database, study_writer: StudyWriter, batch: StudyChanges
) -> Iterator[tuple[str, bool, str]]:
    """Tables that the statements of a commit read, whether an index led to the rows, and the
    statement."""
    with database.engine.connect() as other:
        statements: list[tuple[str, Any]] = []

        def remember(
            _conn: object, _cursor: object, statement: str, parameters: Any, *_: object
        ) -> None:
            statements.extend((one, parameters) for one in statement.split(";\n"))

        sa.event.listen(database.engine, "before_cursor_execute", remember)
        study_writer.commit(batch)
        sa.event.remove(database.engine, "before_cursor_execute", remember)
        assert len(statements) > 18
        for sql, parameters in statements:
            run = (
                other.exec_driver_sql
                if parameters
                else other.execution_options(no_parameters=True).exec_driver_sql
            )
            plan = run(
                f"EXPLAIN (FORMAT JSON) {sql}", *([parameters] if parameters else [])
            ).scalar_one()
            yield from ((table, is_guided, sql) for table, is_guided in _tables(plan[0]["Plan"]))


def _tables(plan: dict[str, Any], under: str = "") -> Iterator[tuple[str, bool]]:
    table = plan.get("Relation Name", under)
    if plan["Node Type"] in SCANS:
        yield table, plan["Node Type"] != "Seq Scan"
    for child in plan.get("Plans", ()):
        yield from _tables(child, table)
