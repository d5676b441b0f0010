"""Trials by filter and sort: what Postgres finds is what the same filter means in Python, and
pages make the whole list."""

from __future__ import annotations

import csv
import io
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tests.integration.test_queries import Writer, writing
from tests.integration.test_query_plans import tables_scanned
from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import trial_id
from tunesvc.errors import FilterError, TuneError
from tunesvc.queries.export.export_files import Export
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.studies import get_study, get_study_by_id
from tunesvc.queries.trials.columns import names_of
from tunesvc.queries.trials.filter_language import (
    All,
    AnyOf,
    Comparison,
    FieldKind,
    Filter,
    Names,
    Not,
    holds,
    parse,
)
from tunesvc.queries.trials.pagination import Selection, count_trials, trial_page
from tunesvc.queries.trials.trial_table import list_best_trials, list_trials

COUNT = 90
LR, UNITS = FloatDistribution(1e-4, 1.0, log=True), IntDistribution(1, 8)
NARROW, WIDE = (
    CategoricalDistribution(["sgd", "adam", 16]),
    CategoricalDistribution(["lion", "adam", "sgd", 16]),
)
FLAG = CategoricalDistribution([True, False, None])
SORTS = [
    "number",
    "state",
    "value",
    "speed",
    "duration",
    "lr",
    "my units",
    "optimizer",
    "auc",
    "loss",
]
FILTERS = ["", "lr < 0.05 or value > 0.5", "not (optimizer == adam)", "lr > 2"]


def fill(w: Writer) -> None:
    """Trials of every state, with NaN and infinite values, conditional and mixed parameters,
    retries and metrics."""
    rng = random.Random(4)
    for number in range(COUNT):
        state = rng.choice(["complete", "complete", "pruned", "fail", "running", "waiting"])
        valued = state in ("complete", "pruned")
        value = rng.choice([rng.random(), rng.random(), 0.25, math.nan, math.inf])
        w.trial(number, state, *((value, rng.choice([1.0, 2.0, -math.inf])) if valued else ()))
        took = f"started_at = now() - interval '{rng.randint(11, 14)} s'"
        w.connection.execute(
            sa.text(f"UPDATE trials SET {took} WHERE number = {number} AND started_at IS NOT NULL")
        )
        if rng.random() < 0.2:
            w.attr(number, "system", "constraints", rng.choice(["[1.0]", "[-1.0]", "[NaN]"]))
        elif valued:
            w.attr(
                number, "system", "constraints:memory.max", rng.choice(["0.5", "-2", "NaN", "null"])
            )
        if valued:
            w.attr(
                number, "user", "auc", rng.choice(["0.5", "1", "NaN", "1e-05", '"text"', "true"])
            )
        if rng.random() < 0.3:
            w.attr(number, "user", "loss", rng.choice(["0.25", "Infinity"]))
        w.param(number, 0, "optimizer", rng.randrange(3), rng.choice([NARROW, WIDE]))
        if rng.random() < 0.7:
            w.param(number, 1, "lr", rng.choice([1e-4, 0.01, 0.3, 1.0]), LR)
        w.param(number, 2, "my units", rng.randint(1, 8), UNITS)
        w.param(number, 3, "flag", rng.randrange(3), FLAG)
        if rng.random() < 0.4:
            tags = rng.choice([["good"], ["good", "look again"], []])
            at = trial_id(w.study_id, number)
            w.insert(tables.trial_annotations, trial_id=at, tags=sa.cast(tags, sa.ARRAY(sa.Text)))
        for attempt in range(1, rng.randint(0, 2) + 1):
            w.attempt(number, attempt, "failed", failure=rng.choice(["error", "nan", None]))
            metrics = rng.choice([{"loss": rng.random()}, {"loss": "NaN"}, {}, None])
            w.report(
                number,
                attempt,
                rng.randint(0, 3),
                rng.choice([rng.random(), math.nan, None]),
                metrics=metrics,
            )


@pytest.fixture(scope="module")
def study(shared_database: Database) -> StudyView:
    metrics = ({"name": "error"}, {"name": "speed", "goal": "maximize"})
    with writing(shared_database, metrics=metrics) as w:
        fill(w)
    return get_study(shared_database, "digits")


@pytest.fixture(scope="module")
def names(shared_database: Database, study: StudyView) -> Names:
    return names_of(shared_database, study)


@pytest.fixture(scope="module")
def rows(shared_database: Database, study: StudyView) -> tuple[TrialRow, ...]:
    return list_trials(shared_database, study.study_id)


