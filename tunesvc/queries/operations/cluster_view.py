"""The cluster as coordinators see it: nodes, who holds what on them, and the queue with why each waits.

The dashboard has no part in any cluster. Each coordinator records what its own has every few seconds, so this is what
they know: nodes of several studies on one cluster are told once, by their key. All ages are by the database's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import number_of
from tunesvc.db.schema.states import AttemptState, StudyState
from tunesvc.execution.executor import NodeInfo
from tunesvc.execution.ray.ray_resources import why_waits
from tunesvc.queries.sql import state_shown
from tunesvc.spec import Resources
from tunesvc.util import formatting

STALE_S = 30.0
"""Coordinators tell of their nodes every 10 s: one that was not told of for so long may be gone."""
FORGOTTEN_S = 600.0
"""What nobody has told of for so long is left out."""
QUEUED = 200
"""Attempts and enqueued trials that are listed, at most."""
_LIVE = (AttemptState.OPENED, AttemptState.RUNNING)
_WANTED = (StudyState.CREATED, StudyState.RUNNING, StudyState.PAUSED)


@dataclass(frozen=True, slots=True)
class RunningAttemptRow:
    """An attempt that runs."""

    study_id: int
    study: str
    trial_number: int
    attempt: int
    address: str | None
    """Of its node."""
    devices: tuple[str, ...]
    cpus: float
    gpus: float
    since: datetime


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A machine."""

    key: str
    address: str
    host: str
    total: Mapping[str, float]
    """Amounts by Ray's names."""
    free: Mapping[str, float]
    seen_at: datetime
    age_s: float
    studies: tuple[str, ...]
    """Whose coordinators see it."""
    held: tuple[RunningAttemptRow, ...]

    @property
    def is_stale(self) -> bool:
        """Whether it may be gone."""
        return self.age_s > STALE_S

    def used(self, name: str) -> float:
        """How much of a resource is held, by whomever."""
        return max(0.0, self.total.get(name, 0.0) - self.free.get(name, 0.0))


@dataclass(frozen=True, slots=True)
class QueuedRow:
    """An attempt, or trials that have none yet, and what they wait for."""

    study_id: int
    study: str
    trials: tuple[int, ...]
    count: int
    """How many trials; `trials` names the first."""
    since: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class CoordinatorRow:
    """Who runs a study."""

    study_id: int
    study: str
    owner: str
    """`host:pid`."""
    left_s: float
    """Until its lease runs out, unless it renews it."""
    running: int
    waiting: int
    """Attempts."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All that is known."""

    nodes: tuple[NodeRow, ...]
    elsewhere: tuple[RunningAttemptRow, ...]
    """What runs on a node that nobody has told of."""
    waiting: tuple[QueuedRow, ...]
    coordinators: tuple[CoordinatorRow, ...]

    def total(self, name: str) -> tuple[float, float]:
        """How much of a resource is held, and how much there is."""
        fresh = [node for node in self.nodes if not node.is_stale]
        return sum(node.used(name) for node in fresh), sum(node.total.get(name, 0.0) for node in fresh)


