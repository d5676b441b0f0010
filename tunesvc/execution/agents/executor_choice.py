"""Chooses the executor of a study: Ray, agents, or both."""

from __future__ import annotations

from tunesvc.db.engine.database import Database
from tunesvc.execution.agents.agent_executor import LEASE_S, AgentExecutor
from tunesvc.execution.agents.composite_executor import CompositeExecutor
from tunesvc.execution.driver.ray_pool import ExecutorMaker
from tunesvc.execution.executor import Executor, Job
from tunesvc.spec import StudySpec


def with_agents(database: Database, make: ExecutorMaker) -> ExecutorMaker:
    """Return a maker that obeys the key `agents` of a study; `make` is for the others and Ray."""

    def make_executor(job: Job, spec: StudySpec) -> Executor:
        if spec.agents is None:
            return make(job, spec)
        lease_s = min(LEASE_S, spec.limits.stall)
        agents = AgentExecutor(job, database, lease_s=lease_s)
        return agents if spec.agents == "only" else CompositeExecutor(make(job, spec), agents)

    return make_executor
