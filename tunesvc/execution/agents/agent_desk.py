"""What a server does for agents, however they reach it: checks messages, and keeps checkpoints.

Routes of the API are thin around it. Any thread may use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunesvc.db.agents.agent_leases import AgentLeases, LeaseRecord
from tunesvc.db.agents.agent_messages import AgentEvent, AgentOrders, AgentPoll, LeaseStatus
from tunesvc.db.engine.database import Database
from tunesvc.errors import BadReport
from tunesvc.execution.agents import wire
from tunesvc.execution.agents.checkpoint_archive import pack, unpack
from tunesvc.execution.agents.wire import WireError
from tunesvc.execution.executor import Checkpointed, Finished, Payload, Reported
from tunesvc.trial import as_number, as_step

TEXT_MAX = 1_000_000
"""Most characters of an event as JSON."""
METRICS_MAX = 1_000
_CHECKPOINT = re.compile(r"attempt-(\d+)-(?:step-\d+|start)-\d+")


class AgentDesk:
    """Serves the agents of all studies of a database."""

    def __init__(self, database: Database) -> None:
        self.leases = AgentLeases(database)

    def poll(self, agent_id: int, poll: AgentPoll, lease_s: float | None = None) -> AgentOrders:
        """Renew leases, take launches and return what is new. Does not wait."""
        return self.leases.poll(agent_id, poll, lease_s)

    def send(self, token: int, events: Sequence[AgentEvent]) -> LeaseStatus:
        """Check and store events of an attempt.

        Raises:
            LeaseRefused: the lease was lost.
            WireError: an event cannot be understood; none is stored.
        """
        checked = [self._checked(token, event) for event in events]
        return self.leases.append(token, checked)

    def _checked(self, token: int, event: AgentEvent) -> AgentEvent:
        payload = wire.load_payload(event.payload)
        if isinstance(payload, Checkpointed):
            record = self.leases.find(token)
            if not Path(payload.path).resolve().is_relative_to(_folder(record)):
                raise WireError("Checkpointed: `path` is not what the upload has answered")
        return replace(event, payload=wire.dump_payload(checked(payload)))

    # --- checkpoints ----------------------------------------------------------------------------

    def upload(self, token: int, name: str, chunks: Iterable[bytes]) -> str:
        """Store a checkpoint and return its path, which its event then names.

        Args:
            token: the attempt's lease.
            name: name of the checkpoint's folder, as `Checkpoints` gives it.
            chunks: an archive, see `checkpoint_archive`.

        Raises:
            LeaseRefused: the lease was lost.
            WireError: the name or the archive is none of a checkpoint.
        """
        record = self.leases.find(token)
        match = _CHECKPOINT.fullmatch(name)
        if match is None or int(match[1]) != record.attempt:
            raise WireError(
                f"{name!r} is no checkpoint of attempt {record.attempt}:"
                f" name it like attempt-{record.attempt}-step-9-1"
            )
        try:
            path = unpack(chunks, _folder(record) / name)
        except OSError as error:
            raise WireError(f"the checkpoint cannot be stored: {error}") from None
        return str(path)

    def download(self, token: int) -> tuple[str, Iterator[bytes]] | None:
        """Return folder name and archive of the checkpoint that an attempt starts from.

        None if it starts from none, or if it is gone.

        Raises:
            LeaseRefused: the lease was lost.
        """
        record = self.leases.find(token)
        path = wire.load_launch(record.launch).checkpoint
        if path is None or not Path(path).exists():
            return None
        return Path(path).parent.name, pack(Path(path))


def checked(payload: Payload) -> Payload:
    """Return a payload whose numbers can be stored.

    Raises:
        WireError: they cannot.
    """
    try:
        if isinstance(payload, Reported):
            return Reported(as_step(payload.step), _metrics(payload.metrics))
        if isinstance(payload, Finished):
            return Finished(_metrics(payload.metrics))
    except BadReport as error:
        raise WireError(str(error)) from None
    return payload


def _metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    if len(metrics) > METRICS_MAX:
        raise WireError(f"a report has {len(metrics)} metrics; {METRICS_MAX} is the most")
    return {name: as_number(name, value) for name, value in metrics.items()}


def _folder(record: LeaseRecord) -> Path:
    """Return the folder of a trial's checkpoints on the server."""
    number = wire.load_launch(record.launch).trial_number
    return Path(wire.load_job(record.job).checkpoint_root).resolve() / str(number)
