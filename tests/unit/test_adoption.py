"""Adoption of an earlier coordinator's workers by the executor on Ray, unreachable ones included:
the workers' answers are scripted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.jobs_and_events import make_job, make_launch
from tests.support.scripted_workers import ScriptedBackend, ScriptedWorker, hear_until
from tunesvc.execution.executor import AttemptId, Event, Finished, Launch, Lost, Reported, Started
from tunesvc.execution.ray.dispatch_state import PollingTimeouts
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.execution.worker.worker_protocol import (
    AdoptResponse,
    CommandKind,
    PollResponse,
    WorkerCommand,
)

TIMEOUTS = PollingTimeouts(retry_s=0.01, adoption_s=0.1, killed_s=0.1, check_s=0.0)
FIRST, SECOND = AttemptId(1, 1), AttemptId(2, 1)
TOKEN = 2


@pytest.fixture
def backend(tmp_path: Path) -> ScriptedBackend:
    """One worker of an earlier coordinator, on a node for two."""
    return ScriptedBackend(make_job(tmp_path), "1-0")


@pytest.fixture
def old(backend: ScriptedBackend) -> ScriptedWorker:
    return backend.workers["1-0"]


def adopt(backend: ScriptedBackend, *attempts: AttemptId, cursor: int = 3) -> RayExecutor:
    """Take over, and wait until all workers that were found are asked."""
    executor = RayExecutor(backend.job, timeouts=TIMEOUTS, backend=backend)
    executor.adopt(TOKEN, dict.fromkeys(attempts, cursor))
    hear_until(
        executor, lambda _: all(worker.calls["adopt"] for worker in backend.workers.values())
    )
    return executor


def listen_for(executor: RayExecutor, seconds: float) -> list[Event]:
    """Whatever happens meanwhile."""
    heard: list[Event] = []
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        heard += executor.events(left_s)
    return heard


def run(executor: RayExecutor, backend: ScriptedBackend, launch: Launch) -> ScriptedWorker:
    """Launch an attempt, have a new worker come up for it and report; that worker."""
    executor.launch(launch)
    worker = list(backend.workers.values())[-1]
    worker.answer("info")
    hear_until(executor, lambda _: worker.launches)
    worker.say(launch.attempt, (1, Started("node", 1)))
    hear_until(executor, lambda heard: heard)
    return worker


def test_a_worker_that_was_taken_over_gets_no_other_attempt(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    """It has the job and the code of an earlier coordinator, which may have changed since."""
    executor = adopt(backend, FIRST)
    old.found(FIRST)
    hear_until(executor, lambda _: old.calls["poll"])
    old.say(FIRST, (4, Finished({"loss": 1.0})))
    hear_until(executor, lambda heard: heard)
    executor.acknowledge({FIRST: 4})
    assert old.is_ended
    executor.launch(make_launch(7))
    assert not old.launches
    assert backend.names() == {"2-1"}


def test_an_outcome_that_was_recorded_before_it_is_heard_again_frees_its_place(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    executor = adopt(backend, FIRST)
    old.found(FIRST)
    hear_until(executor, lambda _: old.calls["poll"])
    executor.acknowledge({FIRST: 4})
    old.say(FIRST, (4, Finished({"loss": 1.0})))
    assert hear_until(executor, lambda heard: heard) == [Event(FIRST, 4, Finished({"loss": 1.0}))]
    assert old.is_ended


@pytest.mark.parametrize(("method", "values"), [("answer", ("x", 0.5)), ("stop", ())])
def test_what_a_worker_out_of_reach_did_not_hear_is_repeated(
    backend: ScriptedBackend, old: ScriptedWorker, method: CommandKind, values: tuple[object, ...]
) -> None:
    executor = adopt(backend)
    old.found(None)
    launch = make_launch(7)
    worker = run(executor, backend, launch)
    hear_until(executor, lambda _: len(worker.calls["poll"]) == 2)
    getattr(executor, method)(launch.attempt, *values)
    hear_until(executor, lambda _: len(worker.calls["poll"]) == 3)
    worker.answer("poll", PollResponse())
    for times in (4, 5):
        worker.fail("poll")
        hear_until(executor, lambda _, times=times: len(worker.calls["poll"]) == times)  # type: ignore[misc]
    assert [call.commands for _, call, _ in worker.calls["poll"][2:]] == [
        ((3, WorkerCommand(method, launch.attempt, values)),)
    ] * 3
    worker.say(launch.attempt, (2, Reported(0, {"loss": 1.0})))
    hear_until(executor, lambda _: len(worker.calls["poll"]) == 6)
    assert worker.calls["poll"][-1][1].commands == ()


def test_nothing_is_repeated_to_an_attempt_that_is_over(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    executor = adopt(backend)
    old.found(None)
    launch = make_launch(7)
    worker = run(executor, backend, launch)
    hear_until(executor, lambda _: len(worker.calls["poll"]) == 2)
    executor.stop(launch.attempt)
    hear_until(executor, lambda _: len(worker.calls["poll"]) == 3)
    worker.answer(
        "poll", PollResponse([(launch.attempt, [(2, Finished({"loss": 1.0}))])])
    )  # it was on its way
    worker.fail("poll")
    hear_until(executor, lambda heard: heard)
    listen_for(executor, 5 * TIMEOUTS.retry_s)
    assert len(worker.calls["poll"]) == 3


def test_a_silent_worker_is_left_to_its_lease_and_ended_when_its_attempt_is_given_up(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    """It may be frozen, or on the far side of a cut network, with the attempt that is sought."""
    executor = adopt(backend, FIRST)
    assert listen_for(executor, 3 * TIMEOUTS.adoption_s) == []
    assert not old.is_ended
    assert FIRST not in executor.heartbeats()
    executor.kill(FIRST)
    heard = hear_until(executor, lambda heard: heard)
    assert [event.attempt for event in heard] == [FIRST]
    assert isinstance(heard[0].payload, Lost)
    assert old.is_ended


def test_a_silent_worker_that_wakes_continues_its_attempt(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    executor = adopt(backend, FIRST)
    listen_for(executor, 3 * TIMEOUTS.adoption_s)
    old.found(FIRST)
    hear_until(executor, lambda _: old.calls["poll"])
    assert FIRST in executor.heartbeats()


def test_a_silent_worker_is_ended_when_nothing_is_sought(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    executor = adopt(backend)
    assert not old.is_ended
    listen_for(executor, 3 * TIMEOUTS.adoption_s)
    assert old.is_ended


def test_a_worker_that_never_came_up_is_ended_and_what_it_might_have_had_is_lost(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    old.is_pending = True
    executor = adopt(backend, FIRST)
    heard = hear_until(executor, lambda heard: heard)
    assert heard == [Event(FIRST, 4, Lost("no worker has it any more", "gone"))]
    assert old.is_ended


def test_an_adopted_backlog_continues_and_its_unknown_attempts_are_cancelled(
    backend: ScriptedBackend, old: ScriptedWorker
) -> None:
    """Attempts that the earlier coordinator had given up must not begin."""
    third, fourth = AttemptId(3, 1), AttemptId(4, 1)
    executor = adopt(backend, FIRST, SECOND, fourth, cursor=0)
    old.answer("adopt", AdoptResponse((FIRST, SECOND, third, fourth)))
    hear_until(executor, lambda _: old.calls["poll"])
    assert old.received == [WorkerCommand("cancel", third)]
    assert list(old.calls["poll"][0][1].cursors) == [FIRST, SECOND, fourth]
    old.die()
    heard = hear_until(executor, lambda heard: len(heard) == 3)
    assert [isinstance(event.payload, Lost) and event.payload.kind for event in heard] == [
        "lost",
        "gone",
        "gone",
    ]
