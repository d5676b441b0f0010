"""Cost of a step when many workers are silent: nothing for each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

import pytest

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.db.engine.database import Database
from tunesvc.execution.executor import Launch, Payload, Reported


def one_speaks(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """The first trial reports ten times a second; the others are silent."""
    for step in range(1_000_000):
        yield 0.1 if launch.trial_number == 0 else 1e6, Reported(step, {"loss": 1.0})


def with_silent(database: Database, attempts: int) -> tuple[Simulation, Coordinator]:
    spec = make_spec(
        name=f"silent-{attempts}",
        sampler={"name": "random", "seed": 1},
        pruner={"name": "asha", "min": 1_000_000},
        budget={"trials": attempts + 1, "gpu_hours": 1e6},
        parallelism=attempts + 1,
        limits={"wall": 1e5, "silence": 1e5},
    )
    simulation = Simulation(database, spec, one_speaks, slots=attempts + 1)
    coordinator = simulation.start()
    while len(simulation.executor.cluster.running) <= attempts:
        coordinator.step()
    return simulation, coordinator


def lines_of_a_step(coordinator: Coordinator) -> int:
    """Return the number of lines of tunesvc that the cheapest of some steps runs: no snapshot for
    observers, no renewal of leases."""
    lines = 0

    def count(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return count if "/tunesvc/" in frame.f_code.co_filename else None

    counted = []
    before = sys.gettrace()
    for _ in range(15):
        lines = 0
        sys.settrace(count)
        try:
            coordinator.step()
        finally:
            sys.settrace(before)
        counted.append(lines)
    return min(counted)


def test_a_step_costs_the_same_however_many_workers_are_silent(database: Database) -> None:
    few, many = (lines_of_a_step(with_silent(database, attempts)[1]) for attempts in (5, 300))
    assert few > 100  # else nothing was counted
    assert many - few < 30


def test_a_lease_is_written_only_when_it_has_lost_a_tenth(database: Database) -> None:
    simulation, coordinator = with_silent(database, 5)
    written = "SELECT count(*), max(xmin::text::bigint) FROM attempts WHERE trial_id & 15 > 0"

    def pass_s(seconds: float) -> None:
        until_s = simulation.clock.now() + seconds
        while simulation.clock.now() < until_s:
            coordinator.step()

    pass_s(61.0)
    renewed = simulation.sql(written)
    pass_s(50.0)
    assert simulation.sql(written) == renewed
    pass_s(20.0)
    assert simulation.sql(written) != renewed
    left = "SELECT bool_and(expires_at > now() + interval '600 s') FROM attempts"
    assert simulation.sql(left) == [(True,)]


@pytest.mark.parametrize("limit", ["wall", "silence"])
def test_a_silent_attempt_is_stopped_when_its_time_is_over_and_not_before(
    database: Database, limit: str
) -> None:
    spec = make_spec(
        budget={"trials": 2},
        parallelism=2,
        pruner={"name": "none"},
        limits={limit: 30.0},
        retries={"timeout": 0},
    )
    simulation = Simulation(database, spec, one_speaks)
    coordinator = simulation.start()
    stopped = "SELECT count(*) FROM attempts WHERE stop_cause IS NOT NULL"
    while simulation.clock.now() < 29.5:
        coordinator.step()
    assert simulation.sql(stopped) == [(0,)]
    while simulation.clock.now() < 31.0:
        coordinator.step()
    assert simulation.sql(stopped) == [
        (2 if limit == "wall" else 1,)
    ]  # one of the two is not silent
