"""Faults 3 to 9 and 12: a database that crashes, drops, swallows, forgets to answer, fails over,
fills up, crosses.

What is committed here are real batches, by a real study_writer; a batch that was not answered is
committed again, as a coordinator does. Whatever happens to the server, every batch that was
answered must be there, once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.study import StudyDirection

from tests.support.postgres_proxy import Mode, Proxy
from tests.support.postgres_servers import PostgresServer, lend_programs, programs, small_disk
from tests.support.specs import make_spec
from tunesvc.db import study_records
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.engine.database import Database, connect, is_unavailable, open_database, parse_url
from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_changes import LaunchRecord, Report, StudyChanges
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Attr, Decision, NewTrial, TrialEnd
from tunesvc.errors import DatabaseError, DatabaseUnavailable
from tunesvc.web.live.sse import EventHub
from tunesvc.web.live.watcher import Watcher

_NUMBERS = count()
BOUNDED_S = 10.0
"""Longer than any of our timeouts on a busy machine, and much shorter than those of the network."""
BACKEND = PreparedStatement("SELECT pg_backend_pid()")
IS_READ_ONLY = PreparedStatement("SELECT current_setting('default_transaction_read_only')")


@pytest.fixture
def directory(tune_home: Path) -> Path:
    """An empty directory that the server's account may enter."""
    directory = tune_home / f"faults-{next(_NUMBERS)}"
    directory.mkdir()
    return directory


@pytest.fixture
def server(tune_home: Path, directory: Path) -> Iterator[PostgresServer]:
    """A server of the test's own, which syncs to disk."""
    server = PostgresServer.create(programs(tune_home), directory)
    yield server
    server.stop()


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    """A proxy in front of the session's server."""
    with Proxy.before(database_url) as proxy:
        yield proxy


class Load:
    """Commits one trial after another, each batch until it is answered, and keeps account of the
    answers."""

    def __init__(self, database: Database, *, payload: str = "") -> None:
        self._database = database
        self._payload = payload
        self._study_writer = _study_writer(database)
        self._answered_at: list[float] = []
        self.troubles: list[str] = []
        """Errors of failed tries, in order."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._failure: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure:
            raise self._failure

    @property
    def answered(self) -> int:
        """Number of answered batches; they were those of the first trials."""
        return len(self._answered_at)

    @property
    def goes_on(self) -> bool:
        """False after an error that a coordinator would not survive; leaving the context raises
        it."""
        return self._failure is None

    def recovery_s(self, since: float, batches: int = 10) -> float:
        """Wait for more batches to be answered; returns how long after `since` the first of them
        was."""
        known = self.answered
        wait_until(lambda: self.answered >= known + batches or not self.goes_on)
        return next(at for at in self._answered_at if at > since) - since

    def check(self, database: Database) -> None:
        """Every answered batch is there, once, and nothing else."""
        with database.engine.connect() as connection:
            decisions = Counter(connection.scalars(sa.text("SELECT trial_number FROM decisions")))
            trials = connection.scalars(sa.text("SELECT number FROM trials ORDER BY number")).all()
            reports = connection.scalars(sa.text("SELECT value FROM reports ORDER BY value")).all()
        assert trials == list(range(self.answered))
        assert decisions == dict.fromkeys(trials, 1)
        assert reports == [float(number) for number in trials[:-1]]

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._commit(self._batch(self.answered))
                self._answered_at.append(time.monotonic())
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            self._failure = error

    def _batch(self, number: int) -> StudyChanges:
        return StudyChanges(
            trials=[NewTrial(number, "running")],
            attrs=[Attr(number, "user", "payload", f'"{self._payload}"')],
            reports=[Report(number - 1, 1, 0, float(number - 1), {})],
            opened=[LaunchRecord(number, 1, 1.0, 0.0, -1, 60.0)],
            decisions=[Decision(number, "ask", "because", {})],
        )

    def _commit(self, batch: StudyChanges) -> None:
        deadline = time.monotonic() + 90
        while True:
            try:
                self._study_writer.commit(batch)
            except DatabaseUnavailable as error:
                self.troubles.append(str(error))
                if time.monotonic() > deadline:
                    raise
                self._database.ensure_running()
                time.sleep(0.02)
            else:
                return


def wait_until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def report_recovery(name: str, seconds: float) -> None:
    """Put a measurement where `pytest -s` shows it."""
    sys.stdout.write(f"\n{name}: {seconds:.2f} s\n")


def _study_writer(database: Database) -> StudyWriter:
    with database.engine.begin() as connection:
        record = study_records.create(connection, make_spec(), "name: test", "studies")
    return StudyWriter.open(database, record.study_id, ttl_s=600)


def _text(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def _commit_until_answered(study_writer: StudyWriter, batch: StudyChanges) -> list[str]:
    """Commit the same batch until it is answered; returns why it was not before."""
    troubles: list[str] = []
    while True:
        try:
            study_writer.commit(batch)
        except DatabaseUnavailable as error:
            troubles.append(str(error))
            assert len(troubles) < 100, troubles
            time.sleep(0.02)
        else:
            return troubles


# --- 3: Postgres crashes and restarts
# -------------------------------------------------------------------


def test_a_server_that_crashes_under_load_has_every_answered_batch_when_it_is_back(
    server: PostgresServer,
) -> None:
    """Fault 3."""
    with open_database(_text(server.url)) as database:
        with Load(database) as load:
            for _ in range(2):
                load.recovery_s(0.0)
                crashed = time.monotonic()
                server.stop("immediate")
                server.start()
                started = time.monotonic()
                report_recovery("after a crash's restart", load.recovery_s(started))
                report_recovery("that restart", started - crashed)
        load.check(database)
        assert load.troubles


@pytest.mark.parametrize("death", ["kill -9 of the server", "immediate shutdown"])
def test_an_embedded_server_that_dies_is_restarted_by_processes_that_use_it(
    tune_home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    """Fault 3, where no other process looks after the server."""
    with _embedded(tune_home, directory, monkeypatch) as database, open_database() as other:
        with Load(database) as load:
            load.recovery_s(0.0)
            _die(directory, death)
            revivals = [threading.Thread(target=other.ensure_running) for _ in range(4)]
            for revival in revivals:
                revival.start()
            report_recovery(f"embedded, {death}", load.recovery_s(time.monotonic()))
            for revival in revivals:
                revival.join()
        load.check(other)


def test_an_embedded_server_that_cannot_be_revived_says_why_and_no_wait_is_endless(
    tune_home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 3."""
    with _embedded(tune_home, directory, monkeypatch) as database:
        assert database.ensure_running() == ""
        _die(directory, "kill -9 of the server")
        control = directory / "postgres/data/global/pg_control"
        control.rename(control.with_name("hidden"))
        assert "pg_control" in database.ensure_running()
        control.with_name("hidden").rename(control)
        assert database.ensure_running() == ""


