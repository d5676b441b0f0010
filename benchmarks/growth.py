"""Cost of a trial in a growing study: time and memory at 100, 1,000 and 10,000 trials, and opening
at 100,000.

    python -m benchmarks.growth [--marks 100 1000 10000] [--peer-marks 100 300 1000] [--open 100000]
                                [--sampler tpe] [--pruner asha] [--apart 0]

The real coordinator on a Postgres with fsync; only the workers are simulated, eight at a time.
Their trials take no time, so that only tunesvc's own cost remains. Six parameters, ten reports a
trial, successive halving (`--pruner`). All reports of a trial arrive at once, so that it has ended
before it can be pruned; with `--apart 1` a virtual second separates them, and the pruner stops,
pauses and promotes. At each mark, the mean over a tenth of the trials so far, at least 100, and
memory.

The peer is Optuna with the same sampler on RDBStorage, one trial at a time. Opening is reading a
finished study until its next ask, by a new process; the peer's is `load_study` and the first ask.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import psutil
import sqlalchemy as sa

from benchmarks.throughput import FLOATS, SLOTS, STEPS, loss
from tunesvc.coordinator.coordinator import Coordinator, StepTiming
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.execution.executor import Event, Finished, Launch, Payload, Reported
from tunesvc.spec import StudySpec
from tunesvc.testing.simulated_executor import SimulatedExecutor, VirtualClock

WINDOW = 0.1
"""Share of the trials so far over which the time of one is averaged."""
WINDOW_MIN = 100


class Prompt(SimulatedExecutor):
    """Workers that deliver all events of one time at once, as those with instant trials do."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        heard = list(super().events(timeout_s))
        self.cluster.advance(self.cluster.clock.now(), until=lambda: False)
        return [*heard, *super().events(0.0)]


def script(apart_s: float) -> Callable[[Launch], Iterable[tuple[float, Payload]]]:
    """Return a trial's reports."""

    def told(launch: Launch) -> Iterable[tuple[float, Payload]]:
        params = {name: float(launch.params[name]) for name in FLOATS}
        yield from (
            (apart_s if step > 1 else 1.0, Reported(step, {"loss": loss(step, params)}))
            for step in range(1, STEPS + 1)
        )
        yield apart_s, Finished()

    return told


def spec(name: str, trials: int, sampler: str, pruner: str) -> StudySpec:
    """Return the study."""
    return StudySpec.model_validate_json(
        json.dumps(
            {
                "name": name,
                "entrypoint": "m:f",
                "metrics": [{"name": "loss"}],
                "parameters": {name: {"type": "float", "min": 0.0, "max": 1.0} for name in FLOATS},
                "sampler": {"name": sampler, "seed": 1},
                "pruner": {"name": "asha", "min": 1, "max": 10, "eta": 3}
                if pruner == "asha"
                else {"name": pruner},
                "budget": {"trials": trials},
                "parallelism": SLOTS,
            }
        )
    )


def ours(
    url: str, marks: Sequence[int], sampler: str, pruner: str, apart_s: float = 0.0
) -> Iterator[dict[str, float]]:
    """Grow a study; one row for each mark."""
    from tunesvc.db import study_records
    from tunesvc.db.engine.database import open_database
    from tunesvc.db.study_writer import StudyWriter
    from tunesvc.runtime.run_study import build_coordinator

    with open_database(url) as database:
        with database.engine.begin() as connection:
            record = study_records.create(
                connection, spec("growth", 2 * max(marks) + WINDOW_MIN, sampler, pruner)
            )
        executor = Prompt(script(apart_s), clock=(clock := VirtualClock()), slots=SLOTS)
        study_writer = StudyWriter.open(database, record.study_id)
        coordinator = build_coordinator(
            database, "growth", study_writer, executor, timing=StepTiming(clock=clock)
        )
        yield from measure(marks, _stepper(coordinator))
        study_writer.release()


def _stepper(coordinator: Coordinator) -> Callable[[], int]:
    def step() -> int:
        coordinator.step()
        return coordinator._optimizer.count

    return step


def theirs(
    url: str, marks: Sequence[int], sampler: str, _pruner: str, _apart_s: float
) -> Iterator[dict[str, float]]:
    """Run the same with Optuna on its own storage."""
    import optuna

    made = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler](
        seed=1
    )
    pruner = optuna.pruners.SuccessiveHalvingPruner(1, 3)
    study = optuna.create_study(storage=url, study_name="growth", sampler=made, pruner=pruner)

    def step() -> int:
        trial = study.ask()
        params = {name: trial.suggest_float(name, 0.0, 1.0) for name in FLOATS}
        for at in range(1, STEPS + 1):
            trial.report(loss(at, params), at)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, loss(STEPS, params))
        return trial.number + 1

    yield from measure(marks, step)


