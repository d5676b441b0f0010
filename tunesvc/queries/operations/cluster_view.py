"""The cluster as coordinators see it: nodes, attempts on them, and the queue with its reasons.

The dashboard is connected to no cluster. Each coordinator records the nodes of its cluster every
few seconds. A node that several studies share is one row, by its key. All ages are by the
database's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.schema import service_tables, tables
from tunesvc.db.schema.ids import number_of
from tunesvc.db.schema.states import AttemptState, StudyState
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.execution.executor import NodeInfo
from tunesvc.execution.ray.ray_resources import why_waits
from tunesvc.queries.rows import from_row
from tunesvc.queries.sql import LIVE, has_live_attempt, seconds, state_shown, study_key
from tunesvc.spec import Resources
from tunesvc.util import formatting

STALE_S = 30.0
"""Coordinators record their nodes every 10 s: a node not recorded for this long may be gone."""
FORGOTTEN_S = 600.0
"""Nodes not recorded for this long are left out."""
QUEUED_MAX = 200
"""Most queued attempts and trials that are listed."""
_UNFINISHED_STUDIES = (StudyState.CREATED, StudyState.RUNNING, StudyState.PAUSED)


@dataclass(frozen=True, slots=True)
class OccupancyRow:
    """A running attempt."""

    study_id: int
    study: str
    trial_number: int
    attempt: int
    address: str | None
    """Address of its node."""
    devices: tuple[str, ...]
    cpus: float
    gpus: float
    since: datetime
    workers: int = 1
    """Workers of its gang."""
    bundle_nodes: tuple[str, ...] = ()
    """Keys of the nodes of its gang's bundles. Empty without a gang."""
    workers_here: int = 1
    """Workers of its gang on the node that lists it; `cpus` and `gpus` are theirs."""

    def on_node(self, key: str) -> OccupancyRow:
        """Return the part of its gang that is on a node."""
        here = self.bundle_nodes.count(key)
        share = here / len(self.bundle_nodes)
        cpus, gpus = self.cpus * share, self.gpus * share
        return replace(self, cpus=cpus, gpus=gpus, workers_here=here)


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
    """Studies whose coordinators record it."""
    held: tuple[OccupancyRow, ...]
    """Attempts that run on it, of gangs the part that does."""

    @property
    def is_stale(self) -> bool:
        """True if it may be gone."""
        return self.age_s > STALE_S

    def used(self, name: str) -> float:
        """Return the used amount of a resource, including use by other programs."""
        return max(0.0, self.total.get(name, 0.0) - self.free.get(name, 0.0))


@dataclass(frozen=True, slots=True)
class QueuedRow:
    """A waiting attempt, or trials without one, with the reason."""

    study_id: int
    study: str
    trials: tuple[int, ...]
    count: int
    """Number of trials; `trials` contains the first ones."""
    since: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class CoordinatorRow:
    """Coordinator of a study."""

    study_id: int
    study: str
    owner: str
    """`host:pid`."""
    left_s: float
    """Time until its lease expires, unless it is renewed."""
    running: int
    """Number of running attempts."""
    waiting: int
    """Number of waiting attempts."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Nodes, attempts, queue and coordinators."""

    nodes: tuple[NodeRow, ...]
    elsewhere: tuple[OccupancyRow, ...]
    """Attempts that run on unknown nodes."""
    waiting: tuple[QueuedRow, ...]
    coordinators: tuple[CoordinatorRow, ...]

    def total(self, name: str) -> tuple[float, float]:
        """Return the used and the total amount of a resource on nodes that are not stale."""
        fresh = [node for node in self.nodes if not node.is_stale]
        used = sum(node.used(name) for node in fresh)
        return used, sum(node.total.get(name, 0.0) for node in fresh)