def test_a_dashboard_starts_an_embedded_server_that_stopped_under_it(
    tune_home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 3."""
    with _embedded(tune_home, directory, monkeypatch) as database:
        hub = EventHub()
        watcher = Watcher(database, hub)
        watcher.step(0)
        _die(directory, "kill -9 of the server")
        deadline = time.monotonic() + 30
        was_away = False
        while not was_away or hub.outage is not None:
            assert time.monotonic() < deadline
            watcher.step(0.1)
            was_away |= hub.outage is not None


@pytest.mark.slow
def test_a_frozen_embedded_server_is_waited_for_and_not_replaced(
    tune_home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 3: two servers on the same files would destroy them."""
    with _embedded(tune_home, directory, monkeypatch) as database:
        pid = _postmaster(directory)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert "lives but did not answer for 1 s" in EmbeddedServer.ensure_running(
                database._server, 1.0
            )  # type: ignore[arg-type]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert database.ensure_running() == ""
        assert _postmaster(directory) == pid


# --- 4: connections dropped
# ------------------------------------------------------------------------------


def test_connections_that_are_dropped_again_and_again_cost_no_batch(
    database: Database, database_url: str
) -> None:
    """Fault 4."""
    drop = sa.text("SELECT pg_terminate_backend(:pid)")
    others = sa.text("""SELECT pid FROM pg_stat_activity
                        WHERE datname = current_database() AND pid <> pg_backend_pid()""")
    with (
        connect(database_url) as killer,
        Load(database) as load,
        killer.engine.connect() as connection,
    ):
        while len(load.troubles) < 20 and load.goes_on:
            for pid in connection.scalars(others).all():
                connection.execute(drop, {"pid": pid})
            connection.commit()
        report_recovery("dropped", load.recovery_s(time.monotonic()))
    load.check(database)


# --- 5: half-open TCP
# ------------------------------------------------------------------------------------


@pytest.fixture
def hasty(proxy: Proxy, database_url: str) -> Iterator[Database]:
    """A database behind the proxy that waits for one second only."""
    url = sa.make_url(proxy.url(database_url)).update_query_dict({"connect_timeout": "2"})
    database = Database(url, answer_s=1.0)
    yield database
    proxy.mode = Mode.PASS
    database.close()


def _in_a_statement(connection: sa.Connection, proxy: Proxy, mode: Mode) -> None:
    proxy.mode = mode
    connection.execute(sa.text("SELECT 1"))


def _in_the_commit(connection: sa.Connection, proxy: Proxy, mode: Mode) -> None:
    connection.execute(sa.text("CREATE TABLE written (x int)"))
    proxy.mode = mode


def _in_the_rollback(connection: sa.Connection, proxy: Proxy, mode: Mode) -> None:
    connection.execute(sa.text("SELECT 1"))
    proxy.mode = mode
    raise KeyError("the transaction's own trouble")


@pytest.mark.parametrize("mode", [Mode.SWALLOW, Mode.SWALLOW_ANSWERS])
@pytest.mark.parametrize("moment", [_in_a_statement, _in_the_commit, _in_the_rollback])
def test_a_peer_that_falls_silent_is_left_in_bounded_time(
    hasty: Database, proxy: Proxy, moment: Callable[[sa.Connection, Proxy, Mode], None], mode: Mode
) -> None:
    """Fault 5."""
    with hasty.engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    began = time.monotonic()
    with (
        pytest.raises(sa.exc.OperationalError, match="no answer within 1 s") as error,
        hasty.engine.begin() as connection,
    ):
        moment(connection, proxy, mode)
    assert is_unavailable(error.value)
    assert 0.9 < time.monotonic() - began < BOUNDED_S
    proxy.mode = Mode.PASS
    with hasty.engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


@pytest.mark.parametrize("mode", [Mode.SWALLOW, Mode.SWALLOW_ANSWERS])
def test_a_short_statement_without_an_answer_is_given_up(
    hasty: Database, proxy: Proxy, mode: Mode
) -> None:
    """Fault 5."""
    assert hasty.autocommit.rows(BACKEND)
    proxy.mode = mode
    began = time.monotonic()
    with pytest.raises(sa.exc.OperationalError, match="no answer within 1 s") as error:
        hasty.autocommit.rows(BACKEND)
    assert is_unavailable(error.value)
    assert 0.9 < time.monotonic() - began < BOUNDED_S
    proxy.mode = Mode.PASS
    assert hasty.autocommit.rows(BACKEND)


def test_the_pools_ping_and_a_new_connection_are_bounded_too(hasty: Database, proxy: Proxy) -> None:
    """Fault 5: one second for the ping, two for a connection that is taken and never answered."""
    with hasty.engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    proxy.mode = Mode.SWALLOW
    began = time.monotonic()
    with (
        pytest.raises(sa.exc.OperationalError, match="timeout expired") as error,
        hasty.engine.begin(),
    ):
        pass
    assert is_unavailable(error.value)
    assert 2.5 < time.monotonic() - began < BOUNDED_S
    assert proxy.accepted == 2


def test_closing_does_not_wait_for_a_silent_peer(hasty: Database, proxy: Proxy) -> None:
    """Fault 5."""
    with hasty.engine.connect() as one, hasty.engine.connect() as two:
        assert one.scalar(sa.text("SELECT 1")) == two.scalar(sa.text("SELECT 1")) == 1
    proxy.mode = Mode.SWALLOW
    began = time.monotonic()
    hasty.close()
    assert time.monotonic() - began < BOUNDED_S
    wait_until(lambda: "tunesvc-watchdog" not in _thread_names(), within_s=BOUNDED_S)


def test_a_server_frozen_under_load_costs_no_batch(server: PostgresServer) -> None:
    """Fault 5, without a network: a server that is stopped in its tracks takes connections and
    does not answer."""
    open_database(_text(server.url)).close()
    with Database(server.url.update_query_dict({"connect_timeout": "2"}), answer_s=0.5) as database:
        with Load(database) as load:
            load.recovery_s(0.0)
            server.freeze()
            wait_until(lambda: len(load.troubles) > 1)
            server.thaw()
            report_recovery("frozen and thawed", load.recovery_s(time.monotonic()))
        load.check(database)


def test_work_that_rightly_takes_long_is_not_cut(hasty: Database) -> None:
    """Fault 5: migrations run patiently, and only they."""
    long = sa.text("SELECT pg_sleep(1.5)")
    with hasty.long_transaction() as connection:
        connection.execute(long)
    with (
        pytest.raises(sa.exc.OperationalError, match="no answer"),
        hasty.engine.begin() as connection,
    ):
        connection.execute(long)


def test_statements_of_many_threads_are_watched_apart(hasty: Database, proxy: Proxy) -> None:
    """Fault 5: the slow one is cut, the quick ones beside it are not."""
    cut = threading.Event()

    def wait() -> None:
        with suppress(sa.exc.OperationalError), hasty.engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_sleep(30)"))
        cut.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not cut.is_set():
        with hasty.engine.begin() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
    thread.join()


def test_a_connection_lost_while_it_lay_idle_is_replaced_and_costs_a_ping(
    hasty: Database, proxy: Proxy
) -> None:
    """Fault 5: a firewall forgets connections silently. Only a timeout can detect it."""
    study_writer = _study_writer(hasty)
    proxy.silence()
    began = time.monotonic()
    study_writer.commit(StudyChanges(trials=[NewTrial(0, "running")]))
    assert 0.9 < time.monotonic() - began < BOUNDED_S
    assert proxy.accepted == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_copy_is_watched_by_a_watchdog_of_its_own(hasty: Database) -> None:
    """Fault 5."""
    with hasty.engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    child = os.fork()
    if child == 0:
        began = time.monotonic()
        with suppress(sa.exc.OperationalError), hasty.engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_sleep(30)"))
        os._exit(0 if 0.9 < time.monotonic() - began < BOUNDED_S else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with hasty.engine.begin() as connection:  # the copy has left our connection alone
        assert connection.scalar(sa.text("SELECT 1")) == 1


# --- 6: the commit's answer is lost
# ----------------------------------------------------------------------


def test_a_batch_whose_answer_was_lost_is_there_once(
    proxy: Proxy, database: Database, database_url: str
) -> None:
    """Fault 6."""
    with Database(parse_url(proxy.url(database_url))) as behind, Load(behind) as load:
        for lost in range(1, 6):
            proxy.lose_next_commit()
            wait_until(lambda lost=lost: proxy.answers_lost == lost)  # type: ignore[misc]
        report_recovery("answer lost", load.recovery_s(time.monotonic()))
    assert len(load.troubles) == 5
    load.check(database)


# --- 7: failover
# -----------------------------------------------------------------------------------------


def test_after_a_failover_the_new_primary_is_found_and_has_every_answered_batch(
    tune_home: Path, server: PostgresServer
) -> None:
    """Fault 7: both servers are named in the URL, and commits wait for the standby."""
    place = tune_home / f"faults-{next(_NUMBERS)}"
    place.mkdir()
    standby = server.standby(place)
    try:
        hosts = f"127.0.0.1:{server.port},127.0.0.1:{standby.port}"
        url = _text(server.url).replace(f"127.0.0.1:{server.port}", hosts)
        with pytest.raises(DatabaseError, match="read-only|hot standby"):
            open_database(_text(standby.url))
        with open_database(url) as database:
            with Load(database) as load:
                load.recovery_s(0.0)
                lost = time.monotonic()
                server.stop("immediate")
                standby.promote()
                report_recovery("failover, from the loss of the primary", load.recovery_s(lost))
            with connect(_text(standby.url)) as promoted:
                load.check(promoted)
    finally:
        standby.stop()


def test_a_primary_that_becomes_read_only_under_us_is_left_with_all_its_connections(
    server: PostgresServer,
) -> None:
    """Fault 7: a demoted primary answers everything that reads, so only a write shows it."""
    with open_database(_text(server.url)) as database:
        study_writer = _study_writer(database)
        with database.engine.connect() as one, database.engine.connect() as two:
            before = {_backend(one), _backend(two)}
        batch = StudyChanges(trials=[NewTrial(0, "running")])
        _set_read_only(server, "on")
        wait_until(lambda: _are_read_only(database, before))
        with pytest.raises(DatabaseUnavailable, match="takes no writes"):
            study_writer.commit(batch)
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            study_writer.commit(batch)
        _set_read_only(server, "off")
        _commit_until_answered(study_writer, batch)
        with database.engine.connect() as connection:
            assert _backend(connection) not in before


def test_a_storage_leaves_a_primary_that_became_read_only(server: PostgresServer) -> None:
    """Fault 7."""
    with open_database(_text(server.url)) as database:
        storage = PgStorage(database)
        study = storage.create_new_study([StudyDirection.MINIMIZE])
        before = database.autocommit.rows(BACKEND)
        _set_read_only(server, "on")
        wait_until(lambda: database.autocommit.rows(IS_READ_ONLY) == [("on",)])
        assert database.autocommit.rows(BACKEND) == before
        with pytest.raises(sa.exc.DBAPIError) as error:
            storage.create_new_trial(study)
        assert is_unavailable(error.value)
        _set_read_only(server, "off")
        wait_until(lambda: database.autocommit.rows(IS_READ_ONLY) == [("off",)])
        assert database.autocommit.rows(BACKEND) != before
        storage.create_new_trial(study)


# --- 8: disk full
# ----------------------------------------------------------------------------------------


def test_a_full_disk_is_reported_and_the_same_batch_is_committed_when_there_is_room(
    tune_home: Path, directory: Path
) -> None:
    """Fault 8: the tables have no room, the server itself goes on."""
    tables = directory / "tables"
    tables.mkdir()
    with (
        small_disk(tables, 4),
        _running(PostgresServer.create(programs(tune_home), directory)) as server,
    ):
        database = open_database(_text(server.url))
        _move_to(server, tables / "space", "trial_attrs")
        with Load(database, payload="x" * 1900) as load:
            load.recovery_s(0.0)
            _fill(tables / "filler")
            wait_until(lambda: bool(load.troubles))
            answered = load.answered
            wait_until(lambda: len(load.troubles) > 3)
            assert load.answered == answered
            (tables / "filler").unlink()
            report_recovery("room again", load.recovery_s(time.monotonic()))
        assert all("disk is full" in trouble for trouble in load.troubles)
        load.check(database)
        database.close()


def test_an_embedded_server_that_died_of_a_full_disk_is_back_when_there_is_room(
    tune_home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 8: without room for its log of writes a server dies, and cannot start again before
    there is some."""
    with small_disk(directory, 200), _embedded(tune_home, directory, monkeypatch) as database:
        filler = directory / "filler"
        with Load(database) as load, open_database() as other:
            load.recovery_s(0.0)
            _fill(filler)
            wait_until(
                lambda: (
                    _next_log_file(other)
                    and any("disk is full" not in each for each in load.troubles)
                )
            )
            answered, tries = load.answered, len(load.troubles)
            wait_until(lambda: len(load.troubles) > tries + 3)
            assert load.answered == answered
            assert "No space left" in database.ensure_running()
            filler.unlink()
            report_recovery("room again", load.recovery_s(time.monotonic()))
        sys.stdout.write("\n".join(dict.fromkeys(load.troubles)))
        load.check(database)


# --- 9: deadlock, serialization failure
# ------------------------------------------------------------------


def test_of_two_deadlocked_transactions_ours_is_retried(
    database: Database, database_url: str
) -> None:
    """Fault 9: the study writer holds its lease and waits for a trial, the rival the other way
    round."""
    study_writer = _study_writer(database)
    study_writer.commit(StudyChanges(trials=[NewTrial(0, "running")]))
    with connect(database_url) as other, other.engine.connect() as rival:
        rival.execute(sa.text("SET LOCAL deadlock_timeout = '60s'"))  # so that the server ends ours
        rival.execute(sa.text("SELECT number FROM trials FOR UPDATE"))
        finish = _Committing(study_writer, StudyChanges(finished=[TrialEnd(0, "complete", [0.5])]))
        wait_until(lambda: _waiting_for_locks(other) == 1)
        rival.execute(sa.text("SELECT token FROM leases FOR UPDATE"))
        rival.rollback()
        assert "waited for each other" in finish.troubles()[0]
    with database.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT state FROM trials")) == "complete"


def test_a_serialization_failure_is_retried(database_url: str) -> None:
    """Fault 9: under an isolation level that an administrator may have set."""
    options = {"options": "-c default_transaction_isolation=serializable"}
    with (
        Database(sa.make_url(database_url).update_query_dict(options)) as strict,
        connect(database_url) as other,
    ):
        study_writer = _study_writer(strict)
        with other.engine.connect() as rival:
            rival.execute(sa.text("UPDATE leases SET owner = owner"))
            commit = _Committing(study_writer, StudyChanges(trials=[NewTrial(0, "running")]))
            wait_until(lambda: _waiting_for_locks(other) == 1)
            rival.commit()
            assert "crossed another one" in commit.troubles()[0]


# --- 12: frozen within a transaction
# ---------------------------------------------------------------------


_FROZEN_IN_A_TRANSACTION = """
import os, signal, sys
import sqlalchemy as sa
from tunesvc.db.engine.database import connect
with connect(sys.argv[1]) as database, database.engine.begin() as connection:
    connection.execute(sa.text("UPDATE leases SET batch = batch + 1"))
    os.kill(os.getpid(), signal.SIGSTOP)
    connection.execute(sa.text("UPDATE leases SET batch = batch + 1"))
"""


def test_a_coordinator_frozen_within_a_transaction_does_not_keep_its_locks(
    database: Database, database_url: str
) -> None:
    """Fault 12: the server ends a transaction that stands still; ours for good measure after one
    second."""
    study_writer = _study_writer(database)
    options = {"options": "-c idle_in_transaction_session_timeout=1s"}
    url = _text(sa.make_url(database_url).update_query_dict(options))
    frozen = subprocess.Popen(
        [sys.executable, "-c", _FROZEN_IN_A_TRANSACTION, url], stderr=subprocess.PIPE, text=True
    )
    try:
        os.waitpid(frozen.pid, os.WUNTRACED)
        began = time.monotonic()
        study_writer.commit(StudyChanges(trials=[NewTrial(0, "running")]))
        assert time.monotonic() - began < BOUNDED_S
        frozen.send_signal(signal.SIGCONT)
        _, said = frozen.communicate()
        assert "OperationalError" in said
    finally:
        frozen.kill()
        frozen.wait()


def test_our_own_transactions_may_stand_still_for_a_while(database: Database) -> None:
    """Fault 12: for less long than others wait for an answer."""
    with database.engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW idle_in_transaction_session_timeout")) == "15s"


# --- helpers
# ---------------------------------------------------------------------------------------------


class _Committing:
    """A commit in a thread of its own, tried until it is answered."""

    def __init__(self, study_writer: StudyWriter, batch: StudyChanges) -> None:
        self._troubles: list[str] = []
        self._thread = threading.Thread(
            target=lambda: self._troubles.extend(_commit_until_answered(study_writer, batch))
        )
        self._thread.start()

    def troubles(self) -> list[str]:
        """Errors of the tries before the one that was answered."""
        self._thread.join()
        return self._troubles


@contextmanager
def _embedded(
    tune_home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """An embedded server in `directory`, with the programs that the session's server uses."""
    lend_programs(tune_home, directory)
    monkeypatch.setenv("TUNE_HOME", str(directory))
    monkeypatch.delenv("TUNE_DATABASE_URL", raising=False)
    with open_database() as database:
        yield database


def _postmaster(home: Path) -> int:
    return int((home / "postgres/data/postmaster.pid").read_text().split()[0])


def _die(home: Path, death: str) -> None:
    os.kill(_postmaster(home), signal.SIGKILL if death.startswith("kill") else signal.SIGQUIT)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while filler.write(b"x" * size):
                    pass


def _next_log_file(database: Database) -> bool:
    """Let the server begin a new file of its log of writes, as it does every 16 MB. Always true."""
    with suppress(sa.exc.DBAPIError), database.engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_switch_wal()"))
    return True


@contextmanager
def _running(server: PostgresServer) -> Iterator[PostgresServer]:
    try:
        yield server
    finally:
        server.stop()


def _move_to(server: PostgresServer, directory: Path, table: str) -> None:
    server.take_over(directory)
    server.execute(f"CREATE TABLESPACE small LOCATION '{directory}'")
    server.execute(f"ALTER TABLE {table} SET TABLESPACE small")


def _set_read_only(server: PostgresServer, value: str) -> None:
    """In all sessions, those that are open too."""
    server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    server.execute("SELECT pg_reload_conf()")


def _are_read_only(database: Database, backends: set[int]) -> bool:
    """Return whether all idle connections of the pool are read-only: a server re-reads its
    settings in its own time."""
    with database.engine.connect() as one, database.engine.connect() as two:
        heard = {_backend(one): _is_read_only(one), _backend(two): _is_read_only(two)}
    assert heard.keys() == backends
    return all(heard.values())


def _backend(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)


def _is_read_only(connection: sa.Connection) -> bool:
    return bool(connection.scalar(sa.text("SHOW default_transaction_read_only")) == "on")


def _waiting_for_locks(database: Database) -> int:
    with database.engine.connect() as connection:
        waiting = """SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        return int(connection.scalar(sa.text(waiting)) or 0)


def _thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}
