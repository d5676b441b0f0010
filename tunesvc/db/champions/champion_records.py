"""The history of the champions of a family: append-only, a row for each promotion and rollback.

A family is the name of a study that is tuned again and again. Each row follows the one before it,
and no row has two followers. So of two processes that replace the same champion, one fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tunesvc.db.schema.service_tables import champions
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.drift.drift_report import DriftReport, read_report
from tunesvc.errors import ChampionNotFound, StudyBusy
from tunesvc.spec.goals import Goal
from tunesvc.util.suggestions import suggest


@dataclass(frozen=True, slots=True)
class Configuration:
    """A trial of a study, with all that it takes to train it again."""

    study: str
    trial_number: int
    params: Mapping[str, Any]
    constants: Mapping[str, Any]
    data_version: str | None
    """None for a study without `data`."""
    metric: str
    goal: Goal
    value: float
    """Mean over folds; the observed value without any."""
    standard_error: float | None = None
    fold_values: tuple[float, ...] = ()
    """Values on folds of its data version; NaN where its trial failed."""

    def trains_as(self, other: Configuration) -> bool:
        """Return True if the other one has the same parameters and constants."""
        return self.params == other.params and self.constants == other.constants


@dataclass(frozen=True, slots=True)
class PromotionEvidence:
    """Reasons for a promotion."""

    reason: str
    """In a sentence."""
    rival_values: tuple[float, ...] = ()
    """Values of the champion before on the same folds, in the same order; of `kept`, those of the
    challenger that lost."""
    p_value: float | None = None
    """The p-value that the challenger is better; None if it was not tested."""
    level: float | None = None
    drift: DriftReport | None = None


@dataclass(frozen=True, slots=True)
class Champion:
    """A champion: a row of a family's history."""

    champion_id: int
    family: str
    kind: str
    """One of `service_tables.PROMOTIONS`."""
    configuration: Configuration
    evidence: PromotionEvidence
    user_name: str
    promoted_at: datetime
    previous_id: int | None
    restores_id: int | None
    """The champion whose configuration a rollback uses again; None of other kinds."""
    project_id: int | None = None

    @property
    def is_new(self) -> bool:
        """True if its configuration is another one than that of the champion before it."""
        return self.kind != "kept"


def current(
    connection: sa.Connection, family: str, scope: StudyScope = ALL_STUDIES
) -> Champion | None:
    """Return the champion of a family; None if it has none."""
    query = _query_current(scope).where(champions.c.family == family)
    row = connection.execute(query).one_or_none()
    return None if row is None else champion_of(row)


def get_current(
    connection: sa.Connection, family: str, scope: StudyScope = ALL_STUDIES
) -> Champion:
    """Return the champion of a family.

    Raises:
        ChampionNotFound: it has none.
    """
    found = current(connection, family, scope)
    if found is None:
        families = [one.family for one in list_current(connection, scope)]
        hint = suggest(family, families) or ": `tune champion ls` lists them"
        raise ChampionNotFound(f"{family!r} has no champion{hint}")
    return found


def list_current(
    connection: sa.Connection, scope: StudyScope = ALL_STUDIES
) -> tuple[Champion, ...]:
    """Return the champion of each family, by name."""
    query = _query_current(scope).order_by(champions.c.family)
    return tuple(champion_of(row) for row in connection.execute(query))


def list_history(
    connection: sa.Connection,
    family: str,
    scope: StudyScope = ALL_STUDIES,
    *,
    limit: int | None = None,
) -> tuple[Champion, ...]:
    """Return the champions of a family, the newest first; at most `limit`, by default all."""
    query = select_champions(scope).where(champions.c.family == family)
    rows = connection.execute(query.order_by(champions.c.champion_id.desc()).limit(limit))
    return tuple(champion_of(row) for row in rows)


