"""Postgres servers of a test's own: to crash, to stop answering, to replicate, to fill up.

They listen on a loopback port and on a Unix socket, ask for a password, and sync to disk.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from tunesvc.db.embedded import postgres_binaries
from tunesvc.db.embedded.os_account import server_account

_ROLE = "tunesvc"
_PASSWORD = "secret"


class PostgresServer:
    """One server, its data in `directory`, which the server's account must be able to enter."""

    def __init__(self, programs: Path, directory: Path, **settings: str) -> None:
        """A server that does not run yet.

        Args:
            programs: Postgres's programs, readable by the server's account.
            directory: for `data`, `log` and the socket.
            settings: Postgres's.
        """
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.port = _free_port()
        self._programs = programs
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            "timezone": "UTC",
            "wal_level": "replica",
            **settings,
        }
        self._account = server_account()

    @classmethod
    def create(cls, programs: Path, directory: Path, **settings: str) -> PostgresServer:
        """A new, empty server, running."""
        server = cls(programs, directory, **settings)
        server._initialise()
        server.start()
        return server

    @property
    def url(self) -> sa.URL:
        return sa.URL.create(
            "postgresql+psycopg2",
            username=_ROLE,
            password=_PASSWORD,
            host="127.0.0.1",
            port=self.port,
            database="postgres",
        )

    @property
    def pid(self) -> int:
        """The process to signal."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def lives(self) -> bool:
        """Return whether the server's processes run, by its own account."""
        return self._pg_ctl("status", check=False).returncode == 0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = " ".join(
            f"-c {name}={value}"
            for name, value in {"port": str(self.port), **self._settings}.items()
        )
        self._pg_ctl("start", "--log", str(self.log), "--options", options, "--wait")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it:

        `immediate` is a crash, `fast` is orderly. Nothing happens when it does not run.
        """
        self._pg_ctl("stop", "--mode", mode, "--wait", check=False)

    def freeze(self) -> None:
        """Stop all of its processes in their tracks; its ports stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def standby(self, directory: Path) -> PostgresServer:
        """A running standby of this server, in step with it: a commit waits for the standby to
        have it."""
        standby = PostgresServer(
            self._programs,
            directory,
            **self._settings | {"unix_socket_directories": str(directory)},
        )
        where = f"host=127.0.0.1 port={self.port} user={_ROLE} password={_PASSWORD} application_name=standby"
        self._account.chown(directory)
        self._run(
            "pg_basebackup",
            "--pgdata",
            str(standby.data),
            "--dbname",
            where,
            "--write-recovery-conf",
            "--checkpoint=fast",
        )
        standby.start()
        self.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        self.execute("SELECT pg_reload_conf()")
        return standby

    def take_over(self, directory: Path) -> None:
        """Make a directory that belongs to the server's account."""
        directory.mkdir()
        self._account.chown(directory)

    def promote(self) -> None:
        """Make a standby the primary."""
        self._pg_ctl("promote", "--wait")

    def execute(self, statement: str) -> None:
        """Run one statement outside of any transaction."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=_ROLE,
            password=_PASSWORD,
            dbname="postgres",
            connect_timeout=10,
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def _initialise(self) -> None:
        self._account.chown(self.directory)
        password = self.directory / "password"
        password.write_text(_PASSWORD)
        self._account.chown(password)
        self._run(
            "initdb", "--pgdata", str(self.data), "--username", _ROLE, "--pwfile", str(password),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-instructions", "--no-sync",
        )  # fmt: skip

    def _signal(self, number: signal.Signals) -> None:
        for pid in [self.pid, *_children(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pg_ctl(
        self, action: str, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", action, "--pgdata", str(self.data), *arguments, check=check)

    def _run(
        self, program: str, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        output = self.directory / "output"  # a pipe would stay open for as long as the server runs
        with output.open("w") as file:
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, text=True, check=False,
                cwd="/", umask=0o077, start_new_session=True, env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                **self._account.process_options(),
            )  # fmt: skip
        assert not check or done.returncode == 0, output.read_text()
        return done


@contextmanager
def small_disk(directory: Path, size_mb: int) -> Iterator[None]:
    """A file system of its own at `directory`, which fills up soon.

    Skips the test where this user may not mount.
    """
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0755", "tmpfs", directory],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def programs(home: Path) -> Path:
    """Postgres's programs, where the server's account can read them."""
    return (
        postgres_binaries.install_for_others(home)
        if server_account().is_other
        else postgres_binaries.bin_directory()
    )


def lend_programs(tune_home: Path, home: Path) -> None:
    """Spare `home` a copy of Postgres's programs where `tune_home` has one."""
    if server_account().is_other:
        installed = postgres_binaries.install_for_others(tune_home).parents[2]
        (home / installed.name).symlink_to(installed)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
