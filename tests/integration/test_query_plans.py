"""Plans of the hot queries on big tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import sqlalchemy as sa
from optuna.distributions import FloatDistribution

from tunesvc.db.engine.database import Database
from tunesvc.queries.explain.explored_ranges import count_tried_parts
from tunesvc.queries.explain.stored_trials import about_study, last_asks
from tunesvc.queries.operations.cluster_view import get_cluster
from tunesvc.queries.operations.request_log import list_requests
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.attempt_events import (
    get_curve,
    get_curves,
    list_attempts,
    list_decisions,
    list_logs,
)
from tunesvc.queries.trials.trial_table import get_trial, list_best_trials, list_trials

LR = FloatDistribution(1e-4, 1.0, log=True)
FILL = """
INSERT INTO studies (name, directions) SELECT 's' || s, ARRAY['minimize'] FROM generate_series(1, 20) s;
INSERT INTO trials (trial_id, study_id, number, state, "values", started_at, ended_at)
  SELECT (study_id << 32) | n, study_id, n, (ARRAY['complete', 'pruned', 'fail'])[1 + n % 3],
         CASE WHEN n % 3 = 0 THEN ARRAY[random()] END, now(), now()
  FROM studies, generate_series(0, 299) n;
INSERT INTO trial_params (trial_id, name, position, value, distribution)
  SELECT trial_id, 'p' || p, p, 0.5, '{"name": "FloatDistribution", "attributes": {"low": 0, "high": 1}}'
  FROM trials, generate_series(0, 2) p;
INSERT INTO trial_attrs (trial_id, kind, name, value)
  SELECT trial_id, 'system', 'constraints', '[-1.0]' FROM trials;
INSERT INTO attempts (trial_id, number, token, state, started_at, ended_at, gpus)
  SELECT trial_id, 1, 1, 'finished', now(), now(), 1 FROM trials;
INSERT INTO reports (trial_id, attempt, step, value) SELECT trial_id, 1, s, 0.5 FROM trials, generate_series(0, 9) s;
INSERT INTO logs (trial_id, attempt, seq, stream, text)
  SELECT trial_id, 1, s, 'stdout', 'x' FROM trials, generate_series(1, 3) s;
INSERT INTO decisions (study_id, trial_number, kind, reason) SELECT study_id, number, 'ask', 'x' FROM trials;
INSERT INTO commands (study_id, kind, done_at) SELECT study_id, 'pause', now() FROM trials;
ANALYZE;
"""


BIG = {
    "trials",
    "trial_params",
    "trial_attrs",
    "attempts",
    "reports",
    "logs",
    "decisions",
    "commands",
}


QUERIES: dict[str, Callable[[Database, int], object]] = {
    "one study": lambda db, study: get_study(db, "s7"),
    "a page of trials": lambda db, study: list_trials(db, study, limit=50, after=20),
    "a page of failed trials": lambda db, study: list_trials(
        db, study, states=["failed"], limit=50
    ),
    "the best": lambda db, study: list_best_trials(db, study),
    "one trial": lambda db, study: get_trial(db, study, 7),
    "one curve": lambda db, study: get_curve(db, study, 7),
    "some curves": lambda db, study: get_curves(db, study, numbers=list(range(40)), max_points=5),
    "a log": lambda db, study: list_logs(db, study, 7, after=(1, 1)),
    "a trial's decisions": lambda db, study: list_decisions(db, study, number=7),
    "a page of requests": lambda db, study: list_requests(db, study, before=5_000),
    "the cluster": lambda db, _: get_cluster(db),
    "why the newest trials were proposed": lambda db, study: last_asks(db, study, 20),
    "decisions about a study": about_study,
    "what was tried of a range": lambda db, study: count_tried_parts(db, study, "p1", LR, 10),
    "a study's attempts": lambda db, study: list_attempts(db, study),
}


def test_no_hot_query_reads_a_big_table_from_end_to_end(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(FILL.replace(": ", "\\: ")))
        study_id = connection.execute(
            sa.text("SELECT study_id FROM studies WHERE name = 's7'")
        ).scalar_one()
    scanned = {name: tables_scanned(database, run, study_id) & BIG for name, run in QUERIES.items()}
    assert {name: tables for name, tables in scanned.items() if tables} == {}
    nodes = plan_nodes(database, QUERIES["one study"], study_id)
    assert "ix_attempts_gpus" in {node.get("Index Name") for node in nodes}, (
        "attempts without a GPU are not read"
    )


def tables_scanned(
    database: Database, run: Callable[[Database, int], object], study_id: int
) -> set[str]:
    """Tables that the statements which `run` executes read with a sequential scan."""
    return {
        str(node["Relation Name"]) for node in plan_nodes(database, run, study_id) if _is_scan(node)
    }


def plan_nodes(
    database: Database, run: Callable[[Database, int], object], study_id: int
) -> list[dict[str, object]]:
    """Steps of the plans of all statements that `run` executes."""
    statements: list[tuple[str, object]] = []

    def remember(
        _conn: object, _cursor: object, statement: str, parameters: object, *_: object
    ) -> None:
        statements.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", remember)
    run(database, study_id)
    sa.event.remove(database.engine, "before_cursor_execute", remember)
    assert statements
    with database.engine.connect() as connection:
        plans = [
            connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}", parameters).scalar_one()  # type: ignore[arg-type]
            for sql, parameters in statements
        ]
    return [node for plan in plans for node in _nodes(plan[0]["Plan"])]


def _is_scan(node: dict[str, object]) -> bool:
    return node["Node Type"] == "Seq Scan"


def _nodes(plan: dict[str, object]) -> Iterator[dict[str, object]]:
    yield plan
    for child in plan.get("Plans", ()):  # type: ignore[attr-defined]
        yield from _nodes(child)
