"""Rows -> Optuna's `FrozenTrial`, in a fixed number of queries however many trials there are.

Reads trials that a coordinator wrote and trials written through Optuna's API alike. A trial's curve holds for each
step the value of the latest attempt that reported it; steps that a later attempt went back over without reaching
them again are no part of it (`reports.superseded`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

_PARAMS = sa.text(
    """SELECT trial_id, name, value, distribution FROM trial_params
       WHERE trial_id = ANY(:ids) ORDER BY trial_id, position"""
)
_ATTRS = sa.text("SELECT trial_id, kind, name, value FROM trial_attrs WHERE trial_id = ANY(:ids)")
_REPORTS = sa.text(
    """SELECT trial_id, step, value FROM reports
       WHERE trial_id = ANY(:ids) AND value IS NOT NULL AND NOT superseded ORDER BY trial_id, step, attempt"""
)


@dataclass(slots=True)
class _Parts:
    """What hangs on one trial."""

    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    attrs: dict[str, dict[str, Any]] = field(default_factory=lambda: {"user": {}, "system": {}})
    curve: dict[int, float] = field(default_factory=dict)


def freeze(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[FrozenTrial]:
    """The trials of `rows`, which bear all columns of the table `trials`, in their order.

    Finished trials do not change any more, so reading their parts after the rows sees them whole.
    """
    if not rows:
        return []
    parts = _read_parts(connection, [row.trial_id for row in rows])
    return [_frozen(row, parts[row.trial_id]) for row in rows]


@lru_cache(maxsize=4096)
def distribution_of(text: str) -> BaseDistribution:
    """The distribution that Optuna's JSON describes. Shared: most trials of a study have the same."""
    return json_to_distribution(text)


def naive_local(moment: datetime | None) -> datetime | None:
    """A moment as Optuna bears it: local time without a zone."""
    return moment.astimezone().replace(tzinfo=None) if moment else None


def aware(moment: datetime | None) -> datetime | None:
    """Optuna's local time as the moment that it is."""
    return moment.astimezone() if moment else None


def _read_parts(connection: sa.Connection, ids: list[int]) -> dict[int, _Parts]:
    parts: dict[int, _Parts] = defaultdict(_Parts)
    for trial_id, name, value, text in connection.execute(_PARAMS, {"ids": ids}):
        distribution = distribution_of(text)
        parts[trial_id].params[name] = distribution.to_external_repr(value)
        parts[trial_id].distributions[name] = distribution
    for trial_id, kind, name, value in connection.execute(_ATTRS, {"ids": ids}):
        parts[trial_id].attrs[kind][name] = json.loads(value)
    for trial_id, step, value in connection.execute(_REPORTS, {"ids": ids}):
        parts[trial_id].curve[step] = value
    return parts


def _frozen(row: sa.Row[Any], parts: _Parts) -> FrozenTrial:
    return FrozenTrial(
        number=row.number,
        state=TrialState[row.state.upper()],
        value=None,
        values=row.objectives,
        datetime_start=naive_local(row.started_at),
        datetime_complete=naive_local(row.ended_at),
        params=parts.params,
        distributions=parts.distributions,
        user_attrs=parts.attrs["user"],
        system_attrs=parts.attrs["system"],
        intermediate_values=parts.curve,
        trial_id=row.trial_id,
    )
