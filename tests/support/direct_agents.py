"""Agents with only the queue between them and the coordinator: an `AgentServer` without HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunesvc.artifacts.checkpoint_archive import pack, unpack
from tunesvc.db.agents.agent_leases import is_new
from tunesvc.db.agents.agent_messages import AgentEvent, AgentOrders, AgentPoll, LeaseStatus
from tunesvc.db.engine.database import Database
from tunesvc.errors import DatabaseUnavailable, ServerAway
from tunesvc.execution.agents.agent import Agent, AgentOptions
from tunesvc.execution.agents.agent_desk import AgentDesk


class DirectServer:
    """Implements `AgentServer` for one study."""

    def __init__(self, database: Database, study_id: int) -> None:
        self.desk = AgentDesk(database)
        self._study_id = study_id
        self.is_away = False

    def register(self, name: str, total: Mapping[str, float]) -> int:
        return self.desk.leases.register(self._study_id, name, "tester", total)

    def poll(self, agent_id: int, poll: AgentPoll, wait_s: float) -> AgentOrders:
        until = time.monotonic() + wait_s
        while True:
            self._reach()
            try:
                orders = self.desk.poll(agent_id, poll)
            except DatabaseUnavailable as error:
                raise ServerAway(str(error)) from None
            if is_new(orders, poll.held) or time.monotonic() > until:
                return orders
            time.sleep(0.02)

    def send(self, token: int, events: Sequence[AgentEvent]) -> LeaseStatus:
        self._reach()
        return self.desk.send(token, events)

    def upload(self, token: int, checkpoint: Path) -> str:
        self._reach()
        return self.desk.upload(token, checkpoint.parent.name, pack(checkpoint))

    def download(self, token: int, folder: Path) -> Path | None:
        self._reach()
        found = self.desk.restored(token)
        return found and unpack(found.archive(), folder / found.checkpoint)

    def snapshot(self, digest: str, folder: Path) -> None:
        raise NotImplementedError

    def end(self, agent_id: int, reason: str) -> None:
        self._reach()
        self.desk.leases.end(agent_id, reason)

    def _reach(self) -> None:
        if self.is_away:
            raise ServerAway("the server is away")


@contextmanager
def agent_in_thread(server: DirectServer, options: AgentOptions) -> Iterator[Agent]:
    """Run an agent in a thread, until the end of the block."""
    said: list[str] = []
    agent = Agent(server, options, said.append)
    thread = threading.Thread(target=agent.run, name="agent", daemon=True)
    thread.start()
    try:
        yield agent
    finally:
        agent.end("the test is over")
        thread.join(20)
        assert not thread.is_alive(), said
