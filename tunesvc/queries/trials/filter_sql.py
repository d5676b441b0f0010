"""Filters of trials as SQL over the table `trials`.

Every value and name is a bound parameter, never a part of the SQL text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.optuna.frozen_trials import distribution_of
from tunesvc.db.schema.states import UNFINISHED
from tunesvc.db.schema.tables import (
    attempts,
    reports,
    trial_annotations,
    trial_params,
    trials,
)
from tunesvc.queries.sql import (
    duration_s,
    is_feasible,
    newest_report,
    of_last_attempt,
    state_shown,
    study_key,
)
from tunesvc.queries.trials.filter_language import (
    All,
    AnyOf,
    Comparison,
    FieldKind,
    Filter,
    Not,
    holds,
)
from tunesvc.queries.trials.trial_metrics import constraint, metric
from tunesvc.spec import ParamValue

Condition = sa.ColumnElement[bool]
_LONG = 2**63 - 1
_DERIVED_STATES = (*UNFINISHED, "failed", "stopped")
"""Shown states that are not stored as such."""


@dataclass(frozen=True, slots=True)
class ParamDistributions:
    """Distributions of a filter's parameters, see `columns.distributions`."""

    study_id: int
    distributions: Mapping[str, Sequence[str]]


def params_of(filter_: Filter) -> Iterator[str]:
    """Yield the parameters that a filter names."""
    match filter_:
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from params_of(part)
        case Not(part):
            yield from params_of(part)
        case Comparison(field) if field.kind is FieldKind.PARAM:
            yield field.name


def condition(filter_: Filter, params: ParamDistributions) -> Condition:
    """Return the condition that selects a filter's trials."""
    match filter_:
        case All(parts):
            return sa.and_(sa.true(), *(condition(part, params) for part in parts))
        case AnyOf(parts):
            return sa.or_(sa.false(), *(condition(part, params) for part in parts))
        case Not(part):
            return sa.not_(condition(part, params))
        case Comparison():
            return _comparison(filter_, params)


def _comparison(one: Comparison, params: ParamDistributions) -> Condition:
    match one.field.kind:
        case FieldKind.PARAM:
            return _param(one, params)
        case FieldKind.FEASIBLE:
            feasible = is_feasible([params.study_id])
            return sa.or_(
                sa.and_(feasible, sa.literal(holds(True, one.op, one.value))),
                sa.and_(~feasible, sa.literal(holds(False, one.op, one.value))),
            )
        case FieldKind.TAG:
            return _tag(one)
        case FieldKind.STATE | FieldKind.FAILURE:
            return _two_valued(_column(one), one.op, one.value, sa.Text())
        case FieldKind.NUMBER if isinstance(one.value, int) and abs(one.value) <= _LONG:
            return _two_valued(trials.c.number, one.op, one.value, sa.BigInteger())
        case _:
            return _two_valued(_column(one), one.op, one.value, sa.Double())


def _column(one: Comparison) -> sa.ColumnElement[Any]:
    """Return a trial's value of a name other than a parameter."""
    match one.field.kind:
        case FieldKind.NUMBER:
            return trials.c.number
        case FieldKind.STATE:
            return state_shown() if one.value in _DERIVED_STATES else trials.c.state
        case FieldKind.VALUE:
            value: sa.ColumnElement[Any] = trials.c["values"][one.field.index + 1]
            return value
        case FieldKind.DURATION:
            return duration_s()
        case FieldKind.ATTEMPTS:
            of_trial = sa.select(sa.func.count()).where(
                attempts.c.trial_id == trials.c.trial_id,
            )
            return of_trial.correlate(trials).scalar_subquery()
        case FieldKind.FAILURE:
            return of_last_attempt(attempts.c.failure)
        case FieldKind.STEP:
            return newest_report(reports.c.step).correlate(trials).scalar_subquery()
        case FieldKind.LAST:
            return newest_report(reports.c.value).correlate(trials).scalar_subquery()
        case FieldKind.CONSTRAINT:
            return constraint(one.field.name)
        case _:
            return metric(one.field.name)


