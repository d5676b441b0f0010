"""The Executor whose workers are agents behind HTTP. Launches and events are rows.

The server that an agent reaches writes its events; this executor, in the process of the
coordinator, reads them. So the two may be different processes, and either may die. While the
database is away, commands are kept and committed later: each is stored once. Belongs to one thread.
Imports no Ray.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

from tunesvc.db.agents.agent_offers import (
    AgentOffers,
    LiveAgent,
    Offer,
    OfferChanges,
    OfferedJob,
    study_id_of,
)
from tunesvc.db.engine.database import Database
from tunesvc.db.notifications import Listener
from tunesvc.errors import DatabaseUnavailable, UnsatisfiableRequest
from tunesvc.execution.agents import wire
from tunesvc.execution.attempt.checkpoint_places import open_checkpoints
from tunesvc.execution.attempt.checkpoints import CheckpointSaver
from tunesvc.execution.executor import (
    AttemptId,
    Capacity,
    Checkpointed,
    Event,
    Job,
    Launch,
    Lost,
    NodeInfo,
    Outcome,
    Payload,
    Reported,
    StoppedEarly,
)
from tunesvc.spec import ParamValue
from tunesvc.util.clock import SystemClock

LEASE_S = 30.0
"""Duration of an agent's lease without a heartbeat."""
HANDOVER_S = 0.2
"""Idle time of an agent between two attempts, with a server nearby."""
CHECK_S = 1.0
"""Interval of looking for expired leases, and of reading events without a notification."""
GAP_S = 5.0
"""Time without a look at the leases after which all start again."""

_NO_LIMIT = 2**31 - 1
_SUPERSEDED = "another coordinator has taken over the study's agents"
_EXPIRED = Lost("its agent sent no heartbeat: its lease ran out", "stalled")
_NEVER_BEGAN = Lost("its agent took it, but never began it", "gone")
_GONE = Lost("no agent has it", "gone")


