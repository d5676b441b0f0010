"""Columns of tables of trials: their sort orders and cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tunesvc.queries.rows import Objective, TrialRow
from tunesvc.queries.trials.filter_language import Names
from tunesvc.util import formatting
from tunesvc.web.render import moment

USUAL_PARAMS = 10
"""Number of parameters shown by default."""
USUAL_METRICS = 3
"""Number of metrics shown by default, in addition to the objectives."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    key: str
    label: str
    cell: Callable[[TrialRow], str | Markup]
    sort: str | None = None
    """Name of its sort order; None if trials cannot be sorted by it."""
    is_number: bool = True
    is_usual: bool = True
    """True if it is shown by default."""


def columns_of(
    objectives: Sequence[Objective],
    names: Names,
    *,
    is_priced: bool = False,
) -> list[Column]:
    """Return all columns of a study's trials; their cost if it has prices."""
    params = list(names.params)
    return [
        Column("state", "state", _state, "state", is_number=False),
        *(_value(objective.name, index) for index, objective in enumerate(objectives)),
        *(_metric(name, index < USUAL_METRICS) for index, name in enumerate(names.other_metrics)),
        *(_param(name, index < USUAL_PARAMS) for index, name in enumerate(params)),
        Column(
            "step",
            "step",
            lambda row: "" if row.last_step is None else str(row.last_step),
        ),
        Column(
            "last",
            "last reported",
            lambda row: _number(row.last_value),
            is_usual=False,
        ),
        Column(
            "duration",
            "time",
            lambda row: formatting.duration(row.duration_s),
            "duration",
        ),
        *([Column("cost", "cost", _cost)] if is_priced else []),
        Column("attempts", "attempts", lambda row: str(row.attempts), is_usual=False),
        Column("failure", "failure", lambda row: row.failure or "", is_number=False),
        Column(
            "tags",
            "tags",
            lambda row: ", ".join(row.tags),
            is_number=False,
            is_usual=False,
        ),
        Column(
            "note",
            "note",
            lambda row: row.note[:200],
            is_number=False,
            is_usual=False,
        ),
        Column("feasible", "feasible", _feasible, is_number=False, is_usual=False),
        *map(_constraint, names.constraints),
        *map(_attribute, names.attrs),
        Column(
            "started",
            "started",
            lambda row: moment(row.started_at),
            is_number=False,
            is_usual=False,
        ),
        Column(
            "ended",
            "ended",
            lambda row: moment(row.ended_at),
            is_number=False,
            is_usual=False,
        ),
    ]


def _state(row: TrialRow) -> Markup:
    return Markup('<span class="state {}">{}</span>').format(row.state, row.state)


def _value(name: str, index: int) -> Column:
    def cell(row: TrialRow) -> str | Markup:
        if row.values is None:
            # A running trial shows its last report.
            if index > 0 or row.last_value is None:
                return ""
            return Markup('<span class="soft">{}</span>').format(_number(row.last_value))
        text = _number(row.values[index])
        if row.feasible:
            return text
        violations = formatting.violations(row.violations) or "breaks a constraint"
        return Markup('<s title="{}">{}</s>').format(violations, text)

    return Column(
        f"value{index}",
        name,
        cell,
        "value" if index == 0 else f"values.{name}",
    )


def _param(name: str, is_usual: bool) -> Column:
    def cell(row: TrialRow) -> str:
        return formatting.parameter(row.params[name]) if name in row.params else ""

    return Column(f"params.{name}", name, cell, f"params.{name}", is_usual=is_usual)


def _metric(name: str, is_usual: bool) -> Column:
    def cell(row: TrialRow) -> str:
        return _number(row.metrics.get(name))

    return Column(f"metrics.{name}", name, cell, f"metrics.{name}", is_usual=is_usual)


def _constraint(name: str) -> Column:
    def cell(row: TrialRow) -> str:
        return _number(row.constraints.get(name))

    key = f"constraints.{name}"
    return Column(key, f"excess of {name}", cell, key, is_usual=False)


def _attribute(name: str) -> Column:
    def cell(row: TrialRow) -> str:
        return str(row.attrs.get(name, ""))[:200]

    return Column(f"attrs.{name}", name, cell, is_number=False, is_usual=False)


def _cost(row: TrialRow) -> str:
    return "" if row.cost is None else formatting.money(row.cost)


def _feasible(row: TrialRow) -> str:
    return "yes" if row.feasible else f"no: {formatting.violations(row.violations)}".rstrip(": ")


def _number(value: float | None) -> str:
    return "" if value is None else formatting.number(value)
