"""Guarantees when the driver process is killed, hangs or cannot be started: real processes, a
simulated Ray."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import PATIENCE_S, Listener, make_job, make_launch
from tests.support.processes import processes
from tunesvc.errors import ExecutorError, SpecError, TuneError, UnsatisfiableRequest
from tunesvc.execution.driver.driver_executor import DriverExecutor
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.driver.supervisor import DriverTimeouts
from tunesvc.execution.executor import (
    Event,
    Finished,
    Lost,
    Outcome,
    Reported,
    Started,
    StoppedEarly,
    SuggestRequested,
)
from tunesvc.spec import Resources

SURVIVOR = 100
"""From this number on, trials outlive their driver; see `driver_without_ray`."""

Make = Callable[..., Listener]


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Make]:
    """Make an executor whose driver has no Ray, and listen to it."""
    made: list[DriverExecutor] = []

    def make(
        *, address: str | None = None, timeouts: DriverTimeouts | None = None, **changes: Any
    ) -> Listener:
        job = make_job(tmp_path, **changes)
        made.append(
            DriverExecutor(
                job,
                RayLauncher(
                    address, timeouts=timeouts, driver_module="tests.support.driver_without_ray"
                ),
            )
        )
        return Listener(made[-1])

    yield make
    for executor in made:
        executor.close()


def drivers() -> list[int]:
    """The numbers of our children that are drivers."""
    return [
        p.pid for p in processes() if p.parent == os.getpid() and "driver_without_ray" in p.command
    ]


def driver() -> int:
    """The only one."""
    (pid,) = drivers()
    return pid


def kill_driver() -> None:
    os.kill(driver(), signal.SIGKILL)


def until(listener: Listener, *, trouble: bool) -> Listener:
    """Listen until there is trouble, or until it is over; in short turns, for it does not last."""
    deadline = time.monotonic() + PATIENCE_S
    while bool(listener.executor.health_error()) != trouble:
        assert time.monotonic() < deadline, listener.executor.health_error() or "no trouble"
        listener.once(0.05)
    return listener


def test_an_attempt_that_outlives_its_driver_misses_no_event(listen: Make) -> None:
    """`Listener` checks that the numbers grow by one."""
    listener, launch = listen(), make_launch(SURVIVOR, behaviour="patient")
    listener.executor.launch(launch)
    for _ in range(2):
        heard = len(listener.payloads_of(launch))
        listener.until(lambda now, heard=heard: len(now.payloads_of(launch)) > heard + 20)
        kill_driver()
        until(until(listener, trouble=True), trouble=False)
    heard = len(listener.payloads_of(launch))
    listener.until(lambda now: len(now.payloads_of(launch)) > heard + 20)
    steps = [report.step for report in listener.payloads_of(launch, Reported)]
    assert steps == list(range(len(steps)))
    listener.executor.stop(launch.attempt)
    listener.until_ended(launch)
    assert listener.outcome(launch) == StoppedEarly()


def test_what_was_heard_but_is_not_recorded_is_asked_for_again_and_not_delivered_twice(
    listen: Make,
) -> None:
    executor, launch = listen().executor, make_launch(SURVIVOR, behaviour="patient")
    executor.launch(launch)
    heard: list[Event] = []
    while len(heard) < 20:
        heard += executor.events(1.0)
    executor.acknowledge({launch.attempt: 5})
    kill_driver()
    while not executor.health_error() or len(heard) < 20:
        heard += executor.events(0.1)
    before = len(heard)
    while len(heard) < before + 20:
        heard += executor.events(1.0)
    assert [event.seq for event in heard] == list(range(1, len(heard) + 1))


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_a_local_ray_that_lost_its_node_is_replaced_and_a_cluster_is_waited_for(
    listen: Make, tmp_path: Path, address: str | None
) -> None:
    """Fault 16."""
    listener, launch = listen(address=address), make_launch(behaviour="patient")
    first = driver()
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    (tmp_path / "node-gone").touch()
    listener.until(lambda _: not (tmp_path / "node-gone").exists())
    if address is not None:
        listener.until(lambda heard: len(heard.payloads_of(launch)) > 400)
        assert driver() == first
        return
    listener.until_ended(launch)
    reason = "ended by SIGKILL: its only node is gone"
    assert listener.outcome(launch) == Lost(f"its Ray is gone ({reason})", "node")
    listener.run(make_launch(1, behaviour="reports"))
    assert driver() != first


def test_an_attempt_that_ended_with_its_ray_is_lost_with_its_node_after_all_its_events(
    listen: Make,
) -> None:
    listener, launch = listen(), make_launch(behaviour="patient")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    kill_driver()
    listener.until_ended(launch)
    assert listener.outcome(launch) == Lost("its Ray is gone (ended by SIGKILL)", "node")
    listener.run(make_launch(1, behaviour="reports"))


def test_a_health_error_names_the_drivers_end_and_no_attempt_expires(listen: Make) -> None:
    listener, launch = listen(), make_launch(SURVIVOR, behaviour="patient")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Started))
    assert listener.executor.health_error() == ""
    kill_driver()
    until(listener, trouble=True)
    assert (
        listener.executor.health_error()
        == "the Ray driver is gone (ended by SIGKILL); connecting again"
    )
    assert [list(listener.executor.heartbeats()) for _ in range(2)] == [[launch.attempt]] * 2
    assert listener.executor.slots() == 2


def test_what_is_launched_stopped_and_killed_in_trouble_reaches_the_next_driver(
    listen: Make,
) -> None:
    listener = listen()
    stopped, killed = (
        make_launch(SURVIVOR, behaviour="patient"),
        make_launch(SURVIVOR + 1, behaviour="deaf"),
    )
    launched, withdrawn, put_down = [
        make_launch(number, behaviour="reports") for number in range(3)
    ]
    for launch in (stopped, killed):
        listener.executor.launch(launch)
    listener.until(lambda heard: heard.running() == 2)
    kill_driver()
    until(listener, trouble=True)
    for launch in (launched, withdrawn, put_down):
        listener.executor.launch(launch)
    listener.executor.stop(stopped.attempt)
    listener.executor.kill(killed.attempt)
    listener.executor.stop(withdrawn.attempt)
    listener.executor.kill(put_down.attempt)
    listener.once(0.0)
    assert listener.payloads_of(withdrawn) == [StoppedEarly()]
    assert listener.payloads_of(put_down) == [Lost("killed before a worker was free")]
    listener.until_ended(stopped, killed, launched)
    assert listener.outcome(stopped) == StoppedEarly()
    assert listener.outcome(killed) == Lost("killed")
    assert listener.outcome(launched) == Finished({"loss": 0.5})


def test_what_has_ended_is_not_heard_of_again(listen: Make) -> None:
    executor, launch = listen().executor, make_launch(SURVIVOR, behaviour="reports")
    executor.launch(launch)
    heard: list[Event] = []
    while not heard or not isinstance(heard[-1].payload, Outcome):
        heard += executor.events(1.0)
    listener = Listener(executor)  # which has acknowledged nothing
    kill_driver()
    until(until(listener, trouble=True), trouble=False)
    listener.once(0.3)
    assert listener.payloads_of(launch) == []
    assert list(executor.heartbeats()) == []


def test_a_launch_that_a_driver_took_to_its_grave_counts_as_never_begun(listen: Make) -> None:
    listener, waiting = listen(), make_launch(9, behaviour="reports")
    for number in range(2):
        listener.executor.launch(make_launch(SURVIVOR + number, behaviour="patient"))
    listener.until(lambda heard: heard.running() == 2)
    listener.executor.launch(waiting)
    listener.once(0.1)
    kill_driver()
    listener.until_ended(waiting)
    assert listener.payloads_of(waiting) == [Lost("it is not there", "gone")]


def test_an_answer_that_was_given_in_trouble_reaches_the_attempt(listen: Make) -> None:
    listener, launch = listen(define_by_run=True), make_launch(SURVIVOR)
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, SuggestRequested))
    kill_driver()
    until(listener, trouble=True)
    listener.executor.answer(launch.attempt, "x", 0.25)
    listener.until_ended(launch)
    assert listener.outcome(launch) == Finished({"loss": 0.25})


def test_an_adopted_attempt_continues_above_its_cursor_under_every_driver(listen: Make) -> None:
    executor = listen().executor
    survivor, gone = make_launch(SURVIVOR).attempt, make_launch(1).attempt
    executor.adopt(7, {survivor: 3, gone: 5})
    heard: list[Event] = []
    while len(heard) < 20:
        heard += executor.events(1.0)
    assert [event for event in heard if event.attempt == gone] == [
        Event(gone, 6, Lost("it is not there", "gone"))
    ]
    kill_driver()
    while not executor.health_error():
        heard += executor.events(0.1)
    before = len(heard)
    while len(heard) < before + 5:
        heard += executor.events(1.0)
    numbers = [event.seq for event in heard if event.attempt == survivor]
    assert numbers == list(range(4, 4 + len(numbers)))


def test_a_driver_without_a_heartbeat_is_replaced(listen: Make) -> None:
    listener, launch = (
        listen(timeouts=DriverTimeouts(silent_s=3.0)),
        make_launch(behaviour="reports"),
    )
    stopped = driver()
    os.kill(stopped, signal.SIGSTOP)
    until(listener, trouble=True)
    assert "(gave no sign of life for 3 s)" in listener.executor.health_error()
    until(listener, trouble=False).run(launch)
    assert driver() != stopped


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("refuse", ExecutorError, "no cluster is there"),
        ("refuse-spec", SpecError, "bundles differ"),
        ("refuse-strangely", ExecutorError, "ZeroDivisionError: of all things"),
    ],
)
def test_what_the_driver_raises_at_first_is_raised_here(
    listen: Make, address: str, error: type[TuneError], text: str
) -> None:
    with pytest.raises(error) as raised:
        listen(address=address)
    assert (type(raised.value), str(raised.value)) == (error, text)


def test_a_driver_that_does_not_start_in_time_is_an_error(listen: Make) -> None:
    with pytest.raises(
        ExecutorError, match=r"Ray did not start: its driver was not ready after 0\.5 s"
    ):
        listen(address="slow", timeouts=DriverTimeouts(start_s=0.5))


def test_an_unsatisfiable_request_is_raised_where_slots_are_asked_for(listen: Make) -> None:
    with pytest.raises(UnsatisfiableRequest, match="no node has a GPU"):
        listen(resources=Resources(gpu=1)).executor.slots()


@pytest.mark.parametrize("ending", ["close", "leave"])
def test_the_driver_ends_on_request_also_when_unhealthy(listen: Make, ending: str) -> None:
    listener = listen()
    getattr(listener.executor, ending)()
    assert drivers() == []
    listener = listen()
    kill_driver()
    until(listener, trouble=True)
    getattr(listener.executor, ending)()
    assert drivers() == []


def test_a_driver_that_does_not_end_in_time_is_killed(listen: Make) -> None:
    listener = listen(study="never ends", timeouts=DriverTimeouts(close_s=0.5))
    listener.executor.close()
    assert drivers() == []


# --- several jobs in one driver
# -----------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Listener, Listener]]:
    """Two executors that share a driver."""
    start = RayLauncher(driver_module="tests.support.driver_without_ray")
    first, second = (
        DriverExecutor(make_job(tmp_path, study=name), start) for name in ("first", "second")
    )
    yield Listener(first), Listener(second)
    first.close()
    second.close()


def test_jobs_that_share_a_driver_hear_each_its_own(pair: tuple[Listener, Listener]) -> None:
    """Their attempts may have the same names, since studies of two databases may."""
    launches = [make_launch(1, behaviour="fails"), make_launch(1, behaviour="reports")]
    for listener, launch in zip(pair, launches, strict=True):
        listener.executor.launch(launch)
    for listener, launch in zip(pair, launches, strict=True):
        listener.until_ended(launch)
    assert [
        type(listener.outcome(launch)).__name__
        for listener, launch in zip(pair, launches, strict=True)
    ] == [
        "Failed",
        "Finished",
    ]


def test_a_driver_that_dies_under_several_jobs_is_replaced_once_and_all_continue(
    pair: tuple[Listener, Listener],
) -> None:
    launch = make_launch(SURVIVOR, behaviour="patient")
    for listener in pair:
        listener.executor.launch(launch)
        listener.until(lambda heard: heard.has(launch, Reported))
    kill_driver()
    for listener in pair:
        until(listener, trouble=True)
    for listener in pair:
        heard = len(until(listener, trouble=False).payloads_of(launch))
        listener.until(lambda now, heard=heard: len(now.payloads_of(launch)) > heard + 20)
    assert len(drivers()) == 1
    for listener in pair:
        listener.executor.stop(launch.attempt)
        listener.until_ended(launch)
        assert listener.outcome(launch) == StoppedEarly()


def test_the_driver_ends_with_the_last_of_its_jobs(pair: tuple[Listener, Listener]) -> None:
    first, second = pair
    pid = driver()
    first.executor.close()
    second.run(make_launch(1, behaviour="reports"))
    assert driver() == pid
    second.executor.leave()
    assert drivers() == []


def test_a_job_that_cannot_be_run_is_an_error_and_no_matter_to_the_others(tmp_path: Path) -> None:
    start = RayLauncher(driver_module="tests.support.driver_without_ray")
    listener = Listener(DriverExecutor(make_job(tmp_path), start))
    with pytest.raises(SpecError, match="its bundles differ"):
        DriverExecutor(make_job(tmp_path, study="cannot be run"), start)
    listener.run(make_launch(1, behaviour="reports"))
    listener.executor.close()
    assert drivers() == []
