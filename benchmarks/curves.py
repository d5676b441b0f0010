"""Pruning on tables of real learning curves: training saved for an equally good trial, and costs of
pruning.

    python -m benchmarks.curves [--tasks digits ...] [--takes last best] [--methods auto ...]
    [--seeds 0 1 2 ...]
                                [--workers 4] [--processes 2] [--keep FILE]

Every run is a study of the real coordinator on a real Postgres; only training is looked up (see
`benchmarks.curve_tables`), by simulated workers with a clock of their own. A stopped trial ends
with the report that caused the stop, as with checks of `trial.should_stop` between batches. A run
ends after 5,400 epochs, which are 100 full trials. The regret is that of the best finished trial:
(its final loss - best of the table) / (median - best). The final loss is that of the last epoch
(`last`), or that of the best one (`best`).

Peers run Optuna's TPE (multivariate, constant liar) with no pruner, Optuna's Hyperband (with TPE
for each bracket, as BOHB), Median and asynchronous successive halving, and as Ray Tune's
OptunaSearch with its ASHA does: a stopped trial returns its value as if it were final. `auto` is made from the names in a spec; `tpe+forecasts` is Optuna's TPE, shown the forecasts
of pruned trials, with our pruner; `asha-promote` is our TPE with ASHA that pauses and promotes. A
paused trial resumes from its last epoch, in `auto-restart` from its first one. A study ends when it
has found the table's best, or tried all of it and resumes nothing.

Printed per task: the final regret; the share of the budget after which the mean regret equals the
final regret of unpruned TPE (`to TPE's`), and of the best peer; the median epochs and simulated
time to a regret of 1 %; the share of stopped trials that would have been the new best according to
the table, and of audited ones that were. Intervals are 90 % bootstrap intervals over seeds.

Runs are stored in the file of `--keep`, and not repeated: several calls may run at a time, each on
a part of the tasks, methods or seeds, with one file; the last call, with all of them, prints the
tables. Each has an embedded Postgres of its own in a temporary folder, without fsync: this
benchmark has no power cut, and with fsync a study would wait for the disk as long as it computes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

from benchmarks.curve_tables import EPOCHS, GRID, TASKS, Table, load
from tunesvc.coordinator.coordinator import Coordinator, StepTiming
from tunesvc.db import study_records
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.engine.database import Database, open_database
from tunesvc.db.study_writer import StudyWriter
from tunesvc.execution.executor import (
    AttemptId,
    Checkpointed,
    Event,
    Finished,
    Launch,
    Payload,
    Reported,
    StoppedEarly,
)
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.pruners.audit import false_prunes
from tunesvc.search.registry.pruner_registry import make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.samplers.imputing_sampler import ImputingSampler
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec
from tunesvc.testing.simulated_executor import SimulatedExecutor, VirtualClock

BUDGET = 100 * EPOCHS
SECOND = 1000.0
"""Simulated seconds per second of the coordinator, so that periodic work such as renewing leases
stays rare."""
TAKES = ("last", "best")
PEERS: dict[str, tuple[Callable[[], BasePruner], bool]] = {
    "tpe": (optuna.pruners.NopPruner, False),
    "tpe+hyperband": (lambda: optuna.pruners.HyperbandPruner(1, EPOCHS, 3), False),
    "tpe+median": (optuna.pruners.MedianPruner, False),
    "tpe+asha": (lambda: optuna.pruners.SuccessiveHalvingPruner(1, 4), False),
    "ray-asha": (lambda: optuna.pruners.SuccessiveHalvingPruner(1, 4), True),
}
"""Name -> its pruner, and True if stopped trials are told as complete."""
OURS: dict[str, dict[str, Any]] = {
    "auto": {"sampler": "auto", "pruner": "auto"},
    "auto-restart": {"sampler": "auto", "pruner": "auto"},
    "auto-stop": {"sampler": "auto", "pruner": {"name": "auto", "resume": False}},
    "tpe+forecasts": {"sampler": "tpe", "pruner": "auto"},
    "asha-promote": {
        "sampler": "tpe",
        "pruner": {"name": "asha", "min": 1, "max": EPOCHS, "eta": 3, "form": "promote"},
    },
}
"""Name -> part of a spec. `auto-stop` is `auto` without resuming; with `+forecasts`, Optuna's
TPE behind our `ImputingSampler` takes the sampler's place."""


