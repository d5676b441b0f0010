"""A study on the real database with simulated workers and a virtual clock: hours pass in milliseconds."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from tunesvc.assembly import build_coordinator
from tunesvc.coordinator.closing import Closing
from tunesvc.coordinator.loop import Coordinator
from tunesvc.coordinator.progress import Note, Progress
from tunesvc.errors import StudyExists
from tunesvc.execute.executor import Executor, Finished, Launch, Payload, Reported
from tunesvc.execute.simulated import Script, SimulatedExecutor, VirtualClock
from tunesvc.spec import StudySpec
from tunesvc.store import studies
from tunesvc.store.database import Database
from tunesvc.store.ledger import Ledger


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

    notes: list[Note] = field(default_factory=list)
    snapshots: list[Progress] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.snapshots.append(progress)

    def note(self, note: Note) -> None:
        self.notes.append(note)

    def texts(self, kind: str) -> list[str]:
        return [note.text for note in self.notes if note.kind == kind]


class Simulation:
    """One study. `start` is what a coordinator process does; calling it again is a restart."""

    def __init__(self, database: Database, spec: StudySpec, script: Script = quadratic, *, slots: int = 8) -> None:
        self.database = database
        self.spec = spec
        self.script = script
        self.slots = slots
        self.clock = VirtualClock()
        self.recorder = Recorder()
        self.interrupt = threading.Event()
        self.obedient = True
        with database.engine.begin() as connection:
            try:
                self.record = studies.create(connection, spec)
            except StudyExists:
                self.record = studies.find(connection, spec.name)

    def start(self, executor: Executor | None = None, *, owner: str = "test") -> Coordinator:
        self.executor = executor or SimulatedExecutor(
            self.script, clock=self.clock, slots=self.slots, obedient=self.obedient
        )
        with self.database.engine.connect() as connection:
            record = studies.find(connection, self.spec.name)
        self.ledger = Ledger.open(self.database.engine, record.study_id, owner=owner)
        return build_coordinator(
            self.database, self.spec.name, self.ledger, self.executor, self.recorder, clock=self.clock
        )

    def run(self) -> Closing:
        """Start, run to the end, release."""
        closing = self.start().run(self.interrupt)
        self.ledger.release()
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
            self.sql(f"SELECT state, count(*) FROM trials WHERE study_id = {self.record.study_id} GROUP BY state")
        )  # type: ignore[arg-type]
