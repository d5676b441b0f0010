"""A study's own row, to create, find and remove; and commands to its coordinator.

Changes inside a running study go through `tunesvc.db.study_writer` instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db import notifications
from tunesvc.db.engine import json_numbers
from tunesvc.db.engine.database import Database, checked_name
from tunesvc.db.schema.service_tables import submissions
from tunesvc.db.schema.states import StudyState
from tunesvc.db.schema.tables import commands, deletions, leases, studies, study_attrs, trials
from tunesvc.errors import StudyExists, StudyNotFound
from tunesvc.spec import StudySpec
from tunesvc.util.suggestions import nearest
from tunesvc.util.user import whoami


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A stored study."""

    study_id: int
    name: str
    key: str
    """Identifies it where several databases meet, as on a cluster."""
    state: StudyState
    reason: str
    spec: StudySpec | None
    """None for a study that was made through Optuna's API."""
    source_text: str | None
    source_dir: str | None
    active_s: float
    """Time that coordinators have run it."""


@dataclass(frozen=True, slots=True)
class Command:
    """A user's command to a study."""

    command_id: int
    kind: str
    """One of `tables.COMMANDS`."""
    payload: Mapping[str, Any]
    asked_by: str = ""


_COLUMNS = (
    studies.c.study_id,
    studies.c.name,
    studies.c.key,
    studies.c.state,
    studies.c.reason,
    studies.c.spec,
    studies.c.source_text,
    studies.c.source_dir,
    studies.c.active_s,
)


def create(
    connection: sa.Connection,
    spec: StudySpec,
    source_text: str | None = None,
    source_dir: str | None = None,
    owner: str | None = None,
    project_id: int | None = None,
) -> StudyRecord:
    """Store a new study; its owner is the system's user by default.

    Raises:
        StudyExists: the name is taken.
        BadName: Postgres cannot store the name.
    """
    row = _row(spec, source_text, source_dir)
    row |= {
        "owner": whoami() if owner is None else owner,
        "project_id": project_id,
        "tags": list(dict.fromkeys(spec.tags)),
    }
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(studies).values(row))
    except sa.exc.IntegrityError:
        raise StudyExists(f"a study named {spec.name!r} exists already") from None
    made = find(connection, spec.name)
    notifications.notify(connection, made.study_id)
    return made


def find(connection: sa.Connection, name: str) -> StudyRecord:
    """Return the study of that name.

    Raises:
        StudyNotFound: there is none; the text suggests the nearest name.
        BadName: no study can have that name.
    """
    checked_name(name, "the study's name")
    record = look_up(connection, name)
    if record is None:
        raise StudyNotFound(_not_found(connection, name))
    return record


def look_up(connection: sa.Connection, name: str) -> StudyRecord | None:
    """Return the study of that name, or None; cheaper than `find` where it may be absent."""
    row = connection.execute(sa.select(*_COLUMNS).where(studies.c.name == name)).one_or_none()
    return None if row is None else _record(row)


def get(connection: sa.Connection, study_id: int) -> StudyRecord:
    """Return the study of that id.

    Raises:
        StudyNotFound: there is none.
    """
    row = connection.execute(
        sa.select(*_COLUMNS).where(studies.c.study_id == study_id),
    ).one_or_none()
    if row is None:
        deletion = _deletion(connection, deletions.c.study_id == study_id)
        raise StudyNotFound(f"there is no study {study_id}{deletion}")
    return _record(row)


def project_of(connection: sa.Connection, study_id: int) -> int | None:
    """Return the project of a study; None without one."""
    query = sa.select(studies.c.project_id).where(studies.c.study_id == study_id)
    found: int | None = connection.execute(query).scalar()
    return found


def list_beside(connection: sa.Connection, study_id: int) -> dict[str, int]:
    """Return the studies of its project whose names begin with a study's name, itself too."""
    own = studies.alias("own")
    query = sa.select(studies.c.name, studies.c.study_id).where(
        own.c.study_id == study_id,
        sa.func.starts_with(studies.c.name, own.c.name),
        studies.c.project_id.is_not_distinct_from(own.c.project_id),
    )
    return {row.name: row.study_id for row in connection.execute(query)}


def _record(row: Any) -> StudyRecord:
    spec = None if row.spec is None else StudySpec.model_validate_json(json_numbers.dump(row.spec))
    return StudyRecord(
        row.study_id,
        row.name,
        str(row.key),
        StudyState(row.state),
        row.reason,
        spec,
        row.source_text,
        row.source_dir,
        row.active_s,
    )


