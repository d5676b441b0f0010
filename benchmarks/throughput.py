"""Trials per second of the whole system: the overhead of a study.

    python -m benchmarks.throughput [--trials 2000] [--peer-trials 60] [--rounds 3] [--systems
    tunesvc ...] [--profile]

A training that only reports ten values; six parameters, TPE, successive halving that prunes, eight
at a time, and a Postgres with fsync. Every system runs in a process of its own, taking turns. Start
and end are left out:
the rate is that from the start of the 20th trial to that of the last (`benchmarks.startup` has the
rest).

    tunesvc       a study as `tune run` runs it: the Ray driver in a process of its own, warm workers
    ray           Ray Tune, OptunaSearch and ASHAScheduler, actors reused; keeps results in files, not in a database
    optuna        Optuna on RDBStorage and the same Postgres: one process, one trial at a time
    optuna-8      the same study in eight processes
    mlflow        tunesvc with `loggers: [mlflow]` on a local store; `tensorboard`, and `hanging`, a tracker that
                  never answers, likewise
    calls         bare calls of eight warm Ray actors, one at a time each: what Ray itself allows

Peers run fewer trials, which favours them: they slow down as their history grows. `--profile`
splits the processor time of a trial by process.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from ray.tune.schedulers import TrialScheduler

SLOTS, STEPS, WARM_UP = 8, 10, 20
FLOATS = ("a", "b", "c", "d", "e", "f")
CPU = 0.25
"""CPUs of each worker, so that eight fit on two cores in every system."""


def loss(step: int, params: dict[str, float]) -> float:
    """Return the reported value at a step, 1 ... 10."""
    return sum((value - 0.3) ** 2 for value in params.values()) + 1 / step


def rate(starts_s: list[float]) -> float:
    """Trials a second once everything is warm."""
    starts_s = sorted(starts_s)
    return (len(starts_s) - 1 - WARM_UP) / (starts_s[-1] - starts_s[WARM_UP])


# --- systems: each prints its rate
# ---------------------------------------------------------------------

OBJECTIVE = """
import sys, time
sys.path.insert(0, {root!r})
from benchmarks.throughput import STEPS, loss

def train(a, b, c, d, e, f, *, trial):
    params = dict(a=a, b=b, c=c, d=d, e=e, f=f)
    for step in range(1, STEPS + 1):
        trial.report(step, loss=loss(step, params))
"""
STUDY = f"""
name: throughput
entrypoint: objective:train
metric: {{name: loss, goal: minimize}}
parameters:
{"".join(f"  {name}: {{type: float, min: 0.0, max: 1.0}}" + chr(10) for name in FLOATS)}
sampler: {{name: tpe}}
pruner: {{name: asha, min: 1, max: 10, eta: 3}}
budget: {{trials: %d}}
parallelism: {SLOTS}
resources: {{cpu: {CPU}}}
"""


class Profile:
    """Processor time by role, during the measurement."""

    ROLES: ClassVar = {
        "benchmarks.throughput": "coordinator",
        "tunesvc.integrations.loggers": "loggers",
        "tunesvc.execution.driver.driver_main": "Ray driver",
        "ray::": "workers",
        "raylet": "raylet",
        "gcs_server": "Ray's head",
        "postgres": "Postgres",
    }

    def __init__(self, folder: Path) -> None:
        """`folder`: where the Postgres keeps its data."""
        self._postmaster = int(
            (folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
        )
        self._samples: list[tuple[float, dict[str, float]]] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def between(self, begin_s: float, end_s: float) -> dict[str, float]:
        """Return the seconds of processor time by role."""
        samples = [used for at, used in self._samples if begin_s <= at <= end_s]
        return {role: seconds - samples[0].get(role, 0.0) for role, seconds in samples[-1].items()}

    def _watch(self) -> None:
        while True:
            used: dict[str, float] = {}
            roots = [psutil.Process(), psutil.Process(self._postmaster)]
            for process in [
                *roots,
                *(child for root in roots for child in root.children(recursive=True)),
            ]:
                with suppress(psutil.Error):
                    line = " ".join(process.cmdline())
                    role = next(
                        (role for sign, role in self.ROLES.items() if sign in line), "others"
                    )
                    times = process.cpu_times()
                    used[role] = used.get(role, 0.0) + times.user + times.system
            self._samples.append((time.time(), used))
            time.sleep(0.5)


HANGING = """
import time
from tunesvc.integrations.loggers.trial_logger import TrialLogger

