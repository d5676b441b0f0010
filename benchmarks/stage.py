"""A stage for faults: a Postgres, a Ray cluster of several nodes, and coordinators.

Everything runs on this machine and below one folder; only processes started here are ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import sqlalchemy as sa

from tunesvc.db.engine.database import Database, open_database

OBJECTIVE = """
import tempfile, time
from pathlib import Path


def train(x: float, *, trial, steps: int, step_s: float) -> float:
    saved = trial.restored()
    first = 0 if saved is None else 1 + int((saved / "step").read_text())
    loss = 0.0
    for step in range(first, steps):
        time.sleep(step_s)
        loss = (x - 0.3) ** 2 + 1 / (1 + step)
        trial.report(step, loss=loss)
        if step % 5 == 4:
            folder = Path(tempfile.mkdtemp())
            (folder / "step").write_text(str(step))
            trial.checkpoint(folder, step)
    return loss
"""

STUDY = """
name: stage
entrypoint: objective:train
metric: {{name: loss, goal: minimize}}
parameters:
  x: {{type: float, min: 0.0, max: 1.0}}
constants: {{steps: {steps}, step_s: {step_s}}}
sampler: {{name: tpe, seed: 1}}
pruner: none
budget: {{trials: {trials}}}
parallelism: {slots}
resources: {{cpu: 1}}
limits: {{stall: 15s, grace: 5s, orphan: 10m}}
retries: {{lost: 100, node: 100, stalled: 100, preempted: 100}}
cluster: {address}
"""


class Stage:
    """A context manager that ends everything it started."""

    def __init__(self, *, nodes: int, slots_per_node: int, history: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="tunesvc-stage-", dir="/var/tmp", ignore_cleanup_errors=True
        )
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)  # the database's account must be able to enter
        self.home = self.folder / "home"
        self.history = self.folder / "history"
        self._nodes, self._slots_per_node = nodes, slots_per_node
        self._coordinators: list[subprocess.Popen[bytes]] = []
        self._started = 0
        os.environ |= {
            "TUNE_HOME": str(self.home),
            "TUNE_CHECKPOINTS": str(self.folder / "checkpoints"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if history:
            os.environ["TUNE_HISTORY"] = str(self.history)
        self.project = self.folder / "project"
        self.project.mkdir()
        (self.project / "objective.py").write_text(textwrap.dedent(OBJECTIVE))

    def __enter__(self) -> Stage:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [
            self.cluster.add_node(num_cpus=self._slots_per_node) for _ in range(self._nodes)
        ]
        self.database: Database = open_database()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.coordinators():
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait()
        self.cluster.shutdown()  # type: ignore[no-untyped-call]
        self.database.close()
        self._folder.cleanup()

    def write_study(self, *, trials: int, steps: int, step_s: float) -> Path:
        """Return a study with trials that take `steps * step_s` seconds and save a checkpoint
        every five steps."""
        text = STUDY.format(
            trials=trials,
            steps=steps,
            step_s=step_s,
            slots=self._nodes * self._slots_per_node,
            address=self.cluster.address,
        )
        path = self.project / "study.yaml"
        path.write_text(text)
        return path

    # --- coordinators
    # -------------------------------------------------------------------------------

    def coordinate(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `tune ARGUMENTS`; its output goes to a file in `folder`."""
        self._started += 1
        with (self.folder / f"coordinator-{self._started}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tunesvc", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.project,
                start_new_session=True,
            )
        self._coordinators.append(process)
        return process

    def coordinators(self) -> list[subprocess.Popen[bytes]]:
        """Return the running coordinators, frozen ones included."""
        return [process for process in self._coordinators if process.poll() is None]

    def holder(self) -> subprocess.Popen[bytes] | None:
        """Return the coordinator that holds the study's lease, if it lives."""
        rows = self.sql("SELECT owner FROM leases WHERE expires_at > now()")
        pid = int(rows[0][0].rpartition(":")[2]) if rows else 0
        return next((process for process in self.coordinators() if process.pid == pid), None)

    def driver_of(self, coordinator: subprocess.Popen[bytes]) -> psutil.Process | None:
        """Return the process with a coordinator's connection to Ray."""
        children = psutil.Process(coordinator.pid).children()
        return next(
            (
                child
                for child in children
                if "tunesvc.execution.driver.driver_main" in " ".join(child.cmdline())
            ),
            None,
        )

    def logs(self) -> Mapping[str, str]:
        """Return the output of each coordinator."""
        return {
            path.name: path.read_text(errors="replace")
            for path in sorted(self.folder.glob("*.log"))
        }

    # --- the rest
    # -----------------------------------------------------------------------------------

    def sql(self, statement: str, tries: int = 200) -> Sequence[Any]:
        """Return rows; retries while Postgres is down."""
        for _ in range(tries):
            try:
                with self.database.engine.begin() as connection:
                    result = connection.execute(sa.text(statement))
                    return result.all() if result.returns_rows else []
            except sa.exc.DBAPIError:
                self.database.ensure_running()
                time.sleep(0.1)
        raise TimeoutError(f"Postgres did not come back for: {statement}")

    def running(self) -> list[tuple[int, int, int]]:
        """Return (trial id, attempt, pid of its worker) of the running attempts."""
        return [
            tuple(row)
            for row in self.sql(
                "SELECT trial_id, number, pid FROM attempts WHERE state = 'running'"
            )
        ]

    def postmaster(self) -> int:
        """Return the pid of the Postgres server."""
        return int((self.home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])

    def replace_node(self, index: int, pause_s: float = 0.0) -> None:
        """Kill a node, and start another."""
        self.cluster.remove_node(self.nodes[index], allow_graceful=False)
        time.sleep(pause_s)
        self.nodes[index] = self.cluster.add_node(num_cpus=self._slots_per_node)
