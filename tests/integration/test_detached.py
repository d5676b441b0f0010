"""Attempts that outlive their coordinator on a shared cluster: found again, fenced, reaped, and
orphans that end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.jobs_and_events import OBJECTIVES, PATIENCE_S, Listener, make_job, make_launch
from tests.support.ray_clusters import Driver, Drivers, Elsewhere, RayCluster
from tunesvc.execution.executor import (
    AttemptId,
    Event,
    Finished,
    Launch,
    Lost,
    Reported,
    Started,
    StoppedEarly,
    SuggestRequested,
)
from tunesvc.execution.objectives.pickled_function import pickle_function
from tunesvc.execution.ray.dispatch_state import PollingTimeouts
from tunesvc.spec import Environment, Resources

CPUS = 3
SPARE = 2
TIMEOUTS = PollingTimeouts(poll_s=0.5, retry_s=0.1, adoption_s=5.0, killed_s=2.0, check_s=0.3)

Join = Callable[..., Driver]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Elsewhere]:
    """One node of three CPUs; tests add what they take away."""
    process = Elsewhere(RayCluster)
    process.call("add_node", CPUS)
    yield process
    process.call("shutdown")
    process.end()


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Elsewhere]]:
    """Processes without an executor: they take a second to start, and most tests kill but one."""
    free = [Elsewhere(Drivers) for _ in range(SPARE)]
    yield free
    for process in free:
        process.end()


@pytest.fixture
def join(cluster: Elsewhere, drivers: list[Elsewhere], tmp_path: Path) -> Iterator[Join]:
    """Have a driver process join the cluster. Afterwards nothing of this test's is left there."""
    used: list[Driver] = []
    address = cluster.call("address")

    def make(**changes: Any) -> Driver:
        fields = {"source": str(OBJECTIVES), "entrypoint": "detached:count"} | changes
        process = drivers.pop(0)
        if len(drivers) < SPARE:
            drivers.append(Elsewhere(Drivers))
        used.append(Driver(process, make_job(tmp_path, **fields), address, TIMEOUTS))
        return used[-1]

    yield make
    living = [driver for driver in used if driver.process.is_alive]
    for driver in living:
        driver.close()
    drivers += [driver.process for driver in living]


def launches(folder: Path, count: int) -> list[Launch]:
    return [make_launch(number, folder=str(folder)) for number in range(count)]


def start(driver: Driver, *launches: Launch, token: int = 1) -> Listener:
    """Launch attempts as the first coordinator of a study, and wait until all of them report."""
    listener = Listener(driver)
    driver.adopt(token, {})
    for launch in launches:
        driver.launch(launch)
    return listener.until(lambda heard: all(heard.has(launch, Reported) for launch in launches))


def end(folder: Path, *launches: Launch) -> None:
    for launch in launches:
        (folder / f"end-{launch.trial_number}").touch()


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def hear_until(driver: Driver, happened: Callable[[list[Event]], bool]) -> list[Event]:
    """Listen without recording anything."""
    heard: list[Event] = []

    def has_happened() -> bool:
        heard.extend(driver.events(1.0))
        return happened(heard)

    until(has_happened)
    return heard


@pytest.mark.slow
def test_idle_workers_above_its_limit_leave_their_cpus_to_another_server(
    join: Join, tmp_path: Path
) -> None:
    resources = Resources(cpu=CPUS, gpu=0)
    first, second = (launch for launch in launches(tmp_path, 2))
    owner = join(study="first", key="first", resources=resources)
    heard = start(owner, first)
    end(tmp_path, first)
    heard.until(lambda heard: heard.has(first, Finished))
    other = join(study="second", key="second", resources=resources)
    other.adopt(1, {})
    other.launch(second)
    other.events(3.0)
    assert len([name for name in owner.names() if name.startswith("first:")]) == 1  # idle
    waiting = Listener(other)
    assert not waiting.has(second, Started)
    owner.limit_workers(0)
    waiting.until(lambda heard: heard.has(second, Started))
    end(tmp_path, second)
    waiting.until(lambda heard: heard.has(second, Finished))


