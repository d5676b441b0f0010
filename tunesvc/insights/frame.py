"""A study's trials as a pandas frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesvc.insights.rows import StudyView, TrialRow
from tunesvc.insights.trial_table import trials
from tunesvc.store.database import Database

if TYPE_CHECKING:
    import pandas as pd


def dataframe(database: Database, study: StudyView) -> pd.DataFrame:
    """One row per trial, by number.

    Columns: `number`, `state`, `value` (several objectives: `values.NAME` each), `params.NAME` each (missing where a
    conditional parameter does not exist), `feasible`, `last_step`, `last_value`, `attempts`, `failure`, `duration_s`,
    and `started_at`, `ended_at` in UTC.
    """
    import pandas as pd

    rows = trials(database, study.study_id)
    frame = pd.DataFrame([record(study, row) for row in rows], columns=_columns(study, rows))
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


def _columns(study: StudyView, rows: tuple[TrialRow, ...]) -> list[str]:
    drawn = dict.fromkeys(f"params.{name}" for row in rows for name in row.params)
    return ["number", "state", *value_columns(study), *drawn, "feasible", *PLAIN]


PLAIN = ("last_step", "last_value", "attempts", "failure", "duration_s", "started_at", "ended_at")
"""Columns that are the same in every study."""


def record(study: StudyView, row: TrialRow) -> dict[str, Any]:
    """A trial by the names of the columns; without parameters that it does not have."""
    values = row.values or (None,) * len(study.objectives)
    return {
        "number": row.number,
        "state": row.state,
        **dict(zip(value_columns(study), values, strict=True)),
        **{f"params.{name}": value for name, value in row.params.items()},
        "feasible": row.feasible,
        **{name: getattr(row, name) for name in PLAIN},
    }
