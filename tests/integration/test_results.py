"""Trials as columns, and results derived from them, over rows that a coordinator would have
written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from tests.integration.test_queries import writing
from tests.integration.test_query_plans import FILL
from tests.integration.test_query_plans import tables_scanned as scanned
from tests.support.stored_studies import add, fill
from tunesvc import charts
from tunesvc.charts import FigureKind
from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import trial_id
from tunesvc.queries.operations.timeline import list_spans
from tunesvc.queries.recommendation import get_recommendation
from tunesvc.queries.rows import Objective
from tunesvc.queries.studies import get_study, get_study_by_id
from tunesvc.queries.study_summary import get_summary, list_recent_decisions, list_running
from tunesvc.queries.trials.trial_results import (
    get_results,
    saved_by_pruning,
    saving_of,
    subsample,
    subsample_best,
)
from tunesvc.queries.trials.trial_table import list_best_trials
from tunesvc.queries.trials.tried_parameters import list_parameters

LR = FloatDistribution(1e-4, 1.0, log=True)


def test_columns_hold_all_trials_by_number(database: Database) -> None:
    with writing(database) as w:
        w.trial(1, "complete", 0.5, constraints="[1.0]")
        w.trial(0, "complete", 0.7)
        w.trial(2, "running")
        w.trial(3, "pruned", 0.1)
        w.report(2, 1, 4, 0.3)
    found = get_results(database, w.study_id)
    assert found.numbers.tolist() == [0, 1, 2, 3]
    assert found.feasible.tolist() == [True, False, True, True]
    assert np.isnan(found.values[2, 0])
    assert found.steps[2] == 4
    assert np.isnan(found.ended_s).tolist() == [False, False, True, False]
    assert found.best(Objective("error", "minimize")) == 0, "1 breaks its constraint, 3 was pruned"


@pytest.mark.parametrize("first", [0, 1])
def test_steps_are_counted_from_where_the_reports_begin(database: Database, first: int) -> None:
    """Ten steps are ten, whether the objective counts them from 0 or from 1."""
    with writing(database) as w:
        for number, (state, steps) in enumerate([("complete", 10), ("pruned", 4)]):
            w.trial(number, state, 0.5)
            for step in range(steps):
                w.report(number, 1, first + step, 0.5)
    found = get_results(database, w.study_id)
    assert found.steps.tolist() == [10, 4]
    saved = saving_of(found)
    assert saved is not None
    assert (saved.full_steps, saved.steps, saved.share) == (10, 6, 6 / 20)


def test_nothing_is_columns_of_nothing(database: Database) -> None:
    with writing(database) as w:
        pass
    found = get_results(database, w.study_id)
    assert len(found) == 0
    assert found.best(Objective("error", "minimize")) is None
    assert len(get_results(database, w.study_id, found)) == 0


def test_a_later_look_reads_what_is_new_and_what_was_open(database: Database) -> None:
    study = fill(database, 20, 3)
    before = get_results(database, study)
    with database.engine.begin() as connection:
        add(connection, study, 20, 5, 1)
        connection.execute(
            sa.text(
                "UPDATE trials SET state = 'complete', \"values\" = ARRAY[0.5] WHERE number = 17"
            )
        )
    later, whole = get_results(database, study, before), get_results(database, study)
    for column in ("numbers", "states", "values", "feasible", "steps", "ended_s"):
        np.testing.assert_array_equal(getattr(later, column), getattr(whole, column))
    assert len(later) == 25


@given(st.sets(st.integers(0, 10**9), min_size=1, max_size=300), st.integers(1, 100))
def test_an_even_choice_is_as_large_as_can_be_and_stable(numbers: set[int], limit: int) -> None:
    ordered = np.array(sorted(numbers))
    kept = subsample(ordered, limit)
    assert kept.sum() == min(limit, len(ordered))
    grown = np.append(ordered, ordered[-1] + 1)
    again = subsample(grown, limit)
    assert (kept & ~again[:-1]).sum() <= 1, "one more trial replaces one at most"


@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=300), st.integers(4, 100))
def test_the_best_are_always_chosen(costs: list[float], limit: int) -> None:
    values = np.array(costs)
    kept = subsample_best(values, np.arange(len(values)), limit)
    assert kept.sum() == min(limit, len(values))
    assert values[kept].min() == values.min()


def test_what_pruning_saves_is_counted_against_a_whole_trial() -> None:
    saved = saved_by_pruning(
        np.array([2.0, 5.0]), np.array([10.0, 10.0, np.nan]), np.array([2.0, 5, 10, 10, np.nan])
    )
    assert saved is not None
    assert (saved.pruned, saved.whole, saved.full_steps, saved.steps) == (2, 2, 10.0, 13.0)
    assert saved.share == pytest.approx(13 / (13 + 27))
    assert saved_by_pruning(np.array([]), np.array([10.0]), np.array([10.0])) is None


def test_parameters_are_columns_in_the_order_drawn_with_their_scale(database: Database) -> None:
    narrow, wide = (
        CategoricalDistribution(["sgd", "adam"]),
        CategoricalDistribution(["adam", "lion"]),
    )
    with writing(database) as w:
        for number in range(3):
            w.trial(number, "complete", 0.5)
        w.param(0, 0, "opt", 1, narrow)
        w.param(0, 1, "lr", 0.01, LR)
        w.param(1, 0, "opt", 1, wide)
        w.param(2, 0, "opt", 0, narrow)
    opt, lr = list_parameters(database, w.study_id, [2, 0, 1])
    assert (opt.name, lr.name) == ("opt", "lr")
    assert [opt.text(value) for value in opt.values] == ["sgd", "adam", "lion"], (
        "whatever was on offer at the time"
    )
    assert lr.log
    assert np.isnan(lr.values).tolist() == [True, False, True]
    assert lr.normalized()[1] == pytest.approx(0.5)


def test_a_value_of_none_and_a_number_are_choices_too(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "complete", 0.5)
        w.trial(1, "complete", 0.5)
        w.param(0, 0, "depth", 0, CategoricalDistribution([None, 3]))
        w.param(1, 0, "depth", 0.25, FloatDistribution(0, 1))
    (depth,) = list_parameters(database, w.study_id, [0, 1])
    assert [depth.text(value) for value in depth.values] == ["None", "0.25"]


def test_the_headline_says_what_the_search_has_gained(database: Database) -> None:
    study = fill(database, 60, 2)
    view = get_study_by_id(database, study)
    headline = get_summary(database, view, get_results(database, study))
    best = list_best_trials(database, study)[0]
    assert (headline.best, headline.best_value) == (best.number, best.value)
    assert headline.gain is not None
    assert headline.gain.started == 5, "as the sampler says"
    assert headline.gain.best <= headline.gain.start_best
    assert headline.saved is not None


def test_without_phases_the_first_ten_count_as_the_start(database: Database) -> None:
    study = fill(database, 60, 0)
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE decisions SET details = '{}'"))
    view = get_study_by_id(database, study)
    gain = get_summary(database, view, get_results(database, study)).gain
    assert gain is not None
    assert gain.started == 10


def test_what_happened_lately_comes_newest_first_from_any_study(database: Database) -> None:
    study = fill(database, 30, 2)
    fill(database, 30, 2, name="other")
    with database.engine.begin() as connection:
        row = {
            "study_id": study,
            "trial_number": None,
            "kind": "code",
            "reason": "its source changed",
        }
        connection.execute(sa.insert(tables.decisions).values(row))
    first, second, *_ = list_recent_decisions(database, study, 30)
    assert (first.reason, first.trial_number) == ("its source changed", None)
    assert second.trial_number == 29


def test_those_that_run_have_their_curves(database: Database) -> None:
    study = fill(database, 10, 2)
    (last, curve), _ = list_running(database, study)
    assert last.number == curve.trial_number == 9
    assert len(curve.points) == 6


def test_spans_are_the_newest_attempts_on_lanes(database: Database) -> None:
    study = fill(database, 12, 2)
    found = list_spans(database, study, limit=5)
    assert {span.trial_number for span in found} == {7, 8, 9, 10, 11}
    assert all(span.ended_at >= span.started_at for span in found)


def test_the_recommendation_of_a_large_study_looks_at_the_best(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fill(database, 80, 0)
    view = get_study_by_id(database, study)
    whole = get_recommendation(database, view)
    monkeypatch.setattr("tunesvc.queries.recommendation.CONSIDERED_MAX", 40)
    part = get_recommendation(database, view)
    assert whole is not None
    assert part is not None
    assert whole.luckiest == part.luckiest
    assert math.isclose(whole.mean, part.mean, rel_tol=0.2)


def test_every_figure_of_a_study_made_through_optuna_is_drawn(database: Database) -> None:
    with database.engine.begin() as connection:
        study = connection.execute(
            sa.insert(tables.studies)
            .values(name="plain", directions=["maximize"])
            .returning(tables.studies.c.study_id)
        ).scalar_one()
        for number in range(12):
            at = {"trial_id": trial_id(study, number)}
            row = {
                **at,
                "study_id": study,
                "number": number,
                "state": "complete",
                "values": [number % 5 / 5.0],
            }
            connection.execute(sa.insert(tables.trials).values(row))
            one = {**at, "name": "lr", "position": 0, "value": 0.01 * (number + 1)}
            connection.execute(
                sa.insert(tables.trial_params).values(
                    {**one, "distribution": distribution_to_json(LR)}
                )
            )
    view = get_study(database, "plain")
    reader = charts.Reader(database, view)
    drawn = {kind for kind in charts.kinds_of(view) if charts.draw(kind, reader).figure is not None}
    assert drawn == set(charts.kinds_of(view)) - {
        FigureKind.CONTOUR,
        FigureKind.RANK,
        FigureKind.INTERACTIONS,
        FigureKind.COST,
        FigureKind.CURVES,
        FigureKind.TIMELINE,
    }


def test_no_query_of_the_page_reads_a_big_table_from_end_to_end(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(FILL.replace(": ", "\\: ")))
        study = connection.execute(
            sa.text("SELECT study_id FROM studies WHERE name = 's7'")
        ).scalar_one()
    view = get_study_by_id(database, study)
    before = get_results(database, study)
    queries = {
        "columns": lambda db, one: get_results(db, one),
        "news": lambda db, one: get_results(db, one, before),
        "parameters": lambda db, one: list_parameters(db, one, range(40)),
        "headline": lambda db, _: get_summary(db, view, before),
        "recent": lambda db, one: list_recent_decisions(db, one, 300),
        "running": lambda db, one: list_running(db, one),
        "spans": lambda db, one: list_spans(db, one, 50),
        "recommended": lambda db, _: get_recommendation(db, view, before),
    }
    big = {"trials", "trial_params", "trial_attrs", "attempts", "reports", "logs", "decisions"}
    found = {name: scanned(database, run, study) & big for name, run in queries.items()}
    assert {name: tables for name, tables in found.items() if tables} == {}
