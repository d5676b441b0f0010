"""Trials by filter and sort, a page at a time. Pages go on after a key, never after a count, so the last is as quick
as the first, and trials that come meanwhile shift nothing.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.tables import trial_params, trials
from tunesvc.errors import TuneError
from tunesvc.queries.rows import TrialRow
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
    """What trials are sorted by. Those that do not have it come last; equal ones are by number."""

    field: Field
    descending: bool = False

    @staticmethod
    def of(text: str, names: Names) -> TrialSort:
        """`number`, `-value`, `params.lr`: a name, with `-` the largest first.

        Raises:
            TuneError: there is no such name, or nothing sorts by it.
        """
        name = text.removeprefix("-")
        field = names.find(name)
        if field is None or field.kind not in _SORTABLE:
            own = (*names.objectives, *names.params, *names.other_metrics)
            there = ["number", "state", "value", "duration", *own]
            near = difflib.get_close_matches(name, there, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise TuneError(
                f"trials cannot be sorted by {name!r}{hint} There are: {', '.join(there[:30])}",
            )
        return TrialSort(field, text.startswith("-"))


@dataclass(frozen=True, slots=True)
class TrialPage:
    """Some trials in order."""

    rows: tuple[TrialRow, ...]
    after: str | None
    """Where the next page goes on; None when there is none."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which trials of a study, in which order."""

    study_id: int
    where: Filter
    sort: TrialSort

    @staticmethod
    def of(study_id: int, names: Names, where: str = "", sort: str = "number") -> Selection:
        """From texts, see `filter_language` and `TrialSort.of`."""
        return Selection(study_id, parse(where, names), TrialSort.of(sort, names))


def trial_page(
    database: Database,
    selection: Selection,
    *,
    after: str = "",
    limit: int = 100,
) -> TrialPage:
    """A page of trials.

    Args:
        database: where to read.
        selection: which trials, in which order.
        after: `TrialPage.after` of the page before.
        limit: at most so many.
    """
    with database.engine.connect() as connection:
        found = _numbers(connection, selection, after, limit + 1)
    more = found[limit - 1].text if len(found) > limit else None
    return TrialPage(
        rows_of(database, selection.study_id, [place.number for place in found[:limit]]),
        more,
    )


def trial_chunks(
    database: Database,
    selection: Selection,
    limit: int | None = None,
) -> Iterator[tuple[TrialRow, ...]]:
    """The trials of a selection, or the first `limit`, so many at a time that memory stays flat."""
    after: str | None = ""
    while after is not None and limit != 0:
        size = _CHUNK if limit is None else min(limit, _CHUNK)
        page = trial_page(database, selection, after=after, limit=size)
        yield page.rows
        after = page.after
        limit = None if limit is None else limit - len(page.rows)


def count_trials(database: Database, selection: Selection) -> int:
    """How many trials a selection has."""
    with database.engine.connect() as connection:
        wanted = _condition(connection, selection)
        query = sa.select(sa.func.count()).where(
            trials.c.study_id == selection.study_id,
            wanted,
        )
        return int(connection.execute(query).scalar_one())


@dataclass(frozen=True, slots=True)
class _PageKey:
    """Where a trial is in the order: its key, and its number among equal ones."""

    key: Any
    """None for a trial that has none."""
    number: int

    @property
    def text(self) -> str:
        return f"{'' if self.key is None else self.key}~{self.number}"

    @staticmethod
    def of(text: str, sort: TrialSort) -> _PageKey:
        key, _, number = text.rpartition("~")
        try:
            return _PageKey(
                (key if sort.field.kind is FieldKind.STATE else float(key)) if key else None,
                int(number),
            )
        except ValueError:
            raise TuneError(
                f"{text!r} is no place in a list of trials: begin with the first page",
            ) from None


def _condition(connection: sa.Connection, selection: Selection) -> Condition:
    names = set(params_of(selection.where))
    drawn = ParamDistributions(
        selection.study_id,
        distributions(connection, selection.study_id, names),
    )
    wanted = condition(selection.where, drawn)
    if selection.where == EVERYTHING or selection.sort.field.kind is FieldKind.NUMBER:
        return wanted
    # once for all trials: in the order of an index, a filter that lets few through would be asked of each by itself
    matching = sa.select(trials.c.trial_id).where(
        trials.c.study_id == selection.study_id,
        wanted,
    )
    return trials.c.trial_id.in_(
        sa.select(matching.cte("matching").prefix_with("MATERIALIZED").c.trial_id),
    )


def _numbers(
    connection: sa.Connection,
    selection: Selection,
    after: str,
    limit: int,
) -> list[_PageKey]:
    """The next places: first of the trials that have a key, then of those that have none, by number."""
    wanted, place = (
        _condition(connection, selection),
        _PageKey.of(after, selection.sort) if after else None,
    )
    found: list[_PageKey] = []
    if place is None or place.key is not None:
        found = _ask(connection, _having(selection, place).where(wanted).limit(limit))
        place = None
    if len(found) < limit and selection.sort.field.kind not in (
        FieldKind.NUMBER,
        FieldKind.STATE,
    ):
        found += _ask(
            connection,
            _lacking(selection, place).where(wanted).limit(limit - len(found)),
        )
    return found


def _ask(connection: sa.Connection, query: sa.Select[Any]) -> list[_PageKey]:
    return [_PageKey(row.key, row.number) for row in connection.execute(query)]


def _having(selection: Selection, after: _PageKey | None) -> sa.Select[Any]:
    """Trials that have what is sorted by, after a place."""
    field, study_id = selection.sort.field, selection.study_id
    number: Any = trials.c.number
    key = _key(field)
    query = sa.select(key.label("key"), number.label("number"))
    if field.kind is FieldKind.PARAM:
        number = trial_params.c.trial_id  # what the index ends with
        query = query.select_from(
            trial_params.join(trials, trials.c.trial_id == number),
        ).where(study_key(number) == study_id, trial_params.c.name == field.name)
    else:
        query = query.where(trials.c.study_id == study_id, key.is_not(None))
    if after is not None:
        last = trial_id(study_id, after.number) if field.kind is FieldKind.PARAM else after.number
        here, there = (
            sa.tuple_(key, number),
            sa.tuple_(sa.literal(after.key, key.type), last),
        )
        query = query.where(here < there if selection.sort.descending else here > there)
    return query.order_by(*_directed(selection.sort, key, number))


def _lacking(selection: Selection, after: _PageKey | None) -> sa.Select[Any]:
    """Trials without it, after a place."""
    field, descending, number = (
        selection.sort.field,
        selection.sort.descending,
        trials.c.number,
    )
    if field.kind is FieldKind.PARAM:
        own = (
            trial_params.c.trial_id == trials.c.trial_id,
            trial_params.c.name == field.name,
        )
        of_study = study_key(trial_params.c.trial_id) == selection.study_id
        lacks: Condition = ~sa.exists().where(*own, of_study)
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
            value: Any = trials.c["values"][field.index + 1]
            # what is no number comes last in both directions
            return first_value() if field.index == 0 else sa.func.nullif(value, math.nan, type_=sa.Double())
        case FieldKind.PARAM:
            return trial_params.c.value
        case FieldKind.METRIC:
            return _at_its_end(metric(field.name))
        case FieldKind.CONSTRAINT:
            return _at_its_end(constraint(field.name))
    return _at_its_end(duration_s())


def _at_its_end(value: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    """A number of a trial that ended: of one that runs it would change between two pages."""
    return sa.case((trials.c.ended_at.is_not(None), sa.func.nullif(value, math.nan)))
