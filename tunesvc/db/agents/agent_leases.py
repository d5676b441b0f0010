"""The agents' side of the queue: take launches, keep their leases, send events.

Every call of an agent carries its lease's fencing token. The row is locked first, so that a call
comes either before the lease is revoked or after, and is refused then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesvc.db import notifications
from tunesvc.db.agents.agent_messages import (
    OUTCOMES,
    QUESTION,
    AgentEvent,
    AgentJob,
    AgentOrders,
    AgentPoll,
    Answered,
    HeldLease,
    LeasedLaunch,
    LeaseStatus,
)
from tunesvc.db.engine import json_numbers
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import LeaseRefused
from tunesvc.util.characters import storable


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease with what it is for."""

    token: int
    study_id: int
    trial_id: int
    attempt: int
    launch: Mapping[str, Any]
    job: Mapping[str, Any]
    lease_s: float


class AgentLeases:
    """Leases of launches. Any thread may use it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- agents ---------------------------------------------------------------------------------

    def register(
        self, study_id: int, name: str, user: str = "", total: Mapping[str, float] | None = None
    ) -> int:
        """Add an agent, and return its id.

        Args:
            study_id: the study that it serves.
            name: its host and process, or a person.
            user: owner of the token that it used.
            total: its resources, by Ray's names; none for one that asks for a single trial.
        """
        amounts = json_numbers.dump(total or {})
        values = {"study": study_id, "name": storable(name), "user": user, "total": amounts}
        with translate_unavailable(), self._database.engine.begin() as connection:
            return int(connection.execute(_REGISTER, values).scalar_one())

    def study_of(self, agent_id: int) -> int | None:
        """Return the study that an agent serves."""
        return self._scalar(_STUDY_OF_AGENT, {"agent": agent_id})

    def end(self, agent_id: int, reason: str) -> None:
        """Record that an agent has ended. Its leases are lost at once. Repeatable."""
        with translate_unavailable(), self._database.engine.begin() as connection:
            study = connection.execute(
                _END, {"agent": agent_id, "reason": storable(reason)}
            ).scalar()
            connection.execute(_LAPSE, {"agent": agent_id})
            if study is not None:
                notifications.notify(connection, study, notifications.AGENT_EVENTS)

    def forget(self, agent_id: int) -> None:
        """Delete an agent that has taken nothing. Repeatable."""
        with translate_unavailable(), self._database.engine.begin() as connection:
            connection.execute(_FORGET, {"agent": agent_id})

    def poll(self, agent_id: int, poll: AgentPoll, lease_s: float | None = None) -> AgentOrders:
        """Renew an agent's leases, take launches for its free slots, and return what is new.

        Args:
            agent_id: the agent.
            poll: what the agent has.
            lease_s: duration of new leases, in place of the study's.

        Raises:
            LeaseRefused: the study was deleted, or the agent has ended.
        """
        values = {"agent": agent_id, "slots": poll.slots}
        with translate_unavailable(), self._database.engine.begin() as connection:
            seen = connection.execute(_SEEN, values).one_or_none()
            if seen is None:
                raise LeaseRefused("this agent has ended, or its study was deleted: start another")
            held = {"agent": agent_id, "tokens": [held.token for held in poll.held]}
            connection.execute(_RENEW, held)
            job = connection.execute(_JOB, {"study": seen.study_id}).one_or_none()
            rows = connection.execute(_OF_AGENT, held).all()
            if job is not None and poll.takes and poll.job in (None, job.digest):
                rows = [*rows, *_take(connection, agent_id, seen.study_id, poll, rows, lease_s)]
        return _orders(seen.state, job, rows, poll)

    def snapshot_of(self, study_id: int) -> str | None:
        """Return the digest of the folder that a study was submitted with, if it has one."""
        with translate_unavailable():
            rows = self._database.rows(_SNAPSHOT, {"study": study_id})
        return rows[0].snapshot if rows else None

    def job_of(self, study_id: int) -> Mapping[str, Any] | None:
        """Return the job of a study's launches; None if there were none yet."""
        with translate_unavailable():
            rows = self._database.rows(_JOB, {"study": study_id})
        return rows[0].job if rows else None

    # --- a lease --------------------------------------------------------------------------------

    def find(self, token: int) -> LeaseRecord:
        """Return a lease that its agent still has.

        Raises:
            LeaseRefused: it was lost.
        """
        with translate_unavailable():
            rows = self._database.rows(_FIND, {"token": token})
        if not rows:
            raise LeaseRefused(_LOST)
        return LeaseRecord(*rows[0])

    def study_of_lease(self, token: int) -> int | None:
        """Return the study of a launch, whether or not its lease was lost."""
        return self._scalar(_STUDY_OF_LEASE, {"token": token})

    def heartbeat(self, token: int) -> LeaseStatus:
        """Renew a lease.

        Raises:
            LeaseRefused: it was lost.
        """
        return self.append(token, ())

    def append(self, token: int, events: Sequence[AgentEvent]) -> LeaseStatus:
        """Add events to those that the coordinator will record, and renew the lease.

        Events that have arrived before are left out, so a call may be repeated. One with number 0
        follows the last one. An outcome ends the lease.

        Raises:
            LeaseRefused: the lease was lost. Nothing is added.
        """
        with translate_unavailable(), self._database.engine.begin() as connection:
            row = connection.execute(_LOCK, {"token": token}).one_or_none()
            if row is None or row.state == "revoked":
                raise LeaseRefused(_LOST)
            new = [event for event in events if not event.number or event.number > row.received]
            if row.state == "ended" and new:
                raise LeaseRefused(_OVER)
            if row.state == "leased":
                self._append(connection, row, new)
        return _status(row, 0)

    def _append(self, connection: sa.Connection, row: Any, new: Sequence[AgentEvent]) -> None:
        payloads = [event.payload for event in new]
        values = [
            {"launch": row.launch_id, "seq": seq, "payload": json.dumps(payload)}
            for seq, payload in enumerate(payloads, row.last_seq + 1)
        ]
        if values:
            connection.execute(_INSERT_EVENT, values)
        is_over = any(payload["type"] in OUTCOMES for payload in payloads)
        questions = [payload for payload in payloads if payload["type"] == QUESTION]
        changes = {
            "launch": row.launch_id,
            "received": (new[-1].number or row.received + 1) if new else row.received,
            "last_seq": row.last_seq + len(new),
            "state": "ended" if is_over else "leased",
            "question": json.dumps(questions[-1]) if questions else None,
        }
        connection.execute(_APPENDED, changes)
        if new:
            notifications.notify(connection, row.study_id, notifications.AGENT_EVENTS)
        if is_over:  # its agent has a slot for another launch
            connection.execute(_END_ASKER, changes)
            notifications.notify(connection, row.agent_id or 0, notifications.AGENT_CALLS)

    def _scalar(self, query: sa.TextClause, values: Mapping[str, Any]) -> int | None:
        with translate_unavailable():
            rows = self._database.rows(query, values)
        return int(rows[0][0]) if rows else None


