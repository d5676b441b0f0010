"""A study's trials as a pandas frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesvc.db.engine.database import Database
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.trials.filter_language import Names
from tunesvc.queries.trials.trial_table import list_trials

if TYPE_CHECKING:
    import pandas as pd


def build_dataframe(database: Database, study: StudyView) -> pd.DataFrame:
    """One row per trial, by number.

    Columns: `number`, `state`, `value` (several objectives: `values.NAME` each), `metrics.NAME` for each other number
    that trials returned or reported last, `params.NAME` each (missing where a conditional parameter does not exist),
    `feasible`, `constraints.NAME` (how far each is exceeded, kept where <= 0), `last_step`, `last_value`, `attempts`,
    `failure`, `duration_s`, `started_at` and `ended_at` in UTC, `tags`, `note`, and `attrs.NAME` for attributes that
    are no numbers.
    """
    import pandas as pd

    rows = list_trials(database, study.study_id)
    frame = pd.DataFrame([record(study, row) for row in rows], columns=columns(study, _names(study, rows)))
    for moment in ("started_at", "ended_at"):
        frame[moment] = pd.to_datetime(frame[moment], utc=True)
    for whole in ("number", "last_step", "attempts"):
        frame[whole] = frame[whole].astype("Int64")
    return frame


def value_columns(study: StudyView) -> tuple[str, ...]:
    """Names of the columns that hold the objectives."""
    if len(study.objectives) == 1:
        return ("value",)
    return tuple(f"values.{objective.name}" for objective in study.objectives)


def columns(study: StudyView, names: Names) -> list[str]:
    """All columns of a study's trials, in order."""
    return [
        "number",
        "state",
        *value_columns(study),
        *(f"metrics.{name}" for name in names.other_metrics),
        *(f"params.{name}" for name in names.params),
        "feasible",
        *(f"constraints.{name}" for name in names.constraints),
        *PLAIN,
        *(f"attrs.{name}" for name in names.attrs),
    ]


def _names(study: StudyView, rows: Sequence[TrialRow]) -> Names:
    """The names that these trials have."""
    return Names(
        [objective.name for objective in study.objectives],
        dict.fromkeys((name for row in rows for name in row.params), True),
        sorted({name for row in rows for name in row.metrics}),
        sorted({name for row in rows for name in row.constraints}),
        sorted({name for row in rows for name in row.attrs}),
    )


_TRACED = ("last_step", "last_value", "attempts", "failure", "duration_s", "started_at", "ended_at")
PLAIN = (*_TRACED, "tags", "note")
"""Columns that are the same in every study."""


def record(study: StudyView, row: TrialRow) -> dict[str, Any]:
    """A trial by the names of the columns, without what it does not have."""
    values = row.values or (None,) * len(study.objectives)
    return {
        "number": row.number,
        "state": row.state,
        **dict(zip(value_columns(study), values, strict=True)),
        **{f"metrics.{name}": value for name, value in row.metrics.items()},
        **{f"params.{name}": value for name, value in row.params.items()},
        "feasible": row.feasible,
        **{f"constraints.{name}": excess for name, excess in row.constraints.items()},
        **{name: getattr(row, name) for name in _TRACED},
        "tags": ", ".join(row.tags),
        "note": row.note,
        **{f"attrs.{name}": _text(value) for name, value in row.attrs.items()},
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
