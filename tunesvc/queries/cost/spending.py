"""Resources that a study has held, in money by its prices, otherwise in hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import number_of
from tunesvc.db.schema.tables import attempts, studies
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import held_hours, in_study, is_attended
from tunesvc.spec import Prices
from tunesvc.util import formatting


@dataclass(frozen=True, slots=True)
class EffortUnit:
    """Unit of what trials take: money, GPU hours, or hours of trials."""

    prices: Prices | None = None
    has_gpus: bool = False

    @staticmethod
    def of(view: StudyView) -> EffortUnit:
        """Return a study's unit: money if it has prices, GPU hours if it has held GPUs."""
        return EffortUnit(view.prices, bool(view.gpu_hours))

    def amount(self, cpu_hours: float, gpu_hours: float, hours: float) -> float:
        """Return hours of cores, of GPUs and of trials in this unit."""
        if self.prices is not None:
            return self.prices.cost(cpu_hours, gpu_hours)
        return gpu_hours if self.has_gpus else hours

    @property
    def name(self) -> str:
        """Name for an axis: `cost in EUR`, `GPU hours` or `hours of trials`."""
        if self.prices is None:
            return "GPU hours" if self.has_gpus else "hours of trials"
        return f"cost in {self.prices.currency}" if self.prices.currency else "cost"

    def format(self, amount: float) -> str:
        """Format an amount: `4.20 EUR`, `3.1 GPU hours` or, of trials, `2h 05m`."""
        if self.prices is not None:
            return self.prices.format(amount)
        return f"{amount:.3g} GPU hours" if self.has_gpus else formatting.duration(3600 * amount)


@dataclass(frozen=True, slots=True)
class FailureSpending:
    """Attempts that ended alike, and what they took."""

    failure: str | None
    """Class of their failure; None for attempts without one."""
    attempts: int
    amount: float
    """In the study's unit."""


def list_by_failure(connection: sa.Connection, view: StudyView) -> tuple[FailureSpending, ...]:
    """Return what attempts took by the class of their failure, the largest amount first."""
    unit = EffortUnit.of(view)
    query = _spent(view.study_id, attempts.c.failure)
    found = [
        FailureSpending(row[0], row[1], unit.amount(*row[2:])) for row in connection.execute(query)
    ]
    return tuple(sorted(found, key=lambda one: (-one.amount, one.failure or "")))


def amounts_by_trial(database: Database, view: StudyView) -> dict[int, float]:
    """Return what each trial's attempts took, in the study's unit, by trial number."""
    unit = EffortUnit.of(view)
    rows = database.rows(_spent(view.study_id, attempts.c.trial_id))
    return {number_of(row[0]): unit.amount(*row[2:]) for row in rows}


def _spent(study_id: int, by: sa.ColumnElement[Any]) -> sa.Select[Any]:
    is_run = sa.select(is_attended()).where(studies.c.study_id == study_id).scalar_subquery()
    amounts = (attempts.c.cpus, attempts.c.gpus, sa.literal(1.0))
    return (
        sa.select(by, sa.func.count(), *(held_hours(amount, is_run) for amount in amounts))
        .where(in_study(attempts.c.trial_id, study_id), attempts.c.started_at.is_not(None))
        .group_by(by)
    )


def spent_until(
    numbers: np.ndarray,
    ended_s: np.ndarray,
    amount_of: Callable[[int], float],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of finished trials in the order in which they ended, and the sum spent then.

    Args:
        numbers: of trials.
        ended_s: time of their end; NaN for unfinished ones.
        amount_of: what a trial took.
    """
    finished = np.flatnonzero(~np.isnan(ended_s))
    rows = finished[np.argsort(ended_s[finished], kind="stable")]
    spent = np.cumsum([amount_of(int(number)) for number in numbers[rows]])
    return rows, spent
