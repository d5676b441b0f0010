"""Metrics, constraints and attributes of trials: names, values and SQL columns.

A metric is a number that a trial returned in addition to its objectives, stored as a user
attribute, or else one that it reported. A constraint is stored as in Optuna: an excess by name,
satisfied if it is <= 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema import tables
from tunesvc.db.schema.tables import trials
from tunesvc.queries.sql import JSON_NUMBER, in_study, is_any_of, json_number, newest_report
from tunesvc.util.optuna_keys import CONSTRAINT, OLD_CONSTRAINTS

_REPORTS = 200
"""Newest reports of a study that are searched for names of metrics."""
_ATTRS = 5_000
"""Attributes of the newest and of the oldest trials that are searched for names of metrics."""
_LONGEST = 10_000
"""Most bytes of an attribute in a list of trials; the trial's own page has longer ones."""


@dataclass(frozen=True, slots=True)
class AttrNames:
    """Names of metrics, constraints and attributes in a study, in alphabetical order."""

    metrics: tuple[str, ...]
    constraints: tuple[str, ...]
    attrs: tuple[str, ...]
    """User attributes that are not numbers."""


@dataclass(slots=True)
class TrialAttrs:
    """Metrics, constraints and attributes of one trial."""

    metrics: dict[str, float] = field(default_factory=dict)
    constraints: dict[str, float] = field(default_factory=dict)
    """Excess over each bound; satisfied if <= 0."""
    attrs: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, name: str, value: Any) -> None:
        """Add a stored attribute."""
        if kind == "system":
            self.constraints |= _excesses(name, value)
        elif _is_number(value):
            self.metrics[name] = value
        else:
            self.attrs[name] = value


def attr_names(connection: sa.Connection, study_id: int) -> AttrNames:
    """Return names in a study, from its newest and oldest trials and its newest reports."""
    constraints: set[str] = set()
    metrics = set(_reported_names(connection, study_id))
    attrs: set[str] = set()
    for row in connection.execute(_stored_names(study_id)):
        if row.kind == "system":
            constraints |= _constraint_names(row.name, row.listed)
        else:
            if row.has_numbers:
                metrics.add(row.name)
            if row.has_others:
                attrs.add(row.name)
    groups = (metrics, constraints, attrs)
    return AttrNames(*(tuple(sorted(names)) for names in groups))


def attrs_of(
    connection: sa.Connection,
    study_id: int,
    ids: Sequence[int],
) -> Mapping[int, TrialAttrs]:
    """Return metrics, constraints and attributes by trial id."""
    found = {id_: TrialAttrs() for id_ in ids}
    columns = tables.trial_attrs.c
    query = sa.select(
        columns.trial_id,
        columns.kind,
        columns.name,
        columns.value,
    ).where(
        is_any_of(columns.trial_id, ids),
        _is_shown(columns),
        sa.func.octet_length(columns.value) <= _LONGEST,
    )
    query = query.order_by(columns.trial_id, columns.kind, columns.name)
    for row in connection.execute(query):
        found[row.trial_id].add(row.kind, row.name, json.loads(row.value))
    names = _reported_names(connection, study_id)
    # Reports are read only for trials that did not return all of these metrics.
    incomplete = [id_ for id_, attrs in found.items() if not attrs.metrics.keys() >= set(names)]
    for id_, name, value in _last_reported(connection, incomplete, names):
        found[id_].metrics.setdefault(name, value)
    return found


def metric(name: str) -> sa.ColumnElement[float]:
    """Return a trial's metric: the returned one, or else the last reported one."""
    columns = tables.trial_attrs.c
    returned = sa.select(json_number(columns.value)).where(
        columns.trial_id == trials.c.trial_id,
        columns.kind == "user",
        columns.name == name,
    )
    reported = _last(name, trials.c.trial_id)
    return sa.func.coalesce(
        returned.correlate(trials).scalar_subquery(),
        reported.correlate(trials).scalar_subquery(),
        type_=sa.Double(),
    )


