"""A study on the real database with simulated workers and a virtual clock: hours pass in
milliseconds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass, field

import sqlalchemy as sa

from tunesvc.coordinator.coordinator import Coordinator, StepTiming
from tunesvc.coordinator.progress_events import Progress, ProgressEvent
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import DatabaseUnavailable, StudyExists
from tunesvc.execution.executor import Executor, Finished, Launch, Payload, Reported
from tunesvc.runtime.imported_searchers import Searchers
from tunesvc.runtime.run_study import build_coordinator
from tunesvc.spec import StudySpec
from tunesvc.testing.simulated_executor import (
    Script,
    SimulatedCluster,
    SimulatedExecutor,
    VirtualClock,
)


def curve(*losses: float, every_s: float = 1.0) -> list[tuple[float, Payload]]:
    """A script: one report per loss, then the end."""
    reports = [(every_s, Reported(step, {"loss": loss})) for step, loss in enumerate(losses)]
    return [*reports, (every_s, Finished())]


def quadratic(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Five steps towards a loss that depends on x, best at 0.3."""
    x = float(launch.params["x"])  # type: ignore[arg-type]
    return curve(*((x - 0.3) ** 2 + 1 / (1 + step) for step in range(5)))


@dataclass
class Recorder:
    """An observer that remembers."""

    events: list[ProgressEvent] = field(default_factory=list)
    snapshots: list[Progress] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.snapshots.append(progress)

    def on_event(self, event: ProgressEvent) -> None:
        self.events.append(event)

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.events if event.kind == kind]


class UnreliableStudyWriter(StudyWriter):
    """A study writer whose database fails as often as the test says, before or after the commit."""

    faults: deque[str]

    def _commit_once(self, number: int, batch: StudyChanges) -> Sequence[tuple[int, int]]:
        fault = self.faults.popleft() if self.faults else ""
        if fault == "away":
            raise DatabaseUnavailable("nothing listens there")
        stalled = super()._commit_once(number, batch)
        if fault == "answer lost":
            raise DatabaseUnavailable("the connection was cut after the commit")
        return stalled


class Simulation:
    """One study. `start` is what a coordinator process does; calling it again is a restart."""

    def __init__(
        self, database: Database, spec: StudySpec, script: Script = quadratic, *, slots: int = 8
    ) -> None:
        self.commit_thread: futures.Executor | None = None
        """A thread to commit in, as whole studies have it; None: each step waits for its commit,
        always alike."""
        self.database = database
        self.spec = spec
        self.script = script
        self.slots = slots
        self.clock = VirtualClock()
        self.cluster: SimulatedCluster | None = None
        self.recorder = Recorder()
        self.interrupt = threading.Event()
        self.obedient = True
        self.faults: deque[str] = deque()
        """Fate of the next commits: "", "away" or "answer lost"."""
        with database.engine.begin() as connection:
            try:
                self.record = study_records.create(connection, spec)
            except StudyExists:
                self.record = study_records.find(connection, spec.name)

    def share_cluster(self) -> SimulatedCluster:
        """From here on, attempts outlive their coordinators."""
        self.cluster = SimulatedCluster(
            self.script, clock=self.clock, slots=self.slots, obedient=self.obedient
        )
        return self.cluster

    def start(
        self,
        executor: Executor | None = None,
        *,
        owner: str = "test",
        standby: bool = False,
        searchers: Searchers | None = None,
    ) -> Coordinator:
        self.executor = executor or SimulatedExecutor(
            self.script,
            clock=self.clock,
            slots=self.slots,
            obedient=self.obedient,
            cluster=self.cluster,
        )
        with self.database.engine.connect() as connection:
            record = study_records.find(connection, self.spec.name)
        study_writer = UnreliableStudyWriter.open(self.database, record.study_id, owner=owner)
        assert isinstance(study_writer, UnreliableStudyWriter)
        study_writer.faults = self.faults
        self.study_writer = study_writer
        return build_coordinator(
            self.database,
            self.spec.name,
            self.study_writer,
            self.executor,
            self.recorder,
            searchers=searchers,
            standby=standby,
            timing=StepTiming(
                clock=self.clock,
                sleep=lambda seconds: self.clock.advance(self.clock.now() + seconds),
                commit_thread=self.commit_thread,
            ),
        )

    def run(self) -> Shutdown:
        """Start, run to the end, release."""
        closing = self.start().run(self.interrupt)
        self.study_writer.release()
        return closing

    def crash(self) -> None:
        """The coordinator is gone without a word, and its lease has run out."""
        self.sql("UPDATE leases SET expires_at = now() - interval '1 second'")

    def sql(self, statement: str) -> Sequence[sa.Row[tuple[object, ...]]]:
        """Run a statement; returns its rows."""
        with self.database.engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return result.all() if result.returns_rows else []

    def states(self) -> dict[str, int]:
        """Trials by state."""
        return dict(
            self.sql(
                f"SELECT state, count(*) FROM trials WHERE study_id = {self.record.study_id} GROUP BY state"
            )
        )  # type: ignore[arg-type]