def names_of(driver: Driver, folder: Path) -> list[str]:
    return [name for name in driver.names() if name.startswith(f"{make_job(folder).key}:")]


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["reuse", "process"])
def test_attempts_that_train_when_their_driver_is_killed_are_adopted_and_end_once(
    join: Join, tmp_path: Path, isolation: Literal["reuse", "process"]
) -> None:
    """Fault 1, as the executor sees it."""
    environment = Environment(isolation=isolation)
    all_of_them = launches(tmp_path, CPUS)
    first, second, third = all_of_them
    listener = start(join(environment=environment), *all_of_them)
    listener.executor.process.signal(signal.SIGKILL)
    end(tmp_path, first)
    until((tmp_path / "ended-0").exists)  # while there is no coordinator
    listener.take_over(join(environment=environment), token=2)
    listener.executor.stop(third.attempt)  # before it is known where it runs
    listener.until_ended(first, third)
    heard = len(listener.payloads_of(second))
    listener.until(lambda now: len(now.payloads_of(second)) > heard + 10)
    end(tmp_path, second)
    listener.until_ended(second)
    for launch in all_of_them:
        steps = [report.step for report in listener.payloads_of(launch, Reported)]
        assert steps == list(range(len(steps)))
        outcome = StoppedEarly() if launch is third else Finished({"loss": float(len(steps))})
        assert listener.outcome(launch) == outcome
        assert (tmp_path / f"runs-{launch.trial_number}").read_text() == "run\n"
    another = make_launch(9, folder=str(tmp_path))
    end(tmp_path, another)
    listener.run(another)
    assert isinstance(listener.outcome(another), Finished)


def test_an_outcome_that_was_heard_but_not_recorded_is_heard_again(
    join: Join, tmp_path: Path
) -> None:
    driver, launch = join(), make_launch(folder=str(tmp_path))
    end(tmp_path, launch)
    driver.launch(launch)
    driver.launch(
        make_launch(1, folder=str(tmp_path))
    )  # must not take the place of what is not recorded
    hear_until(driver, lambda heard: any(isinstance(event.payload, Finished) for event in heard))
    driver.process.signal(signal.SIGKILL)
    listener = Listener(join())
    listener.executor.adopt(2, {launch.attempt: 0})
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), Finished)


def test_attempts_that_run_nowhere_are_lost_without_blame_and_unneeded_workers_end(
    join: Join, tmp_path: Path
) -> None:
    unwanted, killed = launches(tmp_path, 2)
    unknown = make_launch(7).attempt
    listener = start(join(), unwanted, killed)
    listener.executor.leave()
    driver = join()
    assert len(names_of(driver, tmp_path)) == 2
    driver.adopt(2, {unknown: 3, killed.attempt: len(listener.payloads_of(killed))})
    driver.kill(killed.attempt)
    events = hear_until(
        driver, lambda heard: sum(isinstance(event.payload, Lost) for event in heard) == 2
    )
    (gone,) = (event for event in events if event.attempt == unknown)
    assert gone.seq == 4
    assert gone.payload == Lost("no worker has it any more", "gone")
    until(lambda: not names_of(driver, tmp_path))


def test_a_study_that_is_stopped_for_good_has_its_workers_ended_unheard(
    join: Join, tmp_path: Path
) -> None:
    """`tune stop` on a study without a coordinator: it does not wait for workers' events."""
    listener = start(join(), *launches(tmp_path, 2))
    listener.executor.process.signal(signal.SIGKILL)
    driver = join(entrypoint=None, source=None, function=pickle_function(lambda: None))
    driver.adopt(2, {})
    driver.close()
    watcher = join()
    until(lambda: not names_of(watcher, tmp_path))


