"""What the executor on Ray does with attempts for which no worker is free: on workers whose answers are given by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.executors import make_job, make_launch
from tests.worker_backends import ScriptedBackend, ScriptedWorker, hear_until
from tunesvc.execution.executor import AttemptId, Event, Failed, Finished, Lost, Payload, Started, StoppedEarly
from tunesvc.execution.ray.dispatch_state import PollingTimeouts
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.execution.worker.worker_protocol import PollResponse

BEGUN = Started("node", 1)
DONE = Finished({"loss": 1.0})


class Lines:
    """An executor with so many workers at most, all of them up, and every attempt that they were given."""

    def __init__(
        self, folder: Path, *, workers: int, parallelism: int | None = None, long_attempt_s: float = 60.0, **job: Any
    ) -> None:
        self.backend = ScriptedBackend(make_job(folder, **job), cpus=float(workers))
        self.backend.shared = False
        timeouts = PollingTimeouts(retry_s=0.01, backlog_s=0.0, long_attempt_s=long_attempt_s)
        self.executor = RayExecutor(self.backend.job, timeouts=timeouts, backend=self.backend)
        self.parallelism = parallelism
        self.line = 1
        self.heard: list[Event] = []

    def launch(self, *numbers: int, attempt: int = 1) -> None:
        for number in numbers:
            launch = make_launch(number, attempt=attempt)
            self.executor.launch(replace(launch, parallelism=self.parallelism, backlog_max=self.line))
        for worker in self.workers:
            while len(worker.calls["info"]) > len(self.up(worker)):
                worker.came_up = [*self.up(worker), True]  # type: ignore[attr-defined]
                worker.answer("info")
        self.listen()

    @staticmethod
    def up(worker: ScriptedWorker) -> list[bool]:
        return getattr(worker, "came_up", [])

    def listen(self) -> None:
        self.heard += self.executor.events(0.02)

    @property
    def workers(self) -> list[ScriptedWorker]:
        return list(self.backend.workers.values())

    def given(self) -> list[list[int]]:
        """The numbers of the trials that each worker was given."""
        return [[launch.trial_number for launch in worker.launches] for worker in self.workers]

    def asked_back(self, worker: int) -> list[int]:
        """The trials that a worker was asked for."""
        return [order.attempt.trial_id for order in self.workers[worker].orders("cancel")]

    def said(self, number: int) -> list[Payload]:
        return [event.payload for event in self.heard if event.attempt == AttemptId(number, 1)]

    def say(
        self, worker: int, *said: tuple[int, Payload], absent: Sequence[int] = (), is_reusable: bool = True
    ) -> None:
        """Have a worker say what attempts of these trials say next, and what it does not have."""
        seqs = {number: len(self.said(number)) for number, _ in said}
        events: dict[AttemptId, list[tuple[int, Payload]]] = {AttemptId(number, 1): [] for number in seqs}
        for number, payload in said:
            seqs[number] += 1
            events[AttemptId(number, 1)].append((seqs[number], payload))
        ids = [AttemptId(number, 1) for number in absent]
        self.workers[worker].reply(PollResponse(list(events.items()), ids, is_reusable))
        self.listen()

    def acknowledge(self, number: int) -> None:
        self.executor.acknowledge({AttemptId(number, 1): len(self.said(number))})


def full(folder: Path, **job: Any) -> Lines:
    """Two workers, on which trials 0 and 1 have begun."""
    lines = Lines(folder, workers=2, **job)
    lines.launch(0, 1)
    for worker in (0, 1):
        lines.say(worker, (worker, BEGUN))
    return lines


def asked_back(folder: Path) -> Lines:
    """Two workers: the second has nothing to do any more, and the first is asked for trial 2, which stands in its line."""
    lines = full(folder)
    lines.launch(2)
    lines.say(1, (1, DONE))
    lines.acknowledge(1)
    hear_until(lines.executor, lambda _: lines.asked_back(0) == [2])
    return lines


def test_what_no_worker_can_begin_stands_in_line_where_the_oldest_attempt_runs(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2, 3, 4)
    assert lines.given() == [[0, 2], [1, 3]]
    assert len(lines.executor.heartbeats()) == 5


def test_what_is_launched_together_travels_in_one_call(tmp_path: Path) -> None:
    lines = full(tmp_path)
    calls = [len(worker.calls["poll"]) for worker in lines.workers]
    lines.line = 3
    lines.launch(2, 3, 4, 5, 6, 7, 8)
    assert lines.given() == [[0, 2, 4, 6], [1, 3, 5, 7]], "evenly, and no more than may"
    assert [len(worker.calls["poll"]) for worker in lines.workers] == [count + 1 for count in calls]


def test_what_ended_together_is_heard_together_and_its_room_is_free(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.line = 3
    lines.launch(2, 3, 4, 5, 6, 7, 8)
    lines.say(0, (0, DONE), (2, BEGUN), (2, DONE), (4, BEGUN), (4, DONE), (6, BEGUN))
    assert [event.attempt.trial_id for event in lines.heard[2:]] == [0, 2, 2, 4, 4, 6]
    lines.launch(9, 10)
    assert lines.given() == [[0, 2, 4, 6, 8, 9, 10], [1, 3, 5, 7]]


def test_what_was_heard_is_not_heard_again_when_the_call_before_comes_back_late(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    first, second = [(AttemptId(0, 1), [(2, DONE)])], [(AttemptId(0, 1), [(2, DONE)]), (AttemptId(2, 1), [(1, BEGUN)])]
    open_calls = lines.workers[0].calls["poll"][1:]
    assert [call.number for _, call, _ in open_calls] == [2, 3]
    lines.workers[0].answer("poll", PollResponse(first))
    lines.workers[0].answer("poll", PollResponse(second))
    lines.listen()
    assert [(event.attempt.trial_id, event.seq) for event in lines.heard[2:]] == [(0, 2), (2, 1)]


def test_who_was_overtaken_does_not_call_again(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.workers[0].answer("poll", PollResponse())
    lines.listen()
    assert len(lines.workers[0].calls["poll"]) == 3
    lines.say(0, (0, DONE))
    assert len(lines.workers[0].calls["poll"]) == 4


def test_a_worker_keeps_the_end_of_an_attempt_until_it_is_recorded(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.say(0, (0, DONE), (2, BEGUN))
    lines.launch(3)
    assert not lines.workers[0].orders("forget")
    lines.acknowledge(0)
    lines.launch(4)
    assert [(order.kind, order.attempt.trial_id) for order in lines.workers[0].told] == [
        ("run", 0),
        ("run", 2),
        ("forget", 0),
        ("run", 4),
    ]


def test_a_worker_with_nothing_to_do_gets_what_stands_in_anothers_line(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.say(0, absent=[2])
    assert lines.given() == [[0, 2], [1, 2]]
    lines.say(1, (2, BEGUN))
    assert lines.said(2) == [BEGUN]


def test_what_was_given_back_is_not_given_back_again_by_a_call_that_comes_late(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.launch(3)  # takes the worker that had nothing to do
    lines.executor.stop(AttemptId(0, 1))  # the first is told so before it is heard to have given trial 2 back
    lines.listen()
    worker, gave_back = lines.workers[0], PollResponse(absent=[AttemptId(2, 1)])
    for reply in (PollResponse(), PollResponse(), gave_back):
        worker.answer("poll", reply)
    lines.listen()
    assert lines.given() == [[0, 2, 2], [1, 3]]
    worker.answer("poll", gave_back)
    lines.listen()
    assert lines.given() == [[0, 2, 2], [1, 3]]


def test_what_has_begun_meanwhile_stays_where_it_is(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.say(0, (0, DONE), (2, BEGUN))
    assert lines.given() == [[0, 2], [1]]
    assert lines.said(2) == [BEGUN]


def test_what_a_worker_gave_back_may_begin_there_after_all(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.launch(3)  # takes the worker that had nothing to do
    lines.say(0, absent=[2])
    assert lines.given() == [[0, 2, 2], [1, 3]]
    assert [order.kind for order in lines.workers[0].told] == ["run", "run", "cancel", "run"]


def test_nobody_but_the_next_one_stands_behind_a_long_attempt(tmp_path: Path) -> None:
    lines = Lines(tmp_path, workers=2, long_attempt_s=0.0)
    lines.line = 3
    lines.launch(0, 1, 2, 3, 4, 5)
    assert lines.given() == [[0, 2], [1, 3]]


def test_lines_that_have_become_too_long_are_shortened_and_keep_their_order(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.line = 3
    lines.launch(2, 3, 4, 5, 6, 7)
    lines.line = 1
    lines.launch(8)
    assert [lines.asked_back(worker) for worker in (0, 1)] == [[4, 6], [5, 7]]
    lines.say(0, absent=[4, 6])
    lines.say(0, (0, DONE), (2, BEGUN))
    lines.acknowledge(0)
    lines.listen()
    assert lines.given()[0] == [0, 2, 4, 6, 4]


@pytest.mark.parametrize(("wish", "end"), [("stop", StoppedEarly()), ("kill", Lost("killed before it began"))])
def test_an_attempt_in_line_is_ended_without_the_one_before_it(tmp_path: Path, wish: str, end: Payload) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    getattr(lines.executor, wish)(AttemptId(2, 1))
    lines.listen()
    lines.say(0, absent=[2])
    assert lines.said(2) == [end]
    assert not lines.workers[0].is_ended
    assert not lines.workers[0].orders("stop")


def test_one_in_the_middle_of_a_line_is_ended_without_those_around_it(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.line = 3
    lines.launch(2, 3, 4, 5, 6, 7)
    lines.executor.stop(AttemptId(4, 1))
    lines.listen()
    lines.say(0, (0, DONE), (2, BEGUN), absent=[4])
    assert lines.said(4) == [StoppedEarly()]
    lines.say(0, (2, DONE), (6, BEGUN))
    assert [lines.said(number) for number in (2, 6)] == [[BEGUN, DONE], [BEGUN]]


@pytest.mark.parametrize("wish", ["stop", "kill"])
def test_one_that_has_begun_when_it_is_to_end_is_ended_as_any_other(tmp_path: Path, wish: str) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    getattr(lines.executor, wish)(AttemptId(2, 1))
    lines.listen()
    lines.say(0, (0, DONE), (2, BEGUN))
    assert lines.workers[0].is_ended if wish == "kill" else lines.workers[0].orders("stop")


def test_a_wish_while_an_attempt_is_asked_back_decides_what_becomes_of_it(tmp_path: Path) -> None:
    lines = asked_back(tmp_path)
    lines.executor.stop(AttemptId(2, 1))
    lines.say(0, absent=[2])
    assert lines.said(2) == [StoppedEarly()]
    assert lines.given() == [[0, 2], [1]]


def test_a_worker_out_of_reach_is_asked_again(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.executor.stop(AttemptId(2, 1))
    lines.listen()
    worker = lines.workers[0]
    calls = len(worker.calls["poll"])
    for _ in range(3):  # two that were overtaken, and the one that asks
        worker.fail("poll")
    hear_until(lines.executor, lambda _: len(worker.calls["poll"]) == calls + 1)
    assert [order.kind for _, order in worker.calls["poll"][-1][1].commands] == ["run", "cancel"]
    assert [order.kind for order in worker.told] == ["run", "run", "cancel"], "it takes each once"


def test_what_stands_behind_a_failed_attempt_begins_elsewhere(tmp_path: Path) -> None:
    """After a failure a worker is not fit, and knows that itself."""
    lines = full(tmp_path)
    lines.launch(2)
    lines.say(0, (0, Failed("error", "broken")), absent=[2], is_reusable=False)
    lines.acknowledge(0)
    lines.launch()
    assert lines.workers[0].is_ended
    assert lines.given() == [[0, 2], [1, 2], []]  # a worker takes its place, and gets what stands in the other's line
    hear_until(lines.executor, lambda _: lines.asked_back(1) == [2])
    lines.say(1, absent=[2])
    assert lines.given() == [[0, 2], [1, 2], [2]]


def test_what_stands_behind_an_attempt_whose_worker_dies_is_nobodys_fault(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.line = 3
    lines.launch(2, 3, 4, 5, 6, 7)
    lines.workers[0].die()
    lines.listen()
    assert isinstance(lines.said(0)[-1], Lost)
    for number in (2, 4, 6):
        assert lines.said(number) == [Lost("its worker died before it began", "gone")]
    assert lines.workers[0].is_ended


def test_the_death_of_an_attempt_that_began_behind_another_is_its_own(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.launch(2)
    lines.say(0, (0, DONE), (2, BEGUN))
    lines.workers[0].die()
    lines.listen()
    assert lines.said(0)[-1] == DONE
    assert lines.said(2)[0] == BEGUN
    assert isinstance(lines.said(2)[-1], Lost)
    assert lines.said(2)[-1].kind == "lost"


def test_a_worker_that_somebody_has_taken_over_is_left_alone(tmp_path: Path) -> None:
    lines = full(tmp_path)
    lines.line = 3
    lines.launch(2, 3, 4, 5)
    lines.workers[0].reply(PollResponse(is_refused=True))
    lines.listen()
    assert lines.executor.health_error()
    assert not lines.workers[0].is_ended
    assert [lines.said(number) for number in (0, 2, 4)] == [[BEGUN], [], []]
    assert not {AttemptId(number, 1) for number in (0, 2, 4)} & set(lines.executor.heartbeats())


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
        lines.say(worker, (worker, BEGUN))
    lines.parallelism = 1
    lines.say(1, (1, DONE))
    lines.acknowledge(1)
    lines.launch(9)
    assert lines.given()[:2] == [[0, 9], [1]]
    lines.launch()
    assert not any(worker.orders("cancel") for worker in lines.workers)
