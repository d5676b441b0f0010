"""The coordinator's side of the queue: offer launches, receive their events, revoke leases.

One with a lower token than the study's last coordinator changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tunesvc.db import notifications
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.notifications import Listener

EVENTS_MAX = 5_000
"""Most events read at a time."""
AGENT_S = 60.0
"""An agent that was not seen for so long does not count as capacity."""

Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """A launch to offer."""

    key: str
    trial_id: int
    attempt: int
    launch: Payload


@dataclass(slots=True)
class OfferChanges:
    """Changes to commit together. Committing them twice is the same as once."""

    offers: list[Offer] = field(default_factory=list)
    parallelism: int | None = None
    """Most launches that may be leased at a time."""
    stops: dict[str, Payload] = field(default_factory=dict)
    """Launch -> its last event, in case that no agent has it yet."""
    kills: dict[str, Payload] = field(default_factory=dict)
    """Launch -> its last event."""
    answers: list[tuple[str, str, Any]] = field(default_factory=list)
    """Launch, parameter and value."""
    recorded: dict[str, int] = field(default_factory=dict)
    """Launch -> its last event that is recorded."""

    def __bool__(self) -> bool:
        return bool(self.offers or self.stops or self.kills or self.answers or self.recorded)


@dataclass(frozen=True, slots=True)
class OfferedJob:
    """Settings that all launches have in common."""

    digest: str
    job: Payload
    lease_s: float


@dataclass(frozen=True, slots=True)
class StoredOffer:
    """A launch as an earlier coordinator left it."""

    key: str
    trial_id: int
    attempt: int
    last_seq: int
    is_over: bool
    launch: Payload


@dataclass(frozen=True, slots=True)
class LiveAgent:
    """An agent that was seen lately."""

    agent_id: int
    name: str
    total: Mapping[str, float]
    slots: int
    leased: int
    """Number of attempts that it runs."""


class AgentOffers:
    """Launches of one study, as its coordinator offers them."""

    def __init__(self, database: Database, study_id: int, job: OfferedJob) -> None:
        self._database = database
        self._study_id = study_id
        self._job = job

    def adopt(
        self, token: int, attempts: Collection[tuple[int, int]]
    ) -> Sequence[StoredOffer] | None:
        """Take the study's launches over, keep these, and revoke all others.

        Their leases start again, because agents may not have reached a server. A question without
        an answer is asked again.

        Args:
            token: of the study's lease.
            attempts: trial and number of each attempt to keep.

        Returns:
            The launches found; None if a coordinator with a higher token has the study.
        """
        with translate_unavailable(), self._database.engine.begin() as connection:
            if not self._claim(connection, token, None):
                return None
            rows = connection.execute(_STORED, self._study).all()
            kept = [row for row in rows if (row.trial_id, row.attempt) in attempts]
            keys = [str(row.key) for row in kept]
            connection.execute(_REVOKE_OTHERS, {**self._study, "keys": keys})
            connection.execute(_FORGET_OLD, {**self._study, "keys": keys})
            connection.execute(_RENEW_ALL, self._study)
            connection.execute(_ASK_AGAIN, self._study)
            rows = connection.execute(_STORED, self._study).all()
            notifications.notify(connection, self._study_id, notifications.AGENT_LAUNCHES)
        return [
            StoredOffer(
                str(row.key),
                row.trial_id,
                row.attempt,
                row.last_seq,
                row.state in ("ended", "revoked"),
                row.payload,
            )
            for row in rows
            if str(row.key) in keys
        ]

    def offered(self, attempts: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return those of these attempts, trial and number, that were ever offered."""
        with translate_unavailable():
            rows = self._database.rows(_STORED, self._study)
        return {(row.trial_id, row.attempt) for row in rows} & set(attempts)

    def commit(self, token: int, changes: OfferChanges) -> bool:
        """Commit changes. Return False if a coordinator with a higher token has the study."""
        with translate_unavailable(), self._database.engine.begin() as connection:
            if not self._claim(connection, token, changes.parallelism):
                return False
            self._insert(connection, changes.offers)
            self._revoke(connection, changes.stops, ["offered"])
            called = self._stop(connection, list(changes.stops))
            called |= self._revoke(connection, changes.kills, ["offered", "leased"])
            called |= self._answer(connection, changes.answers)
            if changes.recorded:
                keys, seqs = list(changes.recorded), list(changes.recorded.values())
                connection.execute(_FORGET, {"keys": keys, "seqs": seqs})
            for agent_id in called:
                notifications.notify(connection, agent_id, notifications.AGENT_CALLS)
        return True

    def end_all(self, token: int) -> None:
        """Revoke all launches, and drop their events."""
        with translate_unavailable(), self._database.engine.begin() as connection:
            if self._claim(connection, token, None):
                for agent_id in connection.scalars(_HOLDERS, self._study).all():
                    notifications.notify(connection, agent_id, notifications.AGENT_CALLS)
                connection.execute(_REVOKE_OTHERS, {**self._study, "keys": []})

    def expire(self, lost: Payload, gone: Payload) -> None:
        """Revoke leases that have run out.

        Args:
            lost: their last event.
            gone: the last event of those of which nothing has arrived.
        """
        with translate_unavailable(), self._database.engine.begin() as connection:
            rows = connection.execute(_EXPIRE, self._study).all()
            self._add(connection, [(row, lost if row.received else gone) for row in rows])

    def renew(self) -> None:
        """Start all leases again: agents could not reach the database for a while."""
        with translate_unavailable(), self._database.engine.begin() as connection:
            connection.execute(_RENEW_ALL, self._study)

    def live(self) -> dict[str, bool]:
        """Return the launches that are offered or leased, each with whether its lease ran out."""
        with translate_unavailable():
            rows = self._database.rows(_LIVE, self._study)
        return {str(row.key): row.is_expired for row in rows}

    def events(self, cursors: Mapping[str, int]) -> list[tuple[str, int, Payload]]:
        """Return launch, number and payload of the events above these numbers, in order."""
        values = {"keys": list(cursors), "seqs": list(cursors.values()), "count": EVENTS_MAX}
        with translate_unavailable():
            rows = self._database.rows(_EVENTS, values)
        return [(str(row.key), row.seq, row.payload) for row in rows]

    def agents(self) -> list[LiveAgent]:
        """Return the agents that were seen lately."""
        with translate_unavailable():
            rows = self._database.rows(_AGENTS, {**self._study, "seconds": AGENT_S})
        return [LiveAgent(*row) for row in rows]

    def listen(self) -> Listener:
        """Return a listener for events."""
        with translate_unavailable():
            return Listener(self._database, notifications.AGENT_EVENTS)

    @property
    def _study(self) -> dict[str, Any]:
        return {"study": self._study_id}

    def _claim(self, connection: sa.Connection, token: int, parallelism: int | None) -> bool:
        """Write the job, unless a coordinator with a higher token has done so."""
        values = {
            **self._study,
            "token": token,
            "digest": self._job.digest,
            "job": json.dumps(self._job.job),
            "lease": self._job.lease_s,
            "parallelism": parallelism,
        }
        return connection.execute(_CLAIM, values).rowcount == 1

    def _insert(self, connection: sa.Connection, offers: Sequence[Offer]) -> None:
        if offers:
            connection.execute(
                _OFFER,
                [
                    {
                        **self._study,
                        "key": offer.key,
                        "trial": offer.trial_id,
                        "attempt": offer.attempt,
                        "payload": json.dumps(offer.launch),
                    }
                    for offer in offers
                ],
            )
            notifications.notify(connection, self._study_id, notifications.AGENT_LAUNCHES)

    def _stop(self, connection: sa.Connection, keys: Sequence[str]) -> set[int]:
        """Ask leased launches to stop; return their agents."""
        return set(connection.scalars(_STOP, {"keys": keys})) if keys else set()

    def _answer(
        self, connection: sa.Connection, answers: Sequence[tuple[str, str, Any]]
    ) -> set[int]:
        """Store answers; return the agents that wait for them."""
        called: set[int] = set()
        for key, name, value in answers:
            values = {"key": key, "name": name, "value": json.dumps(value)}
            called.update(connection.scalars(_ANSWER, values))
        return called

    def _revoke(
        self, connection: sa.Connection, last: Mapping[str, Payload], states: Sequence[str]
    ) -> set[int]:
        """Revoke launches, each with its last event; return their agents."""
        if not last:
            return set()
        rows = connection.execute(_REVOKE, {"keys": list(last), "states": states}).all()
        self._add(connection, [(row, last[str(row.key)]) for row in rows])
        return {row.agent_id for row in rows if row.agent_id is not None}

    def _add(self, connection: sa.Connection, events: Sequence[tuple[Any, Payload]]) -> None:
        if events:
            connection.execute(
                _ADD_EVENT,
                [
                    {"launch": row.launch_id, "seq": row.last_seq, "payload": json.dumps(payload)}
                    for row, payload in events
                ],
            )


