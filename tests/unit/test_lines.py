"""What the executor on Ray does with attempts for which no worker is free: on workers whose answers are given by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.executors import make_job, make_launch
from tests.fleets import ScriptedFleet, ScriptedWorker, hear_until
from tunesvc.execute.dispatch import Pace
from tunesvc.execute.executor import AttemptId, Event, Failed, Finished, Lost, Payload, Started, Yielded
from tunesvc.execute.ray_executor import RayExecutor
from tunesvc.execute.worker import Reply

BEGUN = Started("node", 1)
DONE = Finished({"loss": 1.0})


class Lines:
    """An executor with so many workers at most, all of them up, and every attempt that they were given."""

    def __init__(self, folder: Path, *, workers: int, parallelism: int | None = None, **job: Any) -> None:
        self.fleet = ScriptedFleet(make_job(folder, **job), cpus=float(workers))
        self.fleet.shared = False
        self.executor = RayExecutor(self.fleet.job, pace=Pace(retry_s=0.01, line_s=0.0), fleet=self.fleet)
        self.parallelism = parallelism
        self.heard: list[Event] = []

    def launch(self, *numbers: int, attempt: int = 1) -> None:
        for number in numbers:
            self.executor.launch(replace(make_launch(number, attempt=attempt), parallelism=self.parallelism))
        for worker in self.workers:
            while len(worker.calls["hello"]) > len(self.up(worker)):
                worker.came_up = [*self.up(worker), True]  # type: ignore[attr-defined]
                worker.answer("hello")
        self.listen()

    @staticmethod
    def up(worker: ScriptedWorker) -> list[bool]:
        return getattr(worker, "came_up", [])

    def listen(self) -> None:
        self.heard += self.executor.events(0.02)

    @property
    def workers(self) -> list[ScriptedWorker]:
        return list(self.fleet.workers.values())

    def given(self) -> list[list[int]]:
        """The numbers of the trials that each worker was given."""
        return [[launch.trial_number for _, launch, *_ in worker.calls["run"]] for worker in self.workers]

    def said(self, number: int) -> list[Payload]:
        return [event.payload for event in self.heard if event.attempt == AttemptId(number, 1)]

    def answer_run(self, worker: int, *said: Payload, is_reusable: bool = True) -> None:
        """Answer the oldest call that gave an attempt to a worker."""
        self.workers[worker].answer("run", Reply(tuple(enumerate(said, 1)), is_reusable=is_reusable))
        self.listen()

    def answer_poll(self, worker: int, *numbered: tuple[int, Payload], is_reusable: bool = True) -> None:
        self.workers[worker].answer("poll", Reply(numbered, is_reusable=is_reusable))
        self.listen()

    def give_back(self, worker: int, is_withdrawn: bool) -> None:
        self.workers[worker].answer("withdraw", is_withdrawn)
        self.listen()


def full(folder: Path, **job: Any) -> Lines:
    """Two workers, on which trials 0 and 1 have begun."""
    lines = Lines(folder, workers=2, **job)
    lines.launch(0, 1)
    for worker in (0, 1):
        lines.answer_run(worker, BEGUN)
    return lines


def asked_back(folder: Path) -> Lines:
    """Two workers: the second has nothing to do any more, and the first is asked for trial 2, which stands in its line."""
    lines = full(folder)
    lines.launch(2)
    lines.answer_poll(1, (2, DONE))
    lines.executor.acknowledge({AttemptId(1, 1): 2})
    hear_until(lines.executor, lambda _: lines.workers[0].calls["withdraw"])
    return lines


def test_what_no_worker_can_begin_stands_in_line_where_the_oldest_attempt_runs(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2, 3, 4)
    assert lines.given() == [[0, 2], [1, 3]]
    assert len(lines.executor.alive()) == 5


def test_a_worker_keeps_the_end_of_an_attempt_until_it_is_recorded(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.answer_poll(0, (2, DONE))
    lines.answer_run(0, BEGUN)
    lines.launch(3)
    lines.executor.acknowledge({AttemptId(0, 1): 2})
    lines.launch(4)
    lines.answer_poll(0, (2, DONE))
    lines.launch(5)
    assert [(call[1].trial_number, call[3]) for call in lines.workers[0].calls["run"]] == [
        (0, []),
        (2, []),
        (4, [AttemptId(0, 1)]),
        (5, []),
    ]


def test_the_end_of_an_attempt_is_heard_before_the_beginning_of_the_next(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.answer_run(0, BEGUN, DONE)
    assert lines.said(2) == []
    lines.answer_poll(0, (2, DONE))
    assert [event.attempt.trial_id for event in lines.heard] == [0, 1, 0, 2, 2]


def test_a_worker_with_nothing_to_do_gets_what_stands_in_anothers_line(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.give_back(0, is_withdrawn=True)
    assert lines.given() == [[0, 2], [1, 2]]
    lines.answer_run(0)  # the first worker's answer about what it was asked back
    lines.answer_run(1, BEGUN)
    assert lines.said(2) == [BEGUN]


def test_what_has_begun_meanwhile_stays_where_it_is(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.give_back(0, is_withdrawn=False)
    lines.answer_poll(0, (2, DONE))
    lines.answer_run(0, BEGUN)
    assert lines.given() == [[0, 2], [1]]
    assert lines.said(2) == [BEGUN]


def test_what_a_worker_gave_back_may_begin_there_after_all(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.launch(3)  # takes the worker that had nothing to do
    lines.give_back(0, is_withdrawn=True)
    lines.answer_run(0)
    assert lines.given() == [[0, 2, 2], [1, 3]]
    assert [call[4] for call in lines.workers[0].calls["run"]] == [False, False, True]


@pytest.mark.parametrize(("wish", "end"), [("stop", Yielded()), ("kill", Lost("killed before it began"))])
def test_an_attempt_in_line_is_ended_without_the_one_before_it(tmp_path: Path, wish: str, end: Payload) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    getattr(lines.executor, wish)(AttemptId(2, 1))
    lines.give_back(0, is_withdrawn=True)
    assert lines.said(2) == [end]
    assert not lines.workers[0].is_ended
    assert not lines.workers[0].calls["stop"]


@pytest.mark.parametrize("wish", ["stop", "kill"])
def test_one_that_has_begun_when_it_is_to_end_is_ended_as_any_other(tmp_path: Path, wish: str) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    getattr(lines.executor, wish)(AttemptId(2, 1))
    lines.give_back(0, is_withdrawn=False)
    lines.answer_poll(0, (2, DONE))
    lines.answer_run(0, BEGUN)
    assert lines.workers[0].is_ended if wish == "kill" else lines.workers[0].calls["stop"]


def test_a_wish_while_an_attempt_is_asked_back_decides_what_becomes_of_it(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.executor.stop(AttemptId(2, 1))
    lines.give_back(0, is_withdrawn=True)
    assert lines.said(2) == [Yielded()]
    assert lines.given() == [[0, 2], [1]]


def test_one_that_was_withdrawn_before_it_arrived_is_not_lost(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.executor.stop(AttemptId(2, 1))
    lines.workers[0].answer("run", Reply((), is_reusable=False, is_known=False))
    lines.listen()
    lines.give_back(0, is_withdrawn=True)
    assert lines.said(2) == [Yielded()]
    assert not lines.workers[0].is_ended


def test_a_worker_out_of_reach_is_asked_again(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.executor.stop(AttemptId(2, 1))
    lines.workers[0].fail("withdraw")
    hear_until(lines.executor, lambda _: len(lines.workers[0].calls["withdraw"]) == 2)


def test_what_stands_behind_a_failed_attempt_begins_elsewhere(tmp_path: Path) -> None:
    """After a failure a worker is not fit, and knows that itself."""
    lines = full(tmp_path)
    lines.launch(2)
    lines.answer_poll(0, (2, Failed("error", "broken")), is_reusable=False)
    lines.executor.acknowledge({AttemptId(0, 1): 2})
    lines.launch()
    assert lines.workers[0].is_ended
    assert lines.given() == [[0, 2], [1, 2], []]  # a worker takes its place, and gets what stands in the other's line
    lines.give_back(1, is_withdrawn=True)
    assert lines.given() == [[0, 2], [1, 2], [2]]


def test_what_stands_behind_an_attempt_whose_worker_dies_is_nobodys_fault(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    for method in ("poll", "run"):
        lines.workers[0].fail(method, RuntimeError("it died"))
    lines.listen()
    assert isinstance(lines.said(0)[-1], Lost)
    assert lines.said(2) == [Lost("its worker died before it began", "gone")]
    assert lines.workers[0].is_ended


def test_the_death_of_an_attempt_is_heard_though_it_began_before_the_end_of_the_last_was(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.answer_run(0, BEGUN)
    lines.workers[0].fail("poll", RuntimeError("it died"))
    lines.listen()
    lines.workers[0].fail("poll", RuntimeError("it died"))
    lines.listen()
    assert lines.said(2)[0] == BEGUN
    assert isinstance(lines.said(2)[-1], Lost)


def test_a_trial_that_is_run_again_stands_in_no_line(tmp_path: Path) -> None:
    """It may be why its worker died."""
    lines = full(tmp_path)
    lines.launch(2, attempt=2)
    assert lines.given() == [[0], [1]]


def test_nothing_stands_in_line_where_each_attempt_has_a_process_of_its_own(tmp_path: Path) -> None:
    from tunesvc.spec import Environment

    lines = full(tmp_path, environment=Environment(isolation="process"))
    lines.launch(2)
    assert lines.given() == [[0], [1]]


def test_no_more_run_than_may_though_there_is_room(tmp_path: Path) -> None:
    lines = Lines(tmp_path, workers=4, parallelism=2)
    lines.launch(0, 1, 2, 3, 4)
    assert sorted(lines.given()) == [[0, 2], [1, 3]] or sorted(lines.given()) == [[0], [1]]
    assert len(lines.workers) == 2


@pytest.mark.parametrize("workers", [2, 3])
def test_fewer_run_when_fewer_may(tmp_path: Path, workers: int) -> None:
    lines = Lines(tmp_path, workers=workers)
    lines.launch(*range(workers))
    for worker in range(workers):
        lines.answer_run(worker, BEGUN)
    lines.parallelism = 1
    lines.answer_poll(1, (2, DONE))
    lines.executor.acknowledge({AttemptId(1, 1): 2})
    lines.launch(9)
    assert lines.given()[:2] == [[0, 9], [1]]
    lines.launch()
    assert not any(worker.calls["withdraw"] for worker in lines.workers)
