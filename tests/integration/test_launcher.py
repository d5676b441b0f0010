"""Ray starts first and in parallel with the database: the order, and its end when it is not needed.

Real processes; Ray is simulated unless a test names it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.jobs_and_events import PATIENCE_S, Listener, make_job, make_launch
from tests.support.processes import processes
from tunesvc.errors import ExecutorError
from tunesvc.execution.driver.driver_executor import DriverExecutor
from tunesvc.execution.driver.driver_process import DriverProcess
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.driver.supervisor import DriverTimeouts
from tunesvc.execution.executor import Finished

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "optuna", "sqlalchemy", "psycopg2", "numpy", "scipy", "pandas", "plotly")
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
WATCH = f"""
import sys

def watch(event, arguments):
    if event == "subprocess.Popen" and "tunesvc.execution.driver.driver_main" in str(arguments[1]):
        print("Ray starts, imported:", sorted(set({HEAVY!r}) & set(sys.modules)), flush=True)

sys.addaudithook(watch)
"""


@pytest.fixture
def starts() -> Iterator[list[RayLauncher]]:
    """Collect launchers that end with the test."""
    made: list[RayLauncher] = []
    yield made
    for start in made:
        start.end()


def begin(address: str | None = None, timeouts: DriverTimeouts | None = None) -> RayLauncher:
    return RayLauncher(address, timeouts=timeouts, driver_module="tests.support.driver_without_ray")


def up(start: RayLauncher) -> DriverProcess:
    """Wait until the driver's Ray is up."""
    deadline = time.monotonic() + PATIENCE_S
    while (link := start.driver) is None:
        assert time.monotonic() < deadline, "no driver came up"
    return link


def drivers() -> list[int]:
    return [
        p.pid for p in processes() if p.parent == os.getpid() and "driver_without_ray" in p.command
    ]


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run some code in a process of its own, where no Ray is known."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))
    }
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=kept | {"PYTHONPATH": str(ROOT), "TUNE_DATABASE_URL": NOWHERE},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def write_study(folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(
        """
        name: study
        entrypoint: objective:train
        metric: {name: loss, goal: minimize}
        parameters: {x: {type: float, min: 0.0, max: 1.0}}
        budget: {trials: 1}
        """
    )
    (folder / "objective.py").write_text("def train(x):\n    return x\n")
    return path


def test_a_driver_that_waits_for_its_job_takes_it_up(
    starts: list[RayLauncher], tmp_path: Path
) -> None:
    starts.append(begin())
    start = starts[0]
    up(start)
    listener = Listener(DriverExecutor(make_job(tmp_path), start))
    assert listener.run(make_launch(behaviour="reports"))[-1] == Finished({"loss": 0.5})
    listener.executor.close()
    assert drivers() == []


def test_a_job_learns_that_its_driver_died_before_it_had_a_job(
    starts: list[RayLauncher], tmp_path: Path
) -> None:
    starts.append(begin())
    up(starts[0]).kill()
    with pytest.raises(ExecutorError, match="ended by SIGKILL"):
        DriverExecutor(make_job(tmp_path), starts[0])


def test_a_job_learns_that_ray_could_not_start(starts: list[RayLauncher], tmp_path: Path) -> None:
    starts.append(begin("refuse"))
    with pytest.raises(ExecutorError, match="no cluster is there"):
        DriverExecutor(make_job(tmp_path), starts[0])


@pytest.mark.parametrize("address", [None, "slow"])
def test_nothing_is_left_of_an_unused_ray(starts: list[RayLauncher], address: str | None) -> None:
    starts.append(begin(address))
    deadline = time.monotonic() + PATIENCE_S
    while len(drivers()) != 1:
        assert time.monotonic() < deadline, "no driver was started"
    starts[0].end()
    assert drivers() == []


def test_waiting_for_a_job_is_no_silence(starts: list[RayLauncher], tmp_path: Path) -> None:
    """The database may take longer than Ray has to start."""
    starts.append(begin(timeouts=DriverTimeouts(start_s=1.5, silent_s=1.5)))
    link = up(starts[0])
    threading.Event().wait(3.0)  # the database's turn
    assert starts[0].driver is link
    DriverExecutor(make_job(tmp_path), starts[0]).close()


def test_tune_run_starts_ray_before_it_imports_what_takes_long(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    done = run(
        f"{WATCH}\nsys.argv = ['tune', 'run', {str(study)!r}]\nfrom tunesvc.__main__ import main\nmain()",
        tmp_path,
    )
    assert done.stdout.startswith("Ray starts, imported: []\n")
    assert "cannot be reached" in done.stderr
    assert done.returncode != 0


def test_a_decorated_function_starts_ray_before_it_imports_what_takes_long(tmp_path: Path) -> None:
    (tmp_path / "decorated.py").write_text(
        "from typing import Annotated\n"
        "from tunesvc import Float, tunable\n"
        "@tunable(metric='loss')\n"
        "def train(x: Annotated[float, Float(0.0, 1.0)]):\n"
        "    return x\n"
    )
    done = run(f"{WATCH}\nimport decorated\ndecorated.train.tune(trials=1)", tmp_path)
    assert done.stdout.startswith("Ray starts, imported: []\n")
    assert "cannot be reached" in done.stderr


def test_a_mistake_in_the_study_starts_no_ray(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    study.write_text(study.read_text().replace("minimize", "minimise-it"))
    done = run(
        f"{WATCH}\nsys.argv = ['tune', 'run', {str(study)!r}]\nfrom tunesvc.__main__ import main\nmain()",
        tmp_path,
    )
    assert done.stdout == ""
    assert "goal" in done.stderr


def test_workers_and_the_driver_import_nothing_that_only_coordinators_need() -> None:
    code = (
        f"import sys, tunesvc.execution.worker.worker as _; a = [m for m in {HEAVY!r} if m in sys.modules]\n"
        + (
            f"import tunesvc.execution.ray.ray_session; print(a, [m for m in {HEAVY!r} if m in sys.modules])"
        )
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ['ray']\n"
