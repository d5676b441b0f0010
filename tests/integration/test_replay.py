"""Replays of studies that ran on the real database, with simulated workers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from optuna.distributions import IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.errors import SpecError
from tunesvc.execution.executor import Launch, Lost, Payload
from tunesvc.queries.recording import load_recording
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_replay import replay_pruner, replay_sampler, replay_study
from tunesvc.runtime.imported_searchers import Searchers
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.replay import redraw
from tunesvc.search.samplers.auto_sampler import PARAMETERS_MAX
from tunesvc.search.seeding import seeded
from tunesvc.space.search_space import Space

MEDIAN = {"name": "median", "n_startup_trials": 3}


def bumpy(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Curves of different lengths that depend on the parameters; one attempt is lost on its way."""
    x, n = float(launch.params["x"]), int(launch.params["n"])  # type: ignore[arg-type]
    steps = curve(
        *((x - 0.3) ** 2 + n / 10 + 1 / (1 + step) for step in range(4 + n)), every_s=1 + n / 7
    )
    lost = launch.trial_number == 4 and launch.attempt.number == 1
    return [*steps[:2], (0.1, Lost("killed"))] if lost else steps


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "qmc", "nsga2"])
@pytest.mark.parametrize(
    ("parallelism", "seeds"),
    [(1, None), pytest.param(4, None, marks=pytest.mark.slow), (4, 3)],
)
def test_a_study_is_redrawn_as_it_was(
    database: Database, sampler: str, parallelism: int, seeds: int | None
) -> None:
    spec = make_spec(
        sampler={"name": sampler},
        pruner=MEDIAN,
        budget={"trials": 25},
        parallelism=parallelism,
        seeds=seeds,
    )
    simulation = Simulation(database, spec, bumpy)
    coordinator = simulation.start()
    for _ in range(40):
        coordinator.step()
    simulation.crash()
    simulation.run()
    replayed = replay_study(database, get_study(database, "test"))
    assert (replayed.asks.first, replayed.prunes.first) == (None, None)
    assert (replayed.asks.agreeing, replayed.asks.compared, replayed.asks.skipped) == (25, 25, {})
    assert replayed.prunes.agreeing == replayed.prunes.compared > 25
    assert replayed.promotions.compared == 0, "what the median pruner stops is over"
    assert simulation.states().get("pruned", 0) > 0


def step_with_proposals_in_hand(coordinator: Coordinator, steps: int) -> None:
    for taken in itertools.count(1):
        coordinator.step()
        if taken >= steps and coordinator._optimizer.prefetched:
            return


WIDE = {
    "x": {"type": "float", "min": 0.0, "max": 1.0},
    "n": {"type": "int", "min": 1, "max": 8},
    **{f"x{i}": {"type": "float", "min": 0.0, "max": 1.0} for i in range(PARAMETERS_MAX)},
}
"""A space in which `auto` asks TPE from the start, and shows it forecasts of pruned trials."""


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": {"name": "gp", "seed": 1}},
        {"sampler": {"name": "tpe", "seed": 1}},
        {"sampler": {"name": "auto", "seed": 1}, "parameters": WIDE},
    ],
    ids=["gp", "tpe", "auto in a wide space"],
)
@pytest.mark.parametrize(
    "pruner",
    [
        pytest.param(MEDIAN, marks=pytest.mark.slow, id="median"),
        pytest.param({"name": "curve", "resume": False}, id="curve"),
    ],
)
@pytest.mark.parametrize(
    "is_beside", [False, True], ids=["between commits", "while the database works too"]
)
def test_what_was_drawn_ahead_is_redrawn_where_it_was_drawn(
    database: Database, changes: Mapping[str, Any], pruner: Mapping[str, Any], is_beside: bool
) -> None:
    """Also when an enqueued trial took its place, and when the coordinator died with proposals
    in hand."""
    spec = make_spec(pruner=pruner, budget={"trials": 24}, **changes)
    simulation = Simulation(database, spec, bumpy)
    with ThreadPoolExecutor(1) as beside:
        simulation.commit_thread = beside if is_beside else None
        _run_with_what_comes_between(simulation, database)
    ahead = "details ? 'drawn'"
    assert (
        simulation.sql(f"SELECT count(*) FROM decisions WHERE kind = 'ask' AND {ahead}")[0][0] > 12
    )
    assert simulation.sql("SELECT count(*), max(number) FROM trials") == [(24, 23)]
    replayed = replay_study(database, get_study(database, "test"))
    assert (replayed.asks.first, replayed.prunes.first) == (None, None)
    assert replayed.asks.agreeing == replayed.asks.compared == 22