_LOST = (
    "this attempt's lease was lost: it ran out without a heartbeat, or the attempt was ended."
    " Drop the attempt; its trial runs again elsewhere if the study needs it"
)
_OVER = "this attempt's outcome was told already: ask for another trial"


def _take(
    connection: sa.Connection,
    agent_id: int,
    study_id: int,
    poll: AgentPoll,
    leased: Sequence[Any],
    lease_s: float | None,
) -> Sequence[Any]:
    """Lease offered launches, as many as are free and may run at a time."""
    count = poll.slots - sum(row.state == "leased" for row in leased)
    values = {"study": study_id, "agent": agent_id, "count": count, "lease": lease_s}
    if count <= 0 or not connection.execute(_IS_OFFERED, values).scalar_one():
        return ()
    # one taker at a time, so that no more are leased than may run
    limit = connection.execute(_LOCK_JOB, values).scalar()
    if limit is not None:
        running = connection.execute(_RUNNING, values).scalar_one()
        values["count"] = max(0, min(count, limit - running))
    return connection.execute(_TAKE, values).all()


def _orders(state: str, job: Any, rows: Iterable[Any], poll: AgentPoll) -> AgentOrders:
    held = {lease.token: lease for lease in poll.held}
    known = {row.launch_id: row for row in rows}
    leased = {token: row for token, row in known.items() if row.state == "leased"}
    new_job = None
    if job is not None and poll.job not in (None, job.digest):
        new_job = AgentJob(job.digest, job.job, job.lease_s, job.snapshot)
    return AgentOrders(
        state,
        new_job,
        tuple(
            LeasedLaunch(token, row.trial_id, row.attempt, row.payload, row.lease_s)
            for token, row in leased.items()
            if token not in held
        ),
        tuple(_status(leased[token], held[token].answers) for token in held if token in leased),
        tuple(token for token in held if token not in known),
    )


def _status(row: Any, known: int) -> LeaseStatus:
    answers = [
        Answered(answer["number"], name, answer["value"])
        for name, answer in row.answers.items()
        if answer["number"] > known
    ]
    return LeaseStatus(
        row.launch_id,
        row.stop,
        tuple(sorted(answers, key=lambda answer: answer.number)),
        row.lease_s,
    )


def is_new(orders: AgentOrders, held: Sequence[HeldLease]) -> bool:
    """Return True if an agent does not know all of this yet."""
    known = {lease.token: lease for lease in held}
    return bool(
        orders.launches
        or orders.lost
        or orders.job
        or any(one.answers or one.stop != known[one.token].stop for one in orders.held)
    )


