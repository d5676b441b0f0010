"""Invariants that hold whatever trials do and whenever the coordinator dies: budgets, one outcome,
no lost report."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import invariant_checker
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.execution.executor import (
    AttemptId,
    Checkpointed,
    Event,
    Failed,
    Finished,
    Launch,
    Lost,
    Payload,
    Reported,
)
from tunesvc.instrumentation import event_log
from tunesvc.testing.simulated_executor import SimulatedExecutor

ENDS: list[Payload] = [
    Finished(),
    Finished({"loss": float("nan")}),
    Failed("error", "boom"),
    Failed("gpu_oom", "out of memory"),
    Lost("killed"),
]
LIFE = st.tuples(st.integers(0, 6), st.sampled_from(ENDS), st.booleans(), st.floats(0.1, 50.0))
"""Reports, then the end; whether it saves a checkpoint half-way; seconds between reports."""


class Acknowledging(SimulatedExecutor):
    """Remembers which reports were acknowledged: those must be in the database for good."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._said: dict[AttemptId, list[Event]] = {}
        self.acknowledged: set[tuple[int, int, int]] = set()

    def events(self, timeout_s: float) -> list[Event]:
        events = list(super().events(timeout_s))
        for event in events:
            self._said.setdefault(event.attempt, []).append(event)
        return events

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        for attempt, seq in cursors.items():
            for event in self._said[attempt]:
                if event.seq <= seq and isinstance(event.payload, Reported):
                    self.acknowledged.add((*attempt, event.payload.step))


NAMES = itertools.count()


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lives=st.lists(LIFE, min_size=1, max_size=12),
    crashes=st.lists(st.integers(1, 12), max_size=4),
    budget=st.integers(1, 12),
    parallelism=st.integers(1, 5),
    retries=st.fixed_dictionaries(dict.fromkeys(("lost", "error", "gpu_oom"), st.integers(0, 2))),
    pruner=st.sampled_from(
        [
            {"name": "none"},
            {"name": "median", "n_startup_trials": 1},
            {"name": "asha", "min": 1, "max": 4, "eta": 2, "form": "promote"},
        ]
    ),
)
def test_whatever_trials_do_and_whenever_coordinators_die_nothing_is_lost_or_done_twice(
    database: Database,
    tmp_path: Path,
    lives: list[tuple[int, Payload, bool, float]],
    crashes: list[int],
    budget: int,
    parallelism: int,
    retries: dict[str, int],
    pruner: dict[str, object],
) -> None:
    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        reports, end, saves, every_s = lives[
            (launch.trial_number + launch.attempt.number) % len(lives)
        ]
        for step in range(reports):
            yield every_s, Reported(step, {"loss": (launch.trial_number * 7 % 5) + 1 / (1 + step)})
            if saves and step == reports // 2:
                yield 0.0, Checkpointed("/shared", step)
        yield every_s, end

    changes = {
        "budget": {"trials": budget},
        "parallelism": parallelism,
        "retries": retries,
        "pruner": pruner,
    }
    simulation = Simulation(database, make_spec(name=f"study {next(NAMES)}", **changes), script)
    folder = tmp_path / simulation.spec.name
    event_log.write_to(folder)
    executors = []
    closing: Shutdown | None = None
    for steps in [*crashes, 10_000]:
        executor = Acknowledging(script, clock=simulation.clock, slots=5)
        executors.append(executor)
        coordinator = simulation.start(executor)
        for _ in range(steps):
            closing = coordinator.step(wait_s=10.0)
            if closing is not None:
                break
        simulation.crash()
        if closing is not None:
            break
    event_log.write_to(None)
    assert closing is not None
    invariant_checker.assert_holds(folder, database)
    check(
        simulation, closing, budget, set().union(*(executor.acknowledged for executor in executors))
    )


def check(
    simulation: Simulation, closing: Shutdown, budget: int, acknowledged: set[tuple[int, int, int]]
) -> None:
    """Check what the history does not record: the study's end, and the attempts that the
    executor was asked to forget."""
    study = simulation.record.study_id
    states = simulation.states()
    if closing.state is StudyState.FINISHED:
        assert sum(states.values()) == budget
    else:
        assert closing.state is StudyState.FAILED, "only when every trial failed"
        assert "complete" not in states
        assert states["fail"] <= budget
    assert set(states) <= {"complete", "pruned", "fail"}
    mine = f"trial_id >> 32 = {study}"
    live = simulation.sql(f"SELECT 1 FROM attempts WHERE {mine} AND state IN ('opened', 'running')")
    assert not live
    concluding = simulation.sql(f"""
        SELECT t.trial_id FROM trials t LEFT JOIN attempts a
            ON a.trial_id = t.trial_id AND (a.state IN ('finished', 'pruned') OR a.state = 'paused' AND a.number = (
                SELECT max(b.number) FROM attempts b WHERE b.trial_id = a.trial_id))
        WHERE t.study_id = {study}
        GROUP BY t.trial_id, t.state HAVING count(a.*) <> CASE WHEN t.state = 'fail' THEN 0 ELSE 1 END
    """)
    assert not concluding
    stored = {
        tuple(row)
        for row in simulation.sql(f"SELECT trial_id, attempt, step FROM reports WHERE {mine}")
    }
    assert acknowledged <= stored
