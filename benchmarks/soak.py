"""A study under random faults of coordinators, workers, nodes, Postgres and connections.

    python -m benchmarks.soak [--minutes 30] [--seed 1]

Eight workers on two nodes, two coordinators of which one stands by. At the end the recorded history
is checked against the invariants I1 to I6, and the time lost is compared with an undisturbed run of
the same study.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil

from benchmarks.stage import Stage
from benchmarks.takeover import until
from tests.support.invariant_checker import check

SLOTS, STEPS, STEP_S = 8, 20, 1.0
PAUSE_S = (12.0, 36.0)
"""Seconds between two faults."""

RUN_AGAIN = """
    SELECT coalesce(a.failure, a.state), count(*),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY s.seconds), max(s.seconds)
    FROM attempts a JOIN attempts b ON b.trial_id = a.trial_id AND b.number = a.number + 1,
         LATERAL (SELECT extract(epoch FROM b.started_at - a.ended_at) AS seconds) s
    GROUP BY 1 ORDER BY 1
"""
"""Measure the time until a trial's next attempt ran, by the cause of the previous end."""


class Killer:
    """Causes faults regularly."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._random = random.Random(seed)
        self.strikes: Counter[str] = Counter()
        self._blows: dict[str, Callable[[], bool]] = {
            "coordinator killed": self._kill_coordinator,
            "coordinator frozen past its lease": self._freeze_coordinator,
            "Ray driver killed": self._kill_driver,
            "worker killed": self._kill_worker,
            "worker frozen": self._freeze_worker,
            "node lost": self._lose_node,
            "Postgres killed": self._kill_postgres,
            "connections cut": self._cut_connections,
        }

    def strike(self) -> None:
        """Cause one fault in a running part."""
        name = self._random.choice(list(self._blows))
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if self._blows[name]():
                self.strikes[name] += 1
                print(
                    f"{time.strftime('%H:%M:%S')} {sum(self.strikes.values()):3} {name}", flush=True
                )

    def pause_s(self) -> float:
        """Return the seconds until the next fault."""
        return self._random.uniform(*PAUSE_S)

    def _kill_coordinator(self) -> bool:
        return self._signal(self._holder_pid(), signal.SIGKILL)

    def _freeze_coordinator(self) -> bool:
        pid = self._holder_pid()
        self._later(self._random.uniform(12.0, 25.0), lambda: os.kill(pid or 0, signal.SIGCONT))
        return self._signal(pid, signal.SIGSTOP)

    def _kill_driver(self) -> bool:
        holder = self._stage.holder()
        driver = None if holder is None else self._stage.driver_of(holder)
        return self._signal(None if driver is None else driver.pid, signal.SIGKILL)

    def _kill_worker(self) -> bool:
        return self._signal(self._worker_pid(), signal.SIGKILL)

    def _freeze_worker(self) -> bool:
        pid = self._worker_pid()
        self._later(self._random.uniform(10.0, 60.0), lambda: os.kill(pid or 0, signal.SIGCONT))
        return self._signal(pid, signal.SIGSTOP)

    def _lose_node(self) -> bool:
        self._stage.replace_node(self._random.randrange(len(self._stage.nodes)), pause_s=2.0)
        return True

    def _kill_postgres(self) -> bool:
        return self._signal(self._stage.postmaster(), signal.SIGKILL)

    def _cut_connections(self) -> bool:
        self._stage.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'tunesvc' AND pid <> pg_backend_pid()"
        )
        return True

    def _holder_pid(self) -> int | None:
        holder = self._stage.holder()
        return None if holder is None else holder.pid

    def _worker_pid(self) -> int | None:
        running = self._stage.running()
        return self._random.choice(running)[2] if running else None

    @staticmethod
    def _signal(pid: int | None, number: signal.Signals) -> bool:
        if pid is None:
            return False
        os.kill(pid, number)
        return True

    @staticmethod
    def _later(delay_s: float, action: Callable[[], None]) -> None:
        def act() -> None:
            with suppress(ProcessLookupError):
                action()

        timer = threading.Timer(delay_s, act)
        timer.daemon = True
        timer.start()


def run(minutes: float, seed: int | None) -> float:
    """Run a study of so many undisturbed minutes; returns its seconds from its first trial on."""
    trials = max(SLOTS, round(minutes * 60 / (STEPS * STEP_S) * SLOTS))
    with Stage(nodes=2, slots_per_node=SLOTS // 2, history=True) as stage:
        study = stage.write_study(trials=trials, steps=STEPS, step_s=STEP_S)
        stage.coordinate("run", str(study), "--json")
        until(lambda: len(stage.running()) == SLOTS)
        began_s = time.monotonic()
        killer = None if seed is None else Killer(stage, seed)
        while not over(stage):
            if killer is not None:
                keep_two(stage)
                killer.strike()
            wait_for_the_end(stage, 5.0 if killer is None else killer.pause_s())
        took_s = time.monotonic() - began_s
        report(stage, killer, trials, took_s)
    return took_s


def over(stage: Stage) -> bool:
    return bool(stage.sql("SELECT state FROM studies")[0][0] != "running")


def wait_for_the_end(stage: Stage, at_most_s: float) -> None:
    deadline = time.monotonic() + at_most_s
    while time.monotonic() < deadline and not over(stage):
        time.sleep(0.5)


def keep_two(stage: Stage) -> None:
    """Replace dead coordinators, as a supervisor would."""
    for _ in range(2 - len(stage.coordinators())):
        stage.coordinate("resume", "stage", "--standby", "--json")


def report(stage: Stage, killer: Killer | None, trials: int, took_s: float) -> None:
    state, reason = stage.sql("SELECT state, reason FROM studies")[0]
    by_state = dict(stage.sql("SELECT state, count(*) FROM trials GROUP BY state"))
    failures = dict(stage.sql("SELECT coalesce(failure, state), count(*) FROM attempts GROUP BY 1"))
    taken = stage.sql("SELECT token FROM leases")[0][0]
    print(
        f"{state} ({reason}) after {took_s:.0f} s; trials {by_state}; attempts {failures}; lease taken {taken} times"
    )
    if killer is not None:
        print(
            f"{sum(killer.strikes.values())} strikes: "
            + ", ".join(f"{n} {what}" for what, n in killer.strikes.items())
        )
    for failure, times, median_s, longest_s in stage.sql(RUN_AGAIN):
        waited = f"{median_s:.1f} s after its end was recorded, {longest_s:.1f} s at most"
        print(f"{failure}: run again {times} times, {waited}")
    for process in stage.coordinators():  # their records must be complete
        process.send_signal(signal.SIGCONT)
        with suppress(Exception):
            process.wait(30)
    violations = check(stage.history, stage.database)
    print(
        f"the checker found {len(violations)} violations of I1 to I6 in {len(list(stage.history.iterdir()))} histories"
    )
    print("\n".join(violations[:50]))
    unwanted = [
        line for log in stage.logs().values() for line in log.splitlines() if "Traceback" in line
    ]
    if unwanted:
        print(f"{len(unwanted)} tracebacks in the logs of coordinators")
    if by_state != {"complete": trials} or violations:
        for name, text in stage.logs().items():
            print(f"--- {name}\n{text[-1500:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=24.0, help="of the study, undisturbed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--undisturbed-minutes", type=float, default=4.0)
    given = parser.parse_args()
    calm_s = run(given.undisturbed_minutes, None) / given.undisturbed_minutes
    struck_s = run(given.minutes, given.seed) / given.minutes
    print(
        f"a minute of training took {calm_s:.1f} s undisturbed, {struck_s:.1f} s under fire: ",
        end="",
    )
    print(f"{struck_s / calm_s:.2f} times")


if __name__ == "__main__":
    main()
