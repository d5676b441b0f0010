"""Alerts about studies: raised once for each occasion, and delivered to every target at least once.

What happened is read from the studies themselves, so an alert is raised even if the server that ran
the study died. Only studies for which there is a target are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema.service_tables import (
    ALERTS,
    alert_targets,
    alerts,
    champions,
    deliveries,
    submissions,
    watches,
)
from tunesvc.db.schema.states import StudyState
from tunesvc.db.schema.tables import attempts, studies, trials
from tunesvc.errors import SpecError

NEARLY_SPENT = 0.9
"""Part of the budget at which `budget` is raised."""
LATELY = sa.text("interval '1 day'")
"""Older occasions are not news."""
RETRY_FIRST_S, RETRY_LAST_S = 5.0, 600.0
FAILURES_MAX = 20
"""Failed deliveries after which no other is tried: nearly three hours."""
TARGETS_MAX = 100
"""Targets of one user."""
_TARGETS_LOCK = 0x74756E61


@dataclass(frozen=True, slots=True)
class AlertTarget:
    """A place that alerts are delivered to."""

    target_id: int
    user_name: str
    study: str | None
    """Name of the study; None for all studies that the user submits."""
    place: str
    """Its address without secrets."""
    kinds: tuple[str, ...]
    created_at: datetime
    error: str
    """Error of the last delivery; empty if it succeeded."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An alert that is due for a target."""

    alert_id: int
    target_id: int
    url: str
    study: str
    kind: str
    text: str

    def __repr__(self) -> str:
        return f"Delivery({self.alert_id}, {self.target_id}, {self.kind!r})"  # without the URL


def add_target(
    connection: sa.Connection,
    user_name: str,
    url: str,
    *,
    study_id: int | None = None,
    kinds: Sequence[str] = (),
) -> int:
    """Add a target; return its id.

    Args:
        url: as Apprise reads it.
        study_id: None for all studies that the user submits.
        kinds: some of `ALERTS`; all by default.

    Raises:
        SpecError: a kind does not exist, or the user has too many targets.
    """
    if unknown := [kind for kind in kinds if kind not in ALERTS]:
        raise SpecError(f"there is no alert {unknown[0]!r}: choose from {', '.join(ALERTS)}")
    # Two that are added at once are counted one after the other.
    lock = sa.func.hashtextextended(user_name, _TARGETS_LOCK)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
    own = alert_targets.c.user_name == user_name
    if (connection.scalar(sa.select(sa.func.count()).where(own)) or 0) >= TARGETS_MAX:
        raise SpecError(f"{user_name} has {TARGETS_MAX} alert targets already: remove one first")
    row = {
        "user_name": user_name,
        "study_id": study_id,
        "url": url,
        "kinds": list(dict.fromkeys(kinds or ALERTS)),
    }
    insert = sa.insert(alert_targets).values(row).returning(alert_targets.c.target_id)
    target_id: int = connection.execute(insert).scalar_one()
    return target_id


def remove_target(connection: sa.Connection, user_name: str, target_id: int) -> bool:
    """Remove a user's target; return False if there is none."""
    gone = sa.delete(alert_targets).where(
        alert_targets.c.target_id == target_id,
        alert_targets.c.user_name == user_name,
    )
    return connection.execute(gone).rowcount == 1


