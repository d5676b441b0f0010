"""Cost of one process with many studies: processor and memory of coordinators, driver and Postgres.

    python -m benchmarks.many [--studies 1 8 32] [--window-s 60] [--report-s 1.0]

`tune run` with so many study files, on a local Ray with room for one trial of each: trials of ten
reports, one every `--report-s`. TPE without a pruner. The window starts when every study has
finished a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

START_S = 900.0
TICKS = os.sysconf("SC_CLK_TCK")
OBJECTIVE = """
import time

def train(x, y, *, trial):
    for step in range(10):
        time.sleep({report_s})
        trial.report(step, loss=(x - 0.3) ** 2 + y + 1 / (step + 1))
"""
STUDY = """
name: many-{number}
entrypoint: objective:train
metric: {{name: loss, goal: minimize}}
parameters:
  x: {{type: float, min: 0.0, max: 1.0}}
  y: {{type: float, min: 0.0, max: 1.0}}
budget: {{trials: 100000}}
parallelism: 1
resources: {{cpu: 0.01}}
sampler: tpe
pruner: none
"""


class Used(NamedTuple):
    """Return the processor time so far."""

    coordinators_s: float
    driver_s: float
    postgres_s: float


class Run:
    """A `tune run` with several studies, and the number of finished trials of each."""

    def __init__(self, folder: Path, studies: int, report_s: float) -> None:
        self._folder = folder
        self._studies = studies
        self._ended: dict[str, int] = {}
        (folder / "objective.py").write_text(OBJECTIVE.format(report_s=report_s))
        for number in range(studies):
            (folder / f"{number}.yaml").write_text(STUDY.format(number=number))
        folder.chmod(0o755)  # Postgres may run as another user
        files = [f"{number}.yaml" for number in range(studies)]
        environment = os.environ | {
            "TUNE_HOME": str(folder / "home"),
            "PYTHONPATH": str(Path.cwd()),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunesvc", "run", *files, "--json"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def trials(self) -> int:
        """Return the finished trials."""
        return sum(self._ended.values())

    def until_all_run(self) -> None:
        """Wait until each study has finished a trial."""
        self._listen(START_S, lambda: sum(map(bool, self._ended.values())) == self._studies)
        if len(self._ended) < self._studies:
            raise SystemExit(f"{len(self._ended)} of {self._studies} studies have begun")

    def listen(self, seconds: float) -> None:
        """Read output for so long."""
        self._listen(seconds, lambda: False)

    def _listen(self, seconds: float, is_enough: Callable[[], bool]) -> None:
        until_s = time.monotonic() + seconds
        for text in self._process.stdout or ():
            event = json.loads(text)
            if event["event"] == "progress":
                self._ended[event["study"]] = event["complete"]
            if time.monotonic() > until_s or is_enough():
                return

    def used(self) -> Used:
        """Return the processor time of the run's own process, of its driver, and of its
        Postgres."""
        pid, driver_s, postgres_s, servers = self._process.pid, 0.0, 0.0, set()
        found = list(_processes())
        for process in found:
            if process.parent == pid and "tunesvc.execution.driver.driver_main" in process.command:
                driver_s += process.cpu_s
            if "postgres" in process.command and str(self._folder) in process.command:
                servers.add(process.pid)
        postgres_s = sum(
            process.cpu_s for process in found if {process.pid, process.parent} & servers
        )
        return Used(
            sum(process.cpu_s for process in found if process.pid == pid), driver_s, postgres_s
        )

    def memory_mib(self) -> float:
        """Return the memory of the run's own process."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def end(self) -> None:
        """Interrupt it, and wait."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=120)


class Process(NamedTuple):
    pid: int
    parent: int
    command: str
    cpu_s: float


def _processes() -> Iterator[Process]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            )
        except OSError:
            continue  # it has just ended
        yield Process(
            int(folder.name), int(fields[1]), command, (int(fields[11]) + int(fields[12])) / TICKS
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--window-s", type=float, default=60.0)
    parser.add_argument("--report-s", type=float, default=1.0)
    arguments = parser.parse_args()
    print(
        "| studies | until each has ended a trial | reports/s | coordinators | driver | Postgres | memory | load |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for studies in arguments.studies:
        with tempfile.TemporaryDirectory() as folder:
            print(
                _measured(Path(folder), studies, arguments.window_s, arguments.report_s), flush=True
            )


def _measured(folder: Path, studies: int, window_s: float, report_s: float) -> str:
    began_s = time.monotonic()
    run = Run(folder, studies, report_s)
    try:
        run.until_all_run()
        up_s, before, trials = time.monotonic() - began_s, run.used(), run.trials
        from_s = time.monotonic()
        run.listen(window_s)
        taken_s = time.monotonic() - from_s
        shares = [(then - now) / taken_s for now, then in zip(before, run.used(), strict=True)]
        reports, memory = 10 * (run.trials - trials) / taken_s, run.memory_mib()
    finally:
        run.end()
    told = " | ".join(f"{share:.1%}" for share in shares)
    return f"| {studies} | {up_s:.0f} s | {reports:.1f} | {told} | {memory:.0f} MiB | {os.getloadavg()[0]:.0f} |"


if __name__ == "__main__":
    main()
