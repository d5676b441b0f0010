"""A study's answer: the trial that it recommends, and how much more there is to expect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tunesvc.db.engine.database import Database
from tunesvc.errors import TuneError
from tunesvc.queries.confirmation import get_confirmation
from tunesvc.queries.fitted_model import frozen
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.study_summary import expected
from tunesvc.queries.trials.trial_results import Results, subsample_best
from tunesvc.queries.trials.trial_results import get_results as study_results
from tunesvc.queries.trials.trial_table import list_best_trials, rows_of

if TYPE_CHECKING:
    from tunesvc.search.analysis.recommend import Recommendation

CONSIDERED_MAX = 2_000
"""Trials among which the one to take is looked for."""


def recommended_trials(database: Database, view: StudyView, results: Results | None = None) -> Recommendation | None:
    """Return the trial to take; None with several objectives, or when no trial is complete and feasible.

    The one decision about the best trial: every face asks here. The finalist that `tune confirm` found best wins over
    the model, unless the model prefers a trial that finished after the repeats.
    """
    known = study_results(database, view.study_id) if results is None else results
    answer = modelled(database, view, known)
    return None if answer is None else with_repeats(database, view, known, answer)


def modelled(database: Database, view: StudyView, results: Results) -> Recommendation | None:
    """Return the trial to take by the model alone, without regard to repeats.

    Of more than `CONSIDERED_MAX` candidates the best, and an even choice of the others, are considered.
    """
    if len(view.objectives) > 1:
        return None
    from tunesvc.search.analysis.recommend import recommend

    places = np.flatnonzero(results.candidates())
    costs = results.costs(view.objectives[0])[places]
    places = places[subsample_best(costs, results.numbers[places], CONSIDERED_MAX)]
    found = frozen(database, view.study_id, [int(number) for number in results.numbers[places]])
    return recommend(found, view.objectives[0].goal, view.shared_seeds)


def with_repeats(database: Database, view: StudyView, results: Results, answer: Recommendation) -> Recommendation:
    """Return the answer that the repeats of finalists give, or the model's where there is none or it is newer."""
    repeated = get_confirmation(database, view.name)
    winner = None if repeated is None else repeated.winner
    if repeated is None or repeated.started_at is None or winner is None or winner.mean is None:
        return answer
    ended_s = results.ended_s[results.numbers == answer.number]
    if (ended_s > repeated.started_at.timestamp()).any():
        return answer
    from tunesvc.search.analysis.finalists import CONFIDENCE

    chance = next((one.chance for one in repeated.finalists if one.number == answer.luckiest), None)
    is_apart = answer.is_apart if chance is None else chance <= 1 - CONFIDENCE
    return replace(answer, number=winner.number, mean=winner.mean, deviation=None, confirmed=winner, is_apart=is_apart)


def find_best_trial(database: Database, view: StudyView) -> TrialRow:
    """Return the trial to take; of several objectives the first of the Pareto front.

    Raises:
        TuneError: no trial is complete and feasible.
    """
    rows = answer_rows(database, view, recommended_trials(database, view))
    if not rows:
        raise TuneError(f"study {view.name!r} has no complete, feasible trial yet")
    return rows[0]


def answer_rows(database: Database, view: StudyView, answer: Recommendation | None) -> tuple[TrialRow, ...]:
    """The recommended trial, and after it the one with the best observed value if that is another one.

    With several objectives the Pareto front.
    """
    if len(view.objectives) > 1:
        return list_best_trials(database, view.study_id)
    if answer is None:
        return ()
    return rows_of(database, view.study_id, list(dict.fromkeys((answer.number, answer.luckiest))))


def forecast_value(database: Database, view: StudyView) -> str | None:
    """What improvement is expected, in words; None with several objectives, or too early to tell."""
    if len(view.objectives) > 1 or view.spec is None:
        return None
    found = expected(view, study_results(database, view.study_id))
    return None if found is None else found.text
