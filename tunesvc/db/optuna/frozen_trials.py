"""Optuna's `FrozenTrial` from rows, in one query for any number of trials.

Reads trials of coordinators and of Optuna's API. A trial's curve has for each step the value of the
latest attempt that reported it. Steps after the start of a later attempt that did not reach them
again are not part of it (`reports.superseded`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from tunesvc.util.optuna_internals import trial_id_of

_PARTS = {
    "params": """SELECT json_agg(json_build_array(p.name, p.value, p.distribution) ORDER BY p.position)
                 FROM trial_params p WHERE p.trial_id = trials.trial_id""",
    "attrs": """SELECT json_agg(json_build_array(a.kind, a.name, a.value))
                FROM trial_attrs a WHERE a.trial_id = trials.trial_id""",
    "curve": """SELECT json_object_agg(r.step, r.value ORDER BY r.step, r.attempt)
                FROM reports r
                WHERE r.trial_id = trials.trial_id AND r.value IS NOT NULL AND NOT r.superseded""",
}
PARTS = {name: f"CAST(({query}) AS text)" for name, query in _PARTS.items()}
"""A trial's parts as columns of a query from `trials`; as text, which `_loads` parses."""

TRIAL = f"""SELECT trial_id, number, state, "values" AS objectives, started_at, ended_at,
                   {", ".join(f"{query} AS {name}" for name, query in PARTS.items())}
            FROM trials"""
"""All data of a `FrozenTrial`; a WHERE follows."""

STATES = {state.name.lower(): state for state in TrialState}
"""Optuna's states by their names in the database."""


def freeze(row: sa.Row[Any]) -> FrozenTrial:
    """Return the trial of a row of `TRIAL`; its distributions are shared with other trials."""
    parts = _loads(row.params)
    attrs: dict[str, dict[str, Any]] = {"user": {}, "system": {}}
    for kind, name, value in _loads(row.attrs):
        attrs[kind][name] = json.loads(value)
    distributions = {name: distribution_of(text) for name, _, text in parts}
    params = {}
    for name, value, _ in parts:
        params[name] = distributions[name].to_external_repr(float(value))
    curve = dict(_loads(row.curve))
    return FrozenTrial(
        number=row.number,
        state=STATES[row.state],
        value=None,
        values=row.objectives,
        datetime_start=to_optuna_time(row.started_at),
        datetime_complete=to_optuna_time(row.ended_at),
        params=params,
        distributions=distributions,
        user_attrs=attrs["user"],
        system_attrs=attrs["system"],
        intermediate_values={int(step): float(value) for step, value in curve.items()},
        trial_id=row.trial_id,
    )


def clone_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return copies that the caller may change, in a fifth of the time of `copy.deepcopy`."""
    distributions: dict[int, BaseDistribution] = {}

    def distribution(one: BaseDistribution) -> BaseDistribution:
        return distributions.get(id(one)) or distributions.setdefault(id(one), copy.copy(one))

    return [
        FrozenTrial(
            number=trial.number,
            state=trial.state,
            value=None,
            values=trial.values,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
            params=dict(trial.params),
            distributions={name: distribution(one) for name, one in trial.distributions.items()},
            user_attrs=copy.deepcopy(trial.user_attrs),
            system_attrs=copy.deepcopy(trial.system_attrs),
            intermediate_values=dict(trial.intermediate_values),
            trial_id=trial_id_of(trial),
        )
        for trial in trials
    ]


@lru_cache(maxsize=4096)
def distribution_of(text: str) -> BaseDistribution:
    """Return the distribution of Optuna's JSON; shared, as most trials of a study have the same."""
    return json_to_distribution(text)


def to_optuna_time(time: datetime | None) -> datetime | None:
    """Return a time in Optuna's form: local, without a zone."""
    return time.astimezone().replace(tzinfo=None) if time else None


def was_cancelled(trial: FrozenTrial) -> bool:
    """Return True if a trial was cancelled before it started; such a trial does not count."""
    return trial.state == TrialState.FAIL and trial.datetime_start is None


def from_optuna_time(time: datetime | None) -> datetime | None:
    """Return Optuna's local time with its zone."""
    return time.astimezone() if time else None


def _loads(text: str | None) -> Any:
    """Parse Postgres's JSON, which writes whole floats without a point, NaN as a string."""
    return json.loads(text, parse_int=float) if text else ()