@dataclass
class Run:
    """Result of one study."""

    task: str
    take: str
    method: str
    seed: int
    incumbents: list[tuple[int, float, float]] = field(default_factory=list)
    """(epochs so far, simulated seconds, regret) at each new best finished trial."""
    trials: int = 0
    stopped: int = 0
    stopped_wrongly: int = 0
    promoted: int = 0
    audited: int = 0
    audited_wrong: int = 0
    wall_s: float = 0.0

    def regret(self, epochs: float) -> float:
        """Return the regret of the best trial finished by then, or of a bad one before the
        first."""
        return min((regret for at, _, regret in self.incumbents if at <= epochs), default=3.0)


@cache
def curves_of(task: str) -> Table:
    """The task's table, read once per process."""
    return load(task)


def finals_of(table: Table, take: str) -> np.ndarray:
    """Final loss by configuration; infinite where training diverged."""
    loss = np.where(np.isfinite(table.loss), table.loss, np.inf)
    return loss[:, -1] if take == "last" else loss.min(axis=1)


def parameters() -> dict[str, Any]:
    """The grid as a space: numbers as levels on their (logarithmic) axes, words as choices."""
    return {
        name: {"type": "categorical", "values": list(values)}
        if isinstance(values[0], str)
        else {"type": "int", "min": 0, "max": len(values) - 1}
        for name, values in GRID.items()
    }


def spec_of(name: str, method: str, take: str, seed: int, workers: int) -> StudySpec:
    """The study; peers' sampler and pruner are no part of it."""
    described = {
        "name": name,
        "entrypoint": "m:f",
        "metrics": [{"name": "loss", "take": take}],
        "parameters": parameters(),
        "budget": {"trials": 100_000},
        "parallelism": workers,
        "seed": seed,
        **OURS.get(method, {"sampler": "tpe", "pruner": "auto"}),
    }
    for key in ("sampler", "pruner"):
        described[key] = (
            {"name": described[key]} if isinstance(described[key], str) else described[key]
        )
    return StudySpec.model_validate_json(json.dumps(described))


def make_optimizer(spec: StudySpec, method: str) -> Optimizer:
    """A new study's optimizer, with the method's sampler and pruner."""
    space = Space(spec.parameters)
    sampler: BaseSampler = optuna.samplers.TPESampler(
        multivariate=True, constant_liar=True, seed=spec.seed
    )
    if method in OURS and "forecasts" not in method:
        sampler = make_sampler(spec, space)
    elif method in OURS:
        sampler = ImputingSampler(sampler, seed=spec.seed)
    pruner = make_pruner(spec) if method in OURS else PEERS[method][0]()
    return Optimizer(
        RecordingStorage(spec.name, [StudyDirection.MINIMIZE]),
        space,
        Strategy(sampler, pruner, method, method, spec.seed),
        prune_before_step=EPOCHS,
        trials_max=math.prod(map(len, GRID.values())),
    )


def row_of(params: dict[str, Any], table: Table) -> int:
    """Return the table's row of proposed parameters."""
    return table.row({n: v if isinstance(v, str) else GRID[n][v] for n, v in params.items()})


def epoch_s(row: int) -> float:
    """Simulated seconds of an epoch: wide and deep networks, and small batches, take longer."""
    place = dict(zip(GRID, np.unravel_index(row, [len(v) for v in GRID.values()]), strict=True))
    width, depth, batch = (GRID[name][int(place[name])] for name in ("width", "depth", "batch"))
    return float((0.5 + width * depth / 100) * (1 + 8 / batch))


