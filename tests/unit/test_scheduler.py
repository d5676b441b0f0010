"""Scheduling of attempts on Ray: backlogs, moves between them, and cancels.

A test gives the workers' answers by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import make_job, make_launch
from tests.support.scripted_workers import ScriptedBackend, ScriptedWorker, hear_until
from tunesvc.execution.executor import (
    AttemptId,
    Event,
    Failed,
    Finished,
    Lost,
    Payload,
    Started,
    StoppedEarly,
)
from tunesvc.execution.ray.dispatch_state import PollingTimeouts
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.execution.worker.worker_protocol import PollResponse

BEGUN = Started("node", 1)
DONE = Finished({"loss": 1.0})


class Backlogs:
    """An executor with up to `workers` workers, all up, and the events of its attempts."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        parallelism: int | None = None,
        long_attempt_s: float = 60.0,
        **job: Any,
    ) -> None:
        self.backend = ScriptedBackend(make_job(folder, **job), cpus=float(workers))
        self.backend.shared = False
        timeouts = PollingTimeouts(retry_s=0.01, backlog_s=0.0, long_attempt_s=long_attempt_s)
        self.executor = RayExecutor(self.backend.job, timeouts=timeouts, backend=self.backend)
        self.parallelism = parallelism
        self.backlog_max = 1
        self.heard: list[Event] = []

    def launch(self, *numbers: int, attempt: int = 1) -> None:
        for number in numbers:
            launch = make_launch(number, attempt=attempt)
            self.executor.launch(
                replace(launch, parallelism=self.parallelism, backlog_max=self.backlog_max)
            )
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

    def assigned(self) -> list[list[int]]:
        """The numbers of the trials that each worker was given."""
        return [[launch.trial_number for launch in worker.launches] for worker in self.workers]

    def canceled(self, worker: int) -> list[int]:
        """The trials that a worker was asked for."""
        return [order.attempt.trial_id for order in self.workers[worker].orders("cancel")]

    def payloads_of(self, number: int) -> list[Payload]:
        return [event.payload for event in self.heard if event.attempt == AttemptId(number, 1)]

    def say(
        self,
        worker: int,
        *said: tuple[int, Payload],
        absent: Sequence[int] = (),
        is_reusable: bool = True,
    ) -> None:
        """Have a worker say what attempts of these trials say next, and what it does not have."""
        seqs = {number: len(self.payloads_of(number)) for number, _ in said}
        events: dict[AttemptId, list[tuple[int, Payload]]] = {
            AttemptId(number, 1): [] for number in seqs
        }
        for number, payload in said:
            seqs[number] += 1
            events[AttemptId(number, 1)].append((seqs[number], payload))
        ids = [AttemptId(number, 1) for number in absent]
        self.workers[worker].reply(PollResponse(list(events.items()), ids, is_reusable))
        self.listen()

    def acknowledge(self, number: int) -> None:
        self.executor.acknowledge({AttemptId(number, 1): len(self.payloads_of(number))})


def two_busy_workers(folder: Path, **job: Any) -> Backlogs:
    """Two workers, on which trials 0 and 1 have begun."""
    backlogs = Backlogs(folder, workers=2, **job)
    backlogs.launch(0, 1)
    for worker in (0, 1):
        backlogs.say(worker, (worker, BEGUN))
    return backlogs


def canceled(folder: Path) -> Backlogs:
    """Two workers: the second is idle, and the first was asked to give back trial 2."""
    backlogs = two_busy_workers(folder)
    backlogs.launch(2)
    backlogs.say(1, (1, DONE))
    backlogs.acknowledge(1)
    hear_until(backlogs.executor, lambda _: backlogs.canceled(0) == [2])
    return backlogs


def test_a_pending_attempt_waits_in_the_backlog_behind_the_oldest_attempt(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2, 3, 4)
    assert backlogs.assigned() == [[0, 2], [1, 3]]
    assert len(backlogs.executor.heartbeats()) == 5


