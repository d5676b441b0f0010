"""Results of a study and their reasons, on a database. Each query is imported where it is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.errors import TuneError
from tunesvc.queries.rows import StudyView
from tunesvc.queries.studies import get_study

if TYPE_CHECKING:
    from tunesvc.client.answers import BestTrials, FigureData, StudyOverview
    from tunesvc.models.model_store import StoredModel
    from tunesvc.queries.confirmation import Confirmation
    from tunesvc.queries.explain.explanation import Explanation
    from tunesvc.queries.health import Health
    from tunesvc.queries.operations.final_results import TestResult, TestUse
    from tunesvc.queries.operations.study_diagnosis import Diagnosis
    from tunesvc.queries.study_replay import StudyReplay
    from tunesvc.queries.trials.population_tree import Schedule
    from tunesvc.search.replay import PrunerComparison, ReplayedProposal

NEWEST = 8
"""Newest trials of an overview."""


class LocalInsights:
    """See `InsightOperations`."""

    def __init__(self, database: Database, among: StudyScope) -> None:
        self._database = database
        self._among = among

    def best(self, study: str) -> BestTrials:
        """Return the recommended trial; with several objectives, the Pareto front."""
        from tunesvc.client.answers import BestTrials
        from tunesvc.queries.recommendation import answer_rows, get_recommendation

        view = self._view(study)
        recommendation = get_recommendation(self._database, view)
        rows = answer_rows(self._database, view, recommendation)
        return BestTrials(view, recommendation, rows)

    def schedule(self, study: str, number: int | None = None) -> Schedule:
        """Return the parameters along the lineage of the recommended trial, or of a trial."""
        from tunesvc.queries.recommendation import find_best_trial
        from tunesvc.queries.trials.population_tree import get_schedule

        view = self._view(study)
        if number is None:
            number = find_best_trial(self._database, view).number
        return get_schedule(self._database, view, number)

    def overview(self, study: str) -> StudyOverview:
        """Return a study with its answer, its newest trials and what to expect."""
        from tunesvc.client.answers import StudyOverview
        from tunesvc.queries.cost.outlook import get_outlook
        from tunesvc.queries.explain.pruning_audit import get_audit
        from tunesvc.queries.recommendation import forecast_value
        from tunesvc.queries.trials.trial_results import get_results
        from tunesvc.queries.trials.trial_table import list_trials

        best = self.best(study)
        view = best.study
        return StudyOverview(
            best,
            list_trials(self._database, view.study_id, order="newest", limit=NEWEST),
            forecast_value(self._database, view),
            get_outlook(view, get_results(self._database, view.study_id)),
            get_audit(self._database, view),
        )

    def explain(self, study: str, number: int | None = None) -> Explanation:
        """Explain a study, or one of its trials, in sentences."""
        from tunesvc.client.local.local_trials import no_such_trial
        from tunesvc.queries.explain.explanation import explain_study, explain_trial

        view = self._view(study)
        if number is None:
            return explain_study(self._database, view)
        explanation = explain_trial(self._database, view, number)
        if explanation is None:
            raise no_such_trial(view, number)
        return explanation

    def health(self, study: str) -> Health:
        """Return the findings of all health checks, with advice."""
        from tunesvc.queries.health import health

        return health(self._database, self._view(study))

    def diagnose(self, study: str) -> Diagnosis:
        """Return a study's lease, live attempts, waiting trials, requests and failures."""
        from tunesvc.queries.operations.study_diagnosis import diagnose

        return diagnose(self._database, self._view(study).name)

    def confirmation(self, study: str) -> Confirmation | None:
        """Return the repeats of a study's finalists so far."""
        from tunesvc.queries.confirmation import get_confirmation

        return get_confirmation(self._database, self._view(study).name)

    def test_result(self, study: str) -> TestResult | None:
        """Return the newest result on the test part."""
        from tunesvc.queries.operations.final_results import get_test_result

        return get_test_result(self._database, self._view(study).study_id, self._among)

    def test_uses(self, study: str) -> tuple[TestUse, ...]:
        """Return all uses of the test part of a study's data, the first one first."""
        from tunesvc.queries.operations.data_lineage import get_data
        from tunesvc.queries.operations.final_results import list_test_uses

        data = get_data(self._database, self._view(study).study_id)
        if data is None:
            return ()
        return list_test_uses(self._database, data.version, data.test_rows, self._among)

    def model(self, study: str, final_trial: int | None = None) -> StoredModel | None:
        """Return the stored model of a study."""
        from tunesvc.db import study_records
        from tunesvc.runtime.finals.served_finals import get_stored_model

        with self._database.engine.connect() as connection:
            record = study_records.get(connection, self._view(study).study_id)
        return get_stored_model(self._database, record, final_trial)

    def fetch_model(self, study: str) -> Path:
        """Return the folder of the stored model on this machine."""
        from tunesvc.models.model_store import ModelStore, require_stored

        require_stored(study, self.model(study))
        return ModelStore.open().fetch(study)

    def replay(self, study: str) -> StudyReplay:
        """Repeat every decision of a study from what is stored, and compare."""
        from tunesvc.queries.study_replay import replay_study

        return replay_study(self._database, self._view(study))

    def replay_pruner(self, study: str, pruner: str) -> PrunerComparison:
        """Run another pruner on the recorded curves."""
        from tunesvc.queries.study_replay import replay_pruner

        return replay_pruner(self._database, self._view(study), pruner)

    def replay_sampler(self, study: str, sampler: str) -> tuple[ReplayedProposal, ...]:
        """Return the proposals of another sampler at each ask of the recorded history."""
        from tunesvc.queries.study_replay import replay_sampler

        return replay_sampler(self._database, self._view(study), sampler)

    def figure(
        self,
        study: str,
        kind: str,
        *,
        objective: int = 0,
        params: Sequence[str] = (),
    ) -> FigureData:
        """Return a figure as Plotly's JSON."""
        from tunesvc import charts
        from tunesvc.client.answers import FigureData

        view = self._view(study)
        kinds = charts.kinds_of(view)
        if kind not in kinds:
            raise TuneError(f"study {study!r} has no figure '{kind}'; it has {', '.join(kinds)}")
        if not 0 <= objective < len(view.objectives):
            count = len(view.objectives)
            raise TuneError(f"there is no objective {objective}: there are {count}, from 0")
        options = charts.FigureOptions(objective, tuple(params))
        reader = charts.Reader(self._database, view)
        chart = charts.draw(charts.FigureKind(kind), reader, options)
        figure = None if chart.figure is None else json.loads(chart.figure.to_json())
        return FigureData(chart.title, chart.note, figure)

    def report(self, study: str) -> str:
        """Return a study as one self-contained HTML page."""
        from tunesvc import charts

        return charts.report(self._database, self._view(study))

    def _view(self, study: str) -> StudyView:
        return get_study(self._database, study, self._among)
