"""Operations of every client, in groups: `client.studies`, `client.trials` and so on.

Both implementations return the same values and raise the same errors of `tunesvc.errors`. Studies
are named, trials are numbered. Lists come in pages: `after` of a page is the start of the next.
Every method about a study raises `StudyNotFound` if the user may view no such study or trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tunesvc.client.account_operations import AccountOperations
from tunesvc.client.alert_operations import AlertOperations
from tunesvc.queries.rows import (
    AttemptRow,
    DecisionRow,
    LogRow,
    ReportCurve,
    RequestRow,
    RowPage,
    StudyRow,
    StudyStatus,
    StudyView,
    TrialDetail,
    TrialRow,
)

if TYPE_CHECKING:
    from tunesvc.artifacts.snapshot import Snapshot
    from tunesvc.client.answers import (
        BestTrials,
        ChampionHistory,
        FigureData,
        RequestedFinal,
        ServerInfo,
        StudyNews,
        StudyOverview,
    )
    from tunesvc.client.study_inputs import NewStudy, StudyPatch
    from tunesvc.db.champions.champion_tenures import Tenure
    from tunesvc.db.champions.served_watches import ServedWatch
    from tunesvc.models.model_store import StoredModel
    from tunesvc.queries.checkpoint_files import KeptCheckpoint
    from tunesvc.queries.comparison import Fact
    from tunesvc.queries.confirmation import Confirmation
    from tunesvc.queries.explain.explanation import Explanation
    from tunesvc.queries.health import Health
    from tunesvc.queries.operations.cluster_view import ClusterView
    from tunesvc.queries.operations.final_results import TestResult, TestUse
    from tunesvc.queries.operations.study_diagnosis import Diagnosis
    from tunesvc.queries.study_replay import StudyReplay
    from tunesvc.queries.trials.population_tree import Schedule
    from tunesvc.runtime.new_submission import NewSubmission
    from tunesvc.search.replay import PrunerComparison, ReplayedProposal
    from tunesvc.service.cluster_shares import ClusterShares

PAGE_MAX = 1_000
"""Most rows of a page."""
ExportFormat = Literal["csv", "json", "jsonl", "parquet"]


class StudyOperations(Protocol):
    """Studies as a whole."""

    def page(
        self,
        *,
        search: str = "",
        states: Sequence[StudyStatus] = (),
        tags: Sequence[str] = (),
        owner: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[StudyRow]:
        """Return studies, the newest first: those that meet all conditions."""
        ...

    def names(self, prefix: str = "", *, limit: int = 100) -> tuple[str, ...]:
        """Return names of studies that begin with a text, the newest first."""
        ...

    def get(self, name: str) -> StudyView:
        """Return a study."""
        ...

    def create(self, new: NewStudy) -> StudyView:
        """Store a study, without running it: `submissions.submit` queues one for servers.

        Raises:
            StudyExists: the name is taken.
            SpecError: the spec cannot be used.
        """
        ...

    def change(self, name: str, patch: StudyPatch) -> tuple[str, ...]:
        """Change a study; return the answers, a sentence for each change.

        Raises:
            SpecError: a change makes no sense for this study.
        """
        ...

    def delete(self, name: str) -> str:
        """Delete a study with its trials, logs and checkpoints; return a sentence about it.

        Raises:
            StudyBusy: a coordinator runs it.
        """
        ...

    def tag(
        self,
        name: str,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        number: int | None = None,
    ) -> tuple[str, ...]:
        """Add and remove tags of a study, or of its trial `number`; return the new tags."""
        ...

    def note(self, name: str, text: str, *, number: int | None = None) -> str:
        """Replace the note of a study, or of its trial `number`; return it."""
        ...

    def compare(self, names: Sequence[str]) -> tuple[Fact, ...]:
        """Return results and specs of several studies by key. Times are text."""
        ...


class TrialOperations(Protocol):
    """Trials of a study."""

    def page(
        self,
        study: str,
        *,
        where: str = "",
        sort: str = "number",
        after: str = "",
        limit: int = 100,
    ) -> RowPage[TrialRow]:
        """Return trials that match a filter, see `tune trials`, in an order.

        Raises:
            FilterError: the filter cannot be understood.
        """
        ...

    def count(self, study: str, *, where: str = "") -> int:
        """Count the trials that match a filter."""
        ...

    def get(self, study: str, number: int) -> TrialDetail:
        """Return a trial with its attempts, decisions and attributes."""
        ...

    def curve(self, study: str, number: int) -> ReportCurve:
        """Return the reports of a trial by step."""
        ...

    def curves(
        self,
        study: str,
        *,
        max_points: int | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[ReportCurve]:
        """Return the curves of the next `limit` trials, without trials that reported nothing.

        Args:
            study: Name of the study.
            max_points: Approximate number of points to thin each curve to.
            after: `after` of the previous page.
            limit: Number of trials.
        """
        ...

    def attempts(
        self,
        study: str,
        *,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[AttemptRow]:
        """Return the attempts of the next `limit` trials."""
        ...

    def decisions(
        self,
        study: str,
        *,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[DecisionRow]:
        """Return decisions about the study and its trials, the oldest first."""
        ...

    def logs(
        self,
        study: str,
        number: int,
        *,
        attempt: int | None = None,
        after: str = "",
        limit: int = 1_000,
    ) -> RowPage[LogRow]:
        """Return a trial's output in order, of one attempt or of all."""
        ...

    def follow(
        self,
        study: str,
        number: int,
        *,
        attempt: int | None = None,
        after: str = "",
    ) -> Iterator[LogRow]:
        """Yield a trial's output as it comes, until the trial has finished.

        Args:
            study: Name of the study.
            number: Number of the trial.
            attempt: Attempt to follow; all if None.
            after: `log_position` of the last piece that was read.
        """
        ...

    def export(
        self,
        study: str,
        format: ExportFormat,
        *,
        where: str = "",
        sort: str = "number",
        limit: int | None = None,
    ) -> Iterator[bytes]:
        """Return trials as a file in pieces, with all columns of `Study.trials_dataframe`."""
        ...

    def compare(self, study: str, numbers: Sequence[int]) -> tuple[Fact, ...]:
        """Return results, parameters and execution of several trials by key. Times are text."""
        ...

    def best_checkpoint(self, study: str, number: int | None = None) -> KeptCheckpoint:
        """Return the best checkpoint of the best trial, or of a trial.

        Its path is one of the machine of the database or server, or an address in an object store.

        Raises:
            TuneError: there is none on that machine.
        """
        ...

    def checkpoints(self, study: str, number: int | None = None) -> tuple[KeptCheckpoint, ...]:
        """Return the kept checkpoints of a trial, oldest first, or of the 200 newest trials.

        Raises:
            StudyNotFound: there is no such study or trial.
            ArtifactStoreError: the store of the checkpoints does not answer.
        """
        ...

    def fetch_checkpoint(self, study: str, number: int, checkpoint: str, folder: Path) -> Path:
        """Copy a checkpoint's file or folder into a folder; return the copy's path.

        Raises:
            StudyNotFound: there is none of that name.
            TuneError: a file or folder of its name is there already.
        """
        ...


