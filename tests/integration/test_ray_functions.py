"""Ray Tune's wrapped functions and its classes, run from a study on a real Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from tests.support.jobs_and_events import make_job, make_launch
from tunesvc import Pruned
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.executor import AttrSet, Checkpointed, Reported
from tunesvc.execution.objectives.adapters import prepare
from tunesvc.execution.objectives.pickled_function import pickle_function, unpickle_function
from tunesvc.execution.objectives.ray_tune_space import resources_of
from tunesvc.execution.worker.outbox import Outbox

MakeAttempt = Callable[..., Attempt]
SET_UP: list[int] = []
"""Widths of the configs with which a class was set up."""
pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def attempt(tmp_path: Path) -> MakeAttempt:
    """Make an attempt with these parameters."""

    def make(*, number: int = 1, checkpoint: str | None = None, **params: Any) -> Attempt:
        launch = make_launch(7, attempt=number, checkpoint=checkpoint, **params)
        made = Attempt(make_job(tmp_path), launch, WorkerInfo("here", 1), Outbox())
        made._restore()
        return made

    return make


def outbox_of(attempt: Attempt) -> Outbox:
    assert isinstance(attempt.events, Outbox)
    return attempt.events


def payloads_of(attempt: Attempt, kind: Any) -> list[Any]:
    return [payload for _, payload in outbox_of(attempt).take(0) if isinstance(payload, kind)]


def curve(attempt: Attempt) -> list[tuple[int, dict[str, float]]]:
    return [(report.step, dict(report.metrics)) for report in payloads_of(attempt, Reported)]


def sent(objective: object) -> Any:
    """The objective as it arrives at a worker."""
    return unpickle_function(pickle_function(objective))  # type: ignore[arg-type]  # a class is callable too


class Counting(tune.Trainable):
    """Counts to three."""

    def setup(self, config: dict[str, Any], data: Any = None) -> None:
        SET_UP.append(config["width"])
        assert Path(self.logdir) == Path.cwd()
        assert not list(Path().iterdir())
        assert self.trial_id.startswith("7.")
        self.width, self.count = config["width"], 0
        self.data = 0 if data is None else int(data.sum())

    def step(self) -> dict[str, Any]:
        self.count += 1
        is_done = self.count >= 3
        return {
            "loss": self.width * self.count + self.data,
            "note": "text",
            "deep": {"n": 1},
            "done": is_done,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, int]:
        return {"count": self.count}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.count = checkpoint["count"]


class Reused(Counting):
    """Takes another config without being made again, unless that is negative."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.width, self.count = new_config["width"], 0
        return self.width >= 0


class Endless(Counting):
    """Never says that it is done, and keeps its state in files."""

    def step(self) -> dict[str, Any]:
        return super().step() | {"done": False}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "count").write_text(str(self.count))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.count = int(Path(checkpoint, "count").read_text())


def test_objects_bound_to_a_function_or_class_arrive_with_it(attempt: MakeAttempt) -> None:
    def train(config: dict[str, float], data: Any) -> None:
        tune.report({"loss": float(data.sum()) * config["width"]})

    asked = attempt(width=2)
    prepare(sent(tune.with_parameters(train, data=np.ones(1000))))(asked)
    assert curve(asked) == [(1, {"loss": 2000.0})]
    asked = attempt(width=2)
    prepare(sent(tune.with_parameters(Counting, data=np.ones(100))))(asked)
    assert curve(asked)[0] == (1, {"loss": 102.0, "deep/n": 1.0})


def test_a_trainable_runs_until_it_is_done_and_continues_from_its_checkpoint(
    attempt: MakeAttempt,
) -> None:
    first = attempt(width=2)
    assert prepare(Counting)(first) == {}
    assert curve(first) == [(step, {"loss": 2.0 * step, "deep/n": 1.0}) for step in (1, 2, 3)]
    assert payloads_of(first, AttrSet) == [AttrSet("note", '"text"')]
    saved = payloads_of(first, Checkpointed)[0]
    assert saved.step == 1
    second = attempt(number=2, width=2, checkpoint=saved.path)
    prepare(Counting)(second)
    assert [step for step, _ in curve(second)] == [2, 3]


def test_a_trainable_that_can_be_reset_serves_one_trial_after_another(attempt: MakeAttempt) -> None:
    run = prepare(Reused)
    SET_UP.clear()
    for number, width in enumerate([1, 2, -1], start=1):
        asked = attempt(number=number, width=width)
        run(asked)
        assert [report.metrics["loss"] for report in payloads_of(asked, Reported)] == [
            width,
            2 * width,
            3 * width,
        ]
    assert SET_UP == [1, -1]


def test_a_trainable_is_ended_by_the_constant_stop_or_saves_its_state_when_it_is_asked_to_stop(
    attempt: MakeAttempt,
) -> None:
    asked = attempt(width=1, stop={"training_iteration": 5})
    assert prepare(Endless)(asked) == {}
    assert len(curve(asked)) == 5
    asked = attempt(number=2, width=1)
    asked.stop()
    began_s = time.monotonic()
    with pytest.raises(Pruned):
        prepare(Endless)(asked)
    assert time.monotonic() - began_s < 60
    (saved,) = payloads_of(asked, Checkpointed)
    assert Path(saved.path, "count").read_text() == "1"


def test_the_resources_of_a_trainable_are_asked_of_its_class() -> None:
    asked = resources_of(tune.with_resources(Counting, {"cpu": 2, "gpu": 1}))
    assert asked == {"cpu": 2.0, "gpu": 1.0, "workers": 1, "custom": {}}
    assert resources_of(Counting) is None