def get_cluster(database: Database, among: StudyScope = ALL_STUDIES) -> ClusterView:
    """Return nodes with their attempts, the queue, and the coordinators.

    Args:
        database: Database to read.
        among: Studies that the reader may view. Amounts in use always include others.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    with translate_unavailable(), database.engine.connect() as connection:
        node_rows = connection.execute(_select_nodes(among)).all()
        live = connection.execute(live_attempts().where(among.condition())).all()
        coordinators = _coordinators(connection, live, among)
        queue = connection.execute(_select_queue(among)).all()
    attended = {row.study_id for row in coordinators}
    running = []
    waiting = []
    fresh_nodes = _fresh_nodes_by_study(node_rows)
    for row in live:
        if row.state == AttemptState.RUNNING:
            running.append(_running(row))
        else:
            nodes_of_study = fresh_nodes.get(row.study_id, [])
            waiting.append(_opened(row, nodes_of_study, attended))
    waiting += [_queued(row, attended) for row in queue]
    nodes, placed = _place_on_nodes(node_rows, running)
    elsewhere = [one for one in running if one not in placed]
    return ClusterView(
        nodes,
        tuple(elsewhere),
        tuple(waiting[:QUEUED_MAX]),
        coordinators,
    )


def _fresh_nodes_by_study(rows: Sequence[Any]) -> dict[int, list[NodeInfo]]:
    nodes: dict[int, list[NodeInfo]] = {}
    for row in rows:
        if row.age_s <= STALE_S:
            node = NodeInfo(row.key, row.address, row.host, row.total, row.free)
            nodes.setdefault(row.study_id, []).append(node)
    return nodes


def live_attempts() -> sa.Select[Any]:
    """Select every live attempt of all studies, the oldest first."""
    attempts = tables.attempts
    studies = tables.studies
    return (
        sa.select(
            attempts.c.trial_id,
            attempts.c.number.label("attempt"),
            attempts.c.state,
            attempts.c.node.label("address"),
            attempts.c.devices,
            attempts.c.bundle_nodes,
            attempts.c.cpus,
            attempts.c.gpus,
            attempts.c.opened_at,
            attempts.c.started_at,
            studies.c.study_id,
            studies.c.name.label("study"),
            studies.c.spec["resources"].label("resources"),
            _has_program(),
        )
        .select_from(attempts)
        .join(studies, studies.c.study_id == study_key(attempts.c.trial_id))
        .where(attempts.c.state.in_(LIVE))
        .order_by(attempts.c.opened_at, attempts.c.trial_id)
    )


def _select_nodes(among: StudyScope) -> sa.Select[Any]:
    """Select all nodes, whichever study recorded them: the service shares the cluster."""
    nodes = tables.nodes
    studies = tables.studies
    age = seconds(sa.func.now() - nodes.c.seen_at)
    longest = sa.func.make_interval(0, 0, 0, 0, 0, 0, FORGOTTEN_S)
    return (
        sa.select(
            nodes,
            studies.c.name,
            age.label("age_s"),
            among.condition().label("is_visible"),
        )
        .select_from(nodes)
        .join(studies, studies.c.study_id == nodes.c.study_id)
        .where(nodes.c.seen_at > sa.func.now() - longest)
        .order_by(nodes.c.host, nodes.c.address, nodes.c.key, nodes.c.seen_at.desc())
    )


def _place_on_nodes(
    node_rows: Sequence[Any],
    running: Sequence[OccupancyRow],
) -> tuple[tuple[NodeRow, ...], set[OccupancyRow]]:
    """Return each node as recorded last, and the attempts that were assigned to one."""
    by_key: dict[str, list[Any]] = {}
    for row in node_rows:
        by_key.setdefault(row.key, []).append(row)
    # Fresh nodes first: attempts run on them, not on a former node of the same machine.
    groups = sorted(by_key.values(), key=lambda rows: min(row.age_s for row in rows) > STALE_S)
    placed: set[OccupancyRow] = set()
    nodes = []
    for rows in groups:
        study_ids = {row.study_id for row in rows}
        here = []
        for one in running:
            if one.study_id not in study_ids:
                continue
            if rows[0].key in one.bundle_nodes:
                here.append(one.on_node(rows[0].key))
                placed.add(one)
            elif one.address == rows[0].address and one not in placed and not one.bundle_nodes:
                here.append(one)
                placed.add(one)
        names = {row.name for row in rows if row.is_visible}
        nodes.append(_node(rows, tuple(sorted(names)), tuple(here)))
    return _without_former_nodes(nodes), placed


def _node(
    rows: Sequence[Any],
    studies: tuple[str, ...],
    attempts: tuple[OccupancyRow, ...],
) -> NodeRow:
    newest = max(rows, key=lambda row: row.seen_at)
    return from_row(NodeRow, newest, studies=studies, held=attempts)


def _without_former_nodes(nodes: Sequence[NodeRow]) -> tuple[NodeRow, ...]:
    """Drop the stale former nodes of a machine: each local Ray gives its machine a new key."""
    newest: dict[tuple[str, str], NodeRow] = {}
    for node in sorted(nodes, key=lambda node: node.age_s):
        newest.setdefault((node.host, node.address), node)

    def is_current(node: NodeRow) -> bool:
        return not node.is_stale or bool(node.held) or newest[node.host, node.address] is node

    return tuple(node for node in nodes if is_current(node))


def _running(row: Any) -> OccupancyRow:
    workers = (row.resources or {}).get("workers", 1)
    return from_row(
        OccupancyRow,
        row,
        trial_number=number_of(row.trial_id),
        devices=tuple(row.devices or ()),
        since=row.started_at or row.opened_at,
        workers=workers,
        bundle_nodes=tuple(row.bundle_nodes or ()),
        workers_here=workers,
    )


def _opened(row: Any, nodes: Sequence[NodeInfo], attended: set[int]) -> QueuedRow:
    if row.study_id not in attended:
        why = f"no process runs the study; {_describe_resume(row)}"
    else:
        why = why_waits(nodes, Resources.model_validate(row.resources or {}))
    number = number_of(row.trial_id)
    return from_row(
        QueuedRow,
        row,
        trials=(number,),
        count=1,
        since=row.opened_at,
        why=why,
    )


def _select_queue(among: StudyScope) -> sa.Select[Any]:
    """Select trials without a live attempt by study: enqueued ones, and those to be run again."""
    trials = tables.trials
    studies = tables.studies
    is_unfinished = state_shown().in_(["running", "interrupted"])
    is_to_run_again = sa.and_(is_unfinished, ~has_live_attempt())
    waiting = (
        sa.select(
            trials.c.state,
            sa.func.count().label("count"),
            sa.func.array_agg(trials.c.number).label("numbers"),
        )
        .where(trials.c.study_id == studies.c.study_id)
        .where(sa.or_(trials.c.state == "waiting", is_to_run_again))
        .group_by(trials.c.state)
        .correlate(studies)
        .lateral("waiting")
    )
    return (
        sa.select(
            studies.c.study_id,
            studies.c.name.label("study"),
            studies.c.state.label("study_state"),
            _has_program(),
            _is_submitted(),
            waiting,
        )
        .select_from(studies)
        .join(waiting, sa.true())
        .where(
            studies.c.state.in_(_UNFINISHED_STUDIES),
            among.condition(),
        )
        .order_by(studies.c.study_id)
        .limit(QUEUED_MAX)
    )


def _has_program() -> sa.Label[bool]:
    spec = tables.studies.c.spec
    named = sa.or_(
        spec["entrypoint"].as_string().is_not(None),
        spec["command"].as_string().is_not(None),
        spec["agents"].as_string() == "only",
    )
    return named.label("has_program")


def _is_submitted() -> sa.Label[bool]:
    submissions = service_tables.submissions
    submission = sa.exists().where(submissions.c.study_id == tables.studies.c.study_id)
    return submission.correlate(tables.studies).label("is_submitted")


def _describe_resume(row: Any) -> str:
    command = formatting.resume_command(row.study, has_program=row.has_program)
    return f"`{command}` continues it"


def _queued(row: Any, attended: set[int]) -> QueuedRow:
    if row.study_id in attended:
        is_enqueued = row.state == "waiting"
        why = "enqueued: starts when a running one ends" if is_enqueued else "to be run again"
    elif row.study_state == StudyState.PAUSED:
        why = f"the study is paused; {_describe_resume(row)}"
    elif row.is_submitted:
        why = "the study waits for a server"
    else:
        why = f"no process runs the study; {_describe_resume(row)}"
    numbers = tuple(sorted(row.numbers)[:8])
    return from_row(QueuedRow, row, trials=numbers, since=None, why=why)


def _coordinators(
    connection: sa.Connection,
    live: Sequence[Any],
    among: StudyScope,
) -> tuple[CoordinatorRow, ...]:
    leases = tables.leases
    studies = tables.studies
    left = seconds(leases.c.expires_at - sa.func.now())
    query = (
        sa.select(
            studies.c.study_id,
            studies.c.name.label("study"),
            leases.c.owner,
            left.label("left_s"),
        )
        .select_from(leases)
        .join(studies, studies.c.study_id == leases.c.study_id)
        .where(leases.c.expires_at > sa.func.now(), among.condition())
        .order_by(studies.c.name)
    )
    counts = Counter((row.study_id, row.state) for row in live)
    coordinators = []
    for row in connection.execute(query):
        running = counts[row.study_id, AttemptState.RUNNING]
        waiting = counts[row.study_id, AttemptState.OPENED]
        coordinators.append(
            from_row(
                CoordinatorRow,
                row,
                running=running,
                waiting=waiting,
            )
        )
    return tuple(coordinators)