def write_system_attr(connection: sa.Connection, study_id: int, name: str, value: Any) -> None:
    """Write a system attribute in the transaction of the study that it is about. Repeatable."""
    row = {"study_id": study_id, "kind": "system", "name": name, "value": json.dumps(value)}
    insert = pg.insert(study_attrs).values(row)
    key = [study_attrs.c.study_id, study_attrs.c.kind, study_attrs.c.name]
    change = {"value": insert.excluded.value}
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=change))


def remove_system_attr(connection: sa.Connection, study_id: int, name: str) -> bool:
    """Remove a system attribute of a study; return False if it does not have it."""
    is_it = (study_attrs.c.study_id == study_id, study_attrs.c.kind == "system")
    gone = sa.delete(study_attrs).where(*is_it, study_attrs.c.name == name)
    return connection.execute(gone).rowcount == 1


def replace_unstarted(
    connection: sa.Connection,
    record: StudyRecord,
    spec: StudySpec,
    source_text: str | None,
    source_dir: str | None,
) -> bool:
    """Give a study that never ran another spec and source; return whether it was possible.

    It is not for a study that has run, or was made through Optuna's API. One whose first run was
    refused has not run. Trials that are enqueued remain.
    """
    if record.spec is None:
        return False
    has_run = sa.exists().where(
        trials.c.study_id == studies.c.study_id, trials.c.state != "waiting"
    )
    was_refused = sa.and_(studies.c.state == StudyState.FAILED, studies.c.active_s == 0, ~has_run)
    change = sa.update(studies).where(
        studies.c.study_id == record.study_id,
        sa.or_(studies.c.state == StudyState.CREATED, was_refused),
    )
    row = _row(spec, source_text, source_dir)
    row |= {"state": StudyState.CREATED, "reason": "", "ended_at": None}
    return connection.execute(change.values(row)).rowcount == 1


def refuse(connection: sa.Connection, study_id: int, reason: str) -> None:
    """Record why the first run of a study was refused.

    A study is left as it is if it has run, was submitted, or was made through Optuna's API.
    """
    is_submitted = sa.exists().where(submissions.c.study_id == studies.c.study_id)
    change = sa.update(studies).where(
        studies.c.study_id == study_id,
        studies.c.state == StudyState.CREATED,
        studies.c.spec.is_not(None),
        ~is_submitted,
    )
    row = {"state": StudyState.FAILED, "reason": reason, "ended_at": sa.func.now()}
    if connection.execute(change.values(row)).rowcount:
        notifications.notify(connection, study_id)


def remove_failed(connection: sa.Connection, study_id: int, deleted_by: str) -> bool:
    """Delete a failed study without results; return False if it has one, or is being run."""
    query = sa.select(studies.c.study_id).where(
        studies.c.study_id == study_id,
        studies.c.state == StudyState.FAILED,
        ~sa.exists().where(trials.c.study_id == study_id, trials.c.state != "fail"),
        ~sa.exists().where(leases.c.study_id == study_id, leases.c.expires_at > sa.func.now()),
    )
    if connection.execute(query.with_for_update()).one_or_none() is None:
        return False
    return remove(connection, study_id, deleted_by)


def renew(
    connection: sa.Connection,
    record: StudyRecord,
    spec: StudySpec,
    source_text: str | None,
    source_dir: str | None,
) -> None:
    """Store the current spec and source of a study that is about to be resumed. May be repeated.

    New tags of its file are added; tags that users have removed stay removed.
    """
    row = _row(spec, source_text, source_dir)
    known = () if record.spec is None else record.spec.tags
    fresh = [tag for tag in dict.fromkeys(spec.tags) if tag not in known]
    if fresh:
        row["tags"] = sa.func.array_cat(studies.c.tags, sa.cast(fresh, studies.c.tags.type))
    connection.execute(sa.update(studies).where(studies.c.study_id == record.study_id).values(row))


def remove(connection: sa.Connection, study_id: int, deleted_by: str) -> bool:
    """Delete a study with all its rows, and record that; return False if it does not exist."""
    gone = (
        sa.delete(studies)
        .where(studies.c.study_id == study_id)
        .returning(
            studies.c.study_id,
            studies.c.name,
            studies.c.owner,
            studies.c.next_number,
            sa.literal(deleted_by),
        )
        .cte("gone")
    )
    columns = ["study_id", "name", "owner", "trials", "deleted_by"]
    insert = sa.insert(deletions).from_select(columns, sa.select(gone))
    removed = connection.execute(insert).rowcount == 1
    notifications.notify(connection, study_id)
    return removed