def constraint(name: str) -> sa.ColumnElement[float]:
    """Return a trial's excess over a constraint."""
    columns = tables.trial_attrs.c
    is_named = columns.name == CONSTRAINT + name
    value: Any = json_number(columns.value)
    if name.isdecimal():
        # The name may be an index into the old list.
        items = sa.func.translate(columns.value, "[] ", "")
        listed = sa.func.string_to_array(items, ",", type_=pg.ARRAY(sa.Text))
        is_list = columns.name == OLD_CONSTRAINTS
        value = sa.case((is_list, json_number(listed[int(name) + 1])), else_=value)
        is_named = sa.or_(is_named, is_list)
    query = sa.select(value).where(
        columns.trial_id == trials.c.trial_id,
        columns.kind == "system",
        is_named,
    )
    return query.limit(1).correlate(trials).scalar_subquery()


def _is_shown(columns: Any) -> sa.ColumnElement[bool]:
    kind, name = columns.kind, columns.name
    is_constraint = sa.or_(name == OLD_CONSTRAINTS, name.like(CONSTRAINT + "%"))
    return sa.or_(kind == "user", sa.and_(kind == "system", is_constraint))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _excesses(name: str, value: Any) -> dict[str, float]:
    if name == OLD_CONSTRAINTS:
        listed = value if isinstance(value, list) else []
        return {str(index): one for index, one in enumerate(listed) if _is_number(one)}
    return {name.removeprefix(CONSTRAINT): value} if _is_number(value) else {}


def _constraint_names(name: str, listed: str | None) -> set[str]:
    if name == OLD_CONSTRAINTS:
        return set(_excesses(name, json.loads(listed or "[]")))
    return {name.removeprefix(CONSTRAINT)}


def _stored_names(study_id: int) -> sa.Select[Any]:
    columns = tables.trial_attrs.c
    own = sa.select(columns.kind, columns.name, columns.value).where(
        in_study(columns.trial_id, study_id),
    )
    newest = own.order_by(columns.trial_id.desc()).limit(_ATTRS).subquery()
    oldest = own.order_by(columns.trial_id).limit(_ATTRS).subquery()
    either = sa.union_all(sa.select(newest), sa.select(oldest)).subquery("trial_attrs")
    value = either.c.value
    is_number = value.regexp_match(JSON_NUMBER)
    listed = sa.func.max(value).filter(value.startswith("["))
    return (
        sa.select(
            either.c.kind,
            either.c.name,
            listed.label("listed"),
            sa.func.bool_or(is_number).label("has_numbers"),
            sa.func.bool_or(~is_number).label("has_others"),
        )
        .where(_is_shown(either.c))
        .group_by(either.c.kind, either.c.name)
    )


def _reported_names(connection: sa.Connection, study_id: int) -> tuple[str, ...]:
    columns = tables.reports.c
    newest = (
        sa.select(columns.metrics)
        .where(in_study(columns.trial_id, study_id))
        .order_by(columns.trial_id.desc(), columns.attempt.desc(), columns.step.desc())
        .limit(_REPORTS)
        .subquery()
    )
    name = sa.func.jsonb_object_keys(newest.c.metrics).label("name")
    # Reports without metrics are stored as JSON's null.
    is_object = sa.func.jsonb_typeof(newest.c.metrics) == "object"
    query = sa.select(name).where(is_object).distinct().order_by(name)
    return tuple(connection.execute(query).scalars())


def _last_reported(
    connection: sa.Connection,
    ids: Sequence[int],
    names: Sequence[str],
) -> Iterable[tuple[int, str, float]]:
    """Return (trial id, name, value) of the last report of each metric."""
    if not ids or not names:
        return ()
    trial = _unnested(ids, sa.BigInteger(), "of_trial")
    named = _unnested(names, sa.Text(), "named")
    last = _last(named.c.item, trial.c.item)
    newest = last.correlate(trial, named).lateral("newest")
    query = (
        sa.select(trial.c.item, named.c.item, newest.c.value)
        .select_from(trial)
        .join(named, sa.true())
        .join(newest, sa.true())
    )
    return [tuple(row) for row in connection.execute(query)]


def _unnested(items: Sequence[Any], kind: sa.types.TypeEngine[Any], name: str) -> Any:
    """Return items as a table with the column `item`."""
    array = sa.cast(list(items), pg.ARRAY(kind))
    return sa.func.unnest(array).table_valued("item", name=name).render_derived()


def _last(name: Any, trial: Any) -> sa.Select[Any]:
    reported = tables.reports.c.metrics.op("->>", return_type=sa.Text())(name)
    value = sa.cast(reported, sa.Double).label("value")
    return newest_report(value, trial=trial).where(reported.is_not(None))
