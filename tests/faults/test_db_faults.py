"""Faults 10, 36, 39 and 43: killed starts, hostile names, texts that Postgres does not take."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.postgres_proxy import Proxy
from tests.support.postgres_servers import lend_programs
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.embedded.file_lock import FileLock
from tunesvc.db.engine.database import Database, connect, open_database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema import migrations
from tunesvc.errors import BadName, DatabaseError

# --- 43: an embedded Postgres left by a killed run
# ------------------------------------------------------


@pytest.fixture
def home(tune_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tunesvc-tests-"))
    directory.chmod(0o755)
    lend_programs(tune_home, directory)
    monkeypatch.setenv("TUNE_HOME", str(directory))
    monkeypatch.delenv("TUNE_DATABASE_URL", raising=False)
    yield directory
    EmbeddedServer(directory).close()
    shutil.rmtree(directory)


_USE = """
import os, sys
from tunesvc.db.engine.database import open_database
database = open_database()
print(database.url, flush=True)
sys.stdin.readline()
database.close()
"""


def _user() -> subprocess.Popen[str]:
    """A process that opens the database, prints its URL, and waits for a line of input."""
    user = subprocess.Popen(
        [sys.executable, "-c", _USE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    assert user.stdout.readline().startswith("postgresql")
    return user


def _end(user: subprocess.Popen[str]) -> int:
    user.communicate("\n")
    return user.returncode


def _server_pid(home: Path) -> int:
    return int((home / "postgres/data/postmaster.pid").read_text().split()[0])


def _lives(home: Path) -> bool:
    lock = FileLock.if_free(home / "server.lock")
    if lock is not None:
        lock.release()
    return lock is None


def test_a_server_left_by_a_killed_process_is_adopted_with_everything_committed(home: Path) -> None:
    """Fault 43."""
    with open_database() as database:
        PgStorage(database).create_new_study([optuna.study.StudyDirection.MINIMIZE], "kept")
    killed = _user()
    killed.kill()
    killed.communicate()
    assert _lives(home)
    orphan = _server_pid(home)
    with open_database() as database:
        assert _server_pid(home) == orphan
        assert PgStorage(database).get_all_studies()[0].study_name == "kept"
    assert not _lives(home)


def test_of_two_users_one_killed_the_other_continues_and_stops_the_server(home: Path) -> None:
    """Fault 43."""
    killed, other = _user(), _user()
    killed.kill()
    killed.communicate()
    assert _lives(home)
    assert _end(other) == 0
    assert not _lives(home)


_KILLED_AS_SOON_AS_IT_RUNS = """
import os, signal, sys, threading
from pathlib import Path
from tunesvc.db.engine.database import open_database

def runs(program):
    try:
        children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
        return any(Path("/proc", pid, "comm").read_text().strip() == program for pid in children)
    except OSError:  # one ended while we looked
        return False

def kill():
    while not runs(sys.argv[1]):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill).start()
open_database()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="watches its children in /proc")
@pytest.mark.parametrize("program", ["initdb", "pg_ctl"])
def test_a_start_that_is_killed_while_a_program_of_postgres_continues_is_finished_by_the_next(
    home: Path, program: str
) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED_AS_SOON_AS_IT_RUNS, program], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_database() as database, database.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM studies")) == 0
    assert not list(home.glob("postgres.new-*"))


def test_a_server_killed_with_its_users_recovers(home: Path) -> None:
    """Fault 43."""
    with open_database() as database:
        PgStorage(database).create_new_study([optuna.study.StudyDirection.MINIMIZE], "kept")
        user = _user()
        os.kill(_server_pid(home), signal.SIGKILL)
        user.kill()
        user.communicate()
    with open_database() as database:
        assert PgStorage(database).get_all_studies()[0].study_name == "kept"


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(home: Path) -> None:
    """Fault 2."""
    user = _user()
    assert os.getsid(_server_pid(home)) != os.getsid(user.pid)
    assert os.getpgid(_server_pid(home)) != os.getpgid(user.pid)
    assert _end(user) == 0


# --- 10: a migration that is cut; killed ones and newer schemas:
# tests/integration/test_migrations.py ------


