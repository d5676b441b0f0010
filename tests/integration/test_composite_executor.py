"""Two executors as one: simulated slots beside agents that nobody runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tests.support.jobs_and_events import Listener, make_job, make_launch
from tests.support.specs import make_spec
from tunesvc.db import study_records
from tunesvc.db.agents.agent_leases import AgentLeases
from tunesvc.db.agents.agent_messages import AgentEvent, AgentPoll, LeasedLaunch
from tunesvc.db.engine.database import Database
from tunesvc.execution.agents import wire
from tunesvc.execution.agents.agent_executor import AgentExecutor
from tunesvc.execution.agents.composite_executor import CompositeExecutor
from tunesvc.execution.executor import Finished, Launch, Lost, Payload, Reported, StoppedEarly
from tunesvc.testing.simulated_executor import SimulatedCluster, SimulatedExecutor, VirtualClock


def patient(launch: Launch) -> Iterable[tuple[float, Payload]]:
    for step in count():
        yield 1.0, Reported(step, {"loss": 1.0})


class Both:
    """A simulated cluster of one slot, an agent of one slot, and executors on them."""

    def __init__(self, database: Database, folder: Path) -> None:
        with database.engine.begin() as connection:
            record = study_records.create(connection, make_spec(), None, None)
        self.job = make_job(folder, key=record.key)
        self.database = database
        self.cluster = SimulatedCluster(patient, clock=VirtualClock(), slots=1)
        self.leases = AgentLeases(database)
        self.agent_id = self.leases.register(record.study_id, "agent", total={"CPU": 1.0})
        AgentExecutor(self.job, database).warm_up()
        self.leases.poll(self.agent_id, AgentPoll(slots=1))

    def executor(self) -> CompositeExecutor:
        agents = AgentExecutor(self.job, self.database)
        return CompositeExecutor(SimulatedExecutor(cluster=self.cluster), agents)

    def take(self) -> LeasedLaunch | None:
        digest = wire.digest_of_job(wire.dump_job(self.job))
        poll = AgentPoll(slots=1, job=digest)
        return next(iter(self.leases.poll(self.agent_id, poll).launches), None)

    def finish(self, leased: LeasedLaunch) -> None:
        outcome = wire.dump_payload(Finished({"loss": 0.5}))
        self.leases.append(leased.token, [AgentEvent(0, outcome)])


@pytest.fixture
def both(database: Database, tmp_path: Path) -> Both:
    return Both(database, tmp_path)


def test_launches_go_where_a_slot_is_free_and_the_rest_wait(both: Both) -> None:
    executor = both.executor()
    assert executor.slots() == 2
    assert {node.host for node in executor.capacity().by_node} == {"simulated", "agent"}
    listener = Listener(executor)
    first, second, third = (make_launch(number) for number in range(3))
    for launch in (first, second, third):
        executor.launch(launch)
    assert both.cluster.running == [first.attempt]
    leased = both.take()
    assert leased is not None
    assert leased.trial_id == second.attempt.trial_id
    assert {one.attempt for one in (first, second, third)} <= set(executor.heartbeats())
    both.finish(leased)
    listener.until_ended(second)
    listener.once(0.0)
    leased = both.take()
    assert leased is not None
    assert leased.trial_id == third.attempt.trial_id
    executor.close()


def test_no_more_run_than_may_on_both_together(both: Both) -> None:
    executor = both.executor()
    listener = Listener(executor)
    first, second = (replace(make_launch(number), parallelism=1) for number in range(2))
    executor.launch(first)
    executor.launch(second)
    listener.once(0.0)
    assert both.take() is None
    executor.stop(second.attempt)
    listener.until_ended(second)
    assert listener.payloads_of(second) == [StoppedEarly()]
    executor.close()


def test_each_adopts_its_own(both: Both) -> None:
    executor = both.executor()
    executor.adopt(1, {})
    first, second, gone = (make_launch(number) for number in range(3))
    executor.launch(first)
    executor.launch(second)
    assert both.take() is not None
    executor.leave()
    executor = both.executor()
    listener = Listener(executor)
    executor.adopt(2, {first.attempt: 0, second.attempt: 0, gone.attempt: 0})
    listener.until_ended(gone)
    assert isinstance(listener.outcome(gone), Lost)
    assert both.cluster.running == [first.attempt]
    leased = both.take()
    assert leased is not None
    both.finish(leased)
    listener.until_ended(second)
    executor.stop(first.attempt)
    listener.until_ended(first)
    assert listener.outcome(first) == StoppedEarly()