def numbers(
    database: Database, study: StudyView, names: Names, where: str, sort: str, size: int = 7
) -> list[int]:
    """All pages, one after the other."""
    selection = Selection.of(study.study_id, names, where, sort)
    found: list[int] = []
    after: str | None = ""
    while after is not None:
        page = trial_page(database, selection, after=after, limit=size)
        assert len(page.rows) == size or page.after is None
        found += [row.number for row in page.rows]
        after = page.after
    return found


def evaluate(wanted: Filter, row: TrialRow) -> bool:
    match wanted:
        case All(parts):
            return all(evaluate(part, row) for part in parts)
        case AnyOf(parts):
            return any(evaluate(part, row) for part in parts)
        case Not(part):
            return not evaluate(part, row)
        case Comparison(field, op, value) if field.kind is FieldKind.TAG:
            return (bool(row.tags) if value is None else value in row.tags) == (
                (op == "==") == (value is not None)
            )
        case Comparison(field, op, value):
            return holds(actual(row, field.kind, field.name, field.index), op, value)


def actual(row: TrialRow, kind: FieldKind, name: str, index: int) -> Any:
    found: dict[FieldKind, Any] = {
        FieldKind.NUMBER: row.number,
        FieldKind.STATE: row.state,
        FieldKind.VALUE: row.values[index] if row.values else None,
        FieldKind.STEP: row.last_step,
        FieldKind.LAST: row.last_value,
        FieldKind.ATTEMPTS: row.attempts,
        FieldKind.FAILURE: row.failure,
        FieldKind.FEASIBLE: row.feasible,
        FieldKind.PARAM: row.params.get(name),
        FieldKind.METRIC: row.metrics.get(name),
        FieldKind.CONSTRAINT: row.constraints.get(name),
    }
    return found[kind]


# --- filters
# ------------------------------------------------------------------------------------------

_NUMBERS = st.sampled_from(
    ["0", "1", "2", "7", "16", "0.01", "0.25", "0.3", "-1", "1e400", "45.5", "99999999999999999999"]
)
_ORDERED = st.builds(
    "{} {} {}".format,
    st.sampled_from(
        [
            *("number", "value", "speed", "step", "last", "attempts", "lr", "'my units'", "loss"),
            *("metrics.loss", "auc", "constraints.memory.max", "constraints.0"),
        ]
    ),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    _NUMBERS,
)
_EQUAL = st.builds(
    "{} {} {}".format,
    st.sampled_from(["optimizer", "flag", "lr", "value", "loss", "failure", "state", "last"]),
    st.sampled_from(["==", "!="]),
    st.sampled_from(
        ["none", "nan", "adam", "lion", "16", '"16"', "true", "false", "error", "complete"]
    ),
)
_OTHERS = st.sampled_from(
    [
        "feasible",
        "optimizer > 3",
        "optimizer in [sgd, 16]",
        "optimizer not in [sgd]",
        "0.005 < lr <= 0.3",
        "feasible != false",
    ]
)
_TEXTS = st.recursive(
    _ORDERED | _EQUAL | _OTHERS,
    lambda inner: (
        st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("not {}".format, inner)
    ),
    max_leaves=5,
)


@given(_TEXTS)
@example("optimizer == 16 and not lr < 0.01")
@example("flag == none")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_a_filter_finds_what_it_means(
    shared_database: Database,
    study: StudyView,
    names: Names,
    rows: Sequence[TrialRow],
    text: str,
) -> None:
    try:
        wanted = parse(text, names)
    except FilterError:
        return
    expected = [row.number for row in rows if evaluate(wanted, row)]
    selection = Selection.of(study.study_id, names, text)
    found = trial_page(shared_database, selection, limit=COUNT).rows
    assert [row.number for row in found] == expected
    assert count_trials(shared_database, selection) == len(expected)


def test_durations_are_compared_in_seconds(
    shared_database: Database, study: StudyView, names: Names
) -> None:
    selection = Selection.of(study.study_id, names, "duration > 12.5s and state == complete")
    found = trial_page(shared_database, selection, limit=COUNT).rows
    assert found
    assert all(row.duration_s is not None and row.duration_s > 12.5 for row in found)


