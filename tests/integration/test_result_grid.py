"""Results in Ray Tune's form, of a stored study with simulated workers."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from ray import tune as ray_tune

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.errors import TuneError
from tunesvc.execution.executor import Failed, Finished, Launch, Payload, Reported
from tunesvc.ray_tune import ResultGrid
from tunesvc.study import Study

FAILING = 2


def reports(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Two iterations, of which the first is better; one trial fails in between."""
    x = float(launch.params["x"])  # type: ignore[arg-type]
    first = (1.0, Reported(1, {"loss": x - 1, "auc": 1 - x}))
    if launch.trial_number == FAILING:
        return [first, (1.0, Failed("error", "ValueError: odd"))]
    return [first, (1.0, Reported(2, {"loss": x, "auc": x})), (1.0, Finished({"loss": x}))]


@pytest.fixture
def results(database: Database) -> ResultGrid:
    constants = {"model/depth": 3, "stop": {"training_iteration": 2}}
    Simulation(database, make_spec(constants=constants, seed=1), reports).run()
    return ResultGrid(Study("test", database))


def test_the_best_result_is_that_of_the_study(results: ResultGrid) -> None:
    trial, best = results.study.best_trial, results.get_best_result()
    assert isinstance(best, ray_tune.Result)
    assert best.config == {"model": {"depth": 3}, **trial.params}
    assert best.metrics is not None
    assert best.metrics["loss"] == trial.value
    assert best.metrics["training_iteration"] == 2
    assert best.metrics["trial_id"] == f"test-{trial.number}"
    assert best.error is None
    assert best.checkpoint is None
    assert best.metrics_dataframe is not None
    assert best.metrics_dataframe["loss"].tolist() == [trial.params["x"] - 1, trial.params["x"]]


def test_results_are_selected_by_any_metric_mode_and_scope(results: ResultGrid) -> None:
    rows = [row for row in results.study.trials if row.number != FAILING]
    places = {row.number: float(row.params["x"]) for row in rows}  # type: ignore[arg-type]

    def chosen(**options: str) -> str:
        metrics = results.get_best_result(**options).metrics
        assert metrics is not None
        return str(metrics["trial_id"])

    highest, lowest = max(places, key=places.__getitem__), min(places, key=places.__getitem__)
    assert chosen(metric="loss", mode="max") == f"test-{highest}"
    assert chosen(metric="auc", mode="max") == f"test-{highest}"
    assert chosen(metric="auc", mode="max", scope="all") in {f"test-{highest}", f"test-{lowest}"}
    assert chosen(scope="all") == chosen(scope="avg") == f"test-{lowest}"
    assert chosen(scope="last-5-avg") == chosen(scope="last-10-avg") == f"test-{lowest}"
    with pytest.raises(ValueError, match="metric 'auc': say mode"):
        results.get_best_result("auc")
    with pytest.raises(ValueError, match="scope 'first': use `last`, `all`, `avg`, "):
        results.get_best_result(scope="first")
    with pytest.raises(TuneError, match="no trial of study 'test' has a value of 'f1'"):
        results.get_best_result("f1", "max")


def test_failed_trials_are_among_the_results(results: ResultGrid) -> None:
    assert len(results) == len(list(results)) == len(results.study.trials)
    assert (results.num_errors, results.num_terminated) == (1, len(results) - 1)
    (error,) = results.errors
    assert "ValueError: odd" in str(error)
    assert str(results[FAILING].error) == str(error)


def test_the_dataframe_has_a_row_for_each_trial(results: ResultGrid) -> None:
    last, best = results.get_dataframe(), results.get_dataframe("loss", "min")
    assert len(last) == len(results)
    rows = [number for number in range(len(results)) if number != FAILING]
    assert last["training_iteration"][rows].tolist() == [2] * len(rows)
    assert best["training_iteration"].tolist() == [1] * len(results)
    assert (best["loss"] < last["loss"])[rows].all()
    assert last["config/model/depth"].tolist() == [3] * len(results)
    assert math.isclose(last["loss"][0], last["config/x"][0])
    with pytest.raises(ValueError, match="give both"):
        results.get_dataframe("loss")
