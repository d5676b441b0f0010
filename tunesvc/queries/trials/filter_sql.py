"""A filter of trials as SQL over the table `trials`. Every value and name is bound, none is ever part of the text."""

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
from tunesvc.queries.sql import duration_s, is_feasible, state_shown, study_key
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
_ONLY_SHOWN = (*UNFINISHED, "failed", "stopped")
"""States that are stored otherwise."""


@dataclass(frozen=True, slots=True)
class ParamDistributions:
    """What the parameters of a filter were drawn from, see `columns.distributions`."""

    study_id: int
    distributions: Mapping[str, Sequence[str]]


def params_of(wanted: Filter) -> Iterator[str]:
    """The parameters that a filter names."""
    match wanted:
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from params_of(part)
        case Not(part):
            yield from params_of(part)
        case Comparison(field) if field.kind is FieldKind.PARAM:
            yield field.name


def condition(wanted: Filter, drawn: ParamDistributions) -> Condition:
    """What selects the trials that a filter means."""
    match wanted:
        case All(parts):
            return sa.and_(sa.true(), *(condition(part, drawn) for part in parts))
        case AnyOf(parts):
            return sa.or_(sa.false(), *(condition(part, drawn) for part in parts))
        case Not(part):
            return sa.not_(condition(part, drawn))
        case Comparison():
            return _comparison(wanted, drawn)


def _comparison(one: Comparison, drawn: ParamDistributions) -> Condition:
    match one.field.kind:
        case FieldKind.PARAM:
            return _param(one, drawn)
        case FieldKind.FEASIBLE:
            feasible = is_feasible([drawn.study_id])
            return sa.or_(
                sa.and_(feasible, sa.literal(holds(True, one.op, one.wanted))),
                sa.and_(~feasible, sa.literal(holds(False, one.op, one.wanted))),
            )
        case FieldKind.TAG:
            return _tag(one)
        case FieldKind.STATE | FieldKind.FAILURE:
            return _two_valued(_column(one), one.op, one.wanted, sa.Text())
        case FieldKind.NUMBER if isinstance(one.wanted, int) and abs(one.wanted) <= _LONG:
            return _two_valued(trials.c.number, one.op, one.wanted, sa.BigInteger())
        case _:
            return _two_valued(_column(one), one.op, one.wanted, sa.Double())


def _column(one: Comparison) -> sa.ColumnElement[Any]:
    """What a trial has for a name other than a parameter's."""
    match one.field.kind:
        case FieldKind.NUMBER:
            return trials.c.number
        case FieldKind.STATE:
            return state_shown() if one.wanted in _ONLY_SHOWN else trials.c.state
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
            last = sa.select(attempts.c.failure).where(
                attempts.c.trial_id == trials.c.trial_id,
            )
            return last.order_by(attempts.c.number.desc()).limit(1).correlate(trials).scalar_subquery()
        case FieldKind.STEP:
            return _newest(reports.c.step)
        case FieldKind.LAST:
            return _newest(reports.c.value)
        case FieldKind.CONSTRAINT:
            return constraint(one.field.name)
        case _:
            return metric(one.field.name)


def _newest(column: Any) -> sa.ColumnElement[Any]:
    query = sa.select(column).where(
        reports.c.trial_id == trials.c.trial_id,
        ~reports.c.superseded,
    )
    return query.order_by(reports.c.attempt.desc(), reports.c.step.desc()).limit(1).correlate(trials).scalar_subquery()


def _two_valued(
    column: sa.ColumnElement[Any],
    op: str,
    wanted: ParamValue,
    kind: Any,
) -> Condition:
    """True or false, never NULL, so that `not` means the contrary."""
    if wanted is None:
        return column.is_(None) if op == "==" else column.is_not(None)
    return sa.func.coalesce(_compared(column, op, wanted, kind), sa.false())


def _compared(column: Any, op: str, wanted: ParamValue, kind: Any) -> Condition:
    value: Any = sa.literal(wanted, kind)
    match op:
        case "==":
            return sa.and_(column == value)
        case "!=":
            return sa.and_(column != value)
        case "<":
            return sa.and_(column < value)
        case "<=":
            return sa.and_(column <= value)
    more = column > value if op == ">" else column >= value
    # Postgres holds NaN for the greatest of all numbers
    return sa.and_(more, column != sa.literal(math.nan, sa.Double)) if isinstance(kind, sa.Double) else sa.and_(more)


def _tag(one: Comparison) -> Condition:
    """A trial has any number of tags, so `!=` is the contrary of `==`."""
    tags = trial_annotations.c.tags
    named = sa.func.cardinality(tags) > 0 if one.wanted is None else sa.literal(one.wanted, sa.Text) == sa.any_(tags)
    has = _exists(
        sa.select(sa.literal(1)).where(
            trial_annotations.c.trial_id == trials.c.trial_id,
            named,
        )
    )
    return has if (one.op == "==") == (one.wanted is not None) else ~has


def _param(one: Comparison, drawn: ParamDistributions) -> Condition:
    """A parameter is stored as Optuna does: the number, or the index of the category in its distribution."""
    written = drawn.distributions[one.field.name]
    having = sa.select(sa.literal(1)).where(
        trial_params.c.trial_id == trials.c.trial_id,
        study_key(trial_params.c.trial_id) == drawn.study_id,
        trial_params.c.name == one.field.name,
    )
    if one.wanted is None:
        there = having.where(
            sa.or_(sa.false(), *(_drawn(text, "!=", None) for text in written)),
        )
        return ~_exists(there) if one.op == "==" else _exists(there)
    numbers = [text for text in written if not isinstance(distribution_of(text), CategoricalDistribution)]
    branches = [_drawn(text, one.op, one.wanted) for text in written if text not in numbers]
    if numbers:
        branches.append(_numeric(numbers, one, among=written))
    return _exists(having.where(sa.or_(sa.false(), *branches)))


def _exists(query: sa.Select[Any]) -> Condition:
    return query.correlate(trials).exists()


def _numeric(numbers: Sequence[str], one: Comparison, among: Sequence[str]) -> Condition:
    if isinstance(one.wanted, (str, bool)):
        return sa.true() if one.op == "!=" else sa.false()
    compared = _compared(trial_params.c.value, one.op, one.wanted, sa.Double())
    if len(numbers) == len(among):
        return compared
    texts = sa.cast(list(numbers), pg.ARRAY(sa.Text))
    return sa.and_(trial_params.c.distribution == sa.any_(texts), compared)


def _drawn(text: str, op: str, wanted: ParamValue) -> Condition:
    """Values of one distribution; of categories those indices whose choice the comparison is true of."""
    distribution = distribution_of(text)
    of_this = trial_params.c.distribution == text
    if not isinstance(distribution, CategoricalDistribution):
        return of_this
    fitting = [float(i) for i, choice in enumerate(distribution.choices) if holds(choice, op, wanted)]
    return sa.and_(
        of_this,
        trial_params.c.value == sa.any_(sa.cast(fitting, pg.ARRAY(sa.Double))),
    )
