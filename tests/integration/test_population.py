"""Population-based training on the real database, with simulated workers on a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.commands import carry_out
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import Command
from tunesvc.execution.executor import (
    Checkpointed,
    Failed,
    Finished,
    Launch,
    Lost,
    Payload,
    Reported,
    StoppedEarly,
)
from tunesvc.queries.explain.explanation import explain_study
from tunesvc.queries.recommendation import find_best_trial
from tunesvc.queries.rows import TrialRow
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_replay import replay_study
from tunesvc.queries.trials.population_tree import get_schedule
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.runtime import study_requests
from tunesvc.search.tracking.lineage import PARENT

Steps = Iterable[tuple[float, Payload]]
SEARCH = {"method": "pbt", "population": 8, "interval": 5, "steps": 20}


def position(location: str | None) -> tuple[int, float]:
    """Step and skill of a checkpoint of `training`."""
    if location is None:
        return 0, 0.0
    name, _, skill = Path(location).name.partition("-")
    return int(name), float(skill)


def training(launch: Launch, *, end: int = 10**6) -> Steps:
    """Steps from 1 on that improve the loss the more, the nearer x is to 1 - step / 20.

    So a member needs a falling x. The checkpoint holds what it has learned.
    """
    assert launch.stretch is not None
    step, skill = position(launch.checkpoint)
    while step < end:
        step += 1
        skill += 1 - abs(float(launch.params["x"]) - (1 - step / 20))
        yield 1.0, Reported(step, {"loss": 20 - skill})
        place = f"/shared/{launch.trial_number}/attempt-{launch.attempt.number}-step-{step}-1"
        yield 0.0, Checkpointed(f"{place}/{step}-{skill}", step)
        if step >= launch.stretch.until:
            yield 0.0, StoppedEarly()
    yield 0.0, Finished()


def simulate(database: Database, script: Any = training, **changes: Any) -> Simulation:
    search = {**SEARCH, **changes.pop("search", {})}
    base = {
        "search": search,
        "sampler": {"name": search["method"], "seed": 1},
        "budget": {"trials": 200},
    }
    return Simulation(database, make_spec(**(base | changes)), script)


def parents(simulation: Simulation) -> dict[int, Mapping[str, Any]]:
    from tunesvc.db.optuna.optuna_storage import PgStorage

    trials = PgStorage(simulation.database).get_all_trials(simulation.record.study_id)
    return {t.number: t.system_attrs[PARENT] for t in trials if PARENT in t.system_attrs}


def test_members_reach_the_end_and_the_worst_are_replaced_by_copies(database: Database) -> None:
    simulation = simulate(database)
    closing = simulation.run()
    assert closing.state is StudyState.FINISHED
    assert closing.reason == "all 8 members have reached the end of their training"
    states = simulation.states()
    assert states["complete"] == 8
    copies = parents(simulation)
    assert states["pruned"] == len(copies) == 6, "a quarter of 8 at each of three stops"
    study_id = simulation.record.study_id
    answer = study_requests.request(database, study_id, "extend", {"trials": 20}, "ann")
    assert answer.startswith(f"extended, but {closing.reason}: a new study with larger `steps`")
    for number, parent in copies.items():
        first = simulation.sql(f"""SELECT min(step) FROM reports
            WHERE trial_id & 4294967295 = {number}""")[0][0]
        assert first == parent["step"] + 1
    view = get_study(database, "test")
    best = find_best_trial(database, view)
    values = simulation.sql("SELECT values[1] FROM trials WHERE state = 'complete'")
    assert best.value == min(value for (value,) in values), "the best observed one, without a model"
    exploits = simulation.sql("SELECT reason FROM decisions WHERE kind = 'exploit'")
    assert len(exploits) == 6
    assert all("replaced by a copy of trial" in str(reason) for (reason,) in exploits)
    asks = simulation.sql("SELECT reason FROM decisions WHERE kind = 'ask' ORDER BY trial_number")
    assert all("copy of trial" in str(reason) for (reason,) in asks[8:])
    assert "6 trials ended in favour of a copy" in str(explain_study(database, view))
    assert "steps, so that saved" not in str(explain_study(database, view))
    replays_exactly(database)
    trained_alone(database, best)


def replays_exactly(database: Database) -> None:
    replayed = replay_study(database, get_study(database, "test"))
    assert replayed.asks.compared == replayed.asks.agreeing > 4, replayed.asks.first


def trained_alone(database: Database, best: TrialRow) -> None:
    """The schedule of a trial, trained alone, has its result."""
    schedule = get_schedule(database, get_study(database, "test"), best.number)
    assert schedule.stages[-1]["until"] == 20
    search = {"interval": None, "steps": None, "population": 1, **schedule.search}
    again = simulate(database, name="again", search=search)
    again.run()
    stages = len(schedule.stages)
    assert again.states() == {"complete": 1} | ({"pruned": stages - 1} if stages > 1 else {})
    (row,) = list_trials(database, again.record.study_id, states=["complete"])
    assert row.value == pytest.approx(best.value)


def test_pb2_replays_too(database: Database) -> None:
    simulation = simulate(database, search={"method": "pb2"})
    simulation.run()
    assert simulation.states()["complete"] == 8
    asks = simulation.sql("SELECT reason FROM decisions WHERE kind = 'ask'")
    assert any("expected to improve by" in str(reason) for (reason,) in asks)
    replays_exactly(database)


def test_an_attempt_that_is_lost_after_its_checkpoint_has_done_its_stretch(
    database: Database,
) -> None:
    """Found by looking: it was retried, trained to the next stop, and was never compared at this
    one."""

    def dying(launch: Launch) -> Steps:
        for delay, payload in training(launch):
            yield delay, Lost("its worker died") if isinstance(payload, StoppedEarly) else payload

    simulation = simulate(database, dying, search={"population": 4, "steps": 11})
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states()["complete"] == 4
    assert not simulation.sql("SELECT 1 FROM decisions WHERE kind = 'retry'")


def test_a_member_that_fails_for_good_is_replaced_by_a_copy(database: Database) -> None:
    def broken(launch: Launch) -> Steps:
        steps = training(launch)
        if launch.trial_number in (2, 4):
            return [*list(itertools.islice(steps, 3)), (1.0, Failed("error", "boom"))]
        return steps

    simulation = simulate(database, broken, search={"population": 4, "steps": 11})
    assert simulation.run().state is StudyState.FINISHED
    states = simulation.states()
    assert (states["complete"], states["fail"]) == (4, 2)


def test_a_study_that_saves_no_checkpoint_ends_with_an_error_of_each_trial(
    database: Database,
) -> None:
    def forgetful(launch: Launch) -> Steps:
        yield 1.0, Failed("bad_report", "there is no checkpoint of step 5")

    simulation = simulate(database, forgetful)
    closing = simulation.run()
    assert closing.state is StudyState.FAILED
    assert "no checkpoint of step 5" in closing.reason


def test_trials_are_enqueued_until_all_members_have_begun(database: Database) -> None:
    simulation = simulate(database, parallelism=2, search={"population": 2})
    coordinator = simulation.start()
    command = Command(1, "enqueue", {"params": {"x": 0.5, "n": 3}}, "user")
    assert carry_out(command, coordinator) == "trial 0 is next"
    coordinator.step()
    coordinator.step()
    assert "the 2 members of the population have begun" in carry_out(command, coordinator)
