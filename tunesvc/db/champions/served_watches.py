"""Families that servers watch: a row each, with what the look under way waits for.

A look changes its row with the family's lock held. A watch that is replaced meanwhile is another
one: the look then changes nothing, and its caller finds that out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine import json_numbers
from tunesvc.db.schema.service_tables import watches
from tunesvc.db.schema.states import StudyState
from tunesvc.db.schema.tables import studies
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.db.submissions import FIRST_RETRY_S, LAST_RETRY_S
from tunesvc.drift.drift_report import DriftReport, read_report
from tunesvc.spec import StudySpec

RECHECK_S = 60.0
"""Interval at which a watch that waits for a study is checked before that study has ended."""


@dataclass(frozen=True, slots=True)
class ServedWatch:
    """A family that servers watch."""

    family: str
    project_id: int | None
    interval_s: float | None
    """Time between two looks; None for a single one."""
    always: bool
    """True if it is tuned again for each new version, drifted or not."""
    submitted_by: str
    submitted_at: datetime
    snapshot: str | None
    """Digest of its folder's archive; None if its program is installed where workers run."""
    look_at: datetime | None
    """Time of the next look; None if there is none: the single one has ended, or the watch was
    stopped for its `problem`."""
    data_version: str | None
    """Version of the look under way; None between looks."""
    waits_for: str
    """Name of the study that the look under way waits for; empty for none."""
    looked_at: datetime | None
    """Time at which the last look ended."""
    outcome: str
    """Outcome of the last look, one of `watch_result.OUTCOMES`; empty before the first one."""
    reason: str
    """Reason of the outcome; empty if that says it already."""
    problem: str
    """Why the last look has failed, or the watch was stopped; empty without a reason."""
    failures: int
    """Number of looks in a row that have failed."""

    @property
    def is_stopped(self) -> bool:
        """True if it was stopped for its problem."""
        return self.look_at is None and bool(self.problem)


@dataclass(frozen=True, slots=True)
class WatchSource:
    """The study file of a watch, and the origin of its folder."""

    spec: StudySpec
    text: str | None
    """The file as it was written."""
    provenance: Mapping[str, Any]


_COLUMNS = tuple(watches.c[name] for name in ServedWatch.__dataclass_fields__)


def register(
    connection: sa.Connection,
    source: WatchSource,
    *,
    project_id: int | None,
    snapshot: str | None,
    interval_s: float | None,
    always: bool,
    submitted_by: str,
) -> None:
    """Store a watch that looks at once, in place of an earlier one of the family.

    Args:
        connection: in a transaction.
        source: its study file.
        project_id: of the family.
        snapshot: digest of its folder's archive.
        interval_s: None for a single look, or for the interval of the earlier one.
        always: tune again for each new version, drifted or not.
        submitted_by: its user.
    """
    row = {
        "project_id": project_id,
        "spec": sa.cast(sa.literal(source.spec.model_dump_json(), sa.Text), watches.c.spec.type),
        "source_text": source.text,
        "snapshot": snapshot,
        "provenance": dict(source.provenance),
        "always": always,
        "interval_s": interval_s,
        "submitted_by": submitted_by,
        "submitted_at": sa.func.now(),
        "look_at": sa.func.now(),
        **_BETWEEN_LOOKS,
    }
    insert = pg.insert(watches).values(family=source.spec.name, **row)
    kept = sa.func.coalesce(insert.excluded.interval_s, watches.c.interval_s)
    change = insert.on_conflict_do_update(
        index_elements=[watches.c.family], set_=row | {"interval_s": kept}
    )
    connection.execute(change)


def find(
    connection: sa.Connection, family: str, scope: StudyScope = ALL_STUDIES, *, lock: bool = False
) -> ServedWatch | None:
    """Return the watch of a family; None if servers do not watch it.

    Args:
        connection: in a transaction, with `lock`.
        family: its name.
        scope: studies that the user may view.
        lock: lock the row until the transaction ends.
    """
    query = _query(scope).where(watches.c.family == family)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else ServedWatch(**row._mapping)


def get_source(connection: sa.Connection, watch: ServedWatch) -> WatchSource | None:
    """Return the study file of a watch; None if the watch was replaced or removed."""
    columns = (watches.c.spec, watches.c.source_text, watches.c.provenance)
    row = connection.execute(sa.select(*columns).where(_is(watch))).one_or_none()
    if row is None:
        return None
    spec = StudySpec.model_validate_json(json_numbers.dump(row.spec))
    return WatchSource(spec, row.source_text, row.provenance)


def list_watches(
    connection: sa.Connection, scope: StudyScope = ALL_STUDIES
) -> tuple[ServedWatch, ...]:
    """Return all watches, by family."""
    rows = connection.execute(_query(scope).order_by(watches.c.family))
    return tuple(ServedWatch(**row._mapping) for row in rows)


def list_due(connection: sa.Connection) -> Sequence[str]:
    """Return the families whose next look may begin, the one that is due longest first."""
    query = sa.select(watches.c.family).where(_is_due()).order_by(watches.c.look_at)
    return connection.execute(query).scalars().all()


