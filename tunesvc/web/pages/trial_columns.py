"""Columns of tables of trials: which there are, what they are sorted by, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tunesvc import words
from tunesvc.insights import Objective, TrialRow
from tunesvc.web.render import moment

USUAL_PARAMS = 10
"""Parameters that are shown when nobody has chosen columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    key: str
    label: str
    cell: Callable[[TrialRow], str | Markup]
    sort: str | None = None
    """What it is called as an order; None when nothing sorts by it."""
    is_number: bool = True
    is_usual: bool = True
    """Whether it is shown when nobody has chosen columns."""


def columns_of(objectives: Sequence[Objective], params: Sequence[str]) -> list[Column]:
    """All columns of a study's trials."""
    return [
        Column("state", "state", _state, "state", is_number=False),
        *(_value(objective.name, index) for index, objective in enumerate(objectives)),
        *(_param(name, index < USUAL_PARAMS) for index, name in enumerate(params)),
        Column("step", "step", lambda row: "" if row.last_step is None else str(row.last_step)),
        Column("last", "last reported", lambda row: _number(row.last_value), is_usual=False),
        Column("duration", "time", lambda row: words.duration(row.duration_s), "duration"),
        Column("attempts", "attempts", lambda row: str(row.attempts), is_usual=False),
        Column("failure", "failure", lambda row: row.failure or "", is_number=False),
        Column("tags", "tags", lambda row: ", ".join(row.tags), is_number=False, is_usual=False),
        Column("note", "note", lambda row: row.note[:200], is_number=False, is_usual=False),
        Column("feasible", "feasible", lambda row: "yes" if row.feasible else "no", is_number=False, is_usual=False),
        Column("started", "started", lambda row: moment(row.started_at), is_number=False, is_usual=False),
        Column("ended", "ended", lambda row: moment(row.ended_at), is_number=False, is_usual=False),
    ]


def _state(row: TrialRow) -> Markup:
    return Markup('<span class="state {}">{}</span>').format(row.state, row.state)


def _value(name: str, index: int) -> Column:
    def cell(row: TrialRow) -> str | Markup:
        if row.values is None:
            running = index == 0 and row.last_value is not None
            return Markup('<span class="soft">{}</span>').format(_number(row.last_value)) if running else ""
        text = _number(row.values[index])
        return text if row.feasible else Markup('<s title="breaks a constraint">{}</s>').format(text)

    return Column(f"value{index}", name, cell, "value" if index == 0 else f"values.{name}")


def _param(name: str, is_usual: bool) -> Column:
    def cell(row: TrialRow) -> str:
        return words.parameter(row.params[name]) if name in row.params else ""

    return Column(f"params.{name}", name, cell, f"params.{name}", is_usual=is_usual)


def _number(value: float | None) -> str:
    return "" if value is None else words.number(value)
