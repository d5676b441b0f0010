"""Population-based training on the real database, with simulated workers on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.execution.executor import (
    Checkpointed,
    Finished,
    Launch,
    Payload,
    Reported,
    StoppedEarly,
)
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
    for number, parent in copies.items():
        first = simulation.sql(f"""SELECT min(step) FROM reports
            WHERE trial_id & 4294967295 = {number}""")[0][0]
        assert first == parent["step"] + 1
    exploits = simulation.sql("SELECT reason FROM decisions WHERE kind = 'exploit'")
    assert len(exploits) == 6
    assert all("replaced by a copy of trial" in str(reason) for (reason,) in exploits)
    asks = simulation.sql("SELECT reason FROM decisions WHERE kind = 'ask' ORDER BY trial_number")
    assert all("copy of trial" in str(reason) for (reason,) in asks[8:])