def study_id_of(database: Database, key: str) -> int:
    """Return the study with this key."""
    with translate_unavailable():
        (row,) = database.rows(_STUDY_OF_KEY, {"key": key})
    return int(row.study_id)


_STUDY_OF_KEY = sa.text("SELECT study_id FROM studies WHERE key = CAST(:key AS uuid)")
_CLAIM = sa.text("""
    INSERT INTO agent_jobs AS job (study_id, token, digest, job, lease_s, parallelism)
    VALUES (:study, :token, :digest, CAST(:job AS json), :lease, :parallelism)
    ON CONFLICT (study_id) DO UPDATE SET token = :token, digest = :digest, lease_s = :lease,
        job = CASE WHEN job.digest = :digest THEN job.job ELSE excluded.job END,
        parallelism = coalesce(:parallelism, job.parallelism)
    WHERE job.token <= :token
""")
_STORED = sa.text("""
    SELECT DISTINCT ON (trial_id, attempt) key, trial_id, attempt, last_seq, state, payload
    FROM agent_launches WHERE study_id = :study ORDER BY trial_id, attempt, launch_id DESC
""")
_HOLDERS = sa.text("""
    SELECT DISTINCT agent_id FROM agent_launches
    WHERE study_id = :study AND state = 'leased' AND agent_id IS NOT NULL
""")
_REVOKE_OTHERS = sa.text("""
    WITH gone AS (
        UPDATE agent_launches SET state = 'revoked', ended_at = now()
        WHERE study_id = :study AND state IN ('offered', 'leased')
          AND key <> ALL(CAST(:keys AS uuid[]))
        RETURNING launch_id)
    DELETE FROM agent_events USING gone WHERE agent_events.launch_id = gone.launch_id
""")
_FORGET_OLD = sa.text("""
    DELETE FROM agent_launches
    WHERE study_id = :study AND ended_at < now() - interval '1 day'
      AND key <> ALL(CAST(:keys AS uuid[]))
""")
_RENEW_ALL = sa.text("""
    UPDATE agent_launches
    SET expires_at = greatest(expires_at, now() + make_interval(secs => lease_s))
    WHERE study_id = :study AND state = 'leased'
""")
_ASK_AGAIN = sa.text("""
    WITH asking AS (
        UPDATE agent_launches SET last_seq = last_seq + 1
        WHERE study_id = :study AND state = 'leased' AND question IS NOT NULL
        RETURNING launch_id, last_seq, question)
    INSERT INTO agent_events (launch_id, seq, payload) SELECT * FROM asking
""")
_OFFER = sa.text("""
    INSERT INTO agent_launches (key, study_id, trial_id, attempt, payload)
    VALUES (CAST(:key AS uuid), :study, :trial, :attempt, CAST(:payload AS json))
    ON CONFLICT (key) DO NOTHING
""")
_STOP = sa.text("""
    UPDATE agent_launches SET stop = true
    WHERE key = ANY(CAST(:keys AS uuid[])) AND state = 'leased' AND agent_id IS NOT NULL
    RETURNING agent_id
""")
_REVOKE = sa.text("""
    UPDATE agent_launches SET state = 'revoked', ended_at = now(), last_seq = last_seq + 1
    WHERE key = ANY(CAST(:keys AS uuid[])) AND state = ANY(CAST(:states AS text[]))
    RETURNING launch_id, key, last_seq, agent_id
""")
_EXPIRE = sa.text("""
    UPDATE agent_launches SET state = 'revoked', ended_at = now(), last_seq = last_seq + 1
    WHERE study_id = :study AND state = 'leased' AND expires_at <= now()
    RETURNING launch_id, key, last_seq, received
""")
_ADD_EVENT = sa.text("""
    INSERT INTO agent_events (launch_id, seq, payload)
    VALUES (:launch, :seq, CAST(:payload AS json))
""")
_ANSWER = sa.text("""
    UPDATE agent_launches SET question = NULL, answers = answers || jsonb_build_object(
        CAST(:name AS text), jsonb_build_object(
            'value', CAST(:value AS jsonb),
            'number', 1 + coalesce(
                (SELECT max((value->>'number')::int) FROM jsonb_each(answers)), 0)))
    WHERE key = CAST(:key AS uuid) AND state = 'leased'
      AND answers->CAST(:name AS text)->'value' IS DISTINCT FROM CAST(:value AS jsonb)
    RETURNING agent_id
""")
_FORGET = sa.text("""
    DELETE FROM agent_events event
    USING agent_launches launch,
          unnest(CAST(:keys AS uuid[]), CAST(:seqs AS bigint[])) AS recorded (key, seq)
    WHERE launch.key = recorded.key AND event.launch_id = launch.launch_id
      AND event.seq <= recorded.seq
""")
_LIVE = sa.text("""
    SELECT key, state = 'leased' AND expires_at <= now() AS is_expired FROM agent_launches
    WHERE study_id = :study AND state IN ('offered', 'leased')
""")
_EVENTS = sa.text("""
    SELECT launch.key, event.seq, event.payload
    FROM unnest(CAST(:keys AS uuid[]), CAST(:seqs AS bigint[])) AS known (key, seq)
    JOIN agent_launches launch USING (key)
    JOIN agent_events event ON event.launch_id = launch.launch_id AND event.seq > known.seq
    ORDER BY event.launch_id, event.seq LIMIT :count
""")
_AGENTS = sa.text("""
    SELECT agent.agent_id, agent.name, agent.total, agent.slots, work.leased
    FROM agents agent, LATERAL (
        SELECT count(*) AS leased FROM agent_launches
        WHERE agent_id = agent.agent_id AND state = 'leased') AS work
    WHERE agent.study_id = :study AND agent.ended_at IS NULL
      AND (work.leased > 0 OR agent.seen_at > now() - make_interval(secs => :seconds))
    ORDER BY agent.agent_id
""")
