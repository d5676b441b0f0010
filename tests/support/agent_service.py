"""A server in a process and agents in others, with only HTTP between, for tests of agents."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.support.accounts import make_team
from tests.support.specs import make_spec
from tunesvc.db import study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study

LEASE_S = 15.0
PROGRAM = """
import sys, time
def train(x, n, *, trial):
    assert "ray" not in sys.modules
    for step in range(6):
        time.sleep(0.25)
        trial.report(step, loss=(x - 0.3) ** 2 + n / 100 + 1 / (1 + step))
    return (x - 0.3) ** 2 + n / 100
"""


@dataclass
class Service:
    """A server in a process, on a port that it keeps, and agents that reach it by HTTP only."""

    database: Database
    folder: Path
    port: int
    token: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def history(self) -> Path:
        return self.folder / "history"

    def start_server(self) -> subprocess.Popen[bytes]:
        options = ["--port", str(self.port), "--behind-proxy", "127.0.0.1", "--json"]
        command = [sys.executable, "-m", "tunesvc", "serve", *options]
        url = self.database.url
        server = self._start(command, stdout=subprocess.PIPE, TUNE_DATABASE_URL=url)
        assert server.stdout is not None
        assert server.stdout.readline()
        return server

    def start_agent(
        self, name: str, port: int | None = None, options: Sequence[str] = (), **variables: str
    ) -> subprocess.Popen[bytes]:
        url = f"http://127.0.0.1:{port or self.port}"
        given = ["--server", url, "--cpus", "1", "--name", name, "--folder", str(self.folder)]
        command = [sys.executable, "-m", "tunesvc", "agent", "test", *given, *options]
        log = (self.folder / f"{name}.log").open("wb")
        return self._start(command, stdout=log, stderr=log, TUNE_TOKEN=self.token, **variables)

    def _start(
        self, command: list[str], stdout: Any, stderr: Any = None, **variables: str
    ) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TUNE_HISTORY": str(self.history), **variables}
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
        self.processes.append(process)
        return process

    def submit(self, **changes: object) -> None:
        spec = make_spec(
            **{
                "entrypoint": "program:train",
                "agents": "only",
                "parallelism": None,
                "limits": {"stall": LEASE_S},
                **changes,
            }
        )
        with self.database.engine.begin() as connection:
            record = study_records.create(connection, spec, None, str(self.folder))
            submissions.submit(connection, record.study_id)

    def count(self, sql: str) -> int:
        return int(self.database.rows(sa.text(f"SELECT count(*) FROM {sql}"))[0][0])

    def until(self, happened: Callable[[], bool], within_s: float = 90.0) -> None:
        deadline_s = time.monotonic() + within_s
        while not happened():
            assert time.monotonic() < deadline_s, self.logs()
            time.sleep(0.1)

    def is_finished(self) -> bool:
        return get_study(self.database, "test").state == "finished"

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}\n{path.read_text()[-800:]}" for path in self.folder.glob("*.log")
        )


@contextmanager
def agent_service(database: Database, folder: Path) -> Iterator[Service]:
    """Yield a service whose study is `program.py` in a folder, and end its processes."""
    (folder / "program.py").write_text(PROGRAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    service = Service(database, folder, port, make_team(database).secrets["admin"])
    yield service
    for process in service.processes:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
