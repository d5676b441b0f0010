"""Optuna's own operations on `tunesvc.storage()` and on Optuna's RDBStorage: one Postgres, fsync
on, taking turns.

    python -m benchmarks.storage [--rounds 5] [--trials 40] [--processes 1 8] [--folder DIR]

Whole studies: `study.optimize` with six parameters, ten reports and ten `should_prune` a trial, by
one process and by eight that share one study; each turn is a new study, and a process keeps its
storage between turns. The objective takes no time, so only Optuna and its storage are measured.
Single operations: medians in one process, and reads of a study of 1,000 trials (ten parameters and
ten reports each) by a storage that has read it before and by a new one.

Two floors, since no storage that commits before it acknowledges is faster than both together:
`inserts` is the same number of rows inserted one by one, each its own transaction, by bare
psycopg2, without samplers, pruners or reads, and depends on the disk that `--folder` is on;
`memory` is Optuna's InMemoryStorage, each process with a study of its own, so nothing but sampler,
pruner and Optuna itself.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import optuna
import psycopg2
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, get_storage
from optuna.trial import TrialState

import tunesvc
from benchmarks.large_studies import make_optunas, make_ours
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.engine.database import open_database

PARAMETERS = 6
REPORTS = 10
COMMITS = PARAMETERS + REPORTS + 2
"""Rows of one trial that is not pruned, including its creation and its end."""
KNOWN = 1_000
"""Trials of the study for measuring reads."""

SAMPLERS: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=os.getpid()),
    "tpe": lambda: optuna.samplers.TPESampler(seed=os.getpid()),
}
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "nop": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
}
WORKLOADS = [("random", "nop"), ("random", "median"), ("tpe", "nop"), ("tpe", "median")]
PEERS = ("tunesvc", "optuna", "inserts", "memory")
DATABASES = PEERS[:3]
Urls = dict[str, str]


@dataclass(frozen=True)
class Turn:
    """Run one peer's part of a round: `trials` by each process on the study of this name."""

    peer: str
    study: str
    sampler: str
    pruner: str
    trials: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40, help="of each turn, by each process")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--folder", type=Path, help="where the server keeps its data; default: the temporary one"
    )
    given = parser.parse_args()
    with served(given.folder) as urls:
        print(
            f"{'trials/s, medians':28} "
            + " ".join(f"{peer:>9}" for peer in PEERS)
            + f" {'ratio':>7}  (range)"
        )
        for processes in given.processes:
            whole_studies(urls, processes, given.rounds, given.trials)
        single_operations(urls, given.rounds)


@contextmanager
def served(folder: Path | None) -> Iterator[Urls]:
    """Start a server with both schemas."""
    with tempfile.TemporaryDirectory(prefix="tunesvc-benchmark-", dir=folder) as name:
        Path(name).chmod(0o755)
        server = EmbeddedServer(Path(name))
        try:
            urls = {
                peer: server.url.set(database=peer).render_as_string(hide_password=False)
                for peer in DATABASES
            }
            for peer in DATABASES:
                run(server.url.render_as_string(hide_password=False), f"CREATE DATABASE {peer}")
            open_database(urls["tunesvc"]).close()
            get_storage(urls["optuna"]).remove_session()
            run(
                urls["inserts"],
                "CREATE TABLE rows (id bigint PRIMARY KEY, step integer, value double precision)",
            )
            yield urls
        finally:
            server.close()


def run(url: str, statement: str) -> None:
    connection = connect(url)
    connection.cursor().execute(statement)
    connection.close()


def connect(url: str) -> Any:
    """Connect with bare psycopg2, one transaction per statement."""
    parts = sa.make_url(url)
    query = parts.query
    connection = psycopg2.connect(
        host=query["host"],
        port=query["port"],
        user=parts.username,
        password=parts.password,
        dbname=parts.database,
    )
    connection.autocommit = True
    return connection


