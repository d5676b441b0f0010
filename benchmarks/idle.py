"""Share of the workers' time outside trials, while a Gaussian process with 500 observations
proposes.

    python -m benchmarks.idle [--seconds 0.1 1 10] [--rounds 6] [--systems tunesvc ray-gp ray-tpe]

Eight workers, whose trials sleep for that long and report ten values on the way; six parameters;
Postgres with fsync. A trial counts from the first line of its function to the last. The share is
that of the time from when all eight workers have begun to the start of the last trial. A worker
waits for the end of its trial to be recorded, for the next proposal, and for the message that
starts it.

    tunesvc       `sampler: gp`, in a study that has 500 finished trials
    ray-gp        Ray Tune with OptunaSearch and Optuna's GPSampler (needs torch), told 500 observations; actors reused
    ray-tpe       the same with Optuna's TPESampler
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.growth import Prompt, script
from benchmarks.throughput import CPU, FLOATS, SLOTS, STEPS, loss, tune_with_ray
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.testing.simulated_executor import VirtualClock

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

OBSERVED = 500
SECONDS_MIN = 20.0
"""Minimum duration of a study."""

OBJECTIVE = """
import os, sys, time
sys.path.insert(0, {root!r})
from benchmarks.idle import STEPS, spend

def train(a, b, c, d, e, f, seconds, folder, *, trial):
    params = dict(a=a, b=b, c=c, d=d, e=e, f=f)
    spend(params, seconds, folder, lambda step, value: trial.report(step, loss=value))
"""
STUDY = f"""
name: idle
entrypoint: objective:train
metric: {{name: loss, goal: minimize}}
parameters:
{"".join(f"  {name}: {{type: float, min: 0.0, max: 1.0}}" + chr(10) for name in FLOATS)}
constants: {{seconds: %s, folder: %s}}
sampler: %s
pruner: none
budget: {{trials: %d}}
parallelism: {SLOTS}
resources: {{cpu: {CPU}}}
"""


def spend(
    params: dict[str, float], seconds: float, folder: str, report: Callable[[int, float], None]
) -> None:
    """Run a trial: report, sleep, and record its start and end."""
    began_s = time.time()
    for step in range(1, STEPS + 1):
        time.sleep(max(0.0, began_s + seconds * step / STEPS - time.time()))
        report(step, loss(step, params))
    with (Path(folder) / f"times-{os.getpid()}").open("a") as file:
        file.write(f"{began_s} {time.time()}\n")


def idle(folder: Path) -> float:
    """Return the share of the workers' time outside trials."""
    lines = [path.read_text().splitlines() for path in folder.glob("times-*")]
    workers = [[tuple(map(float, line.split())) for line in each] for each in lines]
    times = [time for each in workers for time in each]
    first = sorted(min(begin for begin, _ in each) for each in workers)[:SLOTS][-1]
    last = max(begin for begin, _ in times)
    busy_s = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in times)
    return 1.0 - busy_s / (SLOTS * (last - first))


def tunesvc(url: str, seconds: float, trials: int, folder: Path) -> None:
    import tunesvc as package
    from tunesvc.coordinator.coordinator import StepTiming
    from tunesvc.db import study_records
    from tunesvc.db.engine.database import open_database
    from tunesvc.db.study_writer import StudyWriter
    from tunesvc.runtime.run_study import build_coordinator
    from tunesvc.spec.yaml.document import load

    (folder / "objective.py").write_text(OBJECTIVE.format(root=str(Path.cwd())))
    path = folder / "study.yaml"
    path.write_text(STUDY % (seconds, folder, "random", OBSERVED))
    with open_database(url) as database:
        with database.engine.begin() as connection:
            record = study_records.create(
                connection, load(path).spec, path.read_text(), str(folder)
            )
        executor = Prompt(script(0.0), clock=(clock := VirtualClock()), slots=SLOTS)
        study_writer = StudyWriter.open(database, record.study_id)
        build_coordinator(
            database, "idle", study_writer, executor, timing=StepTiming(clock=clock)
        ).run()
        study_writer.release()
    path.write_text(STUDY % (seconds, folder, "gp", OBSERVED + trials))
    package.run(path, database_url=url, resume=True, progress=False)


def ray_gp(_url: str, seconds: float, trials: int, folder: Path) -> None:
    import optuna

    _ray(optuna.samplers.GPSampler(), seconds, trials, folder)


def ray_tpe(_url: str, seconds: float, trials: int, folder: Path) -> None:
    import optuna

    _ray(optuna.samplers.TPESampler(), seconds, trials, folder)


def _ray(sampler: BaseSampler, seconds: float, trials: int, folder: Path) -> None:
    from ray import tune

    def train(config: dict[str, float]) -> None:
        spend(config, seconds, str(folder), lambda step, value: tune.report({"loss": value}))

    draw = random.Random(1)
    known = [{name: draw.random() for name in FLOATS} for _ in range(OBSERVED)]
    rewards = [loss(STEPS, params) for params in known]
    tune_with_ray(
        train, trials, folder, sampler, points_to_evaluate=known, evaluated_rewards=rewards
    )


SYSTEMS: dict[str, Callable[[str, float, int, Path], None]] = {
    "tunesvc": tunesvc,
    "ray-gp": ray_gp,
    "ray-tpe": ray_tpe,
}


def one(system: str, seconds: float, rounds: int) -> float:
    """Measure the idle share of one system, in a process and on a database of its own."""
    trials = SLOTS * max(rounds, round(SECONDS_MIN / max(seconds, 1.0)))
    with tempfile.TemporaryDirectory(
        prefix="tunesvc-idle-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account must be able to enter
        with closing(EmbeddedServer(folder)) as server:
            url = server.url.render_as_string(hide_password=False)
            call = [
                sys.executable,
                "-m",
                "benchmarks.idle",
                "--only",
                system,
                url,
                str(seconds),
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
        if done.returncode:
            raise RuntimeError(f"{system} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return idle(folder)


def only(system: str, url: str, seconds: str, trials: str, folder: str) -> None:
    """Return the result of `one`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    SYSTEMS[system](url, json.loads(seconds), int(trials), Path(folder))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[0.1, 1.0, 10.0], help="of a trial"
    )
    parser.add_argument("--rounds", type=int, default=6, help="trials of each worker, at least")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    given = parser.parse_args(arguments)
    systems = [system for system in given.systems if system != "ray-gp" or find_spec("torch")]
    print(f"{'seconds':>8} " + " ".join(f"{system:>10}" for system in systems), flush=True)
    for seconds in given.seconds:
        shares = [one(system, seconds, given.rounds) for system in systems]
        print(f"{seconds:8g} " + " ".join(f"{share:10.1%}" for share in shares), flush=True)


if __name__ == "__main__":
    only(*sys.argv[2:]) if sys.argv[1:2] == ["--only"] else main(sys.argv[1:])
