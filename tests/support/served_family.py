"""A family that servers watch: real data, a real database, and its studies in virtual time.

Looks prepare and compare data in this process. `tests/acceptance/test_served_watch.py` has real
servers.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.watched_family import SimulatedRunner, WatchedFamily
from tunesvc.artifacts.artifact_store import ArtifactStore, pieces_of
from tunesvc.artifacts.snapshot import packed
from tunesvc.champions.served import queue_runner
from tunesvc.champions.served.drift_process import DriftTask
from tunesvc.champions.served.watch_registration import register_watch
from tunesvc.champions.version_drift import compare_versions
from tunesvc.db import study_records
from tunesvc.db.champions import champion_records, served_watches
from tunesvc.db.champions.champion_records import Champion
from tunesvc.db.champions.served_watches import ServedWatch
from tunesvc.db.engine.database import Database
from tunesvc.drift.drift_report import DriftReport
from tunesvc.execution.objectives.entrypoint import load_object
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.preparation.preparing import Preparation, prepare
from tunesvc.queries.studies import list_queue
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.submission import store_snapshot
from tunesvc.service.served_look import ServedLook
from tunesvc.spec import StudySpec


class ServedFamily(WatchedFamily):
    """A family that the servers of a database watch."""

    def __init__(self, database: Database, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(database, folder)
        self.watch = {"budget": {"trials": 12}}
        self.compared = 0
        self.entrypoint = "json:dumps"
        self.snapshot: str | None = None
        patch.setattr(queue_runner, "prepare_version", self._prepare)
        patch.setattr(queue_runner, "compare_apart", self._compare)

    @property
    def spec(self) -> StudySpec:
        """The study file; its data are at an absolute path."""
        spec = super().spec
        assert spec.data is not None
        source = str(self.folder / "rows.csv")
        data = spec.data.model_copy(update={"source": source})
        return spec.model_copy(update={"data": data, "entrypoint": self.entrypoint})

    def register(
        self,
        *,
        every_s: float | None = 3600.0,
        user: str = "ann",
        always: bool = False,
        project: str | None = None,
    ) -> ServedWatch:
        """Register the watch, as `tune watch --server` does."""
        return register_watch(
            self.database,
            NewSubmission(self.spec, "name: shop", self.snapshot, project=project),
            interval_s=every_s,
            always=always,
            submitted_by=user,
        )

    def pack(self, code: str) -> str:
        """Store a snapshot of a folder with `train.py`, for `register`; return its digest."""
        folder = self.folder / "code"
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(code)
        self.entrypoint = "train:train"
        with packed(folder) as snapshot:
            self.snapshot = snapshot.digest
            with snapshot.archive.open("rb") as archive:
                store_snapshot(
                    self.database,
                    ArtifactStore.open(),
                    snapshot.digest,
                    pieces_of(archive),
                    files=snapshot.files,
                    created_by="ann",
                )
        return snapshot.digest

    def prepare(self) -> DataManifest:
        """Prepare today's data."""
        return self._prepare(self.spec, self.folder)

    def step(self) -> ServedWatch:
        """Let a server look, if it is due; return the watch after it."""
        ServedLook(self.database, "shop", threading.Event()).run()
        return self.state

    def due(self) -> None:
        """Let the time of the next look come."""
        with self.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE watches SET look_at = now() WHERE look_at > now()")

    def serve(self) -> list[str]:
        """Run what is queued, as servers do; return the names of these studies."""
        names = [row.name for row in list_queue(self.database)]
        runner = SimulatedRunner(
            self.database, self.folder, float("inf"), self.fails_on_folds, self.before_run
        )
        for name in names:
            with self.database.engine.connect() as connection:
                record = study_records.find(connection, name)
            runner.run(record, for_new_trials=True)
        return names

    def finish(self) -> ServedWatch:
        """Look and serve until the look has ended; return the watch."""
        self.due()
        for _ in range(8):
            watch = self.step()
            if not watch.waits_for:
                return watch
            self.serve()
        raise AssertionError(f"the look does not end: {self.state}")

    @property
    def state(self) -> ServedWatch:
        """The watch."""
        with self.database.engine.connect() as connection:
            found = served_watches.find(connection, "shop")
        assert found is not None
        return found

    @property
    def history(self) -> tuple[Champion, ...]:
        """All champions, the newest first."""
        with self.database.engine.connect() as connection:
            return champion_records.list_history(connection, "shop")

    def _prepare(
        self, spec: StudySpec, folder: Path, *_: Any, rows_of: str = "", **__: Any
    ) -> DataManifest:
        assert spec.data is not None
        load = partial(load_object, folder=folder, label="data")
        folds = None if spec.evaluation is None else spec.evaluation.folds
        task = Preparation(spec.data, folder, DataStore.open(), load, "", folds)
        return prepare(task, lambda text: None, rows_of)

    def _compare(self, task: DriftTask, _: threading.Event) -> DriftReport:
        self.compared += 1
        store = DataStore.open(task.store)
        return compare_versions(store, task.before, task.after, task.options)