class InsightOperations(Protocol):
    """Results of a study, and their reasons."""

    def best(self, study: str) -> BestTrials:
        """Return the recommended trial; with several objectives, the Pareto front."""
        ...

    def schedule(self, study: str, number: int | None = None) -> Schedule:
        """Return the parameters along the lineage of the recommended trial, or of a trial.

        Raises:
            TuneError: no trial is complete yet.
        """
        ...

    def overview(self, study: str) -> StudyOverview:
        """Return a study with its answer, its newest trials and what to expect."""
        ...

    def explain(self, study: str, number: int | None = None) -> Explanation:
        """Explain a study, or one of its trials, in sentences."""
        ...

    def health(self, study: str) -> Health:
        """Return the findings of all health checks, with advice."""
        ...

    def diagnose(self, study: str) -> Diagnosis:
        """Return a study's lease, live attempts, waiting trials, requests and failures."""
        ...

    def confirmation(self, study: str) -> Confirmation | None:
        """Return the repeats of a study's finalists so far; None if it was never confirmed."""
        ...

    def test_result(self, study: str) -> TestResult | None:
        """Return the newest result on the test part; None if it was never used for this study."""
        ...

    def test_uses(self, study: str) -> tuple[TestUse, ...]:
        """Return all uses of the test part of a study's data, the first one first.

        Only those by studies that the user may view.
        """
        ...

    def model(self, study: str, final_trial: int | None = None) -> StoredModel | None:
        """Return the stored model of a study; None if there is none.

        Args:
            study: Name of the study.
            final_trial: `trial` of `submissions.apply`: None is returned until its model is stored.

        Raises:
            TuneError: the model of that trial could not be stored.
        """
        ...

    def fetch_model(self, study: str) -> Path:
        """Return the folder of the stored model on this machine, for `TrainedModel`.

        Raises:
            DataError: there is none.
            ArtifactDamaged: it arrived with another digest.
        """
        ...

    def replay(self, study: str) -> StudyReplay:
        """Repeat every decision of a study from what is stored, and compare."""
        ...

    def replay_pruner(self, study: str, pruner: str) -> PrunerComparison:
        """Run another pruner, written as in a study file, on the recorded curves."""
        ...

    def replay_sampler(self, study: str, sampler: str) -> tuple[ReplayedProposal, ...]:
        """Return the proposals of another sampler at each ask of the recorded history."""
        ...

    def figure(
        self,
        study: str,
        kind: str,
        *,
        objective: int = 0,
        params: Sequence[str] = (),
    ) -> FigureData:
        """Return a figure as Plotly's JSON; `charts.FigureKind` has the kinds.

        Raises:
            TuneError: a study of this kind has no such figure.
        """
        ...

    def report(self, study: str) -> str:
        """Return a study as one self-contained HTML page."""
        ...


