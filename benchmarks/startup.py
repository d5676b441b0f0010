"""Time from the command to the first training trial, beside Ray alone and Ray Tune.

    python -m benchmarks.startup [--rounds 7] [--only warm bare ...]

Each is a process of its own, one after the other, taking turns; the time is from the start of the
process to the first line of the objective.

    cold      `tune run` in a home of its own: initdb, migrations, a local Ray
    warm      the same in a home that exists; nothing runs
    joined    the same while another process keeps the embedded Postgres running
    tuner     a script that runs the same function with `ray.tune.Tuner`
    bare      a script with `ray.init(address="local")` that runs the function as a task
    bare-lean the same with the options that our local Ray has: no dashboard, a small object store

For ours it also prints the start of each phase, and the time of `tune --help`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 180.0
OURS = ("cold", "warm", "joined")

STAMP = """
import time
from pathlib import Path


def stamp():
    Path({stamp!r}).write_text(str(time.monotonic()))
"""

OBJECTIVE = (
    STAMP
    + """

def train(x, *, trial):
    stamp()
    trial.report(0, loss=x)
    return x
"""
)

STUDY = """
name: startup-{number}
entrypoint: objective:train
metric: {{name: loss, goal: minimize}}
parameters:
  x: {{type: float, min: 0.0, max: 1.0}}
budget: {{trials: 1}}
"""

SCRIPTS = {
    "bare": STAMP
    + """
import ray

ray.init(address="local")
ray.get(ray.remote(stamp).remote())
""",
    "bare-lean": STAMP
    + """
import ray

ray.init(address="local", include_dashboard=False, object_store_memory=512 * 2**20)
ray.get(ray.remote(stamp).remote())
""",
    "tuner": STAMP
    + """
import ray
from ray import tune


def train(config):
    stamp()
    tune.report({{"loss": config["x"]}})


ray.init(address="local")
tune.Tuner(train, param_space={{"x": tune.uniform(0.0, 1.0)}}).fit()
""",
}

CASES = (*OURS, *SCRIPTS)


class Measured(NamedTuple):
    first_s: float
    """Seconds from the start of the process to the objective's first line."""
    phases_s: Mapping[str, float]
    """Start of each phase."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    arguments = parser.parse_args()
    with _folder() as folder:
        stage = Stage(folder)
        stage.run_ours(
            "warm"
        )  # makes the home; and the first run of all reads every file from the disk
        taken: dict[str, list[Measured]] = defaultdict(list)
        helped_s = []
        for number in range(arguments.rounds):
            for case in arguments.only:
                taken[case].append(stage.run(case))
                print(f"round {number + 1}: {case} {taken[case][-1].first_s:.2f} s", flush=True)
            helped_s.append(help_s())
    print()
    for case, measured in taken.items():
        print(f"{case:<10}{_told([m.first_s for m in measured])}{_ratios(case, taken)}")
    print(f"{'--help':<10}{_told(helped_s)}")
    for case in OURS:
        if case in taken:
            print(f"\n{case}:")
            _print_phases(taken[case])


class Stage:
    """A folder with the scripts, the study and the homes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = folder / "stamp"
        self._home = folder / "home"
        self._studies = 0
        (folder / "objective.py").write_text(OBJECTIVE.format(stamp=str(self._stamp)))
        for name, text in SCRIPTS.items():
            (folder / f"{name}.py").write_text(text.format(stamp=str(self._stamp)))

    def run(self, case: str) -> Measured:
        """Run a case once, to its end."""
        return (
            self.run_ours(case) if case in OURS else self._measure(str(self._folder / f"{case}.py"))
        )

    def run_ours(self, case: str) -> Measured:
        self._studies += 1
        study = self._folder / "study.yaml"
        study.write_text(STUDY.format(number=self._studies))
        home = self._folder / f"cold-{self._studies}" if case == "cold" else self._home
        with self._server_kept(home) if case == "joined" else _nothing():
            measured = self._measure("-m", "tunesvc", "run", str(study), "--json", home=home)
        if case == "cold":
            shutil.rmtree(home)
        return measured

    def _measure(self, *arguments: str, home: Path | None = None) -> Measured:
        self._stamp.unlink(missing_ok=True)
        phases_s: dict[str, float] = {}
        began_s = time.monotonic()
        with self._started(*arguments, home=home) as process:
            reader = threading.Thread(target=_read_phases, args=(process, began_s, phases_s))
            reader.start()
            process.wait(PATIENCE_S)
            reader.join()
        if process.returncode != 0 or not self._stamp.exists():
            raise RuntimeError(
                f"{arguments} ended with exit code {process.returncode}: {self._log.read_text()}"
            )
        return Measured(float(self._stamp.read_text()) - began_s, phases_s)

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    @contextmanager
    def _started(
        self, *arguments: str, home: Path | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        if home is not None:
            environment["TUNE_HOME"] = str(home)
        with self._log.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=self._folder,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()

    @contextmanager
    def _server_kept(self, home: Path) -> Iterator[None]:
        """Run another process that uses the embedded server meanwhile."""
        open_database = "from tunesvc.db.engine.database import open_database; open_database()"
        code = f"import sys; {open_database}; print(); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"TUNE_HOME": str(home)},
        )
        try:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("the server did not start")
            yield
        finally:
            process.communicate()


def help_s() -> float:
    """Return the seconds of `tune --help`."""
    began_s = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "tunesvc", "--help"], check=True, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - began_s


def _read_phases(
    process: subprocess.Popen[str], began_s: float, phases_s: dict[str, float]
) -> None:
    """Return the times of the first JSON line of each kind; other output is skipped."""
    for line in process.stdout or ():
        said = json.loads(line) if line.startswith("{") else {}
        if said.get("event") == "note":
            phases_s.setdefault(
                f"{said['kind']} {said['text']}".rstrip(), time.monotonic() - began_s
            )


def _print_phases(measured: list[Measured]) -> None:
    for phase in measured[-1].phases_s:
        seconds = [m.phases_s[phase] for m in measured if phase in m.phases_s]
        print(f"{statistics.median(seconds):7.2f} s  {phase}")


def _told(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):5.2f} s, from {min(seconds):.2f} to {max(seconds):.2f} s"


def _ratios(case: str, taken: Mapping[str, list[Measured]]) -> str:
    median = statistics.median(m.first_s for m in taken[case])
    peers = [peer for peer in SCRIPTS if peer in taken and peer != case and case in OURS]
    return "".join(
        f", {median / statistics.median(m.first_s for m in taken[peer]):.2f} of {peer}"
        for peer in peers
    )


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="tunesvc-startup-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as name:
        Path(name).chmod(0o755)  # the database's account must be able to enter
        yield Path(name)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


if __name__ == "__main__":
    main()