def is_current(connection: sa.Connection, watch: ServedWatch, *, lock: bool = False) -> bool:
    """Return False if a watch was replaced or removed; with `lock`, it cannot be until the end."""
    query = sa.select(watches.c.family).where(_is(watch))
    found = query.with_for_update(read=True) if lock else query
    return connection.execute(found).scalar() is not None


def is_due(connection: sa.Connection, watch: ServedWatch) -> bool:
    """Return True if the next look of a watch may begin; False if it was replaced, too."""
    query = sa.select(sa.true()).where(_is(watch), _is_due())
    return connection.execute(query).scalar() is not None


def remove(connection: sa.Connection, family: str) -> bool:
    """Remove the watch of a family; return False if there is none."""
    gone = sa.delete(watches).where(watches.c.family == family)
    return connection.execute(gone).rowcount == 1


def begin_version(connection: sa.Connection, watch: ServedWatch, version: str) -> bool:
    """Record the version of the look under way; return False if the watch was replaced."""
    return _change(connection, watch, data_version=version)


def record_drift(
    connection: sa.Connection, watch: ServedWatch, version: str, before: str, drift: DriftReport
) -> bool:
    """Keep the drift of a version against the one before; return False if it was replaced."""
    values = {"data_version": version, "drift": asdict(drift), "drift_from": before}
    return _change(connection, watch, **values)


def get_drift(
    connection: sa.Connection, watch: ServedWatch, version: str, before: str
) -> DriftReport | None:
    """Return the drift that was kept for the look under way; None without it."""
    query = sa.select(watches.c.drift).where(
        _is(watch), watches.c.data_version == version, watches.c.drift_from == before
    )
    stored = connection.scalar(query)
    return None if stored is None else read_report(stored)


def wait(connection: sa.Connection, watch: ServedWatch, study: str) -> None:
    """Record that the look under way waits for a study."""
    recheck = sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, RECHECK_S)
    _change(connection, watch, waits_for=study, look_at=recheck, problem="", failures=0)


def finish(connection: sa.Connection, watch: ServedWatch, outcome: str, reason: str) -> None:
    """Record the outcome of a look, and when the next one begins."""
    _change(
        connection,
        watch,
        **_BETWEEN_LOOKS,
        looked_at=sa.func.now(),
        outcome=outcome,
        reason=reason,
        # NULL without an interval
        look_at=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, watches.c.interval_s),
    )


def restart(connection: sa.Connection, watch: ServedWatch, problem: str) -> None:
    """End the look under way for a reason; the next one begins at once, from today's data."""
    _change(
        connection, watch, **_WITHOUT_VERSION, problem=problem, look_at=sa.func.now(), failures=0
    )


def fail(
    connection: sa.Connection, watch: ServedWatch, problem: str, *, keeps_version: bool = False
) -> None:
    """Record why a look has failed. It is tried again later, each time less soon.

    Args:
        connection: in a transaction.
        watch: the watch.
        problem: in a sentence.
        keeps_version: continue with the same version of the data.
    """
    delay_s = sa.func.least(FIRST_RETRY_S * sa.func.power(2, watches.c.failures), LAST_RETRY_S)
    _change(
        connection,
        watch,
        **({"waits_for": ""} if keeps_version else _WITHOUT_VERSION),
        problem=problem,
        failures=sa.func.least(watches.c.failures + 1, 20),
        look_at=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, delay_s),
    )


def stop(connection: sa.Connection, watch: ServedWatch, problem: str) -> None:
    """End a watch for a reason. Its row stays, until it is registered again or removed."""
    _change(connection, watch, **_WITHOUT_VERSION, problem=problem, look_at=None)


_WITHOUT_VERSION: Mapping[str, Any] = {
    "data_version": None,
    "drift": sa.null(),
    "drift_from": None,
    "waits_for": "",
}
_BETWEEN_LOOKS = {**_WITHOUT_VERSION, "problem": "", "failures": 0}


def _change(connection: sa.Connection, watch: ServedWatch, **values: Any) -> bool:
    """Change a watch; return False if it was replaced or removed."""
    change = sa.update(watches).where(_is(watch)).values(**values)
    return connection.execute(change).rowcount == 1


def _is(watch: ServedWatch) -> sa.ColumnElement[bool]:
    """Return the condition on the row of a watch. It is another one once its user was erased."""
    names = ("family", "submitted_at", "submitted_by")
    return sa.and_(*(watches.c[name] == getattr(watch, name) for name in names))


def _is_due() -> sa.ColumnElement[bool]:
    unfinished = (StudyState.CREATED, StudyState.RUNNING, StudyState.PAUSED)
    has_to_wait = sa.exists().where(
        studies.c.name == watches.c.waits_for, studies.c.state.in_(unfinished)
    )
    has_waited = sa.and_(watches.c.waits_for != "", ~has_to_wait)
    return sa.and_(
        watches.c.look_at.is_not(None), sa.or_(watches.c.look_at <= sa.func.now(), has_waited)
    )


def _query(scope: StudyScope) -> sa.Select[Any]:
    query = sa.select(*_COLUMNS)
    if scope.projects is None:
        return query
    return query.where(watches.c.project_id.in_(scope.projects))