# --- whole studies
# --------------------------------------------------------------------------------------


def whole_studies(urls: Urls, processes: int, rounds: int, trials: int) -> None:
    quietly()
    with workers(urls, processes) as pipes:
        for sampler, pruner in WORKLOADS:
            rates: dict[str, list[float]] = {peer: [] for peer in PEERS}
            for number in range(-1, rounds):  # the first one warms up
                for peer in PEERS:
                    study = f"{sampler}-{pruner}-{processes}-{number}"
                    if peer in ("tunesvc", "optuna"):
                        optuna.create_study(storage=storage(peer, urls), study_name=study)
                    took_s = timed(pipes, Turn(peer, study, sampler, pruner, trials))
                    if number >= 0:
                        rates[peer].append(trials * processes / took_s)
            print_rates(f"{sampler}, {pruner}, {processes} processes", rates)


def print_rates(name: str, rates: dict[str, list[float]]) -> None:
    told = " ".join(f"{statistics.median(rates[peer]):>9.1f}" for peer in PEERS)
    print(f"{name:28} {told} {ratios(rates['tunesvc'], rates['optuna'])}", flush=True)


def ratios(large: list[float], small: list[float]) -> str:
    """Return the median of the rounds' ratios, and their range."""
    each = [one / other for one, other in zip(large, small, strict=True)]
    return f"{statistics.median(each):>7.1f}  ({min(each):.1f} to {max(each):.1f})"


def timed(pipes: list[Connection], turn: Turn) -> float:
    """Return the seconds until the last process has finished."""
    began_s = time.perf_counter()
    for pipe in pipes:
        pipe.send(turn)
    for pipe in pipes:
        pipe.recv()
    return time.perf_counter() - began_s


@contextmanager
def workers(urls: Urls, processes: int) -> Iterator[list[Connection]]:
    """Processes that have imported everything and opened both storages."""
    context = multiprocessing.get_context("spawn")
    pipes, started = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, urls))
        process.start()
        pipes.append(ours)
        started.append(process)
    for pipe in pipes:
        pipe.recv()
    try:
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send(None)
        for process in started:
            process.join()


def work(pipe: Connection, urls: Urls) -> None:
    quietly()
    storages = {peer: storage(peer, urls) for peer in ("tunesvc", "optuna")}
    bare = connect(urls["inserts"]).cursor()
    pipe.send("ready")
    while (turn := pipe.recv()) is not None:
        if turn.peer == "inserts":
            insert_rows(bare, turn.trials * COMMITS)
        else:
            optimize(storages.get(turn.peer), turn)
        pipe.send("done")


def quietly() -> None:
    """Let Optuna log every trial, for which it reads the best one, but discard the output."""
    optuna.logging.disable_default_handler()
    logging.getLogger("optuna").addHandler(logging.NullHandler())


def optimize(on: BaseStorage | None, turn: Turn) -> None:
    study = optuna.create_study(
        storage=on,
        study_name=turn.study,
        load_if_exists=True,
        sampler=SAMPLERS[turn.sampler](),
        pruner=PRUNERS[turn.pruner](),
    )
    study.optimize(objective, n_trials=turn.trials)