class Workers(SimulatedExecutor):
    """Simulated workers that train by the table and count epochs."""

    def __init__(self, table: Table, run: Run, workers: int) -> None:
        self.clock = VirtualClock()
        super().__init__(self._train, clock=self.clock, slots=workers)
        self._table = table
        self._run = run
        self._saves = run.method in OURS and run.method != "auto-restart"
        self._told_as_final = run.method in PEERS and PEERS[run.method][1]
        self._finals = finals_of(table, run.take)
        self._best, self._median = self._finals.min(), np.median(self._finals)
        self._rows: dict[AttemptId, int] = {}
        self._last: dict[AttemptId, float] = {}
        self._lead = math.inf
        self.epochs = 0

    @property
    def is_over(self) -> bool:
        """True if the study has spent its epochs, or found the best."""
        return self.epochs >= BUDGET or self._lead <= self._best

    def launch(self, launch: Launch) -> None:
        """Look the configuration up, and start."""
        self._rows[launch.attempt] = row_of(dict(launch.params), self._table)
        self._run.trials += launch.attempt.number == 1
        self._run.promoted += launch.attempt.number > 1
        super().launch(launch)

    def hear(self, event: Event) -> None:
        """Count epochs and new bests on the way."""
        super().hear(event)
        row = self._rows[event.attempt]
        if isinstance(event.payload, Reported):
            self.epochs += 1
            self._last[event.attempt] = event.payload.metrics["loss"]
        elif (
            isinstance(event.payload, Finished)
            and not event.payload.metrics
            and self._finals[row] < self._lead
        ):
            self._lead = float(self._finals[row])
            regret = float((self._lead - self._best) / (self._median - self._best))
            self._run.incumbents.append((self.epochs, self.clock.now() * SECOND, regret))

    def stop(self, attempt: AttemptId) -> None:
        """End it with the report that caused the stop."""
        self._run.stopped += 1
        self._run.stopped_wrongly += bool(self._finals[self._rows[attempt]] < self._lead)
        last = self._last[attempt]
        final = self._told_as_final and math.isfinite(last)
        self.cluster.end(attempt, Finished({"loss": last}) if final else StoppedEarly())

    def _train(self, launch: Launch) -> Iterable[tuple[float, Payload]]:
        row = self._rows[launch.attempt]
        for epoch in range(int(launch.checkpoint or 0) + 1, EPOCHS + 1):
            yield (
                epoch_s(row) / SECOND,
                Reported(epoch, {"loss": float(self._table.loss[row, epoch - 1])}),
            )
            if self._saves:
                yield 0.0, Checkpointed(str(epoch), epoch)
        yield 0.0, Finished()