def _run_with_what_comes_between(simulation: Simulation, database: Database) -> None:
    coordinator = simulation.start()
    for _ in range(2):
        step_with_proposals_in_hand(coordinator, steps=15)
        with database.engine.begin() as connection:
            study_records.request(
                connection,
                simulation.record.study_id,
                "enqueue",
                {"params": {"x": 0.4, "n": 2}},
                "test",
            )
    step_with_proposals_in_hand(coordinator, steps=15)
    simulation.crash()
    simulation.run()


def test_a_pool_that_takes_nothing_more_ends_no_run(database: Database) -> None:
    """Python closes all of them when the main thread of a program ends, before other threads do."""
    simulation = Simulation(database, make_spec(budget={"trials": 6}), bumpy)
    simulation.commit_thread = closed = ThreadPoolExecutor(1)
    closed.shutdown()
    simulation.run()
    assert simulation.sql("SELECT count(*) FROM trials WHERE state = 'complete'") == [(6,)]


def test_proposals_of_a_step_whose_answer_was_lost_are_drawn_again(database: Database) -> None:
    """When that step was written is not known, nor what they rest on; of one that was put off it
    is known later."""
    spec = make_spec(sampler={"name": "tpe", "seed": 1}, budget={"trials": 30}, parallelism=2)
    simulation = Simulation(database, spec, bumpy)
    with ThreadPoolExecutor(1) as beside:
        simulation.commit_thread = beside
        simulation.faults.extend(
            ["", "answer lost", "", "", "away", "", "away", "away", "", "answer lost"] * 6
        )
        simulation.run()
    assert simulation.sql("SELECT count(*), max(number) FROM trials") == [(30, 29)]
    assert simulation.sql("SELECT count(*) FROM decisions WHERE details ? 'drawn'")[0][0] > 5
    assert simulation.sql(
        "SELECT count(*) FROM decisions WHERE details ->> 'drawn' IS NULL AND details ? 'drawn'"
    ) == [(0,)]
    replayed = replay_study(database, get_study(database, "test"))
    assert (replayed.asks.first, replayed.asks.agreeing) == (None, 30)


def test_what_differs_is_named_with_what_was_recorded(database: Database) -> None:
    simulation = Simulation(
        database, make_spec(sampler={"name": "random"}, budget={"trials": 6}), bumpy
    )
    simulation.run()
    simulation.sql(
        "UPDATE trial_params SET value = 0.125 WHERE name = 'x' AND trial_id % 4294967296 = 3"
    )
    simulation.sql(
        "UPDATE decisions SET details = details - 'seed' WHERE kind = 'ask' AND trial_number = 5"
    )
    replayed = replay_study(database, get_study(database, "test"))
    assert replayed.asks.first is not None
    assert replayed.asks.first.number == 3
    assert "0.125" in replayed.asks.first.recorded
    assert (replayed.asks.agreeing, replayed.asks.compared) == (4, 5)
    assert list(replayed.asks.skipped.values()) == [1]


def test_another_pruner_is_judged_by_what_it_would_have_saved_and_lost(database: Database) -> None:
    def crossing(launch: Launch) -> Iterable[tuple[float, Payload]]:
        late = launch.trial_number == 9  # the best, but a slow starter
        return curve(*([0.9] * 7 + [0.0] if late else [0.5 + launch.trial_number / 100] * 8))

    simulation = Simulation(database, make_spec(budget={"trials": 12}, parallelism=1), crossing)
    simulation.run()
    view = get_study(database, "test")
    replayed = replay_pruner(database, view, "{name: median, n_startup_trials: 3}")
    assert 9 in [one.number for one in replayed.stopped]
    assert [one.number for one in replayed.lost] == [9]
    late = replayed.lost[0]
    assert (late.step, late.steps_saved, late.rank, late.value) == (0, 7, 1, 0.0)
    assert replayed.steps == 12 * 8
    assert replayed.steps_saved == sum(one.steps_saved for one in replayed.stopped)
    assert replay_pruner(database, view, "none").stopped == ()


