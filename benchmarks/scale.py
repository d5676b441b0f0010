"""Limits of one coordinator: thousands of simulated workers, a real coordinator and a real
Postgres.

    python -m benchmarks.scale [--workers 8 100 1000 10000] [--epoch-s 10 60] [--coordinators 1]
    [--seconds 60]
                               [--epochs 10] [--sampler tpe] [--pruner asha] [--profile FILE]

Trials are rows of the learning-curve tables (see `benchmarks.curve_tables`), with their curves and
relative durations of epochs, and so with the decisions of successive halving. `--epoch-s` is the
mean epoch of all configurations; every epoch is a report. Workers are simulated; coordinator,
sampler, pruner and a Postgres with fsync are real.

The clock skips only the coordinator's waiting time. While it computes or commits, time passes for
the workers as well: their reports wait for it, and free workers wait for their next trial. So
`idle` is the share of all workers' time between one trial and the next. Not included: Ray's round
trip to a worker, a few milliseconds a trial.

Measured once every worker has its first trial and `--warm-up` mean epochs have passed, until
`--epochs` more have passed or `--seconds` of real time. `fill`: from the start until every worker
has a trial. `busy`: share of the time in which the coordinator computes or commits; at 1 it is
saturated. `late`: from a worker's event to its commit, when the next trial is launched. `renewed`:
the longest time between two renewals of leases; the study's own is lost after 10 s. CPU is that of
the coordinator's process and of all of Postgres's.

`--coordinators`: so many processes at once, each with a study and a share of the workers of its
own, on one Postgres.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import numpy as np
import psutil
import sqlalchemy as sa

from benchmarks.curve_tables import EPOCHS, GRID, load
from benchmarks.curves import epoch_s
from benchmarks.growth import postgres
from tunesvc.execution.executor import (
    AttemptId,
    Event,
    Finished,
    Launch,
    Outcome,
    Payload,
    Reported,
)
from tunesvc.testing.simulated_executor import SimulatedExecutor, VirtualClock

TASK = "digits"


class ChargedClock(VirtualClock):
    """A clock that skips the coordinator's waiting time; its work takes real time.

    It has two times. Events advance the workers' time, within `waiting`; the coordinator's is ahead
    of it by its own work since then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.busy_s = self.cpu_s = 0.0
        """Return the coordinator's time, and its processor time."""
        self._reached_s = 0.0
        self._is_waiting = False
        self._resume()

    def now(self) -> float:
        """Return the caller's time."""
        return (
            super().now()
            if self._is_waiting
            else self._reached_s + time.perf_counter() - self._since_s
        )

    @contextmanager
    def waiting(self) -> Iterator[float]:
        """Let the workers run; yields the coordinator's time, up to which they run."""
        self.busy_s += time.perf_counter() - self._since_s
        self.cpu_s += time.process_time() - self._cpu_since_s
        self._reached_s, self._is_waiting = self.now(), True
        try:
            yield self._reached_s
        finally:
            self._reached_s, self._is_waiting = max(self._reached_s, self.now()), False
            self._resume()

    def _resume(self) -> None:
        self._since_s, self._cpu_since_s = time.perf_counter(), time.process_time()