def test_the_duration_of_a_trial_is_what_its_attempts_ran_without_the_time_between(
    database: Database,
) -> None:
    def ran(trial: int, number: int, state: str, ago_s: float, seconds: float) -> None:
        began = sa.text(f"now() - make_interval(secs => {ago_s})")
        ended = sa.text(f"now() - make_interval(secs => {ago_s - seconds})")
        w.attempt(trial, number, state, started_at=began, ended_at=ended)

    with writing(database) as w:
        w.trial(0, "complete", 0.1)
        ran(0, 1, "paused", 3600, 3)
        ran(0, 2, "finished", 60, 4)
        w.trial(1, "running")
        ran(1, 1, "paused", 3600, 5)
        w.trial(2, "complete", 0.1)  # as through Optuna's API: it has no attempts
        w.trial(3, "fail")
        w.attempt(3, 1, "failed", started_at=None)
    study = get_study(database, "digits")
    found = names_of(database, study)
    taken = [row.duration_s for row in list_trials(database, study.study_id)]
    assert taken == pytest.approx([7, 5, 10, 0])
    assert numbers(database, study, found, "duration > 4.5s and duration < 8s", "number") == [0, 1]
    assert numbers(database, study, found, "", "-duration") == [2, 0, 3, 1], (
        "one that is not over comes last"
    )


def test_names_and_values_are_bound_and_never_part_of_a_statement(database: Database) -> None:
    name, choice = "x'); DROP TABLE trials; --", "'; DROP TABLE trials; --"
    with writing(database) as w:
        w.trial(0, "complete", 0.1)
        w.param(0, 0, name, 0, CategoricalDistribution([choice, "%s %(a)s"]))
    study = get_study(database, "digits")
    found = names_of(database, study)
    for value, there in ((choice, [0]), ("%s %(a)s", [])):
        assert numbers(database, study, found, f'"{name}" == "{value}"', f"params.{name}") == there


# --- pages
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS)])
def test_pages_make_the_whole_sorted_list(
    shared_database: Database, study: StudyView, names: Names, rows: Sequence[TrialRow], sort: str
) -> None:
    for where in FILTERS:
        wanted = parse(where, names)
        expected = [row for row in rows if evaluate(wanted, row)]
        for size in (9, 40):
            found = numbers(shared_database, study, names, where, sort, size)
            assert sorted(found) == [row.number for row in expected], "each once"
            assert found == numbers(shared_database, study, names, where, sort, COUNT + 1)
        assert_sorted(
            [rows[number] for number in found], key_of(sort.removeprefix("-")), sort.startswith("-")
        )


def key_of(sort: str) -> Callable[[TrialRow], Any]:
    """Return the sort key of a trial; None for a trial that comes last."""
    at = {"value": 0, "speed": 1}

    def key(row: TrialRow) -> Any:
        if sort in at:
            value = row.values[at[sort]] if row.values else None
            return None if value is None or math.isnan(value) else value
        if sort in ("auc", "loss"):
            value = row.metrics.get(sort) if row.ended_at else None
            return None if value is None or math.isnan(value) else value
        if sort == "duration":
            return round(row.duration_s or 0, 3) if row.ended_at else None
        if sort == "state":
            stored = {"interrupted": "running", "failed": "fail", "stopped": "fail"}
            return stored.get(row.state, row.state)
        if sort == "optimizer":
            return 0  # by the place of the choice, which a row does not tell
        return row.params.get(sort) if sort in ("lr", "my units") else getattr(row, sort)

    return key


def assert_sorted(
    rows: Sequence[TrialRow], key: Callable[[TrialRow], Any], descending: bool
) -> None:
    keys = [key(row) for row in rows]
    there = [one for one in keys if one is not None]
    assert there == sorted(there, reverse=descending)
    assert keys[: len(there)] == there, "those without come last"


def test_pages_continue_where_they_were_when_trials_come_and_go(database: Database) -> None:
    with writing(database) as w:
        for number in range(10):
            w.trial(number, "complete", float(number))
    study = get_study(database, "digits")
    selection = Selection.of(study.study_id, Names(("error",)), "", "-value")
    first = trial_page(database, selection, limit=3)
    with database.engine.begin() as connection:
        again = Writer.__new__(Writer)
        again.connection, again.study_id = connection, study.study_id
        again.trial(10, "complete", 100.0)
    second = trial_page(database, selection, after=first.after or "", limit=3)
    assert [row.number for row in (*first.rows, *second.rows)] == [9, 8, 7, 6, 5, 4]