def _two_valued(
    column: sa.ColumnElement[Any],
    op: str,
    value: ParamValue,
    sql_type: Any,
) -> Condition:
    """Return a comparison that is never NULL, so that `not` inverts it."""
    if value is None:
        return column.is_(None) if op == "==" else column.is_not(None)
    return sa.func.coalesce(_compared(column, op, value, sql_type), sa.false())


def _compared(column: Any, op: str, value: ParamValue, sql_type: Any) -> Condition:
    literal: Any = sa.literal(value, sql_type)
    match op:
        case "==":
            return sa.and_(column == literal)
        case "!=":
            return sa.and_(column != literal)
        case "<":
            return sa.and_(column < literal)
        case "<=":
            return sa.and_(column <= literal)
    more = column > literal if op == ">" else column >= literal
    if isinstance(sql_type, sa.Double):
        # Postgres sorts NaN above all numbers.
        return sa.and_(more, column != sa.literal(math.nan, sa.Double))
    return sa.and_(more)


def _tag(one: Comparison) -> Condition:
    # A trial may have several tags: `!=` means that it does not have this one.
    tags = trial_annotations.c.tags
    if one.value is None:
        matches: Condition = sa.func.cardinality(tags) > 0
    else:
        matches = sa.literal(one.value, sa.Text) == sa.any_(tags)
    of_trial = trial_annotations.c.trial_id == trials.c.trial_id
    has = _exists(sa.select(sa.literal(1)).where(of_trial), [matches])
    return has if (one.op == "==") == (one.value is not None) else ~has


def _param(one: Comparison, params: ParamDistributions) -> Condition:
    """Return a comparison with a parameter.

    As Optuna does, the table stores the number, or the index of the category in its distribution.
    """
    stored = params.distributions[one.field.name]
    of_trial = sa.select(sa.literal(1)).where(
        trial_params.c.trial_id == trials.c.trial_id,
        study_key(trial_params.c.trial_id) == params.study_id,
        trial_params.c.name == one.field.name,
    )
    if one.value is None:
        not_none = [_of_distribution(text, "!=", None) for text in stored]
        has_value = _exists(of_trial, not_none)
        return ~has_value if one.op == "==" else has_value
    branches: list[Condition] = []
    numbers: list[str] = []
    for text in stored:
        if isinstance(distribution_of(text), CategoricalDistribution):
            branches.append(_of_distribution(text, one.op, one.value))
        else:
            numbers.append(text)
    if numbers:
        branches.append(_numeric(numbers, one, among=stored))
    return _exists(of_trial, branches)


def _exists(query: sa.Select[Any], any_of: Sequence[Condition]) -> Condition:
    return query.where(sa.or_(sa.false(), *any_of)).correlate(trials).exists()


def _numeric(
    numbers: Sequence[str],
    one: Comparison,
    among: Sequence[str],
) -> Condition:
    if isinstance(one.value, (str, bool)):
        return sa.true() if one.op == "!=" else sa.false()
    compared = _compared(trial_params.c.value, one.op, one.value, sa.Double())
    if len(numbers) == len(among):
        return compared
    texts = sa.cast(list(numbers), pg.ARRAY(sa.Text))
    return sa.and_(trial_params.c.distribution == sa.any_(texts), compared)


def _of_distribution(text: str, op: str, value: ParamValue) -> Condition:
    """Return the condition for one distribution; of choices, for the indices that match."""
    distribution = distribution_of(text)
    is_this = trial_params.c.distribution == text
    if not isinstance(distribution, CategoricalDistribution):
        return is_this
    matching = []
    for index, choice in enumerate(distribution.choices):
        if holds(choice, op, value):
            matching.append(float(index))
    indices = sa.cast(matching, pg.ARRAY(sa.Double))
    return sa.and_(is_this, trial_params.c.value == sa.any_(indices))
