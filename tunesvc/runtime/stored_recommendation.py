"""Stores a study's recommendation at the end of a run, which saves readers a fit of the model."""

from __future__ import annotations

from dataclasses import asdict

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.queries.recommendation import STORED, digest, fit_recommendation
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.trial_results import get_results


def store_recommendation(database: Database, study_id: int) -> None:
    """Fit the model of a study of one objective, and store the trial that it recommends, if any."""
    view = get_study_by_id(database, study_id)
    if len(view.objectives) > 1:
        return
    results = get_results(database, study_id)
    answer = fit_recommendation(database, view, results)
    if answer is not None:
        stored = {"digest": digest(view, results), "answer": asdict(answer)}
        PgStorage(database).set_study_system_attr(study_id, STORED, stored)