@dataclass(slots=True)
class _Pending:
    """Commands that are not committed yet."""

    launches: dict[AttemptId, Launch] = field(default_factory=dict)
    stops: set[AttemptId] = field(default_factory=set)
    kills: set[AttemptId] = field(default_factory=set)
    answers: list[tuple[AttemptId, str, ParamValue]] = field(default_factory=list)
    recorded: dict[AttemptId, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Offered:
    """An attempt that was offered, here or by an earlier coordinator."""

    attempt: AttemptId
    key: str
    trial_number: int
    kept: tuple[str, ...]
    """Checkpoints that stay in any case."""
    delivered: int = 0
    """Number of the last event delivered."""
    acknowledged: int = 0
    """Number of the last event recorded."""
    is_finished: bool = False
    """True if its outcome was delivered."""
    checkpoints: CheckpointSaver | None = None
    """Its checkpoints on the server's disk; None before the first one."""
    unrecorded: dict[int, str] = field(default_factory=dict)
    """Number of an event -> the checkpoint that it reports."""
    values: dict[int, float] = field(default_factory=dict)
    """Reported values by step, of which the best checkpoint is chosen."""

    @property
    def is_recorded(self) -> bool:
        """True if all its events are recorded, the outcome included."""
        return self.is_finished and self.acknowledged >= self.delivered


class AgentExecutor:
    """Runs the attempts of one job on agents. See `Executor`."""

    handover_s = HANDOVER_S

    def __init__(self, job: Job, database: Database, *, lease_s: float = LEASE_S) -> None:
        """Prepare to offer the job's launches. Agents hear of it with the first one.

        Args:
            job: the attempts' job. Its key is that of a study.
            database: of the study.
            lease_s: duration of an agent's lease without a heartbeat.
        """
        message = wire.dump_job(job)
        offered = OfferedJob(wire.digest_of_job(message), message, lease_s)
        self._job = job
        self._study_id = study_id_of(database, job.key)
        self._offers = AgentOffers(database, self._study_id, offered)
        self._clock = SystemClock()
        self._token = 0
        self._adopted: dict[AttemptId, int] | None = None
        """Cursors of the attempts to adopt; None once that is done."""
        self._pending = _Pending()
        self._parallelism = _NO_LIMIT
        self._known: dict[AttemptId, _Offered] = {}
        self._ready: list[Event] = []
        self._live: dict[str, bool] = {}
        self._agents: Sequence[LiveAgent] = ()
        self._checked_s = -math.inf
        self._listener: Listener | None = None
        self._error = ""
        self._is_superseded = self._is_closed = False

    def warm_up(self) -> None:
        """Tell agents the job before the first launch, unless a coordinator has the study."""
        with self._watched():
            self._offers.commit(self._token, OfferChanges())

    def offered(self, attempts: Collection[AttemptId]) -> Collection[AttemptId]:
        """Return those of these attempts that were offered to agents.

        Raises:
            DatabaseUnavailable: nothing is known now.
        """
        return {AttemptId(*one) for one in self._offers.offered(attempts)}

    # --- the protocol ---------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """Return the resources of all agents that were seen lately."""
        nodes = tuple(self._node(agent) for agent in self._read_agents())
        return Capacity(
            nodes=len(nodes),
            cpu=sum(node.total.get("CPU", 0.0) for node in nodes),
            gpu=sum(node.total.get("GPU", 0.0) for node in nodes),
            memory=int(sum(node.total.get("memory", 0.0) for node in nodes)),
            by_node=nodes,
        )

    def slots(self) -> int:
        """Return the number of attempts that the agents run at a time, at least 1.

        Raises:
            UnsatisfiableRequest: a trial needs several workers, which agents have not.
        """
        if self._job.resources.workers > 1:
            raise UnsatisfiableRequest(
                f"`resources: {{workers: {self._job.resources.workers}}}` needs Ray: an agent runs "
                "each trial in one process. Leave `workers` out, or `agents`"
            )
        return max(1, sum(agent.slots for agent in self._read_agents()))

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Adopt attempts, and act under a fencing token. See `Executor.adopt`."""
        self._token = token
        self._adopted = dict(cursors)
        self._flush()

    def heartbeats(self) -> Collection[AttemptId]:
        """Return the attempts that wait for an agent, or whose lease has not run out.

        All of them while the database is away.
        """
        unfinished = [known for known in self._known.values() if not known.is_finished]
        if not self._error:
            expired = {key for key, is_expired in self._live.items() if is_expired}
            unfinished = [known for known in unfinished if known.key not in expired]
        return [known.attempt for known in unfinished]

    def health_error(self) -> str:
        """Return why no launch can be offered now. Empty if healthy."""
        return _SUPERSEDED if self._is_superseded else self._error

    def launch(self, launch: Launch) -> None:
        """Offer an attempt to the agents."""
        known = _Offered(launch.attempt, str(uuid4()), launch.trial_number, _kept(launch))
        self._known[launch.attempt] = known
        self._pending.launches[launch.attempt] = launch
        self._parallelism = launch.parallelism or _NO_LIMIT
        self._flush()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return events not delivered yet. Waits up to `timeout_s` for the first."""
        deadline_s = self._clock.now() + timeout_s
        self._step()
        while not self._ready and (left_s := deadline_s - self._clock.now()) > 0:
            self._wait(min(left_s, CHECK_S))
            self._step()
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the database forget recorded events, and delete checkpoints that are not kept."""
        for attempt, cursor in cursors.items():
            known = self._known.get(attempt)
            if known is None or cursor <= known.acknowledged:
                continue
            known.acknowledged = cursor
            self._pending.recorded[attempt] = cursor
            self._forget_checkpoints(known)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Send the value that an attempt has asked for."""
        if not isinstance(value, bytes):
            self._pending.answers.append((attempt, name, value))
            self._flush()

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop. One that no agent has ends at once."""
        self._pending.stops.add(attempt)
        self._flush()

    def kill(self, attempt: AttemptId) -> None:
        """Revoke the attempt's lease. Its agent kills it as soon as it learns of that."""
        self._pending.kills.add(attempt)
        self._flush()

    def limit_workers(self, most: int | None) -> None:
        """Do nothing: idle agents hold no part of a cluster."""

    def close(self) -> None:
        """Revoke the leases of all attempts. Repeatable."""
        if not self._is_closed and not self._is_superseded:
            with suppress(DatabaseUnavailable):
                self._offers.end_all(self._token)
        self.leave()

    def leave(self) -> None:
        """Stop listening. Agents continue with what they have, and may take what is offered."""
        self._is_closed = True
        self._known.clear()
        self._ready.clear()
        self._drop_listener()

    # --- rows -----------------------------------------------------------------------------------

    def _step(self) -> None:
        """Commit what is pending, and read what is new."""
        if self._is_closed or self._is_superseded:
            return
        with self._watched():
            self._adopt()
            self._commit()
            self._check_leases()
            self._receive()

    def _flush(self) -> None:
        """Commit what is pending now: launches and stops are urgent."""
        if not self._is_closed and not self._is_superseded:
            with self._watched():
                self._adopt()
                self._commit()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Keep what is pending while the database is away."""
        try:
            yield
        except DatabaseUnavailable as error:
            self._error = f"the database cannot be reached ({error}); agents are waited for"
            self._checked_s = -math.inf
        else:
            self._error = ""

    def _adopt(self) -> None:
        if self._adopted is None:
            return
        found = self._offers.adopt(self._token, self._adopted)
        if found is None:
            self._is_superseded = True
            return
        missing, self._adopted = self._adopted, None
        for stored in found:
            attempt = AttemptId(stored.trial_id, stored.attempt)
            cursor = missing[attempt]
            if stored.last_seq > cursor or not stored.is_over:
                del missing[attempt]
                launch = wire.load_launch(stored.launch)
                number, kept = launch.trial_number, _kept(launch)
                known = _Offered(attempt, stored.key, number, kept, cursor, cursor)
                self._known[attempt] = known
        for attempt, cursor in missing.items():
            self._ready.append(Event(attempt, cursor + 1, _GONE))

    def _commit(self) -> None:
        if self._is_superseded or not (changes := self._changes()):
            return
        if self._offers.commit(self._token, changes):
            finished = [known for known in self._known.values() if known.is_recorded]
            for known in finished:
                del self._known[known.attempt]
            self._pending = _Pending()
        else:
            self._is_superseded = True

    def _changes(self) -> OfferChanges:
        """Return what is pending, about attempts that are known."""
        keys = {attempt: known.key for attempt, known in self._known.items()}
        pending = self._pending
        stopped, killed = wire.dump_payload(StoppedEarly()), wire.dump_payload(Lost("killed"))
        return OfferChanges(
            [
                Offer(keys[attempt], *attempt, wire.dump_launch(launch))
                for attempt, launch in pending.launches.items()
            ],
            self._parallelism,
            {keys[attempt]: stopped for attempt in pending.stops if attempt in keys},
            {keys[attempt]: killed for attempt in pending.kills if attempt in keys},
            [
                (keys[attempt], name, value)
                for attempt, name, value in pending.answers
                if attempt in keys
            ],
            {keys[one]: cursor for one, cursor in pending.recorded.items() if one in keys},
        )

    def _check_leases(self) -> None:
        """Revoke leases that have run out, unless agents had no chance to renew them."""
        now = self._clock.now()
        if now - self._checked_s < CHECK_S or self._is_superseded:
            return
        if now - self._checked_s > GAP_S:
            self._offers.renew()
        self._live = self._offers.live()
        if any(self._live.values()):
            self._offers.expire(wire.dump_payload(_EXPIRED), wire.dump_payload(_NEVER_BEGAN))
        self._checked_s = now

    def _receive(self) -> None:
        by_key = {known.key: known for known in self._known.values() if not known.is_finished}
        if not by_key or self._is_superseded:
            return
        cursors = {key: known.delivered for key, known in by_key.items()}
        for key, seq, message in self._offers.events(cursors):
            known = by_key[key]
            if seq == known.delivered + 1 and not known.is_finished:
                self._deliver(known, seq, wire.load_payload(message))

    def _deliver(self, known: _Offered, seq: int, payload: Payload) -> None:
        known.delivered = seq
        known.is_finished = isinstance(payload, Outcome)
        if isinstance(payload, Reported):
            value = payload.metrics.get(self._job.metrics[0])
            if value is not None:
                known.values[payload.step] = value
        elif isinstance(payload, Checkpointed):
            known.unrecorded[seq] = payload.path
        self._ready.append(Event(known.attempt, seq, payload))

    def _forget_checkpoints(self, known: _Offered) -> None:
        recorded = [seq for seq in known.unrecorded if seq <= known.acknowledged]
        for seq in sorted(recorded):
            checkpoints = known.checkpoints or open_checkpoints(
                self._job, known.trial_number, known.attempt.number
            )
            known.checkpoints = checkpoints
            for step, value in known.values.items():
                checkpoints.note(step, value)
            known.values.clear()
            checkpoints.forget_before(known.unrecorded.pop(seq), known.kept)

    # --- agents ---------------------------------------------------------------------------------

    def _read_agents(self) -> Sequence[LiveAgent]:
        if not self._is_closed:
            with self._watched():
                self._agents = self._offers.agents()
        return self._agents

    def _node(self, agent: LiveAgent) -> NodeInfo:
        used = {
            "CPU": self._job.resources.cpu * agent.leased,
            "GPU": self._job.resources.gpu * agent.leased,
        }
        free = {
            name: max(0.0, amount - used.get(name, 0.0)) for name, amount in agent.total.items()
        }
        return NodeInfo(f"agent-{agent.agent_id}", agent.name, agent.name, agent.total, free)

    # --- notifications --------------------------------------------------------------------------

    def _wait(self, timeout_s: float) -> None:
        """Wait for a notification of events; without a connection just wait."""
        if self._listener is None:
            with suppress(DatabaseUnavailable):
                self._listener = self._offers.listen()
                return  # what came before it listened is read now
        if self._listener is None:
            time.sleep(timeout_s)
            return
        deadline_s = self._clock.now() + timeout_s
        while (left_s := deadline_s - self._clock.now()) > 0:
            if self._study_id in self._listener.wait(left_s):
                return
            if self._listener.is_lost:
                self._drop_listener()
                return

    def _drop_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()


def _kept(launch: Launch) -> tuple[str, ...]:
    return () if launch.stretch is None else launch.stretch.kept
