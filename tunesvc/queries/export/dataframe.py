"""Trials of a study as a pandas data frame."""

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
    """Return one row per trial, by number.

    Columns: `number`, `state`, `value` (with several objectives `values.NAME` each),
    `metrics.NAME` for each other number that trials returned or last reported, `params.NAME` each
    (missing where a conditional parameter does not exist), `feasible`, `constraints.NAME` (the
    excess over each bound; satisfied if <= 0), `last_step`, `last_value`, `attempts`, `failure`,
    `duration_s`, `cost` if the study has prices, `started_at` and `ended_at` in UTC, `tags`,
    `note`, and `attrs.NAME` for attributes that are not numbers.
    """
    import pandas as pd

    rows = list_trials(database, study.study_id)
    records = [record(study, row) for row in rows]
    frame = pd.DataFrame(records, columns=columns(study, _names(study, rows)))
    for time in ("started_at", "ended_at"):
        frame[time] = pd.to_datetime(frame[time], utc=True)
    # pandas' Int64 can hold missing values; int64 cannot.
    for count in ("number", "last_step", "attempts"):
        frame[count] = frame[count].astype("Int64")
    return frame


def value_columns(study: StudyView) -> tuple[str, ...]:
    """Return the names of the columns with the objectives."""
    if len(study.objectives) == 1:
        return ("value",)
    return tuple(f"values.{objective.name}" for objective in study.objectives)


def columns(study: StudyView, names: Names) -> list[str]:
    """Return all columns of a study's trials, in order."""
    return [
        "number",
        "state",
        *value_columns(study),
        *(f"metrics.{name}" for name in names.other_metrics),
        *(f"params.{name}" for name in names.params),
        "feasible",
        *(f"constraints.{name}" for name in names.constraints),
        *(name for name in PLAIN if name != "cost" or study.prices is not None),
        *(f"attrs.{name}" for name in names.attrs),
    ]


def _names(study: StudyView, rows: Sequence[TrialRow]) -> Names:
    """Return the names that occur in these trials."""
    params: dict[str, bool] = {}
    metrics: set[str] = set()
    constraints: set[str] = set()
    attrs: set[str] = set()
    for row in rows:
        params.update(dict.fromkeys(row.params, True))
        metrics.update(row.metrics)
        constraints.update(row.constraints)
        attrs.update(row.attrs)
    objectives = [objective.name for objective in study.objectives]
    return Names(
        objectives,
        params,
        sorted(metrics),
        sorted(constraints),
        sorted(attrs),
    )


_EXECUTION = (
    "last_step",
    "last_value",
    "attempts",
    "failure",
    "duration_s",
    "cost",
    "started_at",
    "ended_at",
)
PLAIN = (*_EXECUTION, "tags", "note")
"""Columns that are the same in every study; `cost` only where there are prices."""


def record(study: StudyView, row: TrialRow) -> dict[str, Any]:
    """Return a trial's values by column, without the columns that it lacks."""
    values = row.values or (None,) * len(study.objectives)
    return {
        "number": row.number,
        "state": row.state,
        **dict(zip(value_columns(study), values, strict=True)),
        **{f"metrics.{name}": value for name, value in row.metrics.items()},
        **{f"params.{name}": value for name, value in row.params.items()},
        "feasible": row.feasible,
        **{f"constraints.{name}": excess for name, excess in row.constraints.items()},
        **{name: getattr(row, name) for name in _EXECUTION},
        "tags": ", ".join(row.tags),
        "note": row.note,
        **{f"attrs.{name}": _text(value) for name, value in row.attrs.items()},
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
