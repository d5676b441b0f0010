"""Fault 1 and 12: coordinators that are killed, frozen or fail between every two steps of a trial's
way.

Whatever was going on, the next one goes on from it, the study ends with its exact budget, and the
history of both holds the invariants I1 to I6. Coordinators are processes of their own with
simulated workers that end with them, or live in this process with workers that outlive them; the
database is real.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution, distribution_to_json

import tunesvc
from tests.support import invariant_checker
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database, open_database
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import LeaseLost
from tunesvc.execution.executor import Finished, Launch, Lost, Payload, Reported, SuggestRequested
from tunesvc.instrumentation import event_log, failpoints
from tunesvc.instrumentation.failpoints import POINTS, FailpointReached, Point
from tunesvc.testing.simulated_executor import Script

ONCE: tuple[Point, ...] = ("leased", "recovered", "adopted")
"""Reached once by each coordinator."""
WORKERS: tuple[Point, ...] = ("begun", "said", "ending")
SERVERS: tuple[Point, ...] = ("taking", "leaving", "stored")
SUBMITTING: tuple[Point, ...] = ("uploaded", "recorded", "submitted")
AGAIN = [point for point in POINTS if point not in (*ONCE, *WORKERS, *SERVERS, *SUBMITTING)]
NAMES = count()
TRIALS = 8
TOOK_OVER = 3
"""Exit code of a process whose lease was taken over."""


def eventful(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Asks, reports, is lost once, ignores that it has to stop: every point is reached, those of
    a step thrice."""
    number = launch.trial_number
    yield 0.1, SuggestRequested("asked", distribution_to_json(FloatDistribution(0, 1)))
    for step in range(50 if number in (2, 3, 4) else 3):
        yield 1.0, Reported(step, {"loss": 1.0 / (1 + step)})
        if number == 1 and launch.attempt.number == 1:
            yield 0.1, Lost("killed")
    yield 0.1, Finished()


def simulate(database: Database, name: str, script: Script = eventful) -> Simulation:
    spec = make_spec(
        name=name, budget={"trials": TRIALS}, parallelism=4, limits={"wall": 8, "grace": 2}
    )
    simulation = Simulation(database, spec, script)
    simulation.obedient = False
    return simulation


def assert_whole(simulation: Simulation, folder: Path) -> None:
    """The study ended as it would have without any fault: three trials ran into the limit, the
    others are complete."""
    assert simulation.states() == {"complete": TRIALS - 3, "fail": 3}
    invariant_checker.assert_holds(folder, simulation.database)


# --- killed and frozen
# ------------------------------------------------------------------------------

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.faults.test_failpoints"])


def coordinate(url: str, name: str, folder: Path, failpoint: str | None) -> None:
    """Run the study to its end, in a process of its own."""
    event_log.write_to(folder)
    failpoints.arm(failpoint)
    with open_database(url, migrate=False) as database:
        try:
            simulate(database, name).run()
        except LeaseLost:
            sys.exit(TOOK_OVER)


