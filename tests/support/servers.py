"""`tune serve` as processes: to submit to, to end in order, to kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.queries.rows import StudyStatus
from tunesvc.queries.studies import list_studies
from tunesvc.runtime.submission import NewSubmission, submit_study

PATIENCE_S = 100.0
OBJECTIVE = """
import time

def train(x, n, *, trial):
    for step in range(10):
        time.sleep(0.2)
        trial.report(step, loss=(x - 0.3) ** 2 + 1 / (1 + step))
"""


class Server:
    """A process that serves."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_it_serves(self) -> None:
        wait_until(lambda: self.process.poll() is not None or '"serving"' in self.log)
        match = re.search(r'^\{"event": "serving".*$', self.log, re.MULTILINE)
        assert match is not None, self.log
        self.url = json.loads(match[0])["url"]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: int) -> int:
        """Send a signal, and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


class Servers:
    """Servers of one database, which end with the context."""

    def __init__(self, database: Database, folder: Path, cluster: str | None) -> None:
        self.database = database
        self.history = folder / "history"
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "training.py").write_text(OBJECTIVE)
        self._folder = folder
        self._cluster = cluster
        self._servers: list[Server] = []

    def start(self, **environment: str) -> Server:
        """Start a server and wait until it serves."""
        server = self.start_unwaited(**environment)
        server.wait_until_it_serves()
        return server

    def start_unwaited(self, **environment: str) -> Server:
        """Start a server, which may die early."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TUNE_", "RAY_"))}
        ours = {
            "TUNE_DATABASE_URL": self.database.url,
            "TUNE_HOME": str(self._folder / "home"),
            "TUNE_HISTORY": str(self.history),
        }
        log = self._folder / f"server-{len(self._servers)}.log"
        options = ["--cluster", self._cluster] if self._cluster else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tunesvc", "serve", "--port", "0", "--json", *options],
                env=inherited | ours | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._servers.append(Server(process, log))
        return self._servers[-1]

    def submit(self, name: str, **changes: Any) -> int:
        """Submit a study of trials that take two seconds."""
        spec = make_spec(
            **{"name": name, "entrypoint": "training:train", "resources": {"cpu": 1}} | changes
        )
        new = NewSubmission(spec, folder=str(self.project))
        return submit_study(self.database, new, submitted_by="ada").study_id

    def wait_until_finished(self, *names: str) -> None:
        def are_finished() -> bool:
            states = {row.name: row.state for row in list_studies(self.database)}
            return all(states[name] is StudyStatus.FINISHED for name in names)

        try:
            wait_until(are_finished)
        except AssertionError as error:
            logs = "\n".join(f"{server.pid}\n{server.log}" for server in self._servers)
            raise AssertionError(f"{error}\n{logs}") from None

    def end(self) -> None:
        """Kill all that is left."""
        for server in self._servers:
            if server.process.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.process.wait()


@contextmanager
def servers_of(database: Database, folder: Path, cluster: str | None) -> Iterator[Servers]:
    """Make servers in a folder."""
    servers = Servers(database, folder, cluster)
    try:
        yield servers
    finally:
        servers.end()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, but not for ever."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it did not happen"
        time.sleep(0.05)
