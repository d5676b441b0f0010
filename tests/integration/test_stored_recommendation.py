"""A recommendation stored at the end of a run: used while it fits, otherwise recomputed."""

from __future__ import annotations

import pytest

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.queries import recommendation
from tunesvc.queries.recommendation import get_recommendation
from tunesvc.queries.studies import get_study
from tunesvc.runtime.stored_recommendation import store_recommendation


def test_a_stored_recommendation_is_what_the_model_says_until_results_change(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 15}))
    simulation.run()
    view = get_study(database, "test")
    computed = get_recommendation(database, view)
    store_recommendation(database, view.study_id)
    with monkeypatch.context() as patch:
        patch.setattr(recommendation, "fit_recommendation", None)  # would raise
        assert get_recommendation(database, view) == computed
    with database.engine.begin() as connection:
        connection.exec_driver_sql("""UPDATE trials SET "values" = '{-5}' WHERE number = 3""")
    changed = get_recommendation(database, view)
    assert changed is not None
    assert changed.luckiest == 3
    assert changed != computed


def test_a_study_without_results_stores_nothing(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    store_recommendation(database, simulation.record.study_id)
    assert get_recommendation(database, get_study(database, "test")) is None