class Hanging(TrialLogger):
    def open(self, study):
        return "nowhere"

    def send(self, run, trial, points):
        time.sleep(3600)
"""


def tunesvc(url: str, trials: int, folder: Path, loggers: str = "[]") -> float:
    import sqlalchemy as sa

    import tunesvc as package
    from tunesvc.db.engine.database import open_database

    (folder / "objective.py").write_text(OBJECTIVE.format(root=str(Path.cwd())))
    (folder / "hanging.py").write_text(HANGING)
    (folder / "study.yaml").write_text(STUDY % trials + f"loggers: {loggers}\n")
    profile = Profile(folder) if "TUNE_BENCHMARK_PROFILE" in os.environ else None
    package.run(folder / "study.yaml", database_url=url, progress=False)
    with open_database(url) as database, database.engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT extract(epoch FROM started_at) FROM attempts ORDER BY 1")
        ).scalars()
        starts_s = sorted(float(at) for at in rows)
    if profile is not None:
        used = profile.between(starts_s[WARM_UP], starts_s[-1])
        wall_s = starts_s[-1] - starts_s[WARM_UP]
        for role, seconds in sorted(used.items(), key=lambda item: -item[1]):
            print(
                f"{role:12} {1000 * seconds / (len(starts_s) - WARM_UP):6.2f} ms a trial",
                file=sys.stderr,
            )
        print(
            f"{'all':12} {1000 * sum(used.values()) / (len(starts_s) - WARM_UP):6.2f} ms a trial, "
            f"{sum(used.values()) / wall_s:.2f} processors busy",
            file=sys.stderr,
        )
    return rate(starts_s)


def ray(_url: str, trials: int, folder: Path) -> float:
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    times = folder / "times"

    def train(config: dict[str, float]) -> None:
        with times.open("a") as file:
            file.write(f"{time.time()}\n")
        for step in range(1, STEPS + 1):
            tune.report({"loss": loss(step, config), "training_iteration": step})

    scheduler = ASHAScheduler(max_t=STEPS, grace_period=1, reduction_factor=3)
    tune_with_ray(train, trials, folder, optuna.samplers.TPESampler(), scheduler=scheduler)
    return rate([float(line) for line in times.read_text().splitlines()])


def tune_with_ray(
    train: Callable[[dict[str, float]], None],
    trials: int,
    folder: Path,
    sampler: BaseSampler,
    *,
    scheduler: TrialScheduler | None = None,
    **known: Any,
) -> None:
    """The peer: Ray Tune on a local Ray, Optuna's sampler in its OptunaSearch, actors reused.

    Args:
        known: points that were evaluated before, as OptunaSearch takes them.
    """
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    space: dict[str, BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in FLOATS
    }
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    tune.Tuner(
        tune.with_resources(train, {"cpu": CPU}),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=trials,
            max_concurrent_trials=SLOTS,
            search_alg=OptunaSearch(space, sampler=sampler, metric="loss", mode="min", **known),
            scheduler=scheduler,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "results"), verbose=0),
    ).fit()


def optuna(url: str, trials: int, folder: Path) -> float:
    return _optuna(url, trials, folder, 1)


def optuna_8(url: str, trials: int, folder: Path) -> float:
    return _optuna(url, trials, folder, SLOTS)


def _optuna(url: str, trials: int, folder: Path, processes: int) -> float:
    import optuna

    storage = optuna.storages.RDBStorage(url)
    optuna.create_study(storage=storage, study_name="throughput")
    context = multiprocessing.get_context("spawn")
    share = -(-trials // processes)
    workers = [
        context.Process(target=_optimize, args=(url, share, folder / f"times-{i}"))
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return rate(
        [float(line) for path in folder.glob("times-*") for line in path.read_text().splitlines()]
    )


def _optimize(url: str, trials: int, times: Path) -> None:
    import optuna

    _silence()

    def train(trial: optuna.Trial) -> float:
        params = {name: trial.suggest_float(name, 0.0, 1.0) for name in FLOATS}
        with times.open("a") as file:
            file.write(f"{time.time()}\n")
        for step in range(1, STEPS + 1):
            trial.report(loss(step, params), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss(STEPS, params)

    study = optuna.load_study(
        study_name="throughput",
        storage=url,
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        pruner=optuna.pruners.SuccessiveHalvingPruner(1, 3),
    )
    study.optimize(train, trials)


def calls(_url: str, trials: int, _folder: Path) -> float:
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )

    class Idle:
        def call(self) -> None:
            pass

    actor_class: Any = ray.remote(num_cpus=CPU)(Idle)
    actors = [actor_class.remote() for _ in range(SLOTS)]
    ray.get([actor.call.remote() for actor in actors])
    made = max(trials, 2000)
    pending = {actor.call.remote(): actor for actor in actors}
    began_s = time.perf_counter()
    for _ in range(made):
        (done,), _rest = ray.wait(list(pending))
        actor = pending.pop(done)
        pending[actor.call.remote()] = actor
    return made / (time.perf_counter() - began_s)


SYSTEMS: dict[str, Callable[[str, int, Path], float]] = {
    "tunesvc": tunesvc,
    "mlflow": partial(tunesvc, loggers='[{mlflow: {tracking_uri: "sqlite:///mlflow.db"}}]'),
    "tensorboard": partial(tunesvc, loggers="[tensorboard]"),
    "hanging": partial(tunesvc, loggers='[{class: "hanging:Hanging"}]'),
    "ray": ray,
    "optuna": optuna,
    "optuna-8": optuna_8,
    "calls": calls,
}


def _silence() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


# --- turns
# ---------------------------------------------------------------------------------------------


def one(system: str, trials: int) -> float:
    """Measure the rate of one system on a database of its own, in a process of its own."""
    from tunesvc.db.embedded.embedded_server import EmbeddedServer

    with tempfile.TemporaryDirectory(
        prefix="tunesvc-throughput-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account must be able to enter
        with closing(EmbeddedServer(folder)) as server:
            url = server.url.render_as_string(hide_password=False)
            call = [
                sys.executable,
                "-m",
                "benchmarks.throughput",
                "--only",
                system,
                url,
                str(trials),
                name,
            ]
            environment = os.environ | {
                "RAY_USAGE_STATS_ENABLED": "0",
                "TUNE_HOME": name,
                "RAY_AIR_NEW_OUTPUT": "0",
            }
            done = subprocess.run(
                call, env=environment, capture_output=True, text=True, check=False
            )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{system} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    if environment.get("TUNE_BENCHMARK_PROFILE"):
        print("\n".join(line for line in done.stderr.splitlines() if " ms a trial" in line))
    return float(json.loads(lines[-1]))


def _is_ours(system: str) -> bool:
    return system in ("tunesvc", "mlflow", "tensorboard", "hanging")


def main() -> None:
    if sys.argv[1:2] == ["--only"]:
        system, url, trials, name = sys.argv[2:]
        _silence()
        print("\n" + json.dumps(SYSTEMS[system](url, int(trials), Path(name))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=2000, help="of tunesvc")
    parser.add_argument("--peer-trials", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    if given.profile:
        os.environ["TUNE_BENCHMARK_PROFILE"] = "1"
    rates: dict[str, list[float]] = {system: [] for system in given.systems}
    for _ in range(given.rounds):
        for system in given.systems:
            trials = given.trials if _is_ours(system) else given.peer_trials
            rates[system].append(one(system, trials))
            print(f"{system}: {rates[system][-1]:.2f} a second", file=sys.stderr, flush=True)
    ours = statistics.median(rates.get("tunesvc", [float("nan")]))
    print(f"{'':10} {'trials a second':>16} {'tunesvc is':>12}")
    for system, measured in rates.items():
        median = statistics.median(measured)
        times = "" if system == "tunesvc" else f"{ours / median:.1f} times"
        print(
            f"{system:10} {median:16.2f} {times:>12}   {', '.join(f'{one:.2f}' for one in measured)}"
        )


if __name__ == "__main__":
    main()
