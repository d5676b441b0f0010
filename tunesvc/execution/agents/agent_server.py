"""The server as an agent sees it. `agent_client` reaches it by HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tunesvc.db.agents.agent_messages import AgentEvent, AgentOrders, AgentPoll, LeaseStatus


class AgentServer(Protocol):
    """Calls of an agent to a server. Every call may be repeated. Any thread may use it.

    Raises:
        ServerAway: it does not answer for now.
        LeaseRefused: the lease that the call is about was lost, or the agent's study is gone.
        TuneError: anything else, which no repetition helps.
    """

    def register(self, name: str, total: Mapping[str, float]) -> int:
        """Add an agent to the study, and return its id."""
        ...

    def poll(self, agent_id: int, poll: AgentPoll, wait_s: float) -> AgentOrders:
        """Renew leases and take launches. Waits up to `wait_s` for something new."""
        ...

    def send(self, token: int, events: Sequence[AgentEvent]) -> LeaseStatus:
        """Send events of an attempt."""
        ...

    def upload(self, token: int, checkpoint: Path) -> str:
        """Copy a checkpoint, whose folder is named by `Checkpoints`; return the copy's path."""
        ...

    def download(self, token: int, folder: Path) -> Path | None:
        """Copy the checkpoint that the attempt starts from into a folder.

        Returns:
            Its path there; None if it is gone.
        """
        ...

    def snapshot(self, digest: str, folder: Path) -> None:
        """Unpack a snapshot of the study's folder into a folder."""
        ...

    def data(self, digest: str, path: Path) -> None:
        """Copy a part of the study's data to a path, where it appears whole or not at all."""
        ...

    def end(self, agent_id: int, reason: str) -> None:
        """Record that the agent has ended."""
        ...