def measure(marks: Sequence[int], step: Callable[[], int]) -> Iterator[dict[str, float]]:
    """Repeat `step`, which returns the number of trials, and measure the time of a trial before
    each mark."""
    done = step()
    for mark in marks:
        while done < mark - max(WINDOW_MIN, WINDOW * mark) / 2:
            done = step()
        before, began_s, used_s = done, time.perf_counter(), time.process_time()
        while done < mark + max(WINDOW_MIN, WINDOW * mark) / 2:
            done = step()
        trials = done - before
        gc.collect()
        yield {
            "trials": mark,
            "ms": 1000 * (time.perf_counter() - began_s) / trials,
            "cpu_ms": 1000 * (time.process_time() - used_s) / trials,
            "mib": psutil.Process().memory_info().rss / 2**20,
        }


def opening(url: str, trials: int, system: str) -> float:
    """Return the seconds from the start of a new process's work to its next proposal, without
    imports."""
    from benchmarks import large_studies

    if system == "ours":
        from tunesvc.coordinator.coordinator import StepTiming
        from tunesvc.db import study_records
        from tunesvc.db.engine.database import open_database
        from tunesvc.db.study_writer import StudyWriter
        from tunesvc.runtime.run_study import build_coordinator
        from tunesvc.testing.simulated_executor import SimulatedExecutor

        with open_database(url) as database:
            large_studies.make_ours(database, "large", trials)
            with database.engine.begin() as connection:
                record = study_records.find(connection, "large")
            began_s = time.perf_counter()
            executor = SimulatedExecutor(
                lambda _: [(1.0, Finished())], clock=(clock := VirtualClock()), slots=1
            )
            study_writer = StudyWriter.open(database, record.study_id)
            coordinator = build_coordinator(
                database, "large", study_writer, executor, timing=StepTiming(clock=clock)
            )
            coordinator._optimizer.ask()
            return time.perf_counter() - began_s
    import optuna

    large_studies.make_optunas(sa.create_engine(url), url, "large", trials)
    began_s = time.perf_counter()
    study = optuna.load_study(study_name="large", storage=url, sampler=optuna.samplers.TPESampler())
    trial = study.ask()
    trial.suggest_float("p0", 0.0, 1.0)
    return time.perf_counter() - began_s


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a new database on a temporary server with fsync."""
    home = Path(tempfile.mkdtemp(prefix="tunesvc-growth-", dir="/var/tmp"))
    home.chmod(0o755)  # the server's account must be able to enter it
    server = EmbeddedServer(home)
    try:
        yield server.url.render_as_string(hide_password=False)
    finally:
        server.close()
        shutil.rmtree(home, ignore_errors=True)


def elsewhere(*arguments: str) -> Iterator[str]:
    """Yield lines that this script prints in a process of its own on a new Postgres."""
    with postgres() as url:
        call = [sys.executable, "-m", "benchmarks.growth", "--only", url, *arguments]
        process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
        yield from process.stdout or ()
        if process.wait():
            raise RuntimeError(f"{' '.join(arguments)} failed")


def only(url: str, what: str, *arguments: str) -> None:
    """Return the results of `elsewhere`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    if what == "open":
        print(opening(url, int(arguments[1]), arguments[0]), flush=True)
        return
    grow = ours if what == "ours" else theirs
    for row in grow(
        url,
        [int(mark) for mark in arguments[1].split(",")],
        arguments[0],
        arguments[2],
        float(arguments[3]),
    ):
        print(json.dumps(row), flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--only"]:
        only(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--marks", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--peer-marks", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument(
        "--open", type=int, default=100_000, help="trials of the study that is opened; 0: none"
    )
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument(
        "--pruner", default="asha", help="of tunesvc; the peer's is SuccessiveHalvingPruner"
    )
    parser.add_argument(
        "--apart", type=float, default=0.0, help="virtual seconds between a trial's reports"
    )
    given = parser.parse_args()
    for name, marks in (("ours", given.marks), ("theirs", given.peer_marks)):
        rows: list[dict[str, float]] = []
        call = (name, given.sampler, ",".join(map(str, marks)), given.pruner, str(given.apart))
        for line in elsewhere(*call) if marks else ():
            rows.append(json.loads(line))
            row, first = rows[-1], rows[0]
            memory = 1024 * (row["mib"] - first["mib"]) / max(row["trials"] - first["trials"], 1)
            who = "tunesvc" if name == "ours" else "Optuna"
            print(
                f"{who:8} {row['trials']:>7,.0f} trials: {row['ms']:8.2f} ms a trial "
                f"({row['ms'] / first['ms']:5.2f} times the first), of which {row['cpu_ms']:8.2f} ms of this process; "
                f"{row['mib']:6.0f} MiB, {memory:5.1f} kB more a trial",
                flush=True,
            )
    for system in ("ours", "theirs") if given.open else ():
        seconds = float(next(iter(list(elsewhere("open", system, str(given.open))))))
        print(
            f"{'tunesvc' if system == 'ours' else 'Optuna'} opens {given.open:,} trials in {seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
