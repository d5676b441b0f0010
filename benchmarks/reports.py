"""A million reports through one study: recording rate, and memory of each process.

    python -m benchmarks.reports [--trials 4] [--reports 250000]

A real `tune run` on the embedded Postgres and a local Ray. Each trial reports in bursts, as
training loops that report every batch do. Prints the peak of resident memory by process, and checks
that every report is in the database.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

OBJECTIVE = """
import time


def train(x: float, *, trial, reports: int) -> float:
    for step in range(reports):
        trial.report(step, loss=x + 1 / (1 + step))
        if step % 50 == 49:
            time.sleep(0.02)
    return x
"""

STUDY = """
name: flood
entrypoint: objective:train
metric: {{name: loss, goal: minimize}}
parameters: {{x: {{type: float, min: 0.0, max: 1.0}}}}
constants: {{reports: {reports}}}
pruner: {{name: median, n_startup_trials: 1000}}
budget: {{trials: {trials}}}
resources: {{cpu: 0.5}}
parallelism: {trials}
"""
ROLES = {
    "tunesvc run": "coordinator",
    "tunesvc.execution.driver.driver_main": "Ray driver",
    "ray::Worker": "worker (each)",
    "postgres": "Postgres (each process, shared buffers included)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--reports", type=int, default=250_000, help="of each trial")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="tunesvc-flood-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as name:
        flood(Path(name), given.trials, given.reports)


def flood(folder: Path, trials: int, reports: int) -> None:
    folder.chmod(0o755)
    (folder / "objective.py").write_text(OBJECTIVE)
    (folder / "study.yaml").write_text(STUDY.format(trials=trials, reports=reports))
    environment = {**os.environ, "TUNE_HOME": str(folder / "home")}
    began_s = time.monotonic()
    run = [sys.executable, "-m", "tunesvc", "run", str(folder / "study.yaml"), "--json"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(run, env=environment, stdout=log, stderr=log)
        peaks = watch(process)
    took_s = time.monotonic() - began_s
    code = """
import sqlalchemy as sa
from tunesvc.db.engine.database import open_database
with open_database() as database, database.engine.connect() as connection:
    print(connection.execute(sa.text("SELECT count(*) FROM reports")).scalar_one())
"""
    counted = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    print(
        f"{int(counted.stdout):,} of {trials * reports:,} reports recorded; {took_s:.0f} s, start and end included"
    )
    for role, peak in sorted(peaks.items()):
        print(f"{role}: {peak / 2**20:.0f} MiB at most")
    if process.returncode:
        print((folder / "log").read_text()[-2000:])


def watch(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """Return the peak of resident memory by role, until the process ends."""
    peaks: dict[str, int] = defaultdict(int)
    while process.poll() is None:
        for found in [
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        ]:
            try:
                line = " ".join(found.cmdline())
                role = next((role for sign, role in ROLES.items() if sign in line), None)
                if role is not None:
                    peaks[role] = max(peaks[role], found.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.5)
    return peaks


if __name__ == "__main__":
    main()