class Workers(SimulatedExecutor):
    """Workers that train by the table and record their time."""

    clock: ChargedClock

    def __init__(self, workers: int, mean_epoch_s: float) -> None:
        self.clock = ChargedClock()
        super().__init__(self._train, clock=self.clock, slots=workers)
        self.workers = workers
        self._curves = load(TASK).loss
        lengths = np.array([epoch_s(row) for row in range(len(self._curves))])
        self._lengths_s = lengths * mean_epoch_s / lengths.mean()
        self._begun_s: dict[AttemptId, float] = {}
        self._unrecorded_s: list[float] = []
        self._renewed_s: float | None = None
        self.open_account()

    def open_account(self) -> None:
        """Start measuring."""
        self.since_s = self.clock.now()
        self.ended = self.events_heard = 0
        self.late_s: list[float] = []
        self.renewal_s = 0.0
        self._held_s = 0.0

    def idle(self) -> float:
        """Return the share of all workers' time since then without a trial."""
        now_s = self.clock.now()
        held_s = self._held_s + sum(
            now_s - max(begun_s, self.since_s) for begun_s in self._begun_s.values()
        )
        return 1 - held_s / ((now_s - self.since_s) * self.workers)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return events from the coordinator's busy time, or else the next ones."""
        with self.clock.waiting() as now_s:
            self.cluster.advance(now_s, until=lambda: False)
            return super().events(timeout_s)

    def hear(self, event: Event) -> None:
        """Record the time of an event."""
        super().hear(event)
        self.events_heard += 1
        self._unrecorded_s.append(self.clock.now())
        if isinstance(event.payload, Outcome):
            self.ended += 1
            self._held_s += self.clock.now() - max(self._begun_s.pop(event.attempt), self.since_s)

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Mark all received events as recorded."""
        super().acknowledge(cursors)
        now_s = self.clock.now()
        self.late_s += [now_s - said_s for said_s in self._unrecorded_s]
        self._unrecorded_s.clear()

    def alive(self) -> Collection[AttemptId]:
        """Record the times of lease renewals."""
        now_s = self.clock.now()
        if self._renewed_s is not None:
            self.renewal_s = max(self.renewal_s, now_s - self._renewed_s)
        self._renewed_s = now_s
        with self.clock.waiting():
            return super().heartbeats()

    def _train(self, launch: Launch) -> Iterator[tuple[float, Payload]]:
        self._begun_s[launch.attempt] = self.clock.now()
        place = [
            min(int(float(launch.params[name]) * len(levels)), len(levels) - 1)
            for name, levels in GRID.items()
        ]
        row = int(np.ravel_multi_index(place, [len(levels) for levels in GRID.values()]))
        script = (
            (
                float(self._lengths_s[row]),
                Reported(epoch + 1, {"loss": float(self._curves[row, epoch])}),
            )
            for epoch in range(EPOCHS)
        )
        return _ended(script)


def _ended(script: Iterable[tuple[float, Payload]]) -> Iterator[tuple[float, Payload]]:
    yield from script
    yield 0.0, Finished()


def study(name: str, workers: int, sampler: str, pruner: str) -> dict[str, Any]:
    """The grid's parameters as fractions of their ranges, so that there are more than 864 trials
    to ask for."""
    rungs = {"min": 1, "max": EPOCHS, "eta": 3} if pruner == "asha" else {}
    return {
        "name": name,
        "entrypoint": "m:f",
        "metrics": [{"name": "loss"}],
        "parameters": {name: {"type": "float", "min": 0.0, "max": 1.0} for name in GRID},
        "sampler": {"name": sampler, "seed": 1},
        "pruner": {"name": pruner, **rungs},
        "budget": {"trials": 10_000_000},
        "parallelism": workers,
    }


@dataclass(frozen=True, slots=True)
class Case:
    """The measurements."""

    workers: int
    epoch_s: float
    sampler: str
    pruner: str
    warm_up: float
    epochs: float
    seconds: float
    profile: str | None = None


def measure(database: Any, name: str, case: Case) -> dict[str, float]:
    """Run a study for a while."""
    from tunesvc.coordinator.coordinator import StepTiming
    from tunesvc.db import study_records
    from tunesvc.db.study_writer import StudyWriter
    from tunesvc.runtime.run_study import build_coordinator
    from tunesvc.spec import StudySpec

    spec = StudySpec.model_validate_json(
        json.dumps(study(name, case.workers, case.sampler, case.pruner))
    )
    with database.engine.begin() as connection:
        record = study_records.create(connection, spec)
    executor = Workers(case.workers, case.epoch_s)
    clock, study_writer = executor.clock, StudyWriter.open(database, record.study_id)
    coordinator = build_coordinator(
        database, name, study_writer, executor, timing=StepTiming(clock=clock)
    )
    while executor.cluster.free_slots:
        coordinator.step()
    fill_s = clock.now()
    _go_on(coordinator, clock, until_s=fill_s + case.warm_up * case.epoch_s, real_s=case.seconds)

    executor.open_account()
    before, began_s, busy_s, cpu_s = (
        _database(database),
        time.perf_counter(),
        clock.busy_s,
        clock.cpu_s,
    )
    with _profiled(case.profile):
        _go_on(
            coordinator,
            clock,
            until_s=clock.now() + case.epochs * case.epoch_s,
            real_s=case.seconds,
        )
    took_s, after = clock.now() - executor.since_s, _database(database)
    late_s = np.array(executor.late_s or [0.0])
    memory = psutil.Process().memory_info().rss / 2**20
    study_writer.release()
    events, ended = max(executor.events_heard, 1), max(executor.ended, 1)
    return {
        "fill_s": fill_s,
        "took_s": took_s,
        "real_s": time.perf_counter() - began_s,
        "idle": executor.idle(),
        "events": executor.events_heard / took_s,
        "trials": executor.ended / took_s,
        "busy": (clock.busy_s - busy_s) / took_s,
        "event_ms": 1000 * (clock.cpu_s - cpu_s) / events,
        "trial_ms": 1000 * (clock.cpu_s - cpu_s) / ended,
        "postgres_ms": 1000 * (after["cpu_s"] - before["cpu_s"]) / events,
        "commits": (after["commits"] - before["commits"]) / took_s,
        "rows": (after["rows"] - before["rows"]) / took_s,
        "late_p50_s": float(np.median(late_s)),
        "late_p99_s": float(np.quantile(late_s, 0.99)),
        "renewal_s": executor.renewal_s,
        "mib": memory,
    }


def _go_on(coordinator: Any, clock: ChargedClock, *, until_s: float, real_s: float) -> None:
    stop_s = time.perf_counter() + real_s
    while clock.now() < until_s and time.perf_counter() < stop_s:
        coordinator.step()


@contextmanager
def _profiled(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    profile = cProfile.Profile()
    with profile:
        yield
    profile.dump_stats(path)


def _database(database: Any) -> dict[str, float]:
    """Return the counters of the database server."""
    with database.engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_stat_force_next_flush()"))
        connection.commit()
        row = connection.execute(
            sa.text(
                "SELECT xact_commit, tup_inserted + tup_updated AS rows, current_setting('data_directory') AS home "
                "FROM pg_stat_database WHERE datname = current_database()"
            )
        ).one()
    postmaster = psutil.Process(int((Path(row.home) / "postmaster.pid").read_text().split()[0]))
    ended = postmaster.cpu_times()
    cpu_s = ended.children_user + ended.children_system
    for process in [postmaster, *postmaster.children(recursive=True)]:
        with suppress(psutil.Error):
            used = process.cpu_times()
            cpu_s += used.user + used.system
    return {"commits": row.xact_commit, "rows": row.rows, "cpu_s": cpu_s}


COLUMNS: dict[str, tuple[str, str]] = {
    "fill_s": ("fill s", ",.1f"),
    "idle": ("idle", ".1%"),
    "events": ("events/s", ",.1f"),
    "trials": ("trials/s", ",.1f"),
    "busy": ("busy", ".2f"),
    "late_p50_s": ("late p50 s", ".3f"),
    "late_p99_s": ("p99 s", ".3f"),
    "renewal_s": ("renewed s", ".1f"),
    "event_ms": ("ms/event", ".2f"),
    "trial_ms": ("ms/trial", ".2f"),
    "postgres_ms": ("PG ms/event", ".2f"),
    "commits": ("commits/s", ",.1f"),
    "rows": ("rows/s", ",.0f"),
    "mib": ("MiB", ",.0f"),
    "took_s": ("simulated s", ",.0f"),
    "real_s": ("real s", ",.0f"),
}


def only(url: str, name: str, case: str) -> None:
    """Run one coordinator in a process of its own."""
    import optuna

    from tunesvc.db.engine.database import open_database

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    with open_database(url) as database:
        print(json.dumps(measure(database, name, Case(**json.loads(case)))), flush=True)


def together(case: Case, coordinators: int) -> list[dict[str, float]]:
    """Run several coordinators at once on one new Postgres."""
    with postgres() as url:
        _migrate(url)
        share = json.dumps({**_fields(case), "workers": case.workers // coordinators})
        call = [sys.executable, "-m", "benchmarks.scale", "--only", url]
        running = [
            subprocess.Popen([*call, f"scale {i}", share], stdout=subprocess.PIPE, text=True)
            for i in range(coordinators)
        ]
        written = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            raise RuntimeError(f"{case} failed")
        return [json.loads(lines) for lines in written]


def _fields(case: Case) -> dict[str, Any]:
    return {name: getattr(case, name) for name in case.__slots__}


def _migrate(url: str) -> None:
    from tunesvc.db.engine.database import open_database

    open_database(url).close()


def main() -> None:
    if sys.argv[1:2] == ["--only"]:
        only(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 100, 1000, 10_000])
    parser.add_argument("--epoch-s", type=float, nargs="+", default=[10.0, 60.0])
    parser.add_argument("--coordinators", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--warm-up", type=float, default=3.0, help="mean epochs before anything is measured"
    )
    parser.add_argument("--epochs", type=float, default=10.0, help="mean epochs that are measured")
    parser.add_argument("--seconds", type=float, default=60.0, help="real ones, at most, of either")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--pruner", default="asha")
    parser.add_argument("--profile", help="file for the coordinator's profile, of the last case")
    given = parser.parse_args()
    head = " | ".join(
        ["workers", "epoch s", "coordinators", *(title for title, _ in COLUMNS.values())]
    )
    print(f"| {head} |", "|---" * (len(COLUMNS) + 3) + "|", sep="\n", flush=True)
    for workers in given.workers:
        for seconds in given.epoch_s:
            limits = (given.warm_up, given.epochs, given.seconds, given.profile)
            case = Case(workers, seconds, given.sampler, given.pruner, *limits)
            for coordinators in given.coordinators:
                for row in together(case, coordinators):
                    cells = [f"{row[name]:{how}}" for name, (_, how) in COLUMNS.items()]
                    cells = [
                        f"{workers // coordinators:,}",
                        f"{seconds:g}",
                        f"of {coordinators}",
                        *cells,
                    ]
                    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