def test_an_open_question_is_asked_again(join: Join, tmp_path: Path) -> None:
    job = {"entrypoint": "detached:ask", "define_by_run": True}
    listener, launch = Listener(join(**job)), make_launch()
    listener.executor.adopt(1, {})
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, SuggestRequested))
    listener.executor.process.signal(signal.SIGKILL)
    listener.take_over(join(**job), token=2)
    listener.until(lambda heard: len(heard.payloads_of(launch, SuggestRequested)) == 2)
    listener.executor.answer(launch.attempt, "x", 0.25)
    listener.until_ended(launch)
    assert listener.outcome(launch) == Finished({"loss": 0.25})


def test_a_coordinator_that_comes_back_is_refused_and_what_it_starts_is_ended(
    join: Join, tmp_path: Path
) -> None:
    """Fault 12, as the workers see it."""
    launch, late = launches(tmp_path, 2)
    stale = start(join(), launch, token=1)
    stale.executor.process.signal(signal.SIGSTOP)
    listener = Listener(stale.executor)
    listener.events |= {attempt: list(heard) for attempt, heard in stale.events.items()}
    listener.take_over(join(), token=2)
    listener.until(
        lambda heard: len(heard.payloads_of(launch)) > len(stale.payloads_of(launch)) + 10
    )
    (worker,) = names_of(listener.executor, tmp_path)
    stale.executor.process.signal(signal.SIGCONT)
    stale.executor.launch(late)
    until(lambda: len(names_of(listener.executor, tmp_path)) == 2)
    heard = len(stale.payloads_of(launch))

    def is_refused() -> bool:
        stale.once(0.1)
        return bool(stale.executor.health_error())

    until(is_refused)
    assert "another coordinator has taken over" in stale.executor.health_error()

    def is_alone() -> bool:
        listener.executor.slots()  # looks for strangers too
        listener.once(0.1)
        return names_of(listener.executor, tmp_path) == [worker]

    until(is_alone)
    stale.executor.stop(launch.attempt)
    stale.executor.kill(launch.attempt)
    stale.executor.close()
    assert (
        len(stale.payloads_of(launch)) <= heard + 1_000
    )  # an answer that was under way may still arrive
    end(tmp_path, launch)
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), Finished)


def test_a_coordinator_with_too_low_a_token_adopts_nothing(join: Join, tmp_path: Path) -> None:
    launch = make_launch(folder=str(tmp_path))
    listener, late = start(join(), launch, token=7), join()
    late.adopt(6, {launch.attempt: 0})
    until(lambda: late.events(0.1) or late.health_error())
    assert "another coordinator has taken over" in late.health_error()
    assert late.heartbeats() == []
    late.close()
    end(tmp_path, launch)
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), Finished)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_without_a_coordinator_end_by_themselves(
    join: Join, tmp_path: Path, workers: int
) -> None:
    job = {"orphan_s": 1.0, "resources": Resources(cpu=1, workers=workers)}
    launch = make_launch(folder=str(tmp_path))
    listener = start(join(**job), launch)
    heard = len(listener.payloads_of(launch))
    listener.until(
        lambda now: len(now.payloads_of(launch)) > heard + 75
    )  # 1.5 s: not while there is a coordinator
    listener.executor.process.signal(signal.SIGKILL)
    watcher = join()
    assert names_of(watcher, tmp_path)
    until(lambda: not names_of(watcher, tmp_path))
    pid = listener.payloads_of(launch, Started)[0].pid
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_an_idle_worker_of_a_living_coordinator_is_no_orphan(join: Join, tmp_path: Path) -> None:
    listener = Listener(join(orphan_s=1.0))
    listener.executor.adopt(1, {})
    first, second = launches(tmp_path, 2)
    end(tmp_path, first, second)
    listener.run(first)
    idle_until_s = time.monotonic() + 2.0
    while time.monotonic() < idle_until_s:
        listener.executor.slots()
        listener.once(0.1)
    listener.run(second)
    assert (
        listener.payloads_of(first, Started)[0].pid == listener.payloads_of(second, Started)[0].pid
    )