@contextmanager
def locked(database: Database, study_id: int) -> Iterator[sa.Connection]:
    """Hold a study's row briefly, in a transaction: other holders and new trials of it wait.

    Raises:
        StudyNotFound: there is none.
    """
    row = sa.select(studies.c.study_id).where(studies.c.study_id == study_id)
    with database.engine.begin() as connection:
        if connection.execute(row.with_for_update(key_share=True)).one_or_none() is None:
            get(connection, study_id)
        yield connection


def next_number(connection: sa.Connection, study_id: int) -> int:
    """Return the number of the study's next trial."""
    query = sa.select(studies.c.next_number).where(studies.c.study_id == study_id)
    found: int = connection.execute(query).scalar_one()
    return found


def trials_counted(connection: sa.Connection, study_id: int) -> int:
    """Return the number of trials that count against the budget: all but cancelled ones."""
    was_cancelled = sa.and_(trials.c.state == "fail", trials.c.started_at.is_(None))
    query = sa.select(sa.func.count()).where(trials.c.study_id == study_id, ~was_cancelled)
    found: int = connection.execute(query).scalar_one()
    return found


def request(
    connection: sa.Connection,
    study_id: int,
    kind: str,
    payload: Mapping[str, Any],
    asked_by: str,
    answer: str | None = None,
) -> int:
    """Record a command for the coordinator, or with an `answer` a finished one; return its id."""
    row = {
        "study_id": study_id,
        "kind": kind,
        "payload": sa.cast(
            sa.literal(json_numbers.dump(payload), sa.Text),
            commands.c.payload.type,
        ),
        "asked_by": asked_by,
        "answer": answer,
        "done_at": None if answer is None else sa.func.now(),
    }
    insert = sa.insert(commands).values(row).returning(commands.c.command_id)
    command_id: int = connection.execute(insert).scalar_one()
    notifications.notify(connection, study_id)
    return command_id


def fail_running(
    connection: sa.Connection,
    study_id: int,
    number: int | None = None,
) -> list[int]:
    """Fail the running trials of a study without coordinator, or one; return their numbers."""
    running = sa.and_(trials.c.study_id == study_id, trials.c.state == "running")
    if number is not None:
        running = sa.and_(running, trials.c.number == number)
    change = sa.update(trials).where(running).values(state="fail", ended_at=sa.func.now())
    return sorted(connection.scalars(change.returning(trials.c.number)))


def pending(connection: sa.Connection, study_id: int) -> Sequence[Command]:
    """Return the pending commands, oldest first."""
    rows = connection.execute(
        sa.select(
            commands.c.command_id,
            commands.c.kind,
            commands.c.payload,
            commands.c.asked_by,
        )
        .where(commands.c.study_id == study_id, commands.c.done_at.is_(None))
        .order_by(commands.c.command_id)
    )
    return [Command(*row) for row in rows]


def _row(
    spec: StudySpec,
    source_text: str | None,
    source_dir: str | None,
) -> dict[str, Any]:
    return {
        "name": checked_name(spec.name, "the study's name"),
        "directions": list(spec.directions),
        "spec": sa.cast(sa.literal(spec.model_dump_json(), sa.Text), studies.c.spec.type),
        "source_text": source_text,
        "source_dir": source_dir,
    }


def _not_found(connection: sa.Connection, name: str) -> str:
    newest = sa.select(studies.c.name).order_by(studies.c.study_id.desc()).limit(1000)
    names = connection.execute(newest).scalars()
    near = nearest(name, names)
    hint = f"did you mean {near!r}?" if near else "`tune ls` lists the studies."
    deletion = _deletion(connection, deletions.c.name == name)
    return f"there is no study named {name!r}{deletion}; {hint}"


def _deletion(connection: sa.Connection, which: sa.ColumnElement[bool]) -> str:
    """Return the end of a sentence on a study's deletion; empty if it was not deleted."""
    columns = (deletions.c.name, deletions.c.trials, deletions.c.deleted_by, deletions.c.deleted_at)
    newest = sa.select(*columns).where(which).order_by(deletions.c.study_id.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    if row is None:
        return ""
    at = f"{row.deleted_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    user = row.deleted_by or "somebody"
    return f" any more: {row.name!r}, with {row.trials} trials, was deleted by {user} at {at}"
