"""Ray Tune's callbacks, called with what is stored of a study of simulated workers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ray.tune import Callback
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, LoggerCallback

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.execution.executor import Failed, Finished, Launch, Payload, Reported
from tunesvc.foreign.histories.imported_history import ImportRequest, import_history
from tunesvc.ray_tune.called_back import CallbackFollower, called_back

FAILING, SILENT = 1, 2
SPEC = {
    "constants": {"model/depth": 3, "stop": {"training_iteration": 2}},
    "parameters": {"model/x": {"type": "float", "min": 0.0, "max": 1.0}},
    "budget": {"trials": 4},
    "parallelism": 2,
}


def reports(launch: Launch) -> Iterable[tuple[float, Payload]]:
    x = float(launch.params["model/x"])  # type: ignore[arg-type]
    if launch.trial_number == SILENT:
        return [(1.0, Finished({"loss": x}))]
    first = (1.0, Reported(1, {"loss": x + 1, "auc": 0.5}))
    if launch.trial_number == FAILING:
        return [first, (1.0, Failed("error", "ValueError: odd"))]
    return [first, (1.0, Reported(2, {"loss": x, "auc": 0.6})), (1.0, Finished({"loss": x}))]


class Recorder(Callback):
    """Records all calls, and what it sees of the trial then."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Any]] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        assert trial in trials
        self._record("start", trial, trial.config)

    def on_trial_result(self, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._record("result", trial, (result["training_iteration"], result["loss"]))

    def on_trial_complete(self, trial: Any, **info: Any) -> None:
        self._record("complete", trial, (trial.status, trial.last_result["done"]))

    def on_trial_error(self, trial: Any, **info: Any) -> None:
        self._record("error", trial, trial.status)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self.calls.append(("end", len(trials), None))

    def of(self, number: int) -> list[tuple[str, Any]]:
        return [(name, seen) for name, of, seen in self.calls if of == number and name != "end"]

    def _record(self, name: str, trial: Any, seen: Any) -> None:
        self.calls.append((name, int(trial.trial_id.rpartition("-")[2]), seen))


def follower(database: Database, folder: Path, *callbacks: Callback) -> CallbackFollower:
    return CallbackFollower(
        callbacks, "test", database.url, "train", lambda trial: f"the {trial.trial_id}", folder
    )


def test_each_event_is_called_once_in_its_order(database: Database, tmp_path: Path) -> None:
    recorder = Recorder()
    follows = follower(database, tmp_path, recorder)
    follows.look()  # there is no study yet
    simulation = Simulation(database, make_spec(**SPEC), reports)
    with called_back(follows, threading.Event()):
        simulation.run()
    x = recorder.of(0)[0][1]["model"]["x"]
    assert recorder.of(0) == [
        ("start", {"model": {"depth": 3, "x": x}}),
        ("result", (1, x + 1)),
        ("result", (2, x)),
        ("complete", ("TERMINATED", True)),
    ]
    assert [name for name, _ in recorder.of(FAILING)] == ["start", "result", "error"]
    assert [name for name, _ in recorder.of(SILENT)] == ["start", "result", "complete"]
    assert recorder.calls[-1] == ("end", 4, None)
    before = len(recorder.calls)
    follows.look()
    assert len(recorder.calls) == before

    again = Recorder()
    resumed = follower(database, tmp_path, again)
    resumed.skip_known()
    resumed.look()
    assert again.calls == [], "an earlier run has called it back"


def test_an_error_of_a_callback_ends_the_run(database: Database, tmp_path: Path) -> None:
    class Broken(Callback):
        def on_trial_result(self, **info: Any) -> None:
            raise RuntimeError("disk full")

    Simulation(database, make_spec(**SPEC), reports).run()
    interrupt = threading.Event()
    with (
        pytest.raises(RuntimeError, match="disk full"),
        called_back(follower(database, tmp_path, Broken()), interrupt),
    ):
        assert interrupt.wait(20)


def test_rays_own_loggers_write_what_ray_writes(database: Database, tmp_path: Path) -> None:
    printed: list[str] = []

    class Printed(LoggerCallback):
        def log_trial_end(self, trial: Any, failed: bool = False) -> None:
            printed.append(f"{trial}, {failed}")

    Simulation(database, make_spec(**SPEC), reports).run()
    folder = tmp_path / "digits"
    follows = follower(database, folder, JsonLoggerCallback(), CSVLoggerCallback(), Printed())
    follows.look()
    assert sorted(printed) == [f"the test-{n}, {n == FAILING}" for n in range(4)]
    lines = (folder / "test-0" / "result.json").read_text().splitlines()
    assert [json.loads(line)["training_iteration"] for line in lines] == [1, 2]
    assert "loss" in (folder / "test-0" / "progress.csv").read_text()
    history = import_history(ImportRequest(folder, {"loss": "minimize"}))
    assert len(history.trials) == 4
