"""A population in every order in which coordinators, workers and the database fail: nothing is
copied that was not recorded, no member starts over, and the population comes to its end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.faults.test_interleavings import LOSSES, STEPS, Service, interleave
from tests.support import invariant_checker
from tests.support.processes import Process, processes
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
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

SEARCHES = st.one_of(
    st.fixed_dictionaries(
        {
            "method": st.sampled_from(["pbt", "pb2"]),
            "population": st.integers(2, 5),
            "interval": st.integers(1, 3),
            "steps": st.integers(4, 9),
            "quantile": st.sampled_from([0.25, 0.5]),
        }
    ),
    st.fixed_dictionaries(
        {
            "method": st.just("schedule"),
            "population": st.integers(1, 3),
            "stages": st.just(
                [
                    {"until": 3, "parameters": {"x": 0.1, "n": 1}},
                    {"until": 4, "parameters": {"x": 0.9, "n": 2}},
                    {"until": 8, "parameters": {"x": 0.5, "n": 3}},
                ]
            ),
        }
    ),
)


@dataclass(frozen=True)
class Training:
    """Behaviour of an attempt of a member."""

    every: int
    """Steps between two reports."""
    saves_first: bool
    saves_always: bool
    ends_after: int | None
    """Reports after which it ends as `end`; None: at the end of its stretch."""
    end: Payload

    def __call__(self, launch: Launch) -> Iterable[tuple[float, Payload]]:
        assert launch.stretch is not None
        step = 0 if launch.checkpoint is None else int(launch.checkpoint.rpartition("-")[2])
        reports = 0
        while True:
            step, reports = step + self.every, reports + 1
            is_over = step >= launch.stretch.until
            report = Reported(step, {"loss": (launch.trial_number * 7 % 5) / step})
            saved = Checkpointed(
                f"/shared/{launch.trial_number}/{launch.attempt.number}-{step}", step
            )
            if (self.saves_always or is_over) and self.saves_first:
                yield 0.1, saved
            yield 1.0, report
            if (self.saves_always or is_over) and not self.saves_first:
                yield 0.1, saved
            if is_over:
                yield 0.1, StoppedEarly()
                return
            if reports == self.ends_after:
                yield 0.1, self.end
                return


TRAININGS = st.lists(
    st.builds(
        Training,
        every=st.integers(1, 2),
        saves_first=st.booleans(),
        saves_always=st.booleans(),
        ends_after=st.sampled_from([None, None, None, 1, 2]),
        end=st.sampled_from(
            [
                Finished(),
                StoppedEarly(),
                Failed("error", "boom"),
                *(Lost("gone without a word", kind) for kind in LOSSES),  # type: ignore[arg-type]
            ]
        ),
    ),
    min_size=1,
    max_size=6,
)


class PopulationService(Service):
    """A population, its coordinators and its workers."""

    @initialize(
        search=SEARCHES,
        trainings=TRAININGS,
        slots=st.integers(1, 4),
        retries=st.integers(0, 3),
    )
    def begin(  # type: ignore[override]
        self, search: Mapping[str, Any], trainings: list[Training], slots: int, retries: int
    ) -> None:
        def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
            return trainings[(launch.trial_number + launch.attempt.number) % len(trainings)](launch)

        study = make_spec(
            name=self.folder.name,
            search=search,
            sampler={"name": search["method"], "seed": 1},
            budget={"trials": 40},
            retries=dict.fromkeys((*LOSSES, "error"), retries),
        )
        self.simulation = Simulation(self.database, study, script, slots=slots)
        self.study_id = self.simulation.record.study_id
        self.cluster = self.simulation.share_cluster()

    @rule(steps=STEPS)
    def run_wider(self, steps: int) -> None:
        self.work(steps)  # a schedule lists its values

    def _check_end(self, closing: Shutdown) -> None:
        states = self.simulation.states()
        note(f"{closing}: {states}")
        if closing.state is StudyState.FAILED:
            assert "complete" not in states or closing.stop is not None
            return
        assert closing.state is StudyState.FINISHED
        assert set(states) <= {"complete", "pruned", "fail", "waiting"}
        decisions = self.simulation.sql(
            f"SELECT kind, count(*) FROM decisions WHERE study_id = {self.study_id} GROUP BY kind"
        )
        copies = self.simulation.sql(
            f"SELECT count(*) FROM trial_attrs WHERE {self._mine} AND name = 'tunesvc:parent'"
        )
        assert dict(decisions).get("exploit", 0) <= copies[0][0]  # type: ignore[arg-type,operator]


@pytest.mark.timeout(900)
def test_in_whatever_order_things_go_wrong_no_member_starts_over(
    shared_database: Database, tmp_path: Path
) -> None:
    """Fault 61."""
    interleave(
        shared_database, tmp_path, service=PopulationService, max_examples=4, stateful_step_count=15
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_in_thousands_of_steps_no_member_starts_over(
    shared_database: Database, tmp_path: Path
) -> None:
    interleave(
        shared_database,
        tmp_path,
        service=PopulationService,
        max_examples=200,
        stateful_step_count=40,
    )


# --- the program itself, on a real Ray: 20 random kills ---

_OBJECTIVE = """
import json, time
from pathlib import Path