def get_cluster(database: Database, among: Collection[int] | None = None) -> ClusterView:
    """Nodes, their users, the queue, and who runs what.

    Args:
        database: where to read.
        among: tell of these studies only; of all when None. What others hold is told of nodes all the same.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    with translate_unavailable(), database.engine.connect() as connection:
        seen = connection.execute(_seen()).all()
        live = [row for row in connection.execute(live_attempts()) if among is None or row.study_id in among]
        coordinators = tuple(row for row in _coordinators(connection, live) if among is None or row.study_id in among)
        attended = {row.study_id for row in coordinators}
        held = [(row, _held(row)) for row in live if row.state == AttemptState.RUNNING]
        nodes, placed = _nodes(seen, [one for _, one in held], among)
        own: dict[int, list[NodeInfo]] = {}
        for row in seen:
            if row.age_s <= STALE_S:
                own.setdefault(row.study_id, []).append(
                    NodeInfo(row.key, row.address, row.host, row.total, row.free),
                )
        waiting = [
            _opened(row, own.get(row.study_id, []), attended) for row in live if row.state == AttemptState.OPENED
        ]
        waiting += [_queued(row, attended) for row in connection.execute(_queue(among))]
        elsewhere = tuple(one for _, one in held if one not in placed)
        return ClusterView(nodes, elsewhere, tuple(waiting[:QUEUED]), coordinators)


def live_attempts() -> sa.Select[Any]:
    """Every attempt that is not over, of all studies, the oldest first."""
    attempts, studies = tables.attempts, tables.studies
    return (
        sa.select(
            attempts.c.trial_id,
            attempts.c.number,
            attempts.c.state,
            attempts.c.node,
            attempts.c.devices,
            attempts.c.cpus,
            attempts.c.gpus,
            attempts.c.opened_at,
            attempts.c.started_at,
            studies.c.study_id,
            studies.c.name,
            studies.c.spec["resources"].label("resources"),
            _has_program(),
        )
        .select_from(attempts)
        .join(
            studies,
            studies.c.study_id == attempts.c.trial_id.bitwise_rshift(sa.literal_column("32")),
        )
        .where(attempts.c.state.in_(_LIVE))
        .order_by(attempts.c.opened_at, attempts.c.trial_id)
    )


def _seen() -> sa.Select[Any]:
    nodes, studies = tables.nodes, tables.studies
    age = sa.cast(sa.extract("epoch", sa.func.now() - nodes.c.seen_at), sa.Double)
    return (
        sa.select(nodes, studies.c.name, age.label("age_s"))
        .select_from(nodes)
        .join(studies, studies.c.study_id == nodes.c.study_id)
        .where(nodes.c.seen_at > sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, FORGOTTEN_S))
        .order_by(nodes.c.host, nodes.c.address, nodes.c.key, nodes.c.seen_at.desc())
    )


def _nodes(
    seen: Sequence[Any],
    held: Sequence[RunningAttemptRow],
    among: Collection[int] | None,
) -> tuple[tuple[NodeRow, ...], set[RunningAttemptRow]]:
    """Each node as it was told of last, and the attempts that were found on one."""
    by_key: dict[str, list[Any]] = {}
    for row in seen:
        by_key.setdefault(row.key, []).append(row)
    placed: set[RunningAttemptRow] = set()
    found = []
    # those that are alive first: what runs is on them, not on what the machine was before
    for key, rows in sorted(
        by_key.items(),
        key=lambda one: min(row.age_s for row in one[1]) > STALE_S,
    ):
        ids = {row.study_id for row in rows}
        here = tuple(
            one for one in held if one.study_id in ids and one.address == rows[0].address and one not in placed
        )
        placed.update(here)
        newest = max(rows, key=lambda row: row.seen_at)
        names = tuple(
            sorted({row.name for row in rows if among is None or row.study_id in among}),
        )
        found.append(
            NodeRow(
                key,
                newest.address,
                newest.host,
                newest.total,
                newest.free,
                newest.seen_at,
                newest.age_s,
                names,
                here,
            )
        )
    return _without_ghosts(found), placed


def _without_ghosts(nodes: Sequence[NodeRow]) -> tuple[NodeRow, ...]:
    """One row per machine, unless several clusters on it are alive: each local Ray gives its machine a new key."""
    youngest: dict[tuple[str, str], NodeRow] = {}
    for node in sorted(nodes, key=lambda node: node.age_s):
        youngest.setdefault((node.host, node.address), node)
    return tuple(node for node in nodes if not node.is_stale or node.held or youngest[node.host, node.address] is node)


def _held(row: Any) -> RunningAttemptRow:
    return RunningAttemptRow(
        row.study_id,
        row.name,
        number_of(row.trial_id),
        row.number,
        row.node,
        tuple(row.devices or ()),
        row.cpus,
        row.gpus,
        row.started_at or row.opened_at,
    )


def _opened(row: Any, nodes: Sequence[NodeInfo], attended: set[int]) -> QueuedRow:
    if row.study_id not in attended:
        why = f"no process runs the study; {_continues(row)}"
    else:
        why = why_waits(nodes, Resources.model_validate(row.resources or {}))
    return QueuedRow(
        row.study_id,
        row.name,
        (number_of(row.trial_id),),
        1,
        row.opened_at,
        why,
    )


def _queue(among: Collection[int] | None) -> sa.Select[Any]:
    """Trials that wait for an attempt, by study: enqueued ones, and those that are to be run again."""
    trials, studies, attempts = tables.trials, tables.studies, tables.attempts
    served = sa.exists().where(
        attempts.c.trial_id == trials.c.trial_id,
        attempts.c.state.in_(_LIVE),
    )
    found = (
        sa.select(
            trials.c.state,
            sa.func.count().label("count"),
            sa.func.array_agg(trials.c.number).label("numbers"),
        )
        .where(trials.c.study_id == studies.c.study_id)
        .where(
            sa.or_(
                trials.c.state == "waiting",
                sa.and_(state_shown().in_(["running", "interrupted"]), ~served),
            )
        )
        .group_by(trials.c.state)
        .correlate(studies)
        .lateral("found")
    )
    return (
        sa.select(
            studies.c.study_id,
            studies.c.name,
            studies.c.state.label("study_state"),
            _has_program(),
            found,
        )
        .select_from(studies)
        .join(found, sa.true())
        .where(
            studies.c.state.in_(_WANTED),
            sa.true() if among is None else studies.c.study_id.in_(among),
        )
        .order_by(studies.c.study_id)
        .limit(QUEUED)
    )


def _has_program() -> sa.Label[bool]:
    spec = tables.studies.c.spec
    named = sa.or_(
        spec["entrypoint"].as_string().is_not(None),
        spec["command"].as_string().is_not(None),
    )
    return named.label("has_program")


def _continues(row: Any) -> str:
    return f"`{formatting.resume_command(row.name, has_program=row.has_program)}` continues it"


def _queued(row: Any, attended: set[int]) -> QueuedRow:
    if row.study_id in attended:
        why = "enqueued: next as soon as one that runs is over" if row.state == "waiting" else "to be run again"
    elif row.study_state == StudyState.PAUSED:
        why = f"the study is paused; {_continues(row)}"
    else:
        why = f"no process runs the study; {_continues(row)}"
    return QueuedRow(
        row.study_id,
        row.name,
        tuple(sorted(row.numbers)[:8]),
        row.count,
        None,
        why,
    )


def _coordinators(
    connection: sa.Connection,
    live: Sequence[Any],
) -> tuple[CoordinatorRow, ...]:
    leases, studies = tables.leases, tables.studies
    left = sa.cast(sa.extract("epoch", leases.c.expires_at - sa.func.now()), sa.Double)
    query = (
        sa.select(studies.c.study_id, studies.c.name, leases.c.owner, left.label("left_s"))
        .select_from(leases)
        .join(studies, studies.c.study_id == leases.c.study_id)
        .where(leases.c.expires_at > sa.func.now())
        .order_by(studies.c.name)
    )
    counted = [(row.study_id, row.state) for row in live]
    return tuple(
        CoordinatorRow(
            row.study_id,
            row.name,
            row.owner,
            row.left_s,
            counted.count((row.study_id, AttemptState.RUNNING)),
            counted.count((row.study_id, AttemptState.OPENED)),
        )
        for row in connection.execute(query)
    )