def objective(trial: optuna.Trial) -> float:
    loss = sum((trial.suggest_float(f"x{i}", 0.0, 1.0) - 0.3) ** 2 for i in range(PARAMETERS))
    for step in range(REPORTS):
        trial.report(loss + 1 / (1 + step), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


def insert_rows(cursor: Any, count: int) -> None:
    first = time.time_ns() // 1000 * 1024 + os.getpid() % 1024
    for number in range(count):
        cursor.execute("INSERT INTO rows VALUES (%s, %s, %s)", (first + number * 1024, number, 0.5))


def storage(peer: str, urls: Urls) -> BaseStorage:
    """Open a storage as its users do."""
    return tunesvc.storage(urls[peer]) if peer == "tunesvc" else get_storage(urls[peer])


# --- single operations
# ----------------------------------------------------------------------------------


def single_operations(urls: Urls, rounds: int) -> None:
    quietly()
    known = {"tunesvc": known_in_ours(urls["tunesvc"]), "optuna": known_in_optunas(urls["optuna"])}
    taken: dict[str, dict[str, list[float]]] = {peer: {} for peer in DATABASES}
    for _ in range(rounds):
        for peer in known:
            for name, took_s in [*writes(storage(peer, urls)), *reads(peer, urls, known[peer])]:
                taken[peer].setdefault(name, []).append(1000 * took_s)
        for took_s in bare_inserts(urls["inserts"]):
            taken["inserts"].setdefault("a bare INSERT", []).append(1000 * took_s)
    print(f"\n{'single operations':42} {'tunesvc':>9} {'optuna':>9} {'ratio':>7}  (ms, medians)")
    print(f"{'a bare INSERT':42} {statistics.median(taken['inserts']['a bare INSERT']):>9.2f}")
    for name, ours in taken["tunesvc"].items():
        own, other = statistics.median(ours), statistics.median(taken["optuna"][name])
        print(f"{name:42} {own:>9.2f} {other:>9.2f} {other / own:>7.1f}", flush=True)


def known_in_ours(url: str) -> int:
    with open_database(url) as database:
        return make_ours(database, "known", KNOWN)


def known_in_optunas(url: str) -> int:
    engine = sa.create_engine(sa.make_url(url))
    try:
        return make_optunas(engine, url, "known", KNOWN)
    finally:
        engine.dispose()


def writes(on: BaseStorage, trials: int = 10) -> Iterator[tuple[str, float]]:
    """Yield names and seconds of a trial's operations."""
    study = on.create_new_study([optuna.study.StudyDirection.MINIMIZE])
    for _ in range(trials):
        trial, took_s = stopped(on.create_new_trial, study)
        yield "create_new_trial", took_s
        for i in range(PARAMETERS):
            distribution = FloatDistribution(0.0, 1.0)
            yield (
                "set_trial_param",
                stopped(on.set_trial_param, trial, f"x{i}", 0.5, distribution)[1],
            )
        for step in range(REPORTS):
            yield (
                "set_trial_intermediate_value",
                stopped(on.set_trial_intermediate_value, trial, step, 0.5)[1],
            )
        yield "set_trial_user_attr", stopped(on.set_trial_user_attr, trial, "note", "seen")[1]
        yield "get_trial of a running trial", stopped(on.get_trial, trial)[1]
        yield (
            "set_trial_state_values",
            stopped(on.set_trial_state_values, trial, TrialState.COMPLETE, [0.5])[1],
        )


def reads(peer: str, urls: Urls, study: int) -> Iterator[tuple[str, float]]:
    """Yield the same for reading a large study."""
    fresh = storage(peer, urls)
    fresh.get_all_studies()  # is connected
    yield "get_all_trials, 1,000 unknown", stopped(fresh.get_all_trials, study, False)[1]
    for _ in range(10):
        yield "get_all_trials, 1,000 known", stopped(fresh.get_all_trials, study, False)[1]
    yield "the same, copied", stopped(fresh.get_all_trials, study)[1]
    for _ in range(10):
        yield "get_best_trial, 1,000 known", stopped(fresh.get_best_trial, study)[1]
    other = storage(peer, urls)
    other.get_all_studies()
    yield "get_best_trial, 1,000 unknown", stopped(other.get_best_trial, study)[1]


def bare_inserts(url: str) -> list[float]:
    cursor = connect(url).cursor()
    return [stopped(insert_rows, cursor, 1)[1] for _ in range(100)]


def stopped(act: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Return its result and its seconds."""
    began_s = time.perf_counter()
    result = act(*arguments)
    return result, time.perf_counter() - began_s


if __name__ == "__main__":
    main()