class Processes:
    """Coordinators of one study, one after the other or two at a time."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.folder = folder
        self.simulation = simulate(database, f"killed {next(NAMES)}")
        self._started: list[Any] = []

    def start(self, failpoint: str | None = None) -> Any:
        """Start a process; an earlier owner has lost the lease."""
        self.simulation.sql(
            f"UPDATE leases SET expires_at = now() WHERE study_id = {self.simulation.record.study_id}"
        )
        url, name = self.simulation.database.url, self.simulation.spec.name
        process = _FORKING.Process(target=coordinate, args=(url, name, self.folder, failpoint))
        process.start()
        self._started.append(process)
        return process

    def exit_code(self, process: Any) -> int | None:
        """Wait for its end."""
        process.join(60)
        code: int | None = process.exitcode
        return code

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.join()
            process.close()


@pytest.fixture
def processes(shared_database: Database, tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(shared_database, tmp_path)
    yield processes
    processes.close()


@pytest.mark.parametrize(
    "failpoint", [*(f"{p}:kill" for p in (*ONCE, *AGAIN)), *(f"{p}:kill@2" for p in AGAIN)]
)
def test_after_a_coordinator_is_killed_at_any_point_the_study_continues(
    processes: Processes, failpoint: str
) -> None:
    """Fault 1."""
    assert processes.exit_code(processes.start(failpoint)) == -signal.SIGKILL, (
        "the point was not reached"
    )
    assert processes.exit_code(processes.start()) == 0
    assert_whole(processes.simulation, processes.folder)


@pytest.mark.parametrize("first", ["written:kill@9", "killed:kill"])
@pytest.mark.parametrize("second", [f"{point}:kill" for point in (*ONCE, "written", "committed")])
def test_the_next_coordinator_may_be_killed_while_it_takes_up_the_study(
    processes: Processes, first: str, second: str
) -> None:
    assert processes.exit_code(processes.start(first)) == -signal.SIGKILL
    assert processes.exit_code(processes.start(second)) == -signal.SIGKILL
    assert processes.exit_code(processes.start()) == 0
    assert_whole(processes.simulation, processes.folder)


@pytest.mark.parametrize("point", ["leased", "decided", "committed", "launched"])
def test_a_coordinator_that_stood_still_past_its_lease_is_refused(
    processes: Processes, point: str
) -> None:
    frozen = processes.start(f"{point}:stop")
    wait_until_frozen(frozen.pid)
    assert processes.exit_code(processes.start()) == 0
    os.kill(frozen.pid, signal.SIGCONT)
    assert processes.exit_code(frozen) == TOOK_OVER
    assert_whole(processes.simulation, processes.folder)


def wait_until_frozen(pid: int) -> None:
    """Until the process is stopped by a signal."""
    deadline = time.monotonic() + 60
    stat = Path(f"/proc/{pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the point was not reached"
        time.sleep(0.01)


# --- workers that outlive their coordinator
# ---------------------------------------------------------


@pytest.fixture
def simulation(shared_database: Database, tmp_path: Path) -> Iterator[Simulation]:
    simulation = simulate(shared_database, f"failed {next(NAMES)}")
    simulation.share_cluster()
    event_log.write_to(tmp_path)
    yield simulation
    event_log.write_to(None)
    failpoints.arm(None)


def expire_lease(simulation: Simulation) -> None:
    simulation.sql(
        f"UPDATE leases SET expires_at = now() WHERE study_id = {simulation.record.study_id}"
    )


CASES = [*((point, 1) for point in ONCE), *((point, nth) for point in AGAIN for nth in (1, 3))]


@pytest.mark.parametrize(("point", "nth"), CASES)
def test_attempts_run_on_when_their_coordinator_fails_at_any_point(
    simulation: Simulation, tmp_path: Path, point: Point, nth: int
) -> None:
    failpoints.arm(f"{point}:raise@{nth}")
    with pytest.raises(FailpointReached, match=point):
        simulation.run()
    simulation.executor.leave()
    expire_lease(simulation)
    assert simulation.run().state is StudyState.FINISHED
    assert_whole(simulation, tmp_path)


def test_a_worker_that_was_given_up_and_not_killed_any_more_is_ended_by_the_next_coordinator(
    simulation: Simulation, tmp_path: Path
) -> None:
    """Otherwise it would hold its slot for ever: no coordinator asks for an ended attempt."""
    cluster = simulation.share_cluster()
    cluster.slots = 1
    coordinator = simulation.start()
    mine = f"trial_id >> 32 = {simulation.record.study_id}"
    while not simulation.sql(f"SELECT 1 FROM reports WHERE {mine}"):
        coordinator.step()
    zombie = cluster.running[0]
    cluster.freeze(zombie)
    simulation.sql(f"UPDATE attempts SET expires_at = now() - interval '1 second' WHERE {mine}")

    def die_when_it_is_given_up() -> None:
        if simulation.sql(f"SELECT 1 FROM attempts WHERE {mine} AND failure = 'stalled'"):
            raise FailpointReached
        failpoints.interpose("committed", 1, die_when_it_is_given_up)

    die_when_it_is_given_up()
    with pytest.raises(FailpointReached):
        coordinator.run()
    assert zombie in cluster.running
    simulation.executor.leave()
    expire_lease(simulation)
    assert simulation.run().state is StudyState.FINISHED
    assert_whole(simulation, tmp_path)


# --- the program itself, on a real Ray
# ----------------------------------------------------------------

_OBJECTIVE = """
import time