def test_attempts_that_are_launched_together_travel_in_one_poll(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    calls = [len(worker.calls["poll"]) for worker in backlogs.workers]
    backlogs.backlog_max = 3
    backlogs.launch(2, 3, 4, 5, 6, 7, 8)
    assert backlogs.assigned() == [[0, 2, 4, 6], [1, 3, 5, 7]], "evenly, and no more than may"
    assert [len(worker.calls["poll"]) for worker in backlogs.workers] == [
        count + 1 for count in calls
    ]


def test_attempts_that_end_together_are_delivered_together_and_free_their_room(
    tmp_path: Path,
) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.backlog_max = 3
    backlogs.launch(2, 3, 4, 5, 6, 7, 8)
    backlogs.say(0, (0, DONE), (2, BEGUN), (2, DONE), (4, BEGUN), (4, DONE), (6, BEGUN))
    assert [event.attempt.trial_id for event in backlogs.heard[2:]] == [0, 2, 2, 4, 4, 6]
    backlogs.launch(9, 10)
    assert backlogs.assigned() == [[0, 2, 4, 6, 8, 9, 10], [1, 3, 5, 7]]


def test_a_late_response_delivers_no_event_again(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    first, second = (
        [(AttemptId(0, 1), [(2, DONE)])],
        [(AttemptId(0, 1), [(2, DONE)]), (AttemptId(2, 1), [(1, BEGUN)])],
    )
    open_calls = backlogs.workers[0].calls["poll"][1:]
    assert [call.number for _, call, _ in open_calls] == [2, 3]
    backlogs.workers[0].answer("poll", PollResponse(first))
    backlogs.workers[0].answer("poll", PollResponse(second))
    backlogs.listen()
    assert [(event.attempt.trial_id, event.seq) for event in backlogs.heard[2:]] == [(0, 2), (2, 1)]


def test_a_superseded_poll_is_not_repeated(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    backlogs.workers[0].answer("poll", PollResponse())
    backlogs.listen()
    assert len(backlogs.workers[0].calls["poll"]) == 3
    backlogs.say(0, (0, DONE))
    assert len(backlogs.workers[0].calls["poll"]) == 4


def test_a_worker_keeps_the_end_of_an_attempt_until_it_is_recorded(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    backlogs.say(0, (0, DONE), (2, BEGUN))
    backlogs.launch(3)
    assert not backlogs.workers[0].orders("forget")
    backlogs.acknowledge(0)
    backlogs.launch(4)
    assert [(order.kind, order.attempt.trial_id) for order in backlogs.workers[0].received] == [
        ("run", 0),
        ("run", 2),
        ("forget", 0),
        ("run", 4),
    ]


def test_an_idle_worker_gets_an_attempt_of_another_backlog(tmp_path: Path) -> None:
    backlogs = canceled(tmp_path)
    backlogs.say(0, absent=[2])
    assert backlogs.assigned() == [[0, 2], [1, 2]]
    backlogs.say(1, (2, BEGUN))
    assert backlogs.payloads_of(2) == [BEGUN]


def test_a_late_response_gives_no_attempt_back_again(tmp_path: Path) -> None:
    backlogs = canceled(tmp_path)
    backlogs.launch(3)  # takes the worker that had nothing to do
    backlogs.executor.stop(
        AttemptId(0, 1)
    )  # the first gets the command before its return of trial 2 arrives
    backlogs.listen()
    worker, gave_back = backlogs.workers[0], PollResponse(absent=[AttemptId(2, 1)])
    for reply in (PollResponse(), PollResponse(), gave_back):
        worker.answer("poll", reply)
    backlogs.listen()
    assert backlogs.assigned() == [[0, 2, 2], [1, 3]]
    worker.answer("poll", gave_back)
    backlogs.listen()
    assert backlogs.assigned() == [[0, 2, 2], [1, 3]]


def test_an_attempt_that_has_begun_meanwhile_stays_where_it_is(tmp_path: Path) -> None:
    backlogs = canceled(tmp_path)
    backlogs.say(0, (0, DONE), (2, BEGUN))
    assert backlogs.assigned() == [[0, 2], [1]]
    assert backlogs.payloads_of(2) == [BEGUN]


def test_an_attempt_that_a_worker_gave_back_may_begin_there_after_all(tmp_path: Path) -> None:
    backlogs = canceled(tmp_path)
    backlogs.launch(3)  # takes the worker that had nothing to do
    backlogs.say(0, absent=[2])
    assert backlogs.assigned() == [[0, 2, 2], [1, 3]]
    assert [order.kind for order in backlogs.workers[0].received] == ["run", "run", "cancel", "run"]


def test_a_worker_that_cannot_be_used_again_makes_room_when_it_gives_back_its_last_attempt(
    tmp_path: Path,
) -> None:
    backlogs = Backlogs(tmp_path, workers=1)
    backlogs.launch(0)
    backlogs.say(0, (0, BEGUN))
    backlogs.say(0, (0, DONE))
    backlogs.acknowledge(0)
    backlogs.launch(1)
    assert backlogs.assigned() == [[0, 1]]
    backlogs.say(0, absent=[1], is_reusable=False)
    assert backlogs.workers[0].is_ended
    assert len(backlogs.workers) == 2


def test_at_most_one_attempt_waits_behind_a_long_one(tmp_path: Path) -> None:
    backlogs = Backlogs(tmp_path, workers=2, long_attempt_s=0.0)
    backlogs.backlog_max = 3
    backlogs.launch(0, 1, 2, 3, 4, 5)
    assert backlogs.assigned() == [[0, 2], [1, 3]]


def test_backlogs_that_have_become_too_long_are_trimmed_and_keep_their_order(
    tmp_path: Path,
) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.backlog_max = 3
    backlogs.launch(2, 3, 4, 5, 6, 7)
    backlogs.backlog_max = 1
    backlogs.launch(8)
    assert [backlogs.canceled(worker) for worker in (0, 1)] == [[4, 6], [5, 7]]
    backlogs.say(0, absent=[4, 6])
    backlogs.say(0, (0, DONE), (2, BEGUN))
    backlogs.acknowledge(0)
    backlogs.listen()
    assert backlogs.assigned()[0] == [0, 2, 4, 6, 4]


@pytest.mark.parametrize(
    ("command", "end"), [("stop", StoppedEarly()), ("kill", Lost("killed before it began"))]
)
def test_an_attempt_in_a_backlog_is_ended_without_the_one_before_it(
    tmp_path: Path, command: str, end: Payload
) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    getattr(backlogs.executor, command)(AttemptId(2, 1))
    backlogs.listen()
    backlogs.say(0, absent=[2])
    assert backlogs.payloads_of(2) == [end]
    assert not backlogs.workers[0].is_ended
    assert not backlogs.workers[0].orders("stop")


def test_one_in_the_middle_of_a_backlog_is_ended_without_those_around_it(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.backlog_max = 3
    backlogs.launch(2, 3, 4, 5, 6, 7)
    backlogs.executor.stop(AttemptId(4, 1))
    backlogs.listen()
    backlogs.say(0, (0, DONE), (2, BEGUN), absent=[4])
    assert backlogs.payloads_of(4) == [StoppedEarly()]
    backlogs.say(0, (2, DONE), (6, BEGUN))
    assert [backlogs.payloads_of(number) for number in (2, 6)] == [[BEGUN, DONE], [BEGUN]]


@pytest.mark.parametrize("command", ["stop", "kill"])
def test_one_that_has_begun_before_it_could_be_canceled_is_ended_like_any_other(
    tmp_path: Path, command: str
) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    getattr(backlogs.executor, command)(AttemptId(2, 1))
    backlogs.listen()
    backlogs.say(0, (0, DONE), (2, BEGUN))
    assert backlogs.workers[0].is_ended if command == "kill" else backlogs.workers[0].orders("stop")


def test_a_command_during_a_pending_cancel_decides_the_outcome(tmp_path: Path) -> None:
    backlogs = canceled(tmp_path)
    backlogs.executor.stop(AttemptId(2, 1))
    backlogs.say(0, absent=[2])
    assert backlogs.payloads_of(2) == [StoppedEarly()]
    assert backlogs.assigned() == [[0, 2], [1]]


def test_an_unreachable_worker_is_polled_again(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    backlogs.executor.stop(AttemptId(2, 1))
    backlogs.listen()
    worker = backlogs.workers[0]
    calls = len(worker.calls["poll"])
    for _ in range(3):  # two that were overtaken, and the one that asks
        worker.fail("poll")
    hear_until(backlogs.executor, lambda _: len(worker.calls["poll"]) == calls + 1)
    assert [order.kind for _, order in worker.calls["poll"][-1][1].commands] == ["run", "cancel"]
    assert [order.kind for order in worker.received] == ["run", "run", "cancel"], (
        "it takes each once"
    )


def test_the_backlog_behind_a_failed_attempt_begins_elsewhere(tmp_path: Path) -> None:
    """After a failure a worker is not reusable, and reports that itself."""
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    backlogs.say(0, (0, Failed("error", "broken")), absent=[2], is_reusable=False)
    backlogs.acknowledge(0)
    backlogs.launch()
    assert backlogs.workers[0].is_ended
    assert backlogs.assigned() == [
        [0, 2],
        [1, 2],
        [],
    ]  # a worker takes its place, and gets what stands in the other's line
    hear_until(backlogs.executor, lambda _: backlogs.canceled(1) == [2])
    backlogs.say(1, absent=[2])
    assert backlogs.assigned() == [[0, 2], [1, 2], [2]]


def test_the_backlog_of_a_dead_worker_is_not_at_fault(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.backlog_max = 3
    backlogs.launch(2, 3, 4, 5, 6, 7)
    backlogs.workers[0].die()
    backlogs.listen()
    assert isinstance(backlogs.payloads_of(0)[-1], Lost)
    for number in (2, 4, 6):
        assert backlogs.payloads_of(number) == [Lost("its worker died before it began", "gone")]
    assert backlogs.workers[0].is_ended


def test_the_death_of_an_attempt_that_began_behind_another_is_its_own(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2)
    backlogs.say(0, (0, DONE), (2, BEGUN))
    backlogs.workers[0].die()
    backlogs.listen()
    assert backlogs.payloads_of(0)[-1] == DONE
    assert backlogs.payloads_of(2)[0] == BEGUN
    assert isinstance(backlogs.payloads_of(2)[-1], Lost)
    assert backlogs.payloads_of(2)[-1].kind == "lost"


def test_a_worker_that_refuses_the_token_is_left_alone(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.backlog_max = 3
    backlogs.launch(2, 3, 4, 5)
    backlogs.workers[0].reply(PollResponse(is_refused=True))
    backlogs.listen()
    assert backlogs.executor.health_error()
    assert not backlogs.workers[0].is_ended
    assert [backlogs.payloads_of(number) for number in (0, 2, 4)] == [[BEGUN], [], []]
    assert not {AttemptId(number, 1) for number in (0, 2, 4)} & set(backlogs.executor.heartbeats())


def test_a_retry_waits_in_no_backlog(tmp_path: Path) -> None:
    """It may be why its worker died."""
    backlogs = two_busy_workers(tmp_path)
    backlogs.launch(2, attempt=2)
    assert backlogs.assigned() == [[0], [1]]


def test_no_more_run_than_may_though_there_is_room(tmp_path: Path) -> None:
    backlogs = Backlogs(tmp_path, workers=4, parallelism=2)
    backlogs.launch(0, 1, 2, 3, 4)
    assert sorted(backlogs.assigned()) == [[0, 2], [1, 3]] or sorted(backlogs.assigned()) == [
        [0],
        [1],
    ]
    assert len(backlogs.workers) == 2


@pytest.mark.parametrize("workers", [2, 3])
def test_fewer_run_when_fewer_may(tmp_path: Path, workers: int) -> None:
    backlogs = Backlogs(tmp_path, workers=workers)
    backlogs.launch(*range(workers))
    for worker in range(workers):
        backlogs.say(worker, (worker, BEGUN))
    backlogs.parallelism = 1
    backlogs.say(1, (1, DONE))
    backlogs.acknowledge(1)
    backlogs.launch(9)
    assert backlogs.assigned()[:2] == [[0, 9], [1]]
    backlogs.launch()
    assert not any(worker.orders("cancel") for worker in backlogs.workers)


def test_workers_above_a_limit_end_once_they_are_idle_and_others_stay(tmp_path: Path) -> None:
    backlogs = two_busy_workers(tmp_path)
    backlogs.executor.limit_workers(1)
    assert [worker.is_ended for worker in backlogs.workers] == [False, False]
    backlogs.say(1, (1, DONE))
    assert not backlogs.workers[1].is_ended  # its end is not recorded
    backlogs.acknowledge(1)
    assert [worker.is_ended for worker in backlogs.workers] == [False, True]
    backlogs.say(0, (0, DONE))
    backlogs.acknowledge(0)
    assert not backlogs.workers[0].is_ended
    backlogs.executor.limit_workers(0)
    assert backlogs.workers[0].is_ended
