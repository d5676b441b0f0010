"""Results of a study and their reasons, over HTTP. Each type is imported where it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesvc.client.remote.connection import ServerConnection, study_path

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


class HttpInsights:
    """See `InsightOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def best(self, study: str) -> BestTrials:
        """Return the recommended trial; with several objectives, the Pareto front."""
        from tunesvc.client.answers import BestTrials

        return self._connection.get(BestTrials, study_path(study, "best"))

    def schedule(self, study: str, number: int | None = None) -> Schedule:
        """Return the parameters along the lineage of the recommended trial, or of a trial."""
        from tunesvc.queries.trials.population_tree import Schedule

        return self._connection.get(Schedule, study_path(study, "schedule"), number=number)

    def overview(self, study: str) -> StudyOverview:
        """Return a study with its answer, its newest trials and what to expect."""
        from tunesvc.client.answers import StudyOverview

        return self._connection.get(StudyOverview, study_path(study, "overview"))

    def explain(self, study: str, number: int | None = None) -> Explanation:
        """Explain a study, or one of its trials, in sentences."""
        from tunesvc.queries.explain.explanation import Explanation

        path = study_path(study, "explanation")
        return self._connection.get(Explanation, path, number=number)

    def health(self, study: str) -> Health:
        """Return the findings of all health checks, with advice."""
        from tunesvc.queries.health import Health

        return self._connection.get(Health, study_path(study, "health"))

    def diagnose(self, study: str) -> Diagnosis:
        """Return a study's lease, live attempts, waiting trials, requests and failures."""
        from tunesvc.queries.operations.study_diagnosis import Diagnosis

        return self._connection.get(Diagnosis, study_path(study, "diagnosis"))

    def confirmation(self, study: str) -> Confirmation | None:
        """Return the repeats of a study's finalists so far."""
        from tunesvc.queries.confirmation import Confirmation

        path = study_path(study, "confirmation")
        return self._connection.get(Confirmation | None, path)  # type: ignore[arg-type]

    def test_result(self, study: str) -> TestResult | None:
        """Return the newest result on the test part."""
        from tunesvc.queries.operations.final_results import TestResult

        kind: Any = TestResult | None
        found: TestResult | None = self._connection.get(kind, study_path(study, "test"))
        return found

    def test_uses(self, study: str) -> tuple[TestUse, ...]:
        """Return all uses of the test part of a study's data, the first one first."""
        from tunesvc.queries.operations.final_results import TestUse

        return self._connection.get(tuple[TestUse, ...], study_path(study, "test", "uses"))

    def model(self, study: str, final_trial: int | None = None) -> StoredModel | None:
        """Return the stored model of a study."""
        from tunesvc.models.model_store import StoredModel

        kind: Any = StoredModel | None
        found: StoredModel | None = self._connection.get(
            kind, study_path(study, "model"), final_trial=final_trial
        )
        return found

    def fetch_model(self, study: str) -> Path:
        """Return the folder of the stored model on this machine."""
        from tunesvc.models.model_store import place_model, require_stored

        digest = require_stored(study, self.model(study)).digest
        path = study_path(study, "models", digest)
        return place_model(digest, lambda archive: self._connection.download(path, archive, digest))

    def replay(self, study: str) -> StudyReplay:
        """Repeat every decision of a study from what is stored, and compare."""
        from tunesvc.queries.study_replay import StudyReplay

        return self._connection.get(StudyReplay, study_path(study, "replay"))

    def replay_pruner(self, study: str, pruner: str) -> PrunerComparison:
        """Run another pruner on the recorded curves."""
        from tunesvc.search.replay import PrunerComparison

        path = study_path(study, "replay", "pruner")
        return self._connection.get(PrunerComparison, path, pruner=pruner)

    def replay_sampler(self, study: str, sampler: str) -> tuple[ReplayedProposal, ...]:
        """Return the proposals of another sampler at each ask of the recorded history."""
        from tunesvc.search.replay import ReplayedProposal

        path = study_path(study, "replay", "sampler")
        return self._connection.get(tuple[ReplayedProposal, ...], path, sampler=sampler)

    def figure(
        self,
        study: str,
        kind: str,
        *,
        objective: int = 0,
        params: Sequence[str] = (),
    ) -> FigureData:
        """Return a figure as Plotly's JSON."""
        from tunesvc.client.answers import FigureData

        path = study_path(study, "figures", kind)
        return self._connection.get(FigureData, path, objective=objective, param=list(params))

    def report(self, study: str) -> str:
        """Return a study as one self-contained HTML page."""
        with self._connection.stream(study_path(study, "report.html")) as response:
            return response.read().decode()