def list_targets(connection: sa.Connection, user_name: str) -> tuple[AlertTarget, ...]:
    """Return a user's targets, oldest first."""
    last_error = (
        sa.select(deliveries.c.error)
        .where(deliveries.c.target_id == alert_targets.c.target_id)
        .order_by(deliveries.c.alert_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        sa.select(alert_targets, studies.c.name.label("study"), last_error.label("error"))
        .outerjoin(studies, studies.c.study_id == alert_targets.c.study_id)
        .where(alert_targets.c.user_name == user_name)
        .order_by(alert_targets.c.target_id)
    )
    return tuple(
        AlertTarget(
            row.target_id,
            row.user_name,
            row.study,
            place_of(row.url),
            tuple(row.kinds),
            row.created_at,
            row.error or "",
        )
        for row in connection.execute(query)
    )


def url_of(connection: sa.Connection, user_name: str, target_id: int) -> str | None:
    """Return the whole address of a user's target; None if there is none."""
    query = sa.select(alert_targets.c.url).where(
        alert_targets.c.target_id == target_id,
        alert_targets.c.user_name == user_name,
    )
    return connection.scalar(query)


def place_of(url: str) -> str:
    """Return an address without its secrets, which most services write where a host would be."""
    scheme, is_address, rest = url.partition("://")
    if not is_address:
        return "…"
    host = _HOST.match(rest) if scheme.lower() in _HAS_HOST else None
    return f"{scheme[:40]}://{host[1]}/…" if host is not None else f"{scheme[:40]}://…"


_HOST = re.compile(r"(?:[^/?#]*@)?([^/?#@]+)")
_HAS_HOST = frozenset(
    {
        *("mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms"),
        *("gotify", "gotifys", "matrix", "matrixs", "mmost", "mmosts", "rocket", "rockets"),
    }
)
"""Schemes of Apprise with a host at the start, behind a user with a password."""


def raise_alerts(connection: sa.Connection) -> None:
    """Raise the alerts of all new occasions, and plan their deliveries."""
    for found in (_ended(), _stalled(), _nearly_spent(), _promoted()):
        columns = ["study_id", "kind", "occasion", "text"]
        insert = pg.insert(alerts).from_select(columns, found)
        connection.execute(insert.on_conflict_do_nothing())
    due = (
        sa.select(alerts.c.alert_id, alert_targets.c.target_id)
        .join(studies, studies.c.study_id == alerts.c.study_id)
        .join(submissions, submissions.c.study_id == alerts.c.study_id, isouter=True)
        .join(watches, watches.c.family == studies.c.name, isouter=True)
        .join(alert_targets, _is_meant_for(alerts.c.study_id))
        .where(
            alerts.c.kind == sa.any_(alert_targets.c.kinds),
            alerts.c.raised_at >= alert_targets.c.created_at,
            alerts.c.raised_at > sa.func.now() - LATELY,
        )
    )
    plan = pg.insert(deliveries).from_select(["alert_id", "target_id"], due)
    connection.execute(plan.on_conflict_do_nothing())


def take_delivery(connection: sa.Connection) -> Delivery | None:
    """Return a delivery that is due, locked until the transaction ends; None if there is none."""
    query = (
        sa.select(
            deliveries.c.alert_id,
            deliveries.c.target_id,
            alert_targets.c.url,
            studies.c.name,
            alerts.c.kind,
            alerts.c.text,
        )
        .join(alerts, alerts.c.alert_id == deliveries.c.alert_id)
        .join(alert_targets, alert_targets.c.target_id == deliveries.c.target_id)
        .join(studies, studies.c.study_id == alerts.c.study_id)
        .where(
            deliveries.c.delivered_at.is_(None),
            deliveries.c.retry_at <= sa.func.now(),
            deliveries.c.failures < FAILURES_MAX,
        )
        .order_by(deliveries.c.retry_at)
        .limit(1)
        .with_for_update(of=deliveries, skip_locked=True)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Delivery(*row)


def record_delivery(connection: sa.Connection, delivery: Delivery, error: str) -> None:
    """Record that a delivery succeeded, or its error; then it is tried again later."""
    change = sa.update(deliveries).where(
        deliveries.c.alert_id == delivery.alert_id,
        deliveries.c.target_id == delivery.target_id,
    )
    if not error:
        connection.execute(change.values(delivered_at=sa.func.now(), error=""))
        return
    delay_s = sa.func.least(RETRY_FIRST_S * sa.func.power(2, deliveries.c.failures), RETRY_LAST_S)
    connection.execute(
        change.values(
            failures=deliveries.c.failures + 1,
            error=error,
            retry_at=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, delay_s),
        )
    )


def _is_meant_for(study_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return the condition that a target is the study's, or its user's for all studies.

    The user has submitted the study, or for news of promotions a watch of its family.
    """
    is_users_watch = sa.and_(
        alerts.c.kind == "promoted", alert_targets.c.user_name == watches.c.submitted_by
    )
    is_users_study = alert_targets.c.user_name == submissions.c.submitted_by
    is_the_users = sa.and_(
        alert_targets.c.study_id.is_(None), sa.or_(is_users_study, is_users_watch)
    )
    return sa.or_(alert_targets.c.study_id == study_id, is_the_users)


def _watched() -> sa.ColumnElement[bool]:
    """Return the condition that there is a target for a study."""
    of_user = sa.exists().where(
        submissions.c.study_id == studies.c.study_id,
        alert_targets.c.study_id.is_(None),
        alert_targets.c.user_name == submissions.c.submitted_by,
    )
    of_study = sa.exists().where(alert_targets.c.study_id == studies.c.study_id)
    return sa.or_(of_study, of_user)


def _has_target_of_watch() -> sa.ColumnElement[bool]:
    """Return the condition that there is a target for all studies of a family's watch."""
    return sa.exists().where(
        watches.c.family == studies.c.name,
        alert_targets.c.study_id.is_(None),
        alert_targets.c.user_name == watches.c.submitted_by,
    )


def _ended() -> sa.Select[tuple[int, str, str, str]]:
    kind = sa.case(
        (studies.c.state == StudyState.FAILED, "failed"),
        (studies.c.reason.like("%reached the target"), "target"),
        else_="finished",
    )
    return sa.select(
        studies.c.study_id,
        kind,
        sa.cast(studies.c.ended_at, sa.Text),
        studies.c.reason,
    ).where(
        studies.c.state.in_([StudyState.FINISHED, StudyState.FAILED]),
        studies.c.ended_at > sa.func.now() - LATELY,
        _watched(),
    )


def _stalled() -> sa.Select[tuple[int, str, str, str]]:
    number = sa.cast(trials.c.number, sa.Text)
    return (
        sa.select(
            studies.c.study_id,
            sa.literal("stalled"),
            number + sa.literal(".") + sa.cast(attempts.c.number, sa.Text),
            sa.literal("trial ") + number + sa.literal(": ") + attempts.c.message,
        )
        .select_from(attempts)
        .join(trials, trials.c.trial_id == attempts.c.trial_id)
        .join(studies, studies.c.study_id == trials.c.study_id)
        .where(
            attempts.c.failure.in_(["stalled", "silence"]),
            attempts.c.ended_at > sa.func.now() - LATELY,
            attempts.c.message.is_not(None),
            _watched(),
        )
    )


def _promoted() -> sa.Select[tuple[int, str, str, str]]:
    """Return new champions. Of a family whose first study was deleted, the champion's study has
    the alert."""
    number = sa.cast(champions.c.champion_id, sa.Text)
    trial = sa.cast(champions.c.trial_number, sa.Text)
    origin = sa.func.concat("champion ", number, " of ", champions.c.family, " is trial ", trial)
    text = sa.func.concat(origin, " of ", champions.c.study, ": ", champions.c.reason)
    first = studies.alias("first")
    has_first = sa.exists().where(first.c.name == champions.c.family)
    is_its = sa.or_(
        studies.c.name == champions.c.family,
        sa.and_(studies.c.name == champions.c.study, ~has_first),
    )
    return sa.select(studies.c.study_id, sa.literal("promoted"), number, text).where(
        is_its,
        champions.c.kind != "kept",
        champions.c.promoted_at > sa.func.now() - LATELY,
        sa.or_(_watched(), _has_target_of_watch()),
        champions.c.project_id.is_not_distinct_from(studies.c.project_id),
    )


def _nearly_spent() -> sa.Select[tuple[int, str, str, str]]:
    budget = studies.c.spec["budget"]
    most_trials = sa.cast(budget["trials"].as_string(), sa.Double)
    most_s = sa.cast(budget["wall"].as_string(), sa.Double)
    begun = sa.select(sa.func.count()).where(
        trials.c.study_id == studies.c.study_id,
        trials.c.state.in_(["complete", "pruned", "fail"]),
    )
    spent = sa.func.greatest(
        begun.correlate(studies).scalar_subquery() / most_trials,
        studies.c.active_s / most_s,
    )
    percent = sa.cast(sa.cast(sa.func.round(spent * 100), sa.Integer), sa.Text)
    return sa.select(
        studies.c.study_id,
        sa.literal("budget"),
        sa.func.concat(budget["trials"].as_string(), " ", budget["wall"].as_string()),
        percent + sa.literal(" % of the budget is spent"),
    ).where(
        studies.c.state == StudyState.RUNNING,
        studies.c.spec.is_not(None),
        _watched(),
        spent >= NEARLY_SPENT,
    )
