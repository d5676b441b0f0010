"""One suite for every executor: the behaviour that a coordinator may rely on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.direct_agents import DirectServer, agent_in_thread
from tests.support.jobs_and_events import OBJECTIVES, PATIENCE_S, Listener, make_job, make_launch
from tests.support.ray_fixtures import address_of_local_ray
from tests.support.specs import make_spec
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.execution.agents.agent import Agent, AgentOptions
from tunesvc.execution.agents.agent_executor import AgentExecutor
from tunesvc.execution.driver.driver_executor import DriverExecutor
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.executor import (
    Executor,
    Failed,
    Finished,
    Launch,
    Lost,
    Outcome,
    Payload,
    Reported,
    Started,
    StoppedEarly,
    SuggestRequested,
)
from tunesvc.execution.inline_executor import InlineExecutor, Steps
from tunesvc.spec import Environment, Resources
from tunesvc.testing.simulated_executor import SimulatedCluster, SimulatedExecutor, VirtualClock
from tunesvc.trial import Trial

SLOTS = 2
ASKED = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}'


class Harness(Protocol):
    """Makes executors of two slots, on one cluster where clusters outlive executors, whose attempts
    follow the `behaviour` in their parameters.

    `reports` reports steps 0, 1, 2 and returns 0.5; `patient` reports until it is stopped; `deaf`
    does so and ignores the request; `fails` raises. With `asking`, attempts ask for `x` and return
    it.
    """

    def __call__(self, *, asking: bool = False) -> Executor: ...


@pytest.fixture
def closed_afterwards() -> Iterator[Callable[[Executor], Executor]]:
    made: list[Executor] = []

    def keep(executor: Executor) -> Executor:
        made.append(executor)
        return executor

    yield keep
    for executor in made:
        executor.close()


@pytest.fixture(
    params=[
        "simulated",
        "inline",
        "ray",
        "process",
        pytest.param("agents", marks=pytest.mark.slow),
        pytest.param("process_on_ray", marks=pytest.mark.slow),
        pytest.param("isolated", marks=pytest.mark.slow),
    ]
)
def harness(
    request: pytest.FixtureRequest, closed_afterwards: Callable[[Executor], Executor]
) -> Harness:
    make: Callable[..., Executor] = request.getfixturevalue(f"{request.param}_executor")
    return lambda *, asking=False: closed_afterwards(make(asking))


@pytest.fixture
def simulated_executor() -> Callable[[bool], Executor]:
    clusters = [
        SimulatedCluster(script, clock=VirtualClock(), slots=SLOTS) for script in (_act, _ask)
    ]
    return lambda asking: SimulatedExecutor(cluster=clusters[asking])


@pytest.fixture
def inline_executor() -> Callable[[bool], Executor]:
    """Threads of this process that run generators."""

    def make(asking: bool) -> Executor:
        if asking:
            pytest.skip("its objectives get their parameters beforehand")
        executor = InlineExecutor(_act_in_steps, ("loss",), slots=SLOTS)
        for _ in range(SLOTS):
            threading.Thread(target=executor.work, daemon=True).start()
        return executor

    return make


@pytest.fixture
def ray_executor(local_ray: None, tmp_path: Path) -> Callable[[bool], Executor]:
    return partial(_on_ray, tmp_path, Environment())


@pytest.fixture
def isolated_executor(local_ray: None, tmp_path: Path) -> Callable[[bool], Executor]:
    """Each attempt in a process of its own."""
    return partial(_on_ray, tmp_path, Environment(isolation="process"))


def _on_ray(folder: Path, environment: Environment, asking: bool) -> Executor:
    from tunesvc.execution.ray.ray_executor import RayExecutor

    return RayExecutor(
        make_job(
            folder,
            source=str(OBJECTIVES),
            entrypoint="behaviours:ask" if asking else "behaviours:act",
            environment=environment,
            define_by_run=asking,
            resources=Resources(cpu=1, gpu=1),
        )
    )


@pytest.fixture
def process_executor(tmp_path: Path) -> Callable[[bool], Executor]:
    """A driver process without Ray, for all that lies between an executor and its coordinator."""
    return lambda asking: DriverExecutor(
        make_job(tmp_path, define_by_run=asking),
        RayLauncher(driver_module="tests.support.driver_without_ray"),
    )


@pytest.fixture
def process_on_ray_executor(local_ray: None, tmp_path: Path) -> Callable[[bool], Executor]:
    """The driver process on the session's Ray, which it joins as it would a cluster."""
    return lambda asking: DriverExecutor(
        make_job(
            tmp_path,
            source=str(OBJECTIVES),
            entrypoint="behaviours:ask" if asking else "behaviours:act",
            define_by_run=asking,
            resources=Resources(cpu=1, gpu=1),
        ),
        RayLauncher(address_of_local_ray()),
    )


