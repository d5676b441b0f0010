"""Repeats of a study's finalists with other seeds, read from the study `NAME:confirm`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import from_optuna_time, was_cancelled
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.queries.trials.trial_table import rows_of
from tunesvc.search.analysis.finalists import Finalist, compare
from tunesvc.search.training_seeds import SEED
from tunesvc.spec.goals import Goal

SUFFIX = ":confirm"
CONFIRMS = "confirms"
"""User attribute of a repeat: the number of the trial that it repeats."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Results of the repeats so far."""

    study: str
    """The study of the repeats."""
    goal: Goal
    metric: str
    finalists: tuple[Finalist, ...]
    """The best mean first."""
    started_at: datetime | None
    """Start of the newest repeat."""

    def __str__(self) -> str:
        return "\n".join([*map(str, self.finalists), self.verdict])

    @property
    def winner(self) -> Finalist | None:
        """The finalist with the best mean; None until repeats show the noise, see `compare`."""
        if not self.finalists or self.finalists[0].chance is None:
            return None
        return self.finalists[0]

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        first = next(iter(self.finalists), None)
        if first is None or first.mean is None:
            return "No repeat has a value yet."
        if first.chance is not None:
            return _verdict_by_chance(first.number, first.chance)
        if len(first.values) > 1:
            equal = [one.number for one in self.finalists if one.mean == first.mean]
            return (
                f"{_describe_best(equal)}. Every repeat of a trial gave the same value, so "
                "repeats say nothing about noise: does the objective use `trial.seed` (TUNE_SEED)?"
            )
        best = f"Trial {first.number} has the best mean"
        return f"{best}; one repeat each does not show how sure that is."


def _describe_best(numbers: Sequence[int]) -> str:
    if len(numbers) > 1:
        return f"Trials {', '.join(map(str, numbers))} are level"
    return f"Trial {numbers[0]} is best"


def _verdict_by_chance(number: int, chance: float) -> str:
    text = f"the chance that its true mean is the best is {chance:.0%}"
    if chance >= 0.95:
        return f"Trial {number} is best: {text}."
    probably = "is probably best" if chance >= 0.5 else "has the best mean"
    return f"Trial {number} {probably}: {text}; more --repeats would tell."


def get_confirmation(database: Database, name: str) -> Confirmation | None:
    """Return the repeats of a study's finalists so far; None if it was never confirmed.

    Raises:
        StudyNotFound: there is no such study.
    """
    with database.engine.connect() as connection:
        record = study_records.find(connection, name)
        repeated = study_records.look_up(connection, name + SUFFIX)
    if repeated is None or repeated.spec is None:
        return None
    stored = PgStorage(database).get_all_trials(repeated.study_id, deepcopy=False)
    trials = [trial for trial in stored if not was_cancelled(trial)]
    numbers = {trial.user_attrs[CONFIRMS] for trial in trials if CONFIRMS in trial.user_attrs}
    rows = rows_of(database, record.study_id, sorted(numbers))
    observed = {row.number: row.value for row in rows if row.value is not None}
    repeats = [trial for trial in trials if trial.user_attrs.get(CONFIRMS) in observed]
    values, failed = _group_by_finalist(repeats)
    finalists = {number: observed[number] for number in values}
    starts = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    (metric,) = repeated.spec.metrics
    return Confirmation(
        repeated.name,
        metric.goal,
        metric.name,
        compare(finalists, values, failed, metric.goal),
        from_optuna_time(max(starts)) if starts else None,
    )


def _group_by_finalist(
    repeats: list[FrozenTrial],
) -> tuple[dict[int, dict[int, float]], Counter[int]]:
    """Return values by finalist and seed, and the number of failed repeats by finalist."""
    values: dict[int, dict[int, float]] = {}
    failed: Counter[int] = Counter()
    for repeat in repeats:
        number = repeat.user_attrs[CONFIRMS]
        of_finalist = values.setdefault(number, {})
        if repeat.state == TrialState.COMPLETE:
            # Earlier versions recorded no seed: such a repeat counts as a seed of its own.
            of_finalist[repeat.system_attrs.get(SEED, -1 - repeat.number)] = repeat.values[0]
        elif repeat.state.is_finished():
            failed[number] += 1
    return values, failed