def train(x, *, trial):
    state = {"step": 0, "skill": 0.0}
    if (saved := trial.restored()) is not None:
        state = json.loads(Path(saved).read_text())
    while True:
        time.sleep(0.4)
        state["step"] += 1
        state["skill"] += 1 - abs(x - (1 - state["step"] / 60))
        trial.report(state["step"], loss=60 - state["skill"])
        path = trial.directory / "state.json"
        path.write_text(json.dumps(state))
        trial.checkpoint(path)
"""
_STUDY = """
name: real
entrypoint: objective:train
metric: {name: loss, goal: minimize}
parameters: {x: {type: float, min: 0.0, max: 1.0}}
search: {method: pbt, population: 6, interval: 6, steps: 60}
parallelism: 2
retries: {lost: 50, node: 50}
seed: 3
"""
KILLS = 20


def descendants(pid: int) -> list[Process]:
    """Processes that a process has started, directly or not."""
    living = list(processes())
    found, pids = [], {pid}
    for _ in range(8):
        more = [one for one in living if one.parent in pids and one.pid not in pids]
        found += more
        pids |= {one.pid for one in more}
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_after_twenty_random_kills_the_population_is_whole_and_no_member_was_reset(
    tmp_path: Path, database: Database, tune_home: Path
) -> None:
    """Fault 61: workers, the driver of Ray and the coordinator are killed in turns at random."""
    (tmp_path / "objective.py").write_text(_OBJECTIVE)
    (tmp_path / "study.yaml").write_text(_STUDY)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNE_", "RAY_"))}
    history = tmp_path / "history"
    environment = kept | {
        "TUNE_DATABASE_URL": database.url,
        "TUNE_HOME": str(tune_home),
        "TUNE_HISTORY": str(history),
    }

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with database.engine.begin() as connection:
            connection.execute(sa.text("UPDATE leases SET expires_at = now()"))
        with (tmp_path / "output").open("ab") as output:
            line = [sys.executable, "-m", "tunesvc", *arguments]
            return subprocess.Popen(
                line, cwd=tmp_path, env=environment, stdout=output, stderr=output
            )

    def busy() -> set[int]:
        """Processes that run a trial: without one of Ray's own, its node would be lost."""
        with database.engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT pid FROM attempts WHERE state = 'running'"))
            return {row.pid for row in rows}

    rng, killed = random.Random(5), Counter[str]()
    running = start("run", "study.yaml")
    while killed.total() < KILLS:
        time.sleep(rng.uniform(0.5, 4.0))
        if running.poll():  # without a driver, Ray did not start
            running = start("run", "study.yaml", "--resume")
        below = descendants(running.pid)
        victims = {
            "worker": [one.pid for one in below if one.pid in busy()],
            "driver": [one.pid for one in below if "driver_main" in one.command],
            "coordinator": [running.pid],
        }
        kind = rng.choices(["worker", "driver", "coordinator"], [8, 1, 1])[0]
        assert running.poll() != 0, f"it ended after {killed}"
        if not victims["worker"] or not victims[kind]:
            continue  # Ray starts
        with suppress(ProcessLookupError):
            os.kill(rng.choice(victims[kind]), signal.SIGKILL)
            killed[kind] += 1
            (tmp_path / "killed").write_text(str(killed))
        if kind == "coordinator":
            running.wait(60)
            running = start("run", "study.yaml", "--resume")
    assert running.wait(900) == 0, (tmp_path / "output").read_text()[-3000:]
    with database.engine.connect() as connection:
        states = dict(
            connection.execute(sa.text("SELECT state, count(*) FROM trials GROUP BY state")).all()
        )  # type: ignore[arg-type]
    assert states["complete"] == 6
    assert set(states) == {"complete", "pruned"}
    invariant_checker.assert_holds(history, database)
