"""Trials by filter and sort, a page at a time.

A page starts after a key, not at an offset: the last page is as fast as the first, and new trials
shift no rows between pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.tables import trial_params, trials
from tunesvc.errors import TuneError
from tunesvc.queries.rows import RowPage, TrialRow
from tunesvc.queries.sql import duration_s, first_value, study_key
from tunesvc.queries.trials.columns import distributions
from tunesvc.queries.trials.filter_language import (
    EVERYTHING,
    Field,
    FieldKind,
    Filter,
    Names,
    parse,
)
from tunesvc.queries.trials.filter_sql import (
    Condition,
    ParamDistributions,
    condition,
    params_of,
)
from tunesvc.queries.trials.trial_metrics import constraint, metric
from tunesvc.queries.trials.trial_table import rows_of
from tunesvc.util.suggestions import suggest

_CHUNK = 2_000
_SORTABLE = (
    FieldKind.NUMBER,
    FieldKind.STATE,
    FieldKind.VALUE,
    FieldKind.DURATION,
    FieldKind.PARAM,
    FieldKind.METRIC,
    FieldKind.CONSTRAINT,
)


@dataclass(frozen=True, slots=True)
class TrialSort:
    """Sort order of trials. Trials without the field come last; equal ones are by number."""

    field: Field
    descending: bool = False

    @staticmethod
    def of(text: str, names: Names) -> TrialSort:
        """Parse `number`, `-value` or `params.lr`: a name, with `-` for descending order.

        Raises:
            TuneError: there is no such name, or trials cannot be sorted by it.
        """
        name = text.removeprefix("-")
        field = names.find(name)
        if field is None or field.kind not in _SORTABLE:
            own = (*names.objectives, *names.params, *names.other_metrics)
            sortable = ["number", "state", "value", "duration", *own]
            hint = suggest(name, sortable, quote="'", otherwise=".")
            listed = ", ".join(sortable[:30])
            raise TuneError(f"trials cannot be sorted by {name!r}{hint} There are: {listed}")
        return TrialSort(field, text.startswith("-"))


@dataclass(frozen=True, slots=True)
class Selection:
    """Filter and order of a study's trials."""

    study_id: int
    where: Filter
    sort: TrialSort

    @staticmethod
    def of(
        study_id: int,
        names: Names,
        where: str = "",
        sort: str = "number",
    ) -> Selection:
        """Parse a filter and a sort order, see `filter_language` and `TrialSort.of`."""
        return Selection(study_id, parse(where, names), TrialSort.of(sort, names))


def trial_page(
    database: Database,
    selection: Selection,
    *,
    after: str = "",
    limit: int = 100,
) -> RowPage[TrialRow]:
    """Return a page of trials.

    Args:
        database: Database to read.
        selection: Filter and order of the trials.
        after: `RowPage.after` of the previous page.
        limit: Most trials to return.
    """
    with database.engine.connect() as connection:
        keys = _keys(connection, selection, after, limit + 1)
    next_page = keys[limit - 1].text if len(keys) > limit else None
    numbers = [key.number for key in keys[:limit]]
    return RowPage(rows_of(database, selection.study_id, numbers), next_page)


def trial_chunks(
    database: Database,
    selection: Selection,
    limit: int | None = None,
) -> Iterator[tuple[TrialRow, ...]]:
    """Yield the selected trials, or the first `limit`, in chunks that keep memory use constant."""
    after: str | None = ""
    while after is not None and limit != 0:
        size = _CHUNK if limit is None else min(limit, _CHUNK)
        page = trial_page(database, selection, after=after, limit=size)
        yield page.rows
        after = page.after
        limit = None if limit is None else limit - len(page.rows)


def count_trials(database: Database, selection: Selection) -> int:
    """Count the selected trials."""
    with database.engine.connect() as connection:
        query = sa.select(sa.func.count()).where(
            trials.c.study_id == selection.study_id,
            _condition(connection, selection),
        )
        return int(connection.execute(query).scalar_one())


@dataclass(frozen=True, slots=True)
class _PageKey:
    """Position of a trial in the order: its key, and its number among equal keys."""

    key: Any
    """None for a trial without the field."""
    number: int

    @property
    def text(self) -> str:
        return f"{'' if self.key is None else self.key}~{self.number}"

    @staticmethod
    def of(text: str, sort: TrialSort) -> _PageKey:
        key, _, number = text.rpartition("~")
        is_text = sort.field.kind is FieldKind.STATE
        try:
            if not key:
                return _PageKey(None, int(number))
            return _PageKey(key if is_text else float(key), int(number))
        except ValueError:
            problem = f"{text!r} is not a position in a list of trials"
            raise TuneError(f"{problem}: begin with the first page") from None


