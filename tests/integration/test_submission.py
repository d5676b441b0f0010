"""Submitting: a folder is stored once, and what a server runs is what was submitted."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.broken_stores import broken_store
from tunesvc.artifacts.artifact_store import ArtifactStore, pieces_of
from tunesvc.artifacts.snapshot import packed
from tunesvc.db import submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import Priority
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import (
    ArtifactDamaged,
    ArtifactStoreUnavailable,
    SpecError,
    StudyExists,
    TuneError,
)
from tunesvc.execution.executor import Executor, Job
from tunesvc.instrumentation import failpoints
from tunesvc.instrumentation.failpoints import FailpointReached, Point
from tunesvc.queries.studies import list_queue
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.run_study import Serving, StudySource, create, run_study
from tunesvc.runtime.submission import (
    collect_snapshots,
    has_snapshot,
    store_snapshot,
    submit_study,
    submitted_source,
)
from tunesvc.spec import Sampler, StudySpec
from tunesvc.spec.yaml.document import load

STUDY = """\
name: one
entrypoint: train:train
metric: loss
parameters: {x: {type: float, min: 0, max: 1}}
budget: {trials: 3}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY)
    (folder / "train.py").write_text("def train(x): return x\n")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def spec_of(folder: Path, name: str = "one") -> StudySpec:
    return load(folder / "study.yaml").spec.model_copy(update={"name": name})


def upload(database: Database, store: ArtifactStore, folder: Path) -> str:
    with packed(folder) as snapshot:
        if not has_snapshot(database, store, snapshot.digest):
            with snapshot.archive.open("rb") as archive:
                store_snapshot(
                    database,
                    store,
                    snapshot.digest,
                    pieces_of(archive),
                    files=snapshot.files,
                    created_by="ann",
                )
        return snapshot.digest


def submit(
    database: Database, store: ArtifactStore, folder: Path, name: str = "one"
) -> StudyRecord:
    new = NewSubmission(
        spec_of(folder, name),
        STUDY,
        upload(database, store, folder),
        priority=Priority.HIGH,
        provenance={"python": "3.11"},
    )
    return submit_study(database, new, submitted_by="ann")


def no_executor(job: Job, spec: StudySpec) -> Executor:
    raise AssertionError("no executor is made")


def test_a_submitted_study_waits_with_its_origin(
    database: Database, store: ArtifactStore, folder: Path
) -> None:
    record = submit(database, store, folder)
    with database.engine.connect() as connection:
        waiting = submissions.get(connection, record.study_id)
    assert waiting is not None
    assert waiting.priority == Priority.HIGH
    assert waiting.submitted_by == "ann"
    assert waiting.provenance == {"python": "3.11"}


def test_ten_studies_of_one_folder_store_it_once(
    database: Database, folder: Path, tmp_path: Path, home: Path
) -> None:
    objects, filesystem = broken_store(tmp_path / "store")
    store = ArtifactStore(objects)
    records = [submit(database, store, folder, f"study {number}") for number in range(10)]
    assert len(list(store.list())) == 1
    assert len(filesystem.written) == 1
    sources = {submitted_source(database, record, store).folder for record in records}
    assert len(sources) == 1
    assert len(list((home / "snapshots").iterdir())) == 1


def test_a_file_that_changes_later_changes_nothing_that_runs(
    database: Database, store: ArtifactStore, folder: Path
) -> None:
    """Fault 57."""
    record = submit(database, store, folder)
    (folder / "train.py").write_text("def train(x): raise SystemExit\n")
    source = submitted_source(database, record, store)
    assert Path(str(source.folder), "train.py").read_text() == "def train(x): return x\n"
    assert source.text == STUDY


def test_a_name_that_is_taken_is_refused_with_the_ways_out(
    database: Database, store: ArtifactStore, folder: Path
) -> None:
    submit(database, store, folder)
    with pytest.raises(StudyExists, match=r"`tune rm one`.*`--name`"):
        submit(database, store, folder)


def test_a_snapshot_that_is_not_stored_is_refused(database: Database, folder: Path) -> None:
    new = NewSubmission(spec_of(folder), STUDY, "0" * 64)
    with pytest.raises(TuneError, match="is not stored"):
        submit_study(database, new, submitted_by="ann")


def test_a_study_without_a_program_is_refused(database: Database, folder: Path) -> None:
    spec = spec_of(folder).model_copy(update={"entrypoint": None})
    with pytest.raises(SpecError, match="put it into a module"):
        submit_study(database, NewSubmission(spec, folder=str(folder)), submitted_by="ann")


