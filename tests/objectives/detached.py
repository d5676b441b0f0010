"""Objectives for attempts that outlive their coordinator."""

from __future__ import annotations

import time
from pathlib import Path


def count(folder: str, *, trial) -> float:
    """Reports step after step until there is a file that says `end`; leaves a trace of each run."""
    with Path(folder, f"runs-{trial.number}").open("a") as runs:
        runs.write("run\n")
    step = 0
    while not Path(folder, f"end-{trial.number}").exists():
        trial.report(step, loss=float(step))
        step += 1
        time.sleep(0.02)
    Path(folder, f"ended-{trial.number}").touch()
    return float(step)


def ask(trial) -> float:
    """Asks for its only parameter."""
    return trial.suggest_float("x", 0.0, 1.0)


def gang(folder: str, *, trial) -> float:
    """Run a task in the second bundle of its gang on a signal."""
    import ray

    @ray.remote(num_cpus=1)
    def elsewhere() -> float:
        return 7.0

    trial.report(0, loss=0.0)
    while not Path(folder, f"end-{trial.number}").exists():
        time.sleep(0.02)
    return ray.get(elsewhere.remote())
