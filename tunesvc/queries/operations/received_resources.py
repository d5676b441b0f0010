"""Resources that parties which share a cluster have received, from the history of attempts."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from tunesvc.db.schema.service_tables import projects, submissions
from tunesvc.db.schema.tables import attempts, studies
from tunesvc.queries.sql import first_trial_id, seconds

WINDOW = timedelta(hours=1)
"""Resources that parties received longer ago do not count."""

Party = tuple[str | int, ...]
"""A project, its user, or the user's study; the group in which it shares is that without its last
part."""
_PROJECT = sa.func.coalesce(projects.c.name, "")


@dataclass(frozen=True, slots=True)
class Claimant:
    """A study that shares the cluster."""

    study_id: int
    project: str
    user: str
    since: datetime
    """Time since which it wants a part."""

    @property
    def parties(self) -> tuple[Party, Party, Party]:
        """Its project, its user in the project, and itself."""
        return _parties(self.project, self.user, self.study_id)


def get_received(
    connection: sa.Connection,
    claimants: Sequence[Claimant],
) -> dict[int, tuple[Mapping[str, float], ...]]:
    """Return the resource seconds that the parties of each study have received, by its id.

    Only the time counts in which all parties of a group were there, so that none saves up a claim
    while it wants nothing.
    """
    if len(claimants) < 2:
        return {}
    sinces = _shared_since(claimants)
    received: dict[Party, Counter[str]] = {}
    for row in connection.execute(_usage(sinces)).mappings():
        parties = _parties(row["project"], row["submitted_by"], row["study_id"])
        for level, party in enumerate(parties):
            used = {"CPU": float(row[f"cpu_{level}"]), "GPU": float(row[f"gpu_{level}"])}
            received.setdefault(party, Counter()).update(used)
    return {
        one.study_id: tuple(received.get(party, {}) for party in one.parties) for one in claimants
    }


def _parties(project: str, user: str, study_id: int) -> tuple[Party, Party, Party]:
    return (project,), (project, user), (project, user, study_id)


def _shared_since(claimants: Sequence[Claimant]) -> dict[Party, datetime]:
    """Return for each group since when all of its parties have been there."""
    begins: dict[Party, datetime] = {}
    for one in claimants:
        for party in one.parties:
            begins[party] = min(one.since, begins.get(party, one.since))
    shared: dict[Party, datetime] = {}
    for party, begin in begins.items():
        shared[party[:-1]] = max(begin, shared.get(party[:-1], begin))
    return shared


def _usage(sinces: Mapping[Party, datetime]) -> sa.Select[tuple[object, ...]]:
    earliest = sa.func.greatest(min(sinces.values()), sa.func.now() - WINDOW)
    user = submissions.c.submitted_by
    names = (_PROJECT, user)
    shared = [_since(sinces, names[:level]) for level in range(3)]
    is_recent = sa.func.coalesce(attempts.c.ended_at, sa.func.now()) > earliest
    return (
        sa.select(
            studies.c.study_id,
            _PROJECT.label("project"),
            user,
            *(
                sa.func.sum(amount * _overlap(sa.func.greatest(since, earliest))).label(
                    f"{name}_{level}"
                )
                for level, since in enumerate(shared)
                for name, amount in (("cpu", attempts.c.cpus), ("gpu", attempts.c.gpus))
            ),
        )
        .join(submissions, submissions.c.study_id == studies.c.study_id)
        .outerjoin(projects, projects.c.project_id == studies.c.project_id)
        .join(
            attempts,
            sa.and_(
                attempts.c.trial_id >= first_trial_id(studies.c.study_id),
                attempts.c.trial_id < first_trial_id(studies.c.study_id + 1),
            ),
        )
        .where(sa.func.coalesce(studies.c.ended_at, sa.func.now()) > earliest)
        .where(attempts.c.started_at.is_not(None), is_recent)
        .group_by(studies.c.study_id, _PROJECT, user)
    )


def _since(
    sinces: Mapping[Party, datetime],
    names: Sequence[sa.ColumnElement[str]],
) -> sa.ColumnElement[datetime]:
    """Return since when all of the group with these names have been there; now for no group."""
    found = [
        (sa.and_(sa.true(), *map(operator.eq, names, group)), since)
        for group, since in sinces.items()
        if len(group) == len(names)
    ]
    return sa.case(*found, else_=sa.func.now())


def _overlap(since: sa.ColumnElement[datetime]) -> sa.ColumnElement[float]:
    """Return the seconds that an attempt ran after a time."""
    until = sa.func.coalesce(attempts.c.ended_at, sa.func.now())
    return sa.func.greatest(0.0, seconds(until - sa.func.greatest(attempts.c.started_at, since)))