class CommandOperations(Protocol):
    """Requests to a study."""

    def send(self, study: str, kind: str, payload: Mapping[str, Any] | None = None) -> str:
        """Send a request, and return its answer; `runtime.study_requests` lists the kinds.

        Two more are carried out at once: `promote` makes a trial of the study the champion of a
        family (`number`, the recommended one by default; `family`, by default that of the study's
        name; `reason`), and `rollback` restores an earlier champion of the study's family
        (`champion`, by default the last one with another configuration; `family`; `reason`).

        Raises:
            SpecError: it makes no sense for this study.
        """
        ...

    def page(self, study: str, *, after: str = "", limit: int = 100) -> RowPage[RequestRow]:
        """Return the requests to a study with their answers, the newest first."""
        ...


class SubmissionOperations(Protocol):
    """Studies that are handed to servers."""

    def has_snapshot(self, digest: str) -> bool:
        """Return whether the archive of a folder is stored; if so, it stays for a day."""
        ...

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Store the archive of a folder. May be repeated.

        Raises:
            ArtifactTooLarge: it is larger than the server takes.
            ArtifactDamaged: it arrived with another digest.
            ArtifactStoreUnavailable: the artifact store does not answer, or is full.
        """
        ...

    def submit(self, new: NewSubmission) -> StudyView:
        """Queue a study for the next server with room, and return it.

        Raises:
            StudyExists: the name is taken.
            SpecError: it cannot be used.
            TuneError: its snapshot is not stored.
        """
        ...

    def confirm(self, study: str, *, top: int = 5, repeats: int = 5) -> StudyView:
        """Queue repeats of the best trials with other seeds, and return the study that they are.

        `insights.confirmation` has the results. Called with other numbers, it adds what is missing.

        Raises:
            TuneError: servers leave this study alone, or it has nothing to confirm.
        """
        ...

    def watch(
        self, new: NewSubmission, *, every_s: float | None = None, always: bool = False
    ) -> ServedWatch:
        """Let servers watch the family of a study, in place of an earlier watch; it looks at once.

        Args:
            new: the study, whose folder's snapshot is stored.
            every_s: time between two looks; None for a single one, or for that of the earlier
                watch.
            always: tune again for each new version of the data, drifted or not.

        Raises:
            SpecError: servers cannot watch it; the text has the remedy.
            StudyExists: a study or watch of this name is in another project.
            TuneError: its snapshot is not stored.
        """
        ...

    def watches(self) -> tuple[ServedWatch, ...]:
        """Return the families that servers watch, by name."""
        ...

    def unwatch(self, family: str) -> ServedWatch:
        """Stop servers from watching a family; return its watch as it was. Its studies continue.

        Raises:
            ChampionNotFound: servers do not watch it.
        """
        ...

    def test(self, study: str, *, again: bool = False) -> RequestedFinal | None:
        """Queue the evaluation of the recommended trial on the test part; return the final run.

        None if a result is recorded and `again` is off: `insights.test_result` has it. One that has
        not ended is continued.

        Raises:
            TuneError: servers leave this study alone, or it has no test part or no result.
            StudyBusy: it runs with another trial.
        """
        ...

    def apply(
        self, study: str, number: int | None = None, *, replace: bool = False
    ) -> RequestedFinal:
        """Queue the training of the final model, and return the final run.

        A server then stores the model, for `insights.model`. A training of the same trial that has
        not ended is continued.

        Args:
            study: Name of the study.
            number: Trial whose parameters are trained; the recommended one by default.
            replace: Store the model also if another study of the same name has one.

        Raises:
            TuneError: servers leave this study alone, or it has no result.
            DataError: another study of the same name has a model, and `replace` is off.
            StudyBusy: it runs with another trial.
        """
        ...


class ServiceOperations(Protocol):
    """All studies together, and the machines that run them."""

    def info(self) -> ServerInfo:
        """Return the version of the program, and the user."""
        ...

    def cluster(self) -> ClusterView:
        """Return nodes with their attempts, what waits, and the coordinators."""
        ...

    def queue(self, *, after: str = "", limit: int = 100) -> RowPage[StudyRow]:
        """Return studies that wait for a server, the next one first."""
        ...

    def shares(self) -> ClusterShares:
        """Return how submitted studies share the cluster, and why one waits."""
        ...

    def champions(self) -> tuple[Tenure, ...]:
        """Return the tenure of each family's champion, by name."""
        ...

    def champion_history(self, family: str) -> ChampionHistory:
        """Return the champions of a family, the newest first, and their announcements.

        Raises:
            ChampionNotFound: it has none.
        """
        ...

    def events(self, study: str | None = None, *, after: str = "") -> Iterator[StudyNews]:
        """Yield changes as they come, of one study or of all; without end.

        Args:
            study: Name of the study; all studies if None.
            after: `StudyNews.position` of the last change that was read.
        """
        ...


class TuneClient(Protocol):
    """A client of one user."""

    @property
    def alerts(self) -> AlertOperations:
        """The user's own alert targets."""
        ...

    @property
    def accounts(self) -> AccountOperations:
        """Users, projects, tokens and the audit log."""
        ...

    @property
    def studies(self) -> StudyOperations:
        """Studies as a whole."""
        ...

    @property
    def trials(self) -> TrialOperations:
        """Trials of a study."""
        ...

    @property
    def insights(self) -> InsightOperations:
        """Results of a study, and their reasons."""
        ...

    @property
    def commands(self) -> CommandOperations:
        """Requests to a study."""
        ...

    @property
    def submissions(self) -> SubmissionOperations:
        """Studies that are handed to servers."""
        ...

    @property
    def service(self) -> ServiceOperations:
        """All studies together."""
        ...