@pytest.mark.parametrize("after", ["x", "0.1", "a~b", "~", "1~2~z", "0.1~9'"])
def test_a_place_that_is_none_is_refused(
    shared_database: Database, study: StudyView, after: str
) -> None:
    with pytest.raises(TuneError, match="not a position in a list of trials"):
        trial_page(shared_database, Selection.of(study.study_id, Names(), "", "value"), after=after)


def test_an_order_that_there_is_not_is_answered_with_those_that_there_are(names: Names) -> None:
    with pytest.raises(TuneError, match=r"cannot be sorted by 'lrr', did you mean 'lr'\?"):
        Selection.of(1, names, "", "-lrr")


# --- names
# --------------------------------------------------------------------------------------------


def test_a_study_has_the_names_of_its_objectives_parameters_and_metrics(names: Names) -> None:
    assert names.objectives == ("error", "speed")
    assert dict(names.params) == {"lr": True, "flag": False, "my units": True, "optimizer": False}
    assert next(iter(names.params)) == "lr", "declared ones first"
    assert names.metrics == ("auc", "loss")
    assert names.constraints == ("0", "memory.max")
    assert names.attrs == ("auc",), "of which some are no numbers"


def test_a_study_without_trials_has_no_names(database: Database) -> None:
    with writing(database):
        pass
    study = get_study(database, "digits")
    assert names_of(database, study) == Names(("error",), {}, ())
    assert numbers(database, study, Names(), "", "-value") == []


# --- files
# --------------------------------------------------------------------------------------------


@pytest.fixture
def small(database: Database) -> tuple[Database, StudyView, Names]:
    with writing(database) as w:
        w.trial(0, "complete", 0.5)
        w.param(0, 0, "=lr", 0.01, LR)
        w.param(0, 1, "kind", 0, CategoricalDistribution(["=1+1", "b"]))
        w.param(0, 2, "mixed", 1, CategoricalDistribution([1, "two", None]))
        w.param(0, 3, "units", 4, UNITS)
        w.attr(0, "user", "auc", "0.75")
        w.attr(0, "user", "formula", '"=2+2"')
        w.attr(0, "system", "constraints:auc.min", "-0.25")
        w.insert(
            tables.trial_annotations, trial_id=trial_id(w.study_id, 0), tags=["a", "b"], note="look"
        )
        w.trial(1, "complete", math.nan)
        w.param(1, 1, "kind", 1, CategoricalDistribution(["=1+1", "b"]))
        w.trial(2, "running")
        w.trial(3, "pruned", 0.1)
        w.attempt(3, 1, "pruned")
        w.report(3, 1, 1, 0.2, metrics={"auc": 0.5})
        w.report(3, 1, 2, 0.1, metrics={"auc": 0.125})
    study = get_study(database, "digits")
    return database, study, names_of(database, study)


def test_csv_holds_what_is_filtered_in_its_order_and_formulas_are_text(
    small: tuple[Database, StudyView, Names],
) -> None:
    """Fault 42."""
    database, study, names = small
    selection = Selection.of(study.study_id, names, "state != interrupted", "-number")
    lines = list(
        csv.DictReader(io.StringIO("".join(Export(database, study, names, selection).csv())))
    )
    assert [line["number"] for line in lines] == ["3", "1", "0"]
    assert [line["params.kind"] for line in lines] == ["", "b", "'=1+1"]
    assert [line["value"] for line in lines] == ["0.1", "nan", "0.5"]
    assert lines[2]["params.=lr"] == "0.01"
    assert [line["metrics.auc"] for line in lines] == ["0.125", "", "0.75"], (
        "returned, or else reported last"
    )
    assert (lines[2]["constraints.auc.min"], lines[2]["attrs.formula"]) == ("-0.25", "'=2+2")
    assert (lines[2]["tags"], lines[2]["note"]) == ("a, b", "look")
    assert datetime.fromisoformat(lines[2]["started_at"]).utcoffset() == timedelta(0)
    assert "T" in lines[2]["started_at"]
    first = Export(database, study, names, selection, limit=2)
    assert [line["number"] for line in csv.DictReader(io.StringIO("".join(first.csv())))] == [
        "3",
        "1",
    ]


