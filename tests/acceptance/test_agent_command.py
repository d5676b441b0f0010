"""Trials that are not run by Ray, as users run them: by agents, by Ray and agents, by a script."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_service import Service, agent_service
from tunesvc.db.engine.database import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Service]:
    with agent_service(database, tmp_path) as service:
        yield service


def test_a_shell_script_asks_for_trials_and_tells_their_results(service: Service) -> None:
    service.start_server()
    service.submit(entrypoint=None, budget={"trials": 8}, pruner={"name": "median"}, parameters=XY)
    script = ["sh", str(STUDIES / "ask.sh"), f"http://127.0.0.1:{service.port}", "test"]
    done = subprocess.run(
        script, env={"TUNE_TOKEN": service.token, "PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "no more trials"
    assert service.count("trials WHERE state IN ('complete', 'pruned')") == 8
    assert service.count("attempts WHERE node = 'shell'") == 8


XY = {"x": {"type": "float", "min": -2, "max": 2}, "y": {"type": "float", "min": -2, "max": 2}}


def test_agents_and_ray_share_a_study_and_its_data(service: Service) -> None:
    service.start_server()
    (service.folder / "program.py").write_text(PROGRAM)
    people = "age,bought\n" + "".join(f"{k},{k % 2}\n" for k in range(100))
    (service.folder / "people.csv").write_text(people)
    data = {"source": "people.csv", "target": "bought"}
    service.submit(agents="also", budget={"trials": 30}, data=data)
    elsewhere = service.folder / "elsewhere"
    service.start_agent("agent-0", TUNE_HOME=str(elsewhere))
    service.until(service.is_finished)
    assert service.count("trials WHERE state = 'complete'") == 30
    assert service.count("attempts WHERE node = 'agent-0'") >= 3
    assert service.count("attempts WHERE node <> 'agent-0'") >= 3
    brought = [path.name for path in elsewhere.glob("data/*/*")]
    assert sorted(brought) == ["train.arrow", "validation.arrow"]


PROGRAM = """
import time
def train(x, n, *, trial):
    assert len(trial.data.train) == 60
    for step in range(4):
        time.sleep(0.2)
        trial.report(step, loss=x)
    return x
"""


def test_one_trial_and_idleness_end_an_agent(service: Service) -> None:
    service.start_server()
    service.submit(budget={"trials": 3})
    assert service.start_agent("once", options=("--once",)).wait(60) == 0
    assert service.count("trials WHERE state = 'complete'") == 1
    service.start_agent("rest")
    service.until(service.is_finished)