def test_a_frozen_worker_sends_no_heartbeat_and_its_slot_is_free_when_it_is_killed(
    join: Join, tmp_path: Path
) -> None:
    """Fault 14, as the executor sees it."""
    frozen, other = launches(tmp_path, 2)
    listener = start(join(resources=Resources(cpu=CPUS / 2)), frozen, other)
    assert set(listener.executor.heartbeats()) == {frozen.attempt, other.attempt}
    os.kill(listener.payloads_of(frozen, Started)[0].pid, signal.SIGSTOP)

    def alive_for_a_while() -> set[AttemptId]:
        listener.executor.heartbeats()
        until_s = time.monotonic() + 2 * TIMEOUTS.poll_s
        while time.monotonic() < until_s:
            listener.once(0.1)
        return set(listener.executor.heartbeats())

    until(lambda: alive_for_a_while() == {other.attempt})
    listener.executor.kill(frozen.attempt)
    listener.until_ended(frozen)
    again = replace(frozen, attempt=AttemptId(frozen.attempt.trial_id, 2))
    listener.executor.launch(again)
    listener.until(lambda heard: heard.has(again, Reported))
    assert listener.running() == 2


@pytest.mark.slow
def test_a_gang_that_is_taken_over_still_has_its_other_bundles(join: Join, tmp_path: Path) -> None:
    job = {"entrypoint": "detached:gang", "resources": Resources(cpu=1, workers=2)}
    launch = make_launch(folder=str(tmp_path))
    listener = start(join(**job), launch)
    listener.executor.process.signal(signal.SIGKILL)
    listener.take_over(join(**job), token=2)
    end(tmp_path, launch)
    listener.until_ended(launch)
    assert listener.outcome(launch) == Finished({"loss": 7.0})
    listener.executor.close()
    watcher = join()
    until(lambda: not names_of(watcher, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["node", "preempted"])
def test_a_lost_node_is_distinguished_from_a_preempted_one(
    join: Join, cluster: Elsewhere, tmp_path: Path, kind: str
) -> None:
    """Fault 15, as the executor sees it; of an attempt that was taken over."""
    node = cluster.call("add_node", 1, {kind: 1.0})
    job = {"resources": Resources(cpu=1, custom={kind: 1})}
    launch = make_launch(folder=str(tmp_path))
    listener = start(join(**job), launch)
    listener.executor.leave()
    listener.take_over(join(**job), token=2)
    heard = len(listener.payloads_of(launch))
    listener.until(lambda now: len(now.payloads_of(launch)) > heard)
    if kind == "preempted":
        cluster.call("drain", node)
    cluster.call("remove_node", node)
    listener.until_ended(launch)
    assert listener.outcome(launch).kind == kind


def test_queued_attempts_are_adopted_too_and_begin_in_turn(join: Join, tmp_path: Path) -> None:
    """There is no coordinator when the attempt before it ends."""
    (first,) = running = launches(tmp_path, 1)
    second = replace(make_launch(1, folder=str(tmp_path)), parallelism=1)
    listener = start(join(), *(replace(launch, parallelism=1) for launch in running))
    listener.executor.launch(second)
    listener.until(
        lambda heard: len(heard.payloads_of(first)) > 20
    )  # it has reached the worker by then
    listener.events[second.attempt]
    listener.executor.process.signal(signal.SIGKILL)
    end(tmp_path, first)
    until((tmp_path / "runs-1").exists)
    listener.take_over(join(), token=2)
    end(tmp_path, second)
    listener.until_ended(first, second)
    for launch in (first, second):
        steps = [report.step for report in listener.payloads_of(launch, Reported)]
        assert steps == list(range(len(steps)))
        assert (tmp_path / f"runs-{launch.trial_number}").read_text() == "run\n"