def replay(database: Database, task: str, take: str, method: str, seed: int, workers: int) -> Run:
    """Run one study on so many workers."""
    started_s = time.perf_counter()
    run = Run(task, take, method, seed)
    spec = spec_of(f"{task} {take} {method} {seed}", method, take, seed, workers)
    with database.engine.begin() as connection:
        record = study_records.create(connection, spec)
    optimizer, executor = make_optimizer(spec, method), Workers(curves_of(task), run, workers)
    study_writer = StudyWriter.open(database, record.study_id)
    coordinator = Coordinator(
        spec,
        study_writer=study_writer,
        optimizer=optimizer,
        executor=executor,
        refit=lambda spec: None,  # its space is never widened
        # One second of the clock is a thousand seconds of these workers.
        timing=StepTiming(clock=executor.clock, batch_window_s=0.0),
    )
    coordinator.recover([])
    while not executor.is_over and coordinator.step() is None:
        pass
    study_writer.release()
    audit = false_prunes(optimizer.trials, StudyDirection.MINIMIZE)
    run.audited, run.audited_wrong = audit.audited, audit.wrong
    run.wall_s = time.perf_counter() - started_s
    return run


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a new, migrated database on a temporary server."""
    home = Path(tempfile.mkdtemp(prefix="tunesvc-curves-"))
    home.chmod(0o755)  # the server's account must be able to enter it
    server = EmbeddedServer(
        home, settings={"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    )
    try:
        url = server.url.render_as_string(hide_password=False)
        open_database(url).close()
        yield url
    finally:
        server.close()
        shutil.rmtree(home, ignore_errors=True)


Job = tuple[str, str, str, int, int]
"""Task, take, method, seed, workers."""


def run_all(jobs: Sequence[Job], processes: int, keep: Path | None) -> list[Run]:
    """Run every study that is not yet in the file."""
    known = (
        [Run(**json.loads(line)) for line in keep.read_text().splitlines()]
        if keep and keep.exists()
        else []
    )
    runs = {(run.task, run.take, run.method, run.seed): run for run in known}
    missing = [job for job in jobs if job[:4] not in runs]
    if missing:
        with (
            postgres() as url,
            multiprocessing.get_context("spawn").Pool(processes, _begin, (url,)) as pool,
        ):
            for run in pool.imap_unordered(_replay, missing):
                runs[run.task, run.take, run.method, run.seed] = run
                if keep:
                    with keep.open("a") as file:
                        file.write(json.dumps(asdict(run)) + "\n")
    return [runs[job[:4]] for job in jobs]


def _begin(url: str) -> None:
    global _database
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    _database = open_database(url, migrate=False)


_database: Database
"""The database of this worker process."""


def _replay(job: Job) -> Run:
    return replay(_database, *job)


def report(runs: Sequence[Run]) -> str:
    """Markdown tables, one per way of taking the final loss."""
    lines = []
    for take in dict.fromkeys(run.take for run in runs):
        head = "| task | method | studies | final regret | to TPE's | to best peer's | to 1 % | simulated | false prunes "
        head += "| audited | promoted |"
        lines += [
            f"\nFinal loss: that of the {take} epoch.\n",
            head,
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for task in TASKS:
            studies = {
                m: [r for r in runs if (r.task, r.take, r.method) == (task, take, m)]
                for m in [*PEERS, *OURS]
            }
            lines += _rows(task, {method: found for method, found in studies.items() if found})
    return "\n".join(lines)


def _rows(task: str, studies: dict[str, list[Run]]) -> Iterator[str]:
    finals = {
        m: float(np.mean([run.regret(BUDGET) for run in runs])) for m, runs in studies.items()
    }
    best_peer = min((finals[m] for m in PEERS if m in finals), default=math.nan)
    for method, runs in studies.items():
        low, high = _interval([run.regret(BUDGET) for run in runs])
        goals = [f"{_share(runs, goal)}" for goal in (finals.get("tpe", math.nan), best_peer)]
        reached = [
            next(((at, when) for at, when, regret in run.incumbents if regret <= 0.01), None)
            for run in runs
        ]
        epochs, seconds = (np.median([r[i] if r else math.inf for r in reached]) for i in (0, 1))
        cells = [
            task,
            method,
            str(len(runs)),
            f"{finals[method]:.3f} ({low:.3f} to {high:.3f})",
            *goals,
            f"{epochs:,.0f}" if epochs < math.inf else "more",
            f"{seconds:,.0f} s" if seconds < math.inf else "more",
            _percentage(sum(r.stopped_wrongly for r in runs), sum(r.stopped for r in runs)),
            f"{sum(r.audited_wrong for r in runs)} of {sum(r.audited for r in runs)}"
            if method in OURS
            else "",
            f"{np.mean([r.promoted for r in runs]):.0f} a study" if method in OURS else "",
        ]
        yield "| " + " | ".join(cells) + " |"


def _share(runs: Sequence[Run], goal: float) -> str:
    """Return the share of the budget until the mean regret reaches the goal, with its interval."""
    grid = np.arange(0, BUDGET + 1, EPOCHS // 2)
    regrets = np.array([[run.regret(float(at)) for at in grid] for run in runs])

    def reached(rows: np.ndarray) -> float:
        there = rows.mean(axis=0) <= goal + 1e-9
        return float(grid[there.argmax()] / BUDGET) if there.any() else math.inf

    rng = np.random.default_rng(0)
    drawn = [reached(regrets[rng.integers(len(runs), size=len(runs))]) for _ in range(500)]
    low, high = np.quantile(drawn, [0.05, 0.95], method="nearest")
    shown = [
        "never" if share == math.inf else f"{share:.2f}" for share in (reached(regrets), low, high)
    ]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """90 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = np.mean(rng.choice(np.asarray(values), size=(2000, len(values))), axis=1)
    return float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))


def _percentage(part: int, of: int) -> str:
    return f"{100 * part / of:.1f} %" if of else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--takes", nargs="+", default=TAKES, choices=TAKES)
    parser.add_argument("--methods", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    parser.add_argument("--seeds", nargs="+", type=int, default=range(6))
    parser.add_argument("--workers", type=int, default=4, help="simulated ones, of each study")
    parser.add_argument("--processes", type=int, default=2, help="real ones")
    parser.add_argument(
        "--keep",
        type=Path,
        help="file of runs, one JSON document per line; read first, then added to",
    )
    given = parser.parse_args()
    jobs = [
        (task, take, method, seed, given.workers)
        for seed in given.seeds
        for task in given.tasks
        for take in given.takes
        for method in given.methods
    ]
    print(report(run_all(jobs, given.processes, given.keep)))


if __name__ == "__main__":
    main()