@pytest.fixture
def agents_executor(database: Database, tmp_path: Path) -> Iterator[Callable[[bool], Executor]]:
    """An agent of two CPUs, with only the queue in the database between."""
    with database.engine.begin() as connection:
        record = study_records.create(connection, make_spec(), None, None)
    server = DirectServer(database, record.study_id)
    options = AgentOptions("agent", cpus=SLOTS, folder=OBJECTIVES)
    with ExitStack() as stack:

        def make(asking: bool) -> Executor:
            job = make_job(
                tmp_path,
                key=record.key,
                source=str(OBJECTIVES),
                entrypoint="behaviours:ask" if asking else "behaviours:act",
                define_by_run=asking,
            )
            executor = AgentExecutor(job, database)
            executor.warm_up()
            if not started:
                started.append(stack.enter_context(agent_in_thread(server, options)))
            deadline_s = time.monotonic() + PATIENCE_S
            while executor.slots() != SLOTS:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            return executor

        started: list[Agent] = []
        yield make


def _act(launch: Launch) -> Iterable[tuple[float, Payload]]:
    behaviour = launch.params["behaviour"]
    if behaviour == "fails":
        yield 1.0, Failed("error", "ValueError: broken")
    elif behaviour == "deaf":
        yield 1e9, Finished()
    for step in range(3) if behaviour == "reports" else count():
        yield 1.0, Reported(step, {"loss": float(step)})
    yield 1.0, Finished({"loss": 0.5})


def _act_in_steps(config: Mapping[str, Any], *, trial: Trial) -> Steps:
    behaviour = config["behaviour"]
    if behaviour == "fails":
        raise ValueError("broken")
    if behaviour == "deaf":
        time.sleep(0.5)
    for step in range(3) if behaviour == "reports" else count():
        yield {"loss": float(step)}
    return 0.5


def _ask(launch: Launch) -> Iterable[tuple[float, Payload]]:
    yield 1.0, SuggestRequested("x", ASKED)
    yield 1.0, Finished({"loss": 0.25})


def test_an_attempt_starts_then_reports_in_order_then_ends(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="reports")
    listener.run(launch)
    assert isinstance(listener.payloads_of(launch)[0], Started)
    assert [report.step for report in listener.payloads_of(launch, Reported)] == [0, 1, 2]
    assert listener.outcome(launch) == Finished({"loss": 0.5})


def test_nothing_follows_the_outcome(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="reports")
    said = list(listener.run(launch))
    listener.executor.stop(launch.attempt)
    listener.executor.kill(launch.attempt)
    listener.once(0.2)
    assert listener.payloads_of(launch) == said
    assert len(listener.payloads_of(launch, Outcome)) == 1


def test_listening_ends_after_the_time_out_when_nothing_happens(harness: Harness) -> None:
    assert list(harness().events(0.01)) == []


def test_an_exception_is_a_failure_that_names_it(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="fails")
    listener.run(launch)
    assert listener.outcome(launch).kind == "error"
    assert listener.outcome(launch).message == "ValueError: broken"


