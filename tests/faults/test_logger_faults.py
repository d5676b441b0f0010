"""A study with loggers whose coordinator is killed: every metric is there once."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Tune
from tests.support.processes import processes

OBJECTIVE = """
    import time

    def main(lr, trial):
        for step in range(1, 21):
            trial.report(step, error=lr + 1 / step)
            time.sleep(0.1)
        return lr
"""
STUDY = """
    name: logged
    entrypoint: train.py:main
    metric: {name: error, goal: minimize}
    parameters: {lr: {min: 0.0, max: 1.0}}
    pruner: none
    budget: 8
    parallelism: 2
    resources: {cpu: 0.1}
    loggers:
      - mlflow: {tracking_uri: "sqlite:///mlflow.db"}
      - tensorboard
"""


@pytest.mark.slow
def test_each_metric_is_logged_once_although_coordinator_and_logger_are_killed(
    tmp_path: Path, database_url: str, tune_home: Path
) -> None:
    tune = Tune(tmp_path, tune_home, TUNE_DATABASE_URL=database_url)
    tune.write("train.py", OBJECTIVE)
    tune.write("study.yaml", STUDY)
    running = tune.start("run", "study.yaml", "--json")
    _await_runs(tmp_path, 3)
    children = [one.pid for one in processes() if one.parent == running.pid]
    os.kill(running.pid, signal.SIGKILL)
    for one in processes():
        if one.pid in children and "logger_main" in one.command:
            os.kill(one.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    tune("resume", "logged", "--quiet")
    trials = json.loads(tune("trials", "logged", "--json"))
    assert {trial["state"] for trial in trials} == {"complete"}
    assert any(trial["attempts"] > 1 for trial in trials), "some were killed"
    assert _steps_of_mlflow(tmp_path) == {number: list(range(1, 21)) for number in range(8)}
    assert _steps_of_tensorboard(tmp_path) == {number: list(range(1, 21)) for number in range(8)}


def _await_runs(folder: Path, count: int) -> None:
    """Wait until the tracker has some runs, of which others are in the middle."""
    for _ in range(1200):
        if len(list(folder.glob("runs/logged/*"))) >= count and (folder / "mlflow.db").exists():
            return
        time.sleep(0.1)
    raise AssertionError("no trial was logged")


def _steps_of_mlflow(folder: Path) -> dict[int, list[int]]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("logged")
    found: dict[int, list[int]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        number = int(run.data.tags["tunesvc.trial"])
        assert number not in found, "a trial has one run"
        assert run.info.status == "FINISHED"
        found[number] = sorted(
            metric.step for metric in client.get_metric_history(run.info.run_id, "error")
        )
    return found


def _steps_of_tensorboard(folder: Path) -> dict[int, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[int, list[int]] = {}
    for file in folder.glob("runs/logged/*"):
        run: Any = EventAccumulator(str(file))
        run.Reload()
        found[int(file.name.removeprefix("trial-"))] = [one.step for one in run.Scalars("error")]
    return found
