"""Interruption of a study when its coordinator is killed and another one stands by.

    python -m benchmarks.takeover [--rounds 10]

Eight trials run on a Ray cluster of two nodes. The coordinator that holds the lease gets SIGKILL;
the result is the time, by the database's clock, until the standby opens the next attempt. The
trials that ran at the kill must finish in their first attempt, with every report recorded once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import time
from collections.abc import Callable

from benchmarks.stage import Stage

PATIENCE_S = 120.0
STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with Stage(nodes=2, slots_per_node=4) as stage:
        study = stage.write_study(trials=10_000, steps=STEPS, step_s=0.4)
        stage.coordinate("run", str(study), "--json")
        until(lambda: len(stage.running()) == 8)
        taken_s = [one_round(stage) for _ in range(rounds)]
    print(
        f"until the standby dispatched again: median {statistics.median(taken_s):.1f} s, ", end=""
    )
    print(f"from {min(taken_s):.1f} to {max(taken_s):.1f} s, {rounds} rounds")


def one_round(stage: Stage) -> float:
    standby = stage.coordinate("resume", "stage", "--standby", "--json")
    log = stage.folder / sorted(stage.logs(), key=lambda name: int(name.split("-")[1][:-4]))[-1]
    until(lambda: "standing by" in log.read_text())
    time.sleep(random.uniform(0.0, 3.0))  # at any moment between two renewals of the lease
    holder = stage.holder()
    if holder is None:
        raise RuntimeError("nobody holds the lease")
    until(lambda: len(stage.running()) == 8)
    running = stage.running()
    killed_at = stage.sql("SELECT now()")[0][0]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()

    def next_opened() -> float | None:
        waited = (
            f"SELECT min(opened_at) - '{killed_at}' FROM attempts WHERE opened_at > '{killed_at}'"
        )
        seconds = stage.sql(waited)[0][0]
        return None if seconds is None else float(seconds.total_seconds())

    until(lambda: next_opened() is not None)
    taken_s = next_opened() or 0.0
    until(lambda: not set(running) & set(stage.running()))
    check(stage, running)
    print(
        f"{taken_s:5.1f} s, {len(running)} trials went on; now {standby.pid} runs the study",
        flush=True,
    )
    return taken_s


def check(stage: Stage, running: list[tuple[int, int, int]]) -> None:
    """Check that trials running at the kill ended in the same attempt, with all their reports."""
    ids = ", ".join(str(trial) for trial, _, _ in running)
    rows = stage.sql(f"""
        SELECT t.trial_id, t.state, max(a.number), (SELECT count(*) FROM reports r WHERE r.trial_id = t.trial_id)
        FROM trials t JOIN attempts a ON a.trial_id = t.trial_id WHERE t.trial_id IN ({ids}) GROUP BY t.trial_id
    """)
    wrong = [row for row in rows if tuple(row[1:]) != ("complete", 1, STEPS)]
    if wrong:
        raise AssertionError(
            f"not finished in their first attempt, or reports are missing: {wrong}"
        )


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError("did not happen")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
