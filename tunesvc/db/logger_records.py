"""Records of the trials of a study that a tracker has, and of the process that sends them.

A trial is reserved before its run is opened at the tracker, so that a process that died in between
is noticed: the next one then looks for the run instead of opening a second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema.tables import logged_trials, loggers, trials

CLAIM_S = 30.0
"""Time after which another process may send, unless the claim is renewed."""
_BATCH = 200
"""Most trials that are looked at together."""


@dataclass(frozen=True, slots=True)
class UnsentTrial:
    """A trial of which a tracker may lack something."""

    trial_id: int
    number: int
    is_reserved: bool
    """True if a process has begun to send it, this one or an earlier one."""
    run: str | None


def claim(
    connection: sa.Connection,
    study_id: int,
    place: str,
    owner: str,
    dead_owner: str | None = None,
) -> int | None:
    """Become the process that sends a study's trials to a place, or remain it.

    Args:
        dead_owner: a process that is known to have died; its claim does not count.

    Returns:
        The id of the study's logger; None if another process sends.
    """
    until = sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, CLAIM_S)
    values = {"owner": owner, "expires_at": until}
    insert = pg.insert(loggers).values(study_id=study_id, place=place, **values)
    take = insert.on_conflict_do_update(
        index_elements=[loggers.c.study_id, loggers.c.place],
        set_=values,
        where=sa.or_(
            loggers.c.owner.in_([owner, dead_owner]),
            loggers.c.expires_at.is_(None),
            loggers.c.expires_at <= sa.func.now(),
        ),
    )
    return connection.execute(take.returning(loggers.c.logger_id)).scalar()


def owner_of(connection: sa.Connection, study_id: int, place: str) -> str | None:
    """Return the process that sends to a place, `host:pid/thread`; None if there is none."""
    columns = loggers.c
    query = sa.select(columns.owner).where(columns.study_id == study_id, columns.place == place)
    return connection.execute(query).scalar()


def release(connection: sa.Connection, study_id: int, place: str, owner: str) -> None:
    """Let another process send. Repeatable."""
    own = sa.update(loggers).where(
        loggers.c.study_id == study_id,
        loggers.c.place == place,
        loggers.c.owner == owner,
    )
    connection.execute(own.values(owner=None, expires_at=None))


def list_unsent(
    connection: sa.Connection,
    study_id: int,
    logger_id: int,
    *,
    running: bool,
    after: int = -1,
) -> tuple[UnsentTrial, ...]:
    """Return a batch of trials that are not completely sent, by number.

    Args:
        running: also those that still run.
        after: the last number of the batch before.
    """
    logged, is_finished = logged_trials.c, trials.c.ended_at.is_not(None)
    is_open = sa.and_(trials.c.started_at.is_not(None), sa.literal(running))
    query = (
        sa.select(
            trials.c.trial_id,
            trials.c.number,
            logged.trial_id.is_not(None).label("is_reserved"),
            logged.run,
        )
        .outerjoin(
            logged_trials,
            sa.and_(logged.trial_id == trials.c.trial_id, logged.logger_id == logger_id),
        )
        .where(
            trials.c.study_id == study_id,
            trials.c.number > after,
            logged.complete.is_not(True),
            sa.or_(is_finished, is_open),
        )
        .order_by(trials.c.number)
        .limit(_BATCH)
    )
    return tuple(UnsentTrial(*row) for row in connection.execute(query))


def reserve(connection: sa.Connection, logger_id: int, trial_ids: Sequence[int]) -> None:
    """Note that these trials are about to be sent. Repeatable."""
    rows = [{"logger_id": logger_id, "trial_id": trial_id} for trial_id in trial_ids]
    connection.execute(pg.insert(logged_trials).on_conflict_do_nothing(), rows)


def record(
    connection: sa.Connection,
    logger_id: int,
    trial_id: int,
    run: str,
    *,
    complete: bool,
) -> None:
    """Note a trial's run at the tracker, and whether it has everything."""
    own = sa.update(logged_trials).where(
        logged_trials.c.logger_id == logger_id,
        logged_trials.c.trial_id == trial_id,
    )
    connection.execute(own.values(run=run, complete=complete))


def forget(connection: sa.Connection, logger_id: int) -> None:
    """Note that a tracker may have lost everything: each trial is looked for there."""
    own = sa.update(logged_trials).where(logged_trials.c.logger_id == logger_id)
    connection.execute(own.values(run=None, complete=False))


def count_unsent(connection: sa.Connection, study_id: int, place: str) -> int:
    """Return the number of finished trials that a place does not have completely."""
    of_place = sa.select(loggers.c.logger_id).where(
        loggers.c.study_id == study_id,
        loggers.c.place == place,
    )
    sent = sa.exists().where(
        logged_trials.c.trial_id == trials.c.trial_id,
        logged_trials.c.logger_id.in_(of_place),
        logged_trials.c.complete,
    )
    query = sa.select(sa.func.count()).where(
        trials.c.study_id == study_id,
        trials.c.ended_at.is_not(None),
        ~sent,
    )
    return int(connection.execute(query).scalar() or 0)