_REGISTER = sa.text("""
    INSERT INTO agents (study_id, name, user_name, total)
    VALUES (:study, :name, :user, CAST(:total AS jsonb)) RETURNING agent_id
""")
_STUDY_OF_AGENT = sa.text("SELECT study_id FROM agents WHERE agent_id = :agent")
_STUDY_OF_LEASE = sa.text("SELECT study_id FROM agent_launches WHERE launch_id = :token")
_END = sa.text("""
    UPDATE agents SET ended_at = now(), reason = :reason
    WHERE agent_id = :agent AND ended_at IS NULL RETURNING study_id
""")
_END_ASKER = sa.text("""
    UPDATE agents SET ended_at = now() FROM agent_launches launch
    WHERE launch.launch_id = :launch AND agents.agent_id = launch.agent_id AND agents.total = '{}'
""")
_FORGET = sa.text("""
    DELETE FROM agents WHERE agent_id = :agent
      AND NOT EXISTS (SELECT FROM agent_launches WHERE agent_id = :agent)
""")
_LAPSE = sa.text("""
    UPDATE agent_launches SET expires_at = now(), lease_s = 0
    WHERE agent_id = :agent AND state = 'leased'
""")
_SEEN = sa.text("""
    UPDATE agents SET seen_at = now(), slots = :slots FROM studies
    WHERE agent_id = :agent AND agents.ended_at IS NULL AND studies.study_id = agents.study_id
    RETURNING agents.study_id, studies.state
""")
_RENEW = sa.text("""
    UPDATE agent_launches SET expires_at = now() + make_interval(secs => lease_s)
    WHERE launch_id = ANY(CAST(:tokens AS bigint[])) AND agent_id = :agent AND state = 'leased'
""")
_JOB = sa.text("""
    SELECT job.digest, job.job, job.lease_s, submissions.snapshot
    FROM agent_jobs job LEFT JOIN submissions USING (study_id) WHERE job.study_id = :study
""")
_OF_AGENT = sa.text("""
    SELECT launch_id, trial_id, attempt, payload, lease_s, stop, answers, state
    FROM agent_launches
    WHERE agent_id = :agent
      AND (state = 'leased' OR launch_id = ANY(CAST(:tokens AS bigint[])) AND state = 'ended')
    ORDER BY launch_id
""")
_SNAPSHOT = sa.text("SELECT snapshot FROM submissions WHERE study_id = :study")
_IS_OFFERED = sa.text("""
    SELECT EXISTS (SELECT FROM agent_launches WHERE study_id = :study AND state = 'offered')
""")
_LOCK_JOB = sa.text("SELECT parallelism FROM agent_jobs WHERE study_id = :study FOR UPDATE")
_RUNNING = sa.text("""
    SELECT count(*) FROM agent_launches WHERE study_id = :study AND state = 'leased'
""")
_TAKE = sa.text("""
    UPDATE agent_launches launch
    SET state = 'leased', agent_id = :agent, lease_s = coalesce(:lease, job.lease_s),
        expires_at = now() + make_interval(secs => coalesce(:lease, job.lease_s))
    FROM agent_jobs job
    WHERE job.study_id = launch.study_id AND launch.launch_id IN (
        SELECT launch_id FROM agent_launches WHERE study_id = :study AND state = 'offered'
        ORDER BY launch_id LIMIT :count FOR UPDATE SKIP LOCKED)
    RETURNING launch.launch_id, launch.trial_id, launch.attempt, launch.payload, launch.lease_s,
              launch.stop, launch.answers, launch.state
""")
_FIND = sa.text("""
    SELECT launch.launch_id, launch.study_id, launch.trial_id, launch.attempt, launch.payload,
           job.job, launch.lease_s
    FROM agent_launches launch JOIN agent_jobs job USING (study_id)
    WHERE launch.launch_id = :token AND launch.state = 'leased'
""")
_LOCK = sa.text("""
    SELECT launch_id, study_id, agent_id, state, received, last_seq, stop, answers, lease_s
    FROM agent_launches WHERE launch_id = :token AND state <> 'offered' FOR UPDATE
""")
_INSERT_EVENT = sa.text("""
    INSERT INTO agent_events (launch_id, seq, payload)
    VALUES (:launch, :seq, CAST(:payload AS json))
""")
_APPENDED = sa.text("""
    UPDATE agent_launches
    SET received = :received, last_seq = :last_seq, state = CAST(:state AS text),
        question = coalesce(CAST(:question AS json), question),
        ended_at = CASE WHEN CAST(:state AS text) = 'ended' THEN now() END,
        expires_at = now() + make_interval(secs => lease_s)
    WHERE launch_id = :launch
""")
