"""A worker without Ray around it: which attempt begins when, and what is kept of those that are over."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

import pytest

from tests.executors import make_job, make_launch
from tunesvc import Trial
from tunesvc.execute.attempt import Place
from tunesvc.execute.executor import Failed, Finished, Launch, Payload, Started
from tunesvc.execute.worker import Worker

BEGUN: list[int] = []
GATES: defaultdict[int, threading.Event] = defaultdict(threading.Event)


def train(*, trial: Trial, fails: bool = False) -> float:
    """Trains until its gate is opened."""
    BEGUN.append(trial.number)
    assert GATES[trial.number].wait(30)
    if fails:
        raise ValueError("broken")
    return float(trial.number)


class Trainings:
    """A worker, and a gate for each trial before its end."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.begun = BEGUN

    def run(self, *launches: Launch, recorded: tuple[Launch, ...] = (), again: bool = False) -> None:
        for launch in launches:
            self.worker.run(1, launch, 0.0, [one.attempt for one in recorded], again)

    def end(self, launch: Launch) -> list[Payload]:
        """Let it end; all it has said."""
        GATES[launch.trial_number].set()
        said: list[Payload] = []
        while not (said and isinstance(said[-1], (Finished, Failed))):
            said += [payload for _, payload in self.worker.poll(1, launch.attempt, len(said), 0, 30.0).events]
        return said

    def said(self, launch: Launch, timeout_s: float = 0.0) -> list[Payload]:
        return [payload for _, payload in self.worker.poll(1, launch.attempt, 0, 0, timeout_s).events]

    def is_known(self, launch: Launch) -> bool:
        return self.worker.poll(1, launch.attempt, 0, 0, 0.0).is_known


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Worker, "_place", Place("here", 1))  # Ray would be asked
    BEGUN.clear()
    GATES.clear()
    return Trainings(Worker(make_job(tmp_path, entrypoint=f"{__name__}:train"), str(tmp_path), token=1))


def launches(count: int, **params: bool) -> list[Launch]:
    return [make_launch(number, **params) for number in range(count)]


def test_an_attempt_in_line_begins_when_the_one_before_it_has_ended(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first, second, third)
    assert trainings.said(first, 30.0)[0] == Started("here", 1)
    assert trainings.said(second) == []
    trainings.end(first)
    assert trainings.end(second)[-1] == Finished({"loss": 1.0})
    trainings.end(third)
    assert trainings.begun == [0, 1, 2]


def test_one_that_is_withdrawn_never_begins(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first, second, third)
    assert trainings.worker.withdraw(1, second.attempt)
    assert not trainings.worker.withdraw(1, first.attempt)
    trainings.end(first)
    trainings.end(third)
    assert trainings.begun == [0, 2]
    assert not trainings.is_known(second)


def test_a_withdrawal_may_come_before_what_it_withdraws(trainings: Trainings) -> None:
    first, second = launches(2)
    assert trainings.worker.withdraw(1, second.attempt)
    trainings.run(second, first)
    trainings.end(first)
    assert trainings.begun == [0]


def test_what_was_withdrawn_may_come_again_and_begins_once(trainings: Trainings) -> None:
    first, second = launches(2)
    trainings.run(first, second)
    assert trainings.worker.withdraw(1, second.attempt)
    trainings.run(second, again=True)
    trainings.run(second)  # the first call, late
    trainings.end(first)
    trainings.end(second)
    assert trainings.begun == [0, 1]


def test_nothing_begins_behind_an_attempt_that_failed(trainings: Trainings) -> None:
    """The process may be broken; who told an attempt to stand in line takes it back."""
    first, second = launches(2, fails=True)
    trainings.run(first, second)
    assert isinstance(trainings.end(first)[-1], Failed)
    assert trainings.worker.withdraw(1, second.attempt)
    assert trainings.begun == [0]


def test_an_end_is_kept_as_long_as_it_may_not_be_recorded(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first)
    said = trainings.end(first)
    trainings.run(second)
    assert trainings.said(first) == said
    trainings.run(third, recorded=(first,))
    assert not trainings.is_known(first)
    trainings.end(second)
    trainings.end(third)


def test_a_new_coordinator_is_told_of_all_that_may_not_be_recorded(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first)
    trainings.end(first)
    trainings.run(second)
    trainings.run(third)
    assert trainings.worker.adopt(2).attempts == (first.attempt, second.attempt, third.attempt)
    assert not trainings.worker.withdraw(1, third.attempt)  # by the old one
    GATES[1].set()
    GATES[2].set()