def test_a_stop_makes_the_attempt_yield_at_its_next_report(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="patient")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    listener.executor.stop(launch.attempt)
    listener.until_ended(launch)
    assert listener.outcome(launch) == StoppedEarly()


def test_an_attempt_that_ignores_the_stop_is_killed_and_lost(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="deaf")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Started))
    listener.executor.stop(launch.attempt)
    listener.once(0.2)
    assert not listener.has(launch, Outcome)
    listener.executor.kill(launch.attempt)
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), Lost)


def test_killing_twice_loses_the_attempt_once(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="patient")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Started))
    listener.executor.kill(launch.attempt)
    listener.executor.kill(launch.attempt)
    listener.until_ended(launch)
    listener.executor.kill(launch.attempt)
    listener.once(0.2)
    assert len(listener.payloads_of(launch, Outcome)) == 1


def test_what_was_never_launched_can_be_stopped_killed_answered_and_acknowledged(
    harness: Harness,
) -> None:
    executor, unknown = harness(), make_launch(99).attempt
    executor.stop(unknown)
    executor.kill(unknown)
    executor.answer(unknown, "x", 1)
    executor.acknowledge({unknown: 7})
    assert list(executor.events(0.01)) == []


def test_attempts_beyond_the_slots_wait_for_one_to_end(harness: Harness) -> None:
    listener = Listener(harness())
    assert listener.executor.slots() == SLOTS
    launches = [make_launch(number, behaviour="patient") for number in range(SLOTS + 1)]
    for launch in launches:
        listener.executor.launch(launch)
    listener.until(lambda heard: heard.running() == SLOTS)
    listener.once(0.2)
    *first, last = launches
    assert not listener.has(last, Started)
    listener.executor.stop(first[0].attempt)
    listener.until(lambda heard: heard.has(last, Started))
    assert listener.has(first[0], Outcome)
    assert listener.running() == SLOTS


def test_no_more_run_than_may_and_the_rest_follow(harness: Harness) -> None:
    listener = Listener(harness())
    patient, *quick = [
        replace(make_launch(number, behaviour="reports" if number else "patient"), parallelism=1)
        for number in range(4)
    ]
    for launch in (patient, *quick):
        listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(patient, Reported))
    assert not any(listener.has(launch, Started) for launch in quick)
    assert {launch.attempt for launch in quick} <= set(listener.executor.heartbeats())
    listener.executor.stop(patient.attempt)
    listener.until_ended(*quick)
    assert [listener.outcome(launch) for launch in quick] == [Finished({"loss": 0.5})] * 3


def test_an_attempt_that_waits_can_be_stopped_or_killed(harness: Harness) -> None:
    listener = Listener(harness())
    *first, stopped, killed = [
        make_launch(number, behaviour="patient") for number in range(SLOTS + 2)
    ]
    for launch in (*first, stopped, killed):
        listener.executor.launch(launch)
    listener.until(lambda heard: heard.running() == SLOTS)
    listener.executor.stop(stopped.attempt)
    listener.executor.kill(killed.attempt)
    listener.until_ended(stopped, killed)
    assert listener.payloads_of(stopped) == [StoppedEarly()]
    assert [type(payload) for payload in listener.payloads_of(killed)] == [Lost]


def test_a_slot_is_free_again_after_every_kind_of_end(harness: Harness) -> None:
    listener = Listener(harness())
    for number, behaviour in enumerate(["reports", "fails", "reports", "fails", "reports"]):
        listener.run(make_launch(number, behaviour=behaviour))
    killed = make_launch(8, behaviour="deaf")
    listener.executor.launch(killed)
    listener.until(lambda heard: heard.has(killed, Started))
    listener.executor.kill(killed.attempt)
    listener.until_ended(killed)
    last = make_launch(9, behaviour="reports")
    listener.run(last)
    assert isinstance(listener.outcome(last), Finished)