def earlier_configuration(history: Sequence[Champion], champion_id: int | None) -> Champion:
    """Return the champion that a rollback restores.

    Args:
        history: of the family, the newest first.
        champion_id: the one to restore; by default the last one with another configuration than
            today's.

    Raises:
        ChampionNotFound: there is none.
    """
    today, *earlier = history
    family = today.family
    if champion_id is not None:
        chosen = next((one for one in earlier if one.champion_id == champion_id), None)
        if chosen is None:
            raise ChampionNotFound(
                f"{family!r} had no champion {champion_id} before today's: "
                f"`tune champion show {family}` lists them"
            )
        return chosen
    found = find_earlier(history)
    if found is None:
        raise ChampionNotFound(
            f"{family!r} had no other champion before: `tune champion promote` chooses another "
            "trial"
        )
    return found


def find_earlier(history: Sequence[Champion]) -> Champion | None:
    """Return the last champion of a history with another configuration than today's.

    None without one. The history is not empty, the newest first, and may lack its oldest part.
    """
    today, *earlier = history
    origin = _origin(history)
    for one in earlier:
        is_other = not one.configuration.trains_as(today.configuration)
        if one.champion_id < origin and one.kind != "rollback" and is_other:
            return one
    return None


def _origin(history: Sequence[Champion]) -> int:
    """Return the champion with which today's configuration began to be used."""
    begun = next((one for one in history if one.is_new), history[-1])
    return begun.champion_id if begun.restores_id is None else begun.restores_id


def record(
    connection: sa.Connection,
    family: str,
    kind: str,
    configuration: Configuration,
    evidence: PromotionEvidence,
    user_name: str,
    *,
    follows: Champion | None,
    restores_id: int | None = None,
    project_id: int | None = None,
) -> int:
    """Append a row to a family's history; return its id.

    Args:
        follows: the champion that it replaces; None for the first one.

    Raises:
        StudyBusy: another process has replaced that one meanwhile.
    """
    row = {
        "family": family,
        "kind": kind,
        **asdict(configuration),
        "previous_id": None if follows is None else follows.champion_id,
        "restores_id": restores_id,
        "project_id": project_id if follows is None else follows.project_id,
        "rival_values": list(evidence.rival_values),
        "p_value": evidence.p_value,
        "level": evidence.level,
        "drift": sa.null() if evidence.drift is None else asdict(evidence.drift),
        "reason": evidence.reason,
        "user_name": user_name,
    }
    row["fold_values"] = list(configuration.fold_values)
    insert = sa.insert(champions).values(row).returning(champions.c.champion_id)
    try:
        with connection.begin_nested():
            return int(connection.execute(insert).scalar_one())
    except sa.exc.IntegrityError:
        raise StudyBusy(
            f"another process has replaced the champion of {family!r} meanwhile: "
            f"`tune champion show {family}`"
        ) from None


def select_champions(scope: StudyScope) -> sa.Select[Any]:
    """Return the query of the rows that a scope shows."""
    query = sa.select(champions)
    if scope.projects is None:
        return query
    return query.where(champions.c.project_id.in_(scope.projects))


def _query_current(scope: StudyScope) -> sa.Select[Any]:
    """Return the query of the champions that none follows: one of each family."""
    followers = champions.alias("followers")
    has_follower = sa.exists().where(followers.c.previous_id == champions.c.champion_id)
    return select_champions(scope).where(~has_follower)


def champion_of(row: Any) -> Champion:
    """Return a row as a champion."""
    configuration = Configuration(
        row.study,
        row.trial_number,
        row.params,
        row.constants,
        row.data_version,
        row.metric,
        row.goal,
        row.value,
        row.standard_error,
        tuple(row.fold_values),
    )
    drift = None if row.drift is None else read_report(row.drift)
    evidence = PromotionEvidence(row.reason, tuple(row.rival_values), row.p_value, row.level, drift)
    return Champion(
        row.champion_id,
        row.family,
        row.kind,
        configuration,
        evidence,
        row.user_name,
        row.promoted_at,
        row.previous_id,
        row.restores_id,
        row.project_id,
    )
