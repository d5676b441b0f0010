"""Recommendation of a study's best trial, and forecast of further improvement."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import TuneError
from tunesvc.queries.confirmation import get_confirmation
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.study_summary import expected
from tunesvc.queries.trials.trial_results import Results, get_results
from tunesvc.queries.trials.trial_table import list_best_trials, rows_of

if TYPE_CHECKING:
    from tunesvc.search.analysis.recommend import Recommendation

STORED = "tunesvc:recommendation"
"""System attribute of a study: the model's answer, and the digest of the results behind it."""
CONSIDERED_MAX = 2_000
"""Most trials that the model compares to recommend one."""


def get_recommendation(
    database: Database,
    view: StudyView,
    results: Results | None = None,
) -> Recommendation | None:
    """Return the recommended trial; None with several objectives or without a feasible result.

    The command line, Python, reports and the study's page use this decision. The finalist that
    `tune confirm` found best takes precedence over the model, unless the model prefers a trial that
    finished after the newest repeat began.
    """
    if results is None:
        results = get_results(database, view.study_id)
    answer = recommend_by_model(database, view, results)
    return None if answer is None else with_repeats(database, view, results, answer)


def recommend_by_model(
    database: Database,
    view: StudyView,
    results: Results,
) -> Recommendation | None:
    """Return the recommended trial by the model alone, without repeats.

    Reads `STORED` while that rests on the same results, because fitting the model takes longer than
    all else.
    """
    if len(view.objectives) > 1:
        return None
    stored = PgStorage(database).get_study_system_attrs(view.study_id).get(STORED)
    if stored is None or stored["digest"] != digest(view, results):
        return fit_recommendation(database, view, results)
    from tunesvc.search.analysis.recommend import Recommendation

    return Recommendation(**stored["answer"])


def fit_recommendation(
    database: Database,
    view: StudyView,
    results: Results,
) -> Recommendation | None:
    """Fit the model of a study of one objective, and return the recommended trial.

    Of more than `CONSIDERED_MAX` candidates, takes the best and an even sample of the others.
    """
    from tunesvc.queries.fitted_model import frozen
    from tunesvc.search.analysis.recommend import recommend

    objective = view.objectives[0]
    losses = results.losses(objective)
    if view.has_population:
        return _best_observed(view, results)
    rows = results.best_rows(results.candidates(), losses, CONSIDERED_MAX)
    trials = frozen(database, view.study_id, results.numbers[rows].tolist())
    return recommend(trials, objective.goal, view.shared_blocks)


def _best_observed(view: StudyView, results: Results) -> Recommendation | None:
    """Return the best observed trial: members with equal parameters have different histories."""
    from tunesvc.search.analysis.recommend import Recommendation

    number = results.best(view.objectives[0])
    if number is None:
        return None
    (value,) = results.values[results.numbers == number, 0]
    return Recommendation(number, float(value), None, number)


def digest(view: StudyView, results: Results) -> str:
    """Return a text that is equal for equal results under the same version of the model."""
    from tunesvc.search.analysis.recommend import VERSION

    candidates = results.candidates()
    goal = view.objectives[0].goal
    blocks = view.shared_blocks
    content = hashlib.sha256(f"{VERSION} {goal} {blocks} {CONSIDERED_MAX}".encode())
    for column in (results.numbers, results.values):
        content.update(np.ascontiguousarray(column[candidates]).tobytes())
    return content.hexdigest()


def with_repeats(
    database: Database,
    view: StudyView,
    results: Results,
    answer: Recommendation,
) -> Recommendation:
    """Return the winner of the repeats, or the model's answer if there is none or it is newer."""
    confirmation = get_confirmation(database, view.name)
    if confirmation is None or confirmation.started_at is None:
        return answer
    winner = confirmation.winner
    if winner is None or winner.mean is None:
        return answer
    ended_s = results.ended_s[results.numbers == answer.number]
    if (ended_s > confirmation.started_at.timestamp()).any():
        return answer
    from tunesvc.search.analysis.finalists import CONFIDENCE

    chances = {one.number: one.chance for one in confirmation.finalists}
    chance = chances.get(answer.luckiest)
    is_apart = answer.is_apart if chance is None else chance <= 1 - CONFIDENCE
    return replace(
        answer,
        number=winner.number,
        mean=winner.mean,
        deviation=None,
        confirmed=winner,
        is_apart=is_apart,
    )


def find_best_trial(database: Database, view: StudyView) -> TrialRow:
    """Return the recommended trial; with several objectives the first of the Pareto front.

    Raises:
        TuneError: no trial is complete and feasible.
    """
    rows = answer_rows(database, view, get_recommendation(database, view))
    if not rows:
        raise TuneError(f"study {view.name!r} has no complete, feasible trial yet")
    return rows[0]


def answer_rows(
    database: Database,
    view: StudyView,
    answer: Recommendation | None,
) -> tuple[TrialRow, ...]:
    """Return the recommended trial, then the one with the best observed value if it differs.

    With several objectives, returns the Pareto front.
    """
    if len(view.objectives) > 1:
        return list_best_trials(database, view.study_id)
    if answer is None:
        return ()
    numbers = list(dict.fromkeys((answer.number, answer.luckiest)))
    return rows_of(database, view.study_id, numbers)


def forecast_value(database: Database, view: StudyView) -> str | None:
    """Describe the improvement to expect; None with several objectives, or with too few trials."""
    if len(view.objectives) > 1 or view.spec is None:
        return None
    forecast = expected(view, get_results(database, view.study_id))
    return None if forecast is None else forecast.text
