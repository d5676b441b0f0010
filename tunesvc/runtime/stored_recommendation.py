"""Stores a study's recommendation at the end of a run, which saves readers a fit of the model."""

from __future__ import annotations

from dataclasses import asdict

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.queries.recommendation import STORED, digest, recommend_by_model
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.trial_results import get_results


def store_recommendation(database: Database, study_id: int) -> None:
    """Store the trial that the model recommends, if any; none with several objectives."""
    view = get_study_by_id(database, study_id)
    results = get_results(database, study_id)
    answer = recommend_by_model(database, view, results)
    if answer is not None:
        stored = {"digest": digest(view, results), "answer": asdict(answer)}
        PgStorage(database).set_study_system_attr(study_id, STORED, stored)
