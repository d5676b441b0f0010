"""Costs from stored attempts, and budgets in money on simulated workers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.integration.test_queries import writing
from tests.support.command_line import Tune
from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc import charts
from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.execution.executor import Lost
from tunesvc.queries.export.dataframe import build_dataframe
from tunesvc.queries.studies import get_study, get_study_by_id, list_studies
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.runtime.run_study import StudySource, create_or_resume
from tunesvc.study import Study

PRICES = {"gpu_hour": 2.0, "cpu_hour": 0.1, "currency": "EUR"}


def test_lost_attempts_are_paid_for_and_trials_add_up_to_the_study(database: Database) -> None:
    with writing(database, cost=PRICES) as w:
        w.trial(0, "complete", 0.5)
        w.trial(1, "running")
        w.attempt(0, 1, "lost", gpus=0.5, cpus=4)
        w.attempt(0, 2, "finished", gpus=2, cpus=4)
        w.attempt(1, 1, "opened", gpus=4, cpus=4, started_at=None, ended_at=None)
        w.trial(2, "running")
        w.attempt(2, 1, "running", gpus=1, ended_at=None)
        w.report(2, 1, 0, 1.0, reported_at=sa.text("now() - interval '30 min'"))
    (row,) = list_studies(database)
    first, waiting, abandoned = list_trials(database, row.study_id)
    assert first.cost == pytest.approx(2 * 2.5 + 0.1 * 8), "an hour each"
    assert waiting.cost == 0.0
    assert abandoned.cost == pytest.approx(0.5 * 2.0), "what ran until its last report"
    assert row.cost == pytest.approx(first.cost + abandoned.cost)
    assert row.cost_text == "6.80 EUR"
    frame = build_dataframe(database, get_study(database, "digits"))
    assert frame["cost"].sum() == pytest.approx(row.cost)


def test_costs_are_shown_wherever_a_study_is(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    study = fill(database, name="priced", running=0, cost=PRICES, budget={"cost": 50})
    with database.engine.begin() as connection:
        connection.execute(sa.update(tables.attempts).values(cpus=100))
    tune = Tune(tmp_path, tmp_path, TUNE_DATABASE_URL=database_url)
    shown = tune.here("show", "priced")
    assert re.search(r"cost +0\.89 EUR", shown)
    assert "of 50.00 EUR" in shown
    assert "Another 10 trials would take about 0.22 EUR and improve loss by" in shown
    assert "0.89 EUR" in tune.here("ls")
    assert "cost" in tune.here("trials", "priced").splitlines()[0]
    assert ", 0.0222 EUR" in tune.here("best", "priced")
    assert json.loads(tune.here("best", "priced", "--json"))["cost"] == pytest.approx(
        0.0222, abs=1e-4
    )
    header, first, *_ = tune.here("export", "priced").splitlines()
    assert float(first.split(",")[header.split(",").index("cost")]) > 0
    assert "cost" in tune.here("extend", "priced", "--trials", "5", code=2)
    assert tune.here("extend", "priced", "--cost", "5")
    assert Study("priced", database).outlook(20).trials == 20  # type: ignore[union-attr]
    html = charts.report(database, get_study_by_id(database, study))
    assert "Best loss by cost in EUR" in html
    assert "for each combination" in html


def test_without_prices_nothing_has_a_cost(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "complete", 0.5)
        w.attempt(0, 1, "finished", gpus=2, cpus=4)
    view = get_study(database, "digits")
    assert (view.cost, view.prices, view.cost_text) == (None, None, "")
    assert list_trials(database, view.study_id)[0].cost is None
    assert "cost" not in build_dataframe(database, view)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_study_ends_when_its_money_is_spent_and_a_resume_counts_it(
    database: Database, parallelism: int
) -> None:
    spec = make_spec(
        budget={"cost": 0.3},
        cost=PRICES,
        resources={"cpu": 2, "gpu": 0.5, "workers": 2},
        parallelism=parallelism,
    )
    an_hour = 0.1 * 4 + 2.0 * 1
    simulation = Simulation(database, spec, lambda _: curve(*[0.5] * 100, every_s=6.0))
    assert simulation.run().reason == "the budget of 0.30 EUR is spent"
    spent_s = simulation.clock.now() * parallelism
    assert 0.3 / an_hour * 3600 <= spent_s
    # a report interval until the limit is noticed, and the time to stop
    assert spent_s <= 0.3 / an_hour * 3600 + 13 * parallelism
    assert simulation.recorder.snapshots[-1].cost.endswith(" EUR")
    ended_s, states = simulation.clock.now(), simulation.states()
    with database.engine.begin() as connection:  # which has a clock of its own
        started = tables.attempts.c.started_at - sa.text("interval '1 hours'")
        connection.execute(sa.update(tables.attempts).values(started_at=started))
    assert "0.30 EUR" in simulation.run().reason
    assert (simulation.clock.now(), simulation.states()) == (ended_s, states)


def test_attempts_that_were_lost_are_spent_from_the_budget(database: Database) -> None:
    """A study whose every worker dies ends by its budget of money, too."""
    spec = make_spec(
        budget={"cost": 1.0}, cost={"cpu_hour": 60.0}, parallelism=1, retries={"lost": 100}
    )
    lost = Lost("the worker died")
    simulation = Simulation(database, spec, lambda _: [(20.0, lost)])
    assert "1.00 is spent" in simulation.run().reason
    assert simulation.clock.now() == pytest.approx(60, abs=25)


def test_a_study_ends_when_improvement_costs_too_much(database: Database) -> None:
    spec = make_spec(
        budget={"trials": 500, "stop_when": {"improvement_below": 0.001, "per": "cost"}},
        cost={"cpu_hour": 3600.0, "currency": "EUR"},
    )
    simulation = Simulation(database, spec, lambda _: curve(0.5))
    reason = simulation.run().reason
    assert reason.startswith("expected improvement 0 per EUR, less than 0.001")
    assert sum(simulation.states().values()) < 30


def test_new_prices_apply_to_the_whole_study(database: Database) -> None:
    fill(database, name="priced", running=0, cost=PRICES)
    with database.engine.begin() as connection:
        connection.execute(sa.update(tables.attempts).values(cpus=100))
    before = get_study(database, "priced").cost
    dearer = make_spec(name="priced", cost={"cpu_hour": 0.2, "currency": "USD"})
    create_or_resume(database, dearer, StudySource(), resume=True)
    study = get_study(database, "priced")
    assert before is not None
    assert study.cost == pytest.approx(2 * before)
    assert study.cost_text.endswith(" USD")
    costs = [trial.cost or 0.0 for trial in list_trials(database, study.study_id)]
    assert sum(costs) == pytest.approx(study.cost)


def test_more_money_may_be_added(database: Database) -> None:
    from tunesvc.coordinator.spec_changes import extended

    spec = make_spec(budget={"cost": 0.1}, cost=PRICES)
    assert extended(spec, {"cost": 0.2}).budget.cost == pytest.approx(0.3)
