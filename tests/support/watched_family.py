"""A family that is watched: real data, a real database, and trials in virtual time.

The objective is `(x - m)²`, where m is the mean of column `a` on the rows that a fold validates on.
So the best `x` follows the data, and folds differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.champions.family_lock import locked_family
from tunesvc.champions.family_watch import FamilyWatch
from tunesvc.champions.version_drift import compare_versions
from tunesvc.champions.watch_result import WatchResult
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.drift.drift_report import DriftReport
from tunesvc.execution.executor import Failed, Finished, Launch, Payload, Reported
from tunesvc.execution.objectives.entrypoint import load_object
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.preparation.preparing import Preparation, prepare
from tunesvc.queries.operations.data_lineage import DATA_USED, ROWS_OF, DataUsed, get_rows_of
from tunesvc.runtime.run_study import StudySource, create_or_resume
from tunesvc.spec import StudySpec
from tunesvc.spec.sections.watch_keys import Watch


class Killed(BaseException):
    """The process of the watch was killed."""


@dataclass
class SimulatedRunner:
    """Runs studies in virtual time; may be killed at its n-th action."""

    database: Database
    folder: Path
    lives: float = float("inf")
    """Actions before it is killed."""
    fails_on_folds: bool = False
    """True if each trial on folds fails."""
    before_run: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    """Called before a study runs whose name begins so."""
    said: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)

    def prepare(self, spec: StudySpec, rows_of: str = "") -> DataManifest:
        self._act()
        assert spec.data is not None
        load = partial(load_object, folder=self.folder, label="data")
        folds = None if spec.evaluation is None else spec.evaluation.folds
        task = Preparation(spec.data, self.folder, DataStore.open(), load, "", folds)
        return prepare(task, lambda text: None, rows_of)

    def create(self, spec: StudySpec, version: str) -> StudyRecord:
        self._act()
        source = StudySource(None, str(self.folder))
        record = create_or_resume(self.database, spec, source, resume=True)
        PgStorage(self.database).set_study_system_attr(record.study_id, ROWS_OF, version)
        return record

    def run(self, record: StudyRecord, *, for_new_trials: bool = False) -> None:
        with self.database.engine.connect() as connection:
            record = study_records.find(connection, record.name)
        if record.state is StudyState.FINISHED and not for_new_trials:
            return
        assert record.spec is not None
        for name in sorted(self.before_run, key=len, reverse=True):
            if record.name.startswith(name):
                self.before_run[name]()
                break
        manifest = self.prepare(record.spec, get_rows_of(self.database, record.study_id))
        self._act()
        counts = {name: part.rows for name, part in manifest.parts.items()}
        used = DataUsed(manifest.version, manifest.source, counts, len(manifest.features))
        PgStorage(self.database).set_study_system_attr(record.study_id, DATA_USED, asdict(used))
        self._act()
        rows = self.folder / f"{manifest.version}.parquet"
        DataStore.open().files.get(manifest.raw.digest, rows)
        values = pd.read_parquet(rows).a.to_numpy()
        Simulation(self.database, record.spec, partial(self._train, record.spec, values)).run()
        self.ran.append(record.name)
        self._act()

    def compare(self, before: DataManifest, after: DataManifest, options: Watch) -> DriftReport:
        self._act()
        return compare_versions(DataStore.open(), before, after, options)

    def is_current(self, connection: sa.Connection, *, lock: bool = False) -> bool:
        return True

    def say(self, text: str) -> None:
        self.said.append(text)
        self._act()

    def _train(
        self, spec: StudySpec, rows: np.ndarray, launch: Launch
    ) -> Iterable[tuple[float, Payload]]:
        x = float(launch.params["x"]) + float(launch.params.get("shift", 0.0))
        loss = 0.0
        if self.fails_on_folds and ":folds" in spec.name:
            yield 1.0, Failed("error", "out of memory")
            return
        for block in launch.blocks or (None,):
            seed = 0 if block is None else block.index
            fold = np.random.default_rng(seed).choice(rows, len(rows) // 3, replace=False)
            loss = (x - float(fold.mean())) ** 2
            if spec.is_stepwise and block is not None:
                yield 1.0, Reported(block.step, {"loss": loss})
        yield 1.0, Finished({"loss": loss})

    def _act(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise Killed


class WatchedFamily:
    """A study file's folder, and looks at it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.runner = SimulatedRunner(database, folder)
        self.fails_on_folds = False
        self.before_run: dict[str, Callable[[], None]] = {}
        self.parameters: dict[str, Any] = {"x": {"type": "float", "min": -4.0, "max": 4.0}}
        self.constants: dict[str, Any] = {}
        self.source = "rows.csv"
        self.split: dict[str, Any] = {}
        self.watch: dict[str, Any] = {"budget": {"trials": 12}, "on_promote": "python hook.py"}
        (folder / "hook.py").write_text(
            "import sys\nopen('hook.jsonl', 'a').write(sys.stdin.read() + '\\n')\n"
        )

    def data(self, mean: float, *, seed: int = 0, rows: int = 300) -> None:
        """Write other data."""
        rng = np.random.default_rng(seed)
        table = {"a": rng.normal(mean, 1.0, rows), "b": rng.choice(["u", "v"], rows)}
        table["y"] = rng.integers(0, 2, rows)
        table["day"] = np.arange(rows)
        pd.DataFrame(table).to_csv(self.folder / "rows.csv", index=False)

    @property
    def spec(self) -> StudySpec:
        """The study file."""
        return make_spec(
            name="shop",
            parameters=self.parameters,
            constants=self.constants,
            data={"source": self.source, "target": "y", "split": self.split},
            sampler={"name": "tpe", "seed": 1},
            budget={"trials": 24},
            parallelism=4,
            watch=self.watch,
        )

    def look(self, *, lives: float = float("inf"), always: bool = False) -> WatchResult:
        """Look once, with a runner that may be killed."""
        self.runner = SimulatedRunner(
            self.database, self.folder, lives, self.fails_on_folds, self.before_run
        )
        with locked_family(self.database, "shop"):
            return FamilyWatch(
                self.database,
                self.spec,
                self.runner,
                folder=str(self.folder),
                user="ann",
                always=always,
            ).look()

    @property
    def hooked(self) -> list[dict[str, Any]]:
        """Calls that the hook got."""
        path = self.folder / "hook.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]