def test_another_sampler_is_judged_by_the_distance_of_its_proposals(database: Database) -> None:
    Simulation(database, make_spec(sampler={"name": "random"}, budget={"trials": 6}), bumpy).run()
    view = get_study(database, "test")
    same = replay_sampler(database, view, "random")
    other = replay_sampler(database, view, "{name: random, seed: 99}")
    assert [one.distance for one in same] == [
        0.0
    ] * 6  # the recorded seed counts, unless another one is given
    assert all(0 < one.distance <= 1 for one in other)


def test_a_warm_started_study_is_redrawn_as_it_was(database: Database) -> None:
    Simulation(database, make_spec(name="before", budget={"trials": 20}), bumpy).run()
    spec = make_spec(
        warm_start=["before"], sampler={"name": "tpe", "n_startup_trials": 5}, budget={"trials": 12}
    )
    Simulation(database, spec, bumpy).run()
    replayed = replay_study(database, get_study(database, "test"))
    assert replayed.asks.first is None
    assert (replayed.asks.compared, sum(replayed.asks.skipped.values())) == (
        9,
        3,
    )  # three were the best of before


class Walker(BaseSampler):
    """A user's sampler: walks from the best trial, with generators that Optuna does not know."""

    def __init__(self, *, seed: int | None = None) -> None:
        self._numbers, self._coin = np.random.default_rng(seed), random.Random(seed)

    def infer_relative_search_space(self, *_: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, range: Any) -> Any:
        done = [one for one in study.get_trials(deepcopy=False) if one.value is not None]
        if isinstance(range, IntDistribution):
            return int(self._numbers.integers(range.low, range.high + 1))
        best = min(done, key=lambda one: float(one.value)).params[name] if done else 0.5
        return (best + self._coin.gauss(0, 0.1)) % 1.0


class Impatient(BasePruner):
    def __init__(self, after: int) -> None:
        self._after = after

    def prune(self, study: Any, trial: Any) -> bool:
        return trial.number % 2 == 1 and trial.last_step >= self._after


def test_a_users_sampler_and_pruner_resume_without_repeating_themselves_and_are_not_imported(
    database: Database,
) -> None:
    spec = make_spec(
        sampler={"name": "not_installed:Walker"},
        pruner={"name": "not_installed:Impatient", "after": 2},
        budget={"trials": 20},
        parallelism=1,
    )
    simulation = Simulation(database, spec, bumpy)
    coordinator = simulation.start(searchers=Searchers(Walker, Impatient))
    for _ in range(25):
        coordinator.step()
    simulation.crash()
    simulation.start(searchers=Searchers(Walker, Impatient)).run()
    assert simulation.states() == {"pruned": 10, "complete": 10}
    view = get_study(database, "test")
    recording = load_recording(database, view)
    assert len({trial.params["x"] for trial in recording.trials.values()}) == 20
    make = lambda seed: make_sampler(seeded(spec, seed), Space(spec.parameters), Walker)  # noqa: E731
    asks, prunes, _ = redraw(recording, make, spec.sampler.name, Impatient(2), "", None)
    assert (asks.agreeing, asks.compared) == (20, 20), "it draws from seed, number and history"
    assert prunes.agreeing == prunes.compared > 20
    replayed = replay_study(database, view)
    why = "not_installed:Walker is code of the study's own, which a replay does not import"
    assert (replayed.asks.compared, replayed.asks.skipped) == (0, {why: 20})
    assert replayed.prunes.compared == 0
    with pytest.raises(SpecError, match="imported only where its study runs"):
        replay_pruner(database, view, "not_installed:Impatient")