def _condition(connection: sa.Connection, selection: Selection) -> Condition:
    names = set(params_of(selection.where))
    stored = distributions(connection, selection.study_id, names)
    matches = condition(selection.where, ParamDistributions(selection.study_id, stored))
    if selection.where == EVERYTHING or selection.sort.field.kind is FieldKind.NUMBER:
        return matches
    # Evaluate the filter once for all trials. In the order of an index, Postgres would evaluate it
    # trial by trial, which is slow for a filter that few trials pass.
    matching = sa.select(trials.c.trial_id).where(
        trials.c.study_id == selection.study_id,
        matches,
    )
    materialized = matching.cte("matching").prefix_with("MATERIALIZED")
    return trials.c.trial_id.in_(sa.select(materialized.c.trial_id))


def _keys(
    connection: sa.Connection,
    selection: Selection,
    after: str,
    limit: int,
) -> list[_PageKey]:
    """Return the next positions: trials with a key first, then those without one, by number."""
    matches = _condition(connection, selection)
    position = _PageKey.of(after, selection.sort) if after else None
    found: list[_PageKey] = []
    if position is None or position.key is not None:
        query = _select_with_key(selection, position).where(matches)
        found = _read_keys(connection, query.limit(limit))
        position = None
    every_trial_has_key = selection.sort.field.kind in (FieldKind.NUMBER, FieldKind.STATE)
    if len(found) < limit and not every_trial_has_key:
        query = _select_without_key(selection, position).where(matches)
        found += _read_keys(connection, query.limit(limit - len(found)))
    return found


def _read_keys(connection: sa.Connection, query: sa.Select[Any]) -> list[_PageKey]:
    return [_PageKey(row.key, row.number) for row in connection.execute(query)]


def _select_with_key(selection: Selection, after: _PageKey | None) -> sa.Select[Any]:
    """Select trials that have the sort field, after a position."""
    field = selection.sort.field
    study_id = selection.study_id
    number: Any = trials.c.number
    key = _key(field)
    query = sa.select(key.label("key"), number.label("number"))
    if field.kind is FieldKind.PARAM:
        number = trial_params.c.trial_id  # the last column of the index
        joined = trial_params.join(trials, trials.c.trial_id == number)
        query = query.select_from(joined).where(
            study_key(number) == study_id,
            trial_params.c.name == field.name,
        )
    else:
        query = query.where(trials.c.study_id == study_id, key.is_not(None))
    if after is not None:
        last = trial_id(study_id, after.number) if field.kind is FieldKind.PARAM else after.number
        row = sa.tuple_(key, number)
        position = sa.tuple_(sa.literal(after.key, key.type), last)
        query = query.where(row < position if selection.sort.descending else row > position)
    return query.order_by(*_directed(selection.sort, key, number))


def _select_without_key(selection: Selection, after: _PageKey | None) -> sa.Select[Any]:
    """Select trials without the sort field, after a position."""
    field = selection.sort.field
    descending = selection.sort.descending
    number = trials.c.number
    if field.kind is FieldKind.PARAM:
        lacks: Condition = ~sa.exists().where(
            trial_params.c.trial_id == trials.c.trial_id,
            trial_params.c.name == field.name,
            study_key(trial_params.c.trial_id) == selection.study_id,
        )
    else:
        lacks = _key(field).is_(None)
    query = sa.select(sa.null().label("key"), number).where(
        trials.c.study_id == selection.study_id,
        lacks,
    )
    if after is not None:
        query = query.where(number < after.number if descending else number > after.number)
    return query.order_by(*_directed(selection.sort, number))


def _directed(sort: TrialSort, *by: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    return [one.desc() if sort.descending else one.asc() for one in by]


def _key(field: Field) -> sa.ColumnElement[Any]:
    match field.kind:
        case FieldKind.NUMBER:
            return trials.c.number
        case FieldKind.STATE:
            return trials.c.state
        case FieldKind.VALUE:
            if field.index == 0:
                return first_value()
            value: Any = trials.c["values"][field.index + 1]
            # NaN becomes NULL, so that it comes last in both directions.
            return sa.func.nullif(value, math.nan, type_=sa.Double())
        case FieldKind.PARAM:
            return trial_params.c.value
        case FieldKind.METRIC:
            return _final(metric(field.name))
        case FieldKind.CONSTRAINT:
            return _final(constraint(field.name))
    return _final(duration_s())


def _final(value: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    # NULL for running trials: their values would change between two pages.
    return sa.case((trials.c.ended_at.is_not(None), sa.func.nullif(value, math.nan)))