def test_a_server_with_a_cluster_refuses_a_study_of_its_own_machine(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(folder / "study.yaml").spec.model_copy(update={"cluster": "local"})
    new = NewSubmission(spec, STUDY, folder=str(folder))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    record = submit_study(database, new, submitted_by="ada")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(SpecError, match="has `cluster: local`, and the servers' cluster is 10"):
        submit_study(database, new, submitted_by="ada")
    source = submitted_source(database, record)
    serving = Serving(lambda coordinator: None)
    with pytest.raises(SpecError, match="Leave `cluster` out"):  # it was submitted before
        run_study(database, record, source, make_executor=no_executor, serving=serving)


def test_a_study_whose_sampler_a_server_would_have_to_import_is_refused(
    database: Database, store: ArtifactStore, folder: Path
) -> None:
    spec = load(folder / "study.yaml").spec
    own = spec.model_copy(update={"sampler": Sampler(name="own:Sampler")})
    new = NewSubmission(own, STUDY, upload(database, store, folder))
    with pytest.raises(SpecError, match=r"sampler: servers run no code of a study's own.*tune run"):
        submit_study(database, new, submitted_by="ann")
    record = create(database, own, StudySource(STUDY, str(folder)))
    with pytest.raises(SpecError, match="servers run no code of a study's own"):
        run_study(
            database,
            record,
            StudySource(STUDY, str(folder)),
            make_executor=no_executor,
            serving=Serving(lambda coordinator: None),
        )


def test_a_study_of_a_shared_folder_needs_no_snapshot(database: Database, folder: Path) -> None:
    new = NewSubmission(spec_of(folder), STUDY, folder=str(folder))
    record = submit_study(database, new, submitted_by="ann")
    assert submitted_source(database, record).folder == str(folder)


def test_a_study_of_tune_run_has_no_submitted_source(database: Database, folder: Path) -> None:
    record = create(database, spec_of(folder), StudySource(STUDY, str(folder)))
    with pytest.raises(TuneError, match="was not submitted"):
        submitted_source(database, record)


def test_an_archive_of_another_digest_is_not_recorded(
    database: Database, store: ArtifactStore
) -> None:
    with pytest.raises(ArtifactDamaged):
        store_snapshot(database, store, "0" * 64, [b"x"], files=1, created_by="")
    assert not has_snapshot(database, store, "0" * 64)


def test_a_store_that_is_away_refuses_the_upload_and_leaves_nothing(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    """Faults 53 and 55."""
    objects, filesystem = broken_store(tmp_path / "store")
    store = ArtifactStore(objects)
    for fault in ("away", "full"):
        filesystem.fault = fault
        with pytest.raises(ArtifactStoreUnavailable):
            submit(database, store, folder)
    filesystem.fault = ""
    assert submit(database, store, folder).name == "one"


def test_a_collector_takes_only_what_no_study_has_and_is_old(
    database: Database, store: ArtifactStore, folder: Path
) -> None:
    record = submit(database, store, folder)
    (folder / "train.py").write_text("def train(x): return 2 * x\n")
    unused = upload(database, store, folder)
    assert collect_snapshots(database, store) == 0
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE snapshots SET created_at = now() - interval '2 days'"))
    assert collect_snapshots(database, store) == 1
    assert not has_snapshot(database, store, unused)
    submitted_source(database, record, store)


def test_a_snapshot_that_is_about_to_be_used_again_is_young(
    database: Database, store: ArtifactStore, folder: Path
) -> None:
    digest = upload(database, store, folder)
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE snapshots SET created_at = now() - interval '2 days'"))
    assert has_snapshot(database, store, digest)
    assert collect_snapshots(database, store) == 0


def test_a_lost_artifact_is_uploaded_again(
    database: Database, store: ArtifactStore, folder: Path
) -> None:
    digest = upload(database, store, folder)
    store.delete(digest)
    assert not has_snapshot(database, store, digest)
    assert upload(database, store, folder) == digest
    assert has_snapshot(database, store, digest)


@pytest.mark.parametrize("point", ["uploaded", "recorded", "submitted"])
def test_submitting_may_be_repeated_after_a_crash_anywhere(
    database: Database, store: ArtifactStore, folder: Path, point: Point
) -> None:
    """Fault 52."""
    failpoints.arm(f"{point}:raise")
    with pytest.raises(FailpointReached):
        submit(database, store, folder)
    failpoints.arm(None)
    record = submit(database, store, folder)
    assert len(list(store.list())) == 1
    assert [row.study_id for row in list_queue(database)] == [record.study_id]
    assert submitted_source(database, record, store).is_snapshot