def train(x, *, trial):
    for step in range(4):
        time.sleep(0.05)
        trial.report(step, loss=(x - 0.3) ** 2 + 1 / (1 + step))
    return x
"""
_STUDY = """
name: real
entrypoint: objective:train
metric: {name: loss, goal: minimize}
parameters: {x: {type: float, min: 0.0, max: 1.0}}
budget: {trials: 6}
parallelism: 2
sampler: random
pruner: none
"""


class Tune:
    """`tune` on a real Ray, with its history written down."""

    def __init__(self, folder: Path, database: Database, home: Path) -> None:
        (folder / "objective.py").write_text(_OBJECTIVE)
        (folder / "study.yaml").write_text(_STUDY)
        self.database = database
        self._folder = folder
        self.history = folder / "history"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TUNE_", "RAY_"))
        }
        here = {
            "TUNE_DATABASE_URL": database.url,
            "TUNE_HOME": str(home),
            "TUNE_HISTORY": str(self.history),
        }
        self._env = {**kept, **here, "TUNE_FAILPOINT_MARK": str(folder / "mark")}

    def __call__(self, *arguments: str, failpoint: str = "") -> int:
        """Run a command; returns its exit code."""
        line = [sys.executable, "-m", "tunesvc", *arguments]
        env = {**self._env, "TUNE_FAILPOINT": failpoint}
        return subprocess.run(
            line, cwd=self._folder, env=env, capture_output=True, timeout=200, check=False
        ).returncode

    def sql(self, statement: str) -> list[Any]:
        with self.database.engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []


@pytest.fixture
def tune(tmp_path: Path, database: Database, tune_home: Path) -> Tune:
    return Tune(tmp_path, database, tune_home)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "point", ["leased", "recovered", "handled", "written", "committed", "acknowledged", "launched"]
)
def test_tune_resume_continues_from_wherever_tune_run_was_killed(tune: Tune, point: str) -> None:
    nth = 1 if point in ONCE else 3
    assert tune("run", "study.yaml", failpoint=f"{point}:kill@{nth}") == -signal.SIGKILL
    tune.sql("UPDATE leases SET expires_at = now()")
    assert tune("resume", "real") == 0
    assert tune.sql("SELECT state, count(*) FROM trials GROUP BY state") == [("complete", 6)]
    assert not tune.sql("SELECT 1 FROM attempts WHERE state NOT IN ('finished', 'interrupted')")
    invariant_checker.assert_holds(tune.history, tune.database)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "failpoint", ["begun:kill", "said:kill", "said:kill@7", "ending:kill", "ending:kill@2"]
)
def test_a_worker_that_is_killed_between_any_two_steps_costs_one_attempt(
    tune: Tune, failpoint: str
) -> None:
    """Fault 13.

    Attempts queued behind it in the worker had not begun and count as no failure.
    """
    assert tune("run", "study.yaml", failpoint=failpoint) == 0
    assert tune.sql("SELECT state, count(*) FROM trials GROUP BY state") == [("complete", 6)]
    failures = "SELECT state, failure, count(*) FROM attempts WHERE failure IS NOT NULL GROUP BY state, failure"
    assert tune.sql(failures) == [("lost", "lost", 1)]
    others = "SELECT DISTINCT state, started_at FROM attempts WHERE failure IS NULL AND state <> 'finished'"
    assert tune.sql(others) in ([], [("interrupted", None)])
    invariant_checker.assert_holds(tune.history, tune.database)
    said = [record for record in invariant_checker.read(tune.history) if record["op"] == "said"]
    assert len(said) >= 6 * 4, "the workers wrote their history"


# --- the points themselves
# --------------------------------------------------------------------------


def test_every_point_is_somewhere_in_the_program_once() -> None:
    package = Path(tunesvc.__file__).parent
    sources = "".join(path.read_text() for path in package.rglob("*.py"))
    reached = re.findall(r'failpoints\.reach\("(\w+)"\)', sources)
    assert sorted(reached) == sorted(POINTS)


@pytest.mark.parametrize(
    "text", ["nowhere:kill", "committed", "committed:jump", "committed:kill@soon"]
)
def test_a_failpoint_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"TUNE_FAILPOINT|soon"):
        failpoints.arm(text)
