"""Studies of several metrics that prune, on the real database, with simulated workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.execution.executor import Finished, Launch, Lost, Payload, Reported
from tunesvc.queries.explain.explanation import explain_trial
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_replay import replay_pruner, replay_study
from tunesvc.queries.trials.trial_table import list_best_trials, list_trials
from tunesvc.search.tracking.objectives import points_of

STEPS = 12


def tradeoff(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Loss falls with x, cost rises with it, and n makes both worse; one attempt is lost on its
    way."""
    x, n = float(launch.params["x"]), int(launch.params["n"])  # type: ignore[arg-type]
    events: list[tuple[float, Payload]] = []
    for step in range(STEPS):
        left = 0.9 ** (step / (1 + 0.1 * n))
        metrics = {
            "loss": 0.1 + (1 - x) ** 2 + 0.2 * n + left,
            "cost": 0.1 + x**2 + 0.2 * n + 0.5 * left,
            "lr": 0.1,
        }
        events.append((1.0 + n / 10, Reported(step, metrics)))
    if launch.trial_number == 9 and launch.attempt.number == 1:
        return [*events[:3], (0.1, Lost("killed"))]
    return [*events, (1.0, Finished())]


def make_study(database: Database, **changes: Any) -> Simulation:
    metrics = [{"name": "loss"}, {"name": "cost"}]
    return Simulation(
        database, make_spec(**{"metrics": metrics, "budget": {"trials": 40}} | changes), tradeoff
    )


@pytest.mark.parametrize("pruner", ["auto", "asha"])
def test_a_study_of_two_metrics_prunes_through_a_crash_and_is_redrawn_as_it_was(
    database: Database, pruner: str
) -> None:
    simulation = make_study(database, pruner={"name": pruner}, sampler={"name": "auto", "seed": 2})
    coordinator = simulation.start()
    for _ in range(100):
        coordinator.step()
    before = {trial.number: points_of(trial, 2) for trial in coordinator._optimizer.trials}
    simulation.crash()
    coordinator = simulation.start()
    after = {trial.number: points_of(trial, 2) for trial in coordinator._optimizer.trials}
    over = [row.number for row in list_trials(database, simulation.record.study_id) if row.ended_at]
    assert over
    assert {number: after[number] for number in over} == {number: before[number] for number in over}
    coordinator.run(simulation.interrupt)
    states = simulation.states()
    assert states["pruned"] > 5
    assert states["complete"] + states["pruned"] == 40
    view = get_study(database, "test")
    replayed = replay_study(database, view)
    assert (replayed.asks.first, replayed.prunes.first) == (None, None)
    assert replayed.asks.compared == 40
    assert replayed.prunes.compared > 100
    # what was stopped would have been dominated: n makes everything worse
    front = list_best_trials(database, view.study_id)
    assert {row.params["n"] for row in front} <= {1, 2}
    pruned = list_trials(database, view.study_id, states=["pruned"])
    explained = explain_trial(database, view, pruned[-1].number)
    assert explained is not None
    text = " ".join(said.text for said in explained.statements)
    assert "Stopped:" in text
    if pruner == "auto":
        assert "chance to join the" in text
        assert "loss" in text
        assert "cost" in text
    other = replay_pruner(database, view, "{name: asha, min: 1, eta: 2}")
    assert other.stopped
    assert other.complete == states["complete"]