def test_a_migration_whose_connection_is_lost_midway_leaves_nothing_and_can_be_repeated(
    empty_url: str,
) -> None:
    """Fault 10."""
    with Proxy.before(empty_url) as proxy, connect(proxy.url(empty_url)) as database:

        @sa.event.listens_for(database.engine, "before_cursor_execute")
        def cut(_: object, __: object, statement: str, *___: object) -> None:
            if "CREATE TABLE trials" in statement:
                proxy.cut()

        with pytest.raises(sa.exc.OperationalError), database.long_transaction() as connection:
            migrations.upgrade(connection)
    with connect(empty_url) as database:
        assert sa.inspect(database.engine).get_table_names() == []
    with open_database(empty_url) as database:
        assert "trials" in sa.inspect(database.engine).get_table_names()


def test_a_migration_whose_answer_was_lost_is_found_done(empty_url: str) -> None:
    """Fault 10."""
    with Proxy.before(empty_url) as proxy:
        proxy.lose_next_commit()
        with pytest.raises(DatabaseError, match="cannot be set up"):
            open_database(proxy.url(empty_url))
        with open_database(proxy.url(empty_url), migrate=False) as database:
            assert "trials" in sa.inspect(database.engine).get_table_names()


# --- 36: SQL in names
# -----------------------------------------------------------------------------------

HOSTILE = [
    "'; DROP TABLE studies; --",
    '"; DELETE FROM trials; --',
    "' OR '1'='1",
    "%(name)s %s %%",
    ":name :study $1 {name}",
    "\\'; SELECT pg_sleep(10); --",
    "name\\",
    "/* */ -- comment",
    "Robert'); DROP TABLE trials;--",
    "E'\\x41' U&'\\0041' $$text$$",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_sql_in_a_name_is_just_a_name(database: Database, name: str) -> None:
    _round_trip(PgStorage(database), name)


# --- 39: unicode, bidi, NUL, 600 characters
# -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ж" * 600, "🐍" * 600, "\u202eevil\u202c", "e\u0301 é", "\ufeff", " ", "\n\t\x7f\x01"]
)
def test_unusual_names_are_kept_as_they_are(database: Database, name: str) -> None:
    _round_trip(PgStorage(database), name)


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=600)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=_NAMES)
def test_any_storable_name_is_kept(database: Database, name: str) -> None:
    storage = PgStorage(database)
    study_id = _round_trip(storage, name)
    storage.delete_study(study_id)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    poison=st.sampled_from(["\x00", "\ud800", "\udfff"]),
)
def test_a_name_that_cannot_be_stored_is_refused_everywhere(
    database: Database, before: str, after: str, poison: str
) -> None:
    storage = PgStorage(database)
    name = before + poison + after
    with pytest.raises(BadName):
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], name)
    with pytest.raises(KeyError):
        storage.get_study_id_from_name(name)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE])
    trial_id = storage.create_new_trial(study_id)
    with pytest.raises(BadName):
        storage.set_trial_param(trial_id, name, 0.5, optuna.distributions.FloatDistribution(0, 1))
    with pytest.raises(BadName):
        storage.set_trial_user_attr(trial_id, name, 1)
    with pytest.raises(BadName):
        storage.set_study_system_attr(study_id, name, 1)
    assert storage.get_trial(trial_id).params == {}


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\u202e", "x" * 1_000_000])
def test_values_of_attributes_and_choices_are_kept_whatever_they_are(
    database: Database, text: str
) -> None:
    storage = PgStorage(database)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE])
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_user_attr(trial_id, "note", text)
    storage.set_trial_param(
        trial_id, "kind", 1, optuna.distributions.CategoricalDistribution(["a", text])
    )
    trial = PgStorage(database).get_trial(trial_id)
    assert trial.user_attrs == {"note": text}
    assert trial.params == {"kind": text}


def _round_trip(storage: PgStorage, name: str) -> int:
    """The name in every place that bears one, read by a storage that has no memory of it."""
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], name)
    storage.set_study_user_attr(study_id, name, name)
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_param(trial_id, name, 0.5, optuna.distributions.FloatDistribution(0, 1))
    storage.set_trial_system_attr(trial_id, name, {name: name})
    other = PgStorage(storage._database)
    assert other.get_study_name_from_id(study_id) == name
    assert other.get_study_id_from_name(name) == study_id
    assert other.get_study_user_attrs(study_id) == {name: name}
    trial = other.get_trial(trial_id)
    assert trial.params == {name: 0.5}
    assert trial.system_attrs == {name: {name: name}}
    return study_id