def test_attempts_of_one_trial_are_distinguished(harness: Harness) -> None:
    listener = Listener(harness())
    first, second = (
        make_launch(attempt=1, behaviour="fails"),
        make_launch(attempt=2, behaviour="reports"),
    )
    listener.run(first)
    listener.run(second)
    assert isinstance(listener.outcome(first), Failed)
    assert isinstance(listener.outcome(second), Finished)


def test_an_attempt_that_asks_continues_when_it_is_answered(harness: Harness) -> None:
    listener, launch = Listener(harness(asking=True)), make_launch()
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, SuggestRequested))
    assert listener.payloads_of(launch, SuggestRequested) == [SuggestRequested("x", ASKED)]
    assert not listener.has(launch, Outcome)
    listener.executor.answer(launch.attempt, "x", 0.25)
    listener.until_ended(launch)
    assert listener.outcome(launch) == Finished({"loss": 0.25})


def test_closing_ends_what_runs_and_may_be_repeated(harness: Harness) -> None:
    launches = [make_launch(number, behaviour="patient") for number in range(SLOTS)]
    for _ in range(2):  # the second finds all the room that there is
        listener = Listener(harness())
        for launch in launches:
            listener.executor.launch(launch)
        listener.until(lambda heard: heard.running() == SLOTS)
        listener.executor.close()
        listener.executor.close()


def test_capacity_says_what_there_is(harness: Harness) -> None:
    capacity = harness().capacity()
    assert capacity.nodes == 1
    assert capacity.cpu >= SLOTS
    assert str(capacity).startswith("1 node, ")


def test_capacity_tells_of_each_node_what_is_free(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="patient")
    (idle,) = listener.executor.capacity().by_node
    assert idle.total["CPU"] == listener.executor.capacity().cpu
    listener.executor.launch(launch)
    (started,) = listener.until(lambda heard: heard.has(launch, Started)).payloads_of(
        launch, Started
    )
    assert started.node == idle.address
    listener.until(
        lambda heard: heard.executor.capacity().by_node[0].free.get("CPU", 0) < idle.total["CPU"]
    )


def test_what_runs_nowhere_is_lost_after_what_was_heard_of_it_and_without_blame(
    harness: Harness,
) -> None:
    executor, unknown = harness(), make_launch(98).attempt
    executor.adopt(1, {unknown: 7})
    (event,) = executor.events(60.0)
    assert (event.attempt, event.seq) == (unknown, 8)
    assert isinstance(event.payload, Lost)
    assert event.payload.kind == "gone"


def test_after_an_adoption_of_nothing_attempts_run_as_ever(harness: Harness) -> None:
    listener, launch = Listener(harness()), make_launch(behaviour="reports")
    listener.executor.adopt(1, {})
    listener.run(launch)
    assert listener.outcome(launch) == Finished({"loss": 0.5})


def test_what_runs_and_what_waits_is_alive_and_what_ended_is_not(harness: Harness) -> None:
    listener = Listener(harness())
    assert list(listener.executor.heartbeats()) == []
    launches = [make_launch(number, behaviour="patient") for number in range(SLOTS + 1)]
    for launch in launches:
        listener.executor.launch(launch)
    listener.until(lambda heard: heard.running() == SLOTS)
    signs = set(listener.executor.heartbeats())
    assert signs == {launch.attempt for launch in launches}
    for launch in launches:
        listener.executor.kill(launch.attempt)
    listener.until_ended(*launches)
    listener.executor.heartbeats()
    assert list(listener.executor.heartbeats()) == []


def test_an_executor_that_can_work_has_no_trouble(harness: Harness) -> None:
    assert harness().health_error() == ""


def test_left_attempts_are_adopted_or_lost_and_leaving_may_be_repeated_and_followed_by_closing(
    harness: Harness,
) -> None:
    """`Listener` checks that no number is missing."""
    listener, launch = Listener(harness()), make_launch(behaviour="patient")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Started))
    listener.executor.leave()
    listener.executor.leave()
    listener.executor.close()
    listener.take_over(harness(), token=2)
    listener.executor.stop(launch.attempt)
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), StoppedEarly | Lost)