def test_parquet_has_a_type_for_each_column(
    small: tuple[Database, StudyView, Names], tmp_path: Path
) -> None:
    database, study, names = small
    selection = Selection.of(study.study_id, names)
    (tmp_path / "x.parquet").write_bytes(
        b"".join(Export(database, study, names, selection).parquet())
    )
    table = pq.read_table(tmp_path / "x.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["number"], kinds["value"], kinds["params.units"]) == ("int64", "double", "int64")
    assert (kinds["params.mixed"], kinds["started_at"]) == ("string", "timestamp[us, tz=UTC]")
    assert table.column("params.mixed").to_pylist() == ["two", None, None, None]
    assert table.column("number").to_pylist() == [0, 1, 2, 3]
    assert table.column("metrics.auc").to_pylist() == [0.75, None, None, 0.125]
    assert table.column("attrs.formula").to_pylist() == ["=2+2", None, None, None]


def test_files_are_made_in_pieces(
    small: tuple[Database, StudyView, Names], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, study, names = small
    monkeypatch.setattr("tunesvc.queries.trials.pagination._CHUNK", 1)
    monkeypatch.setattr("tunesvc.queries.export.export_files._GROUP", 2)
    export = Export(database, study, names, Selection.of(study.study_id, names))
    assert len(list(export.csv())) == 1 + 4
    assert export.written == 4
    content = io.BytesIO(
        b"".join(Export(database, study, names, Selection.of(study.study_id, names)).parquet())
    )
    assert pq.ParquetFile(content).num_row_groups >= 2


def test_a_selection_without_trials_is_a_file_without_rows(
    small: tuple[Database, StudyView, Names],
) -> None:
    database, study, names = small
    selection = Selection.of(study.study_id, names, "number > 100")
    export = Export(database, study, names, selection)
    assert "".join(export.csv()).count("\r\n") == 1
    assert pq.read_table(io.BytesIO(b"".join(export.parquet()))).num_rows == 0


# --- query plans
# --------------------------------------------------------------------------------------

LARGE = """
INSERT INTO studies (name, directions) SELECT 's' || s, ARRAY['minimize'] FROM generate_series(1, 12) s;
INSERT INTO trials (trial_id, study_id, number, state, "values", started_at, ended_at)
  SELECT (study_id << 32) | n, study_id, n, (ARRAY['complete', 'pruned', 'fail'])[1 + n % 3],
         CASE WHEN n % 3 < 2 THEN ARRAY[random()] END, now(), now()
  FROM studies, generate_series(0, 999) n WHERE name LIKE 's%';
INSERT INTO trial_params (trial_id, name, position, value, distribution)
  SELECT trial_id, 'p' || p, p, random(), '{"name": "FloatDistribution", "attributes": {"low": 0, "high": 1, "log": false, "step": null}}'
  FROM trials JOIN studies USING (study_id), generate_series(0, 2) p WHERE name LIKE 's%';
ANALYZE;
"""
ORDERED = ["number", "-number", "value", "-value", "state", "-state", "params.p1", "-params.p1"]


@pytest.fixture(scope="module")
def large(shared_database: Database) -> int:
    with shared_database.engine.begin() as connection:
        connection.execute(sa.text(LARGE.replace(": ", "\\: ")))
        return int(
            connection.execute(
                sa.text("SELECT study_id FROM studies WHERE name = 's7'")
            ).scalar_one()
        )


@pytest.mark.parametrize("sort", ORDERED)
def test_a_page_comes_from_an_index_without_sorting_all_trials(
    shared_database: Database, large: int, sort: str
) -> None:
    selection = Selection.of(large, Names(("value",), {"p1": True}), "", sort)
    place = trial_page(shared_database, selection, limit=5).after or ""
    plan = "\n".join(
        _plan(
            shared_database, lambda: trial_page(shared_database, selection, after=place, limit=50)
        )
    )
    assert "Seq Scan" not in plan
    assert not re.search(r"(?<!Incremental )Sort  \(", plan), plan


def _plan(database: Database, run: Callable[[], object]) -> Iterator[str]:
    """Of the first statement: what finds the numbers of a page."""
    statements: list[tuple[str, Any]] = []

    def remember(
        _conn: object, _cursor: object, statement: str, parameters: object, *_: object
    ) -> None:
        statements.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", remember)
    run()
    sa.event.remove(database.engine, "before_cursor_execute", remember)
    with database.engine.connect() as connection:
        yield from connection.exec_driver_sql(
            f"EXPLAIN {statements[0][0]}", statements[0][1]
        ).scalars()


def test_the_best_and_the_names_come_from_indexes(shared_database: Database, large: int) -> None:
    study = get_study_by_id(shared_database, large)
    for run in (lambda db, one: list_best_trials(db, one), lambda db, _: names_of(db, study)):
        assert tables_scanned(shared_database, run, large) & {"trials", "trial_params"} == set()
