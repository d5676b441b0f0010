"""Migrations: they lead to the schema that the code describes, all at once or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tunesvc.db.engine.database import connect, open_database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema import migrations
from tunesvc.db.schema.migrations import VERSION_TABLE
from tunesvc.db.schema.tables import metadata
from tunesvc.errors import DatabaseError, SchemaVersionError


def test_a_migrated_schema_is_what_the_tables_say(database_url: str) -> None:
    with (
        open_database(database_url, migrate=False) as database,
        database.engine.connect() as connection,
    ):
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_a_migrated_schema_equals_a_fresh_one_down_to_constraints(
    database_url: str, empty_url: str
) -> None:
    with connect(empty_url) as fresh:
        metadata.create_all(fresh.engine)
        expected = _catalogue(fresh.engine)
    with connect(database_url) as migrated:
        assert _catalogue(migrated.engine) == expected


def test_opening_an_empty_database_sets_it_up(empty_url: str) -> None:
    with open_database(empty_url) as database, database.engine.connect() as connection:
        assert migrations.database_revision(connection) == migrations.program_revision()


def test_opening_without_migrating_asks_for_an_upgrade(empty_url: str) -> None:
    with pytest.raises(SchemaVersionError, match=r"revision none.*needs 0\d+.*tune db upgrade"):
        open_database(empty_url, migrate=False)


@pytest.mark.parametrize("migrate", [True, False])
def test_a_newer_schema_is_refused_naming_both_versions(database_url: str, migrate: bool) -> None:
    """Fault 10."""
    with connect(database_url) as database, database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE tunesvc_version SET version_num = '9999'"))
    with pytest.raises(
        SchemaVersionError,
        match=rf"9999, newer than this program's {migrations.program_revision()}",
    ):
        open_database(database_url, migrate=migrate)


def test_another_programs_tables_are_left_alone(empty_url: str) -> None:
    with connect(empty_url) as database:
        with database.engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE trials (mine text)"))
        with pytest.raises(
            DatabaseError, match=r"tables of another program \(trials\).*TUNE_DATABASE_URL"
        ):
            open_database(empty_url)
        assert sa.inspect(database.engine).get_table_names() == ["trials"]


def test_processes_that_start_together_set_up_the_schema_once(empty_url: str) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            open_database(empty_url).close()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


_KILLED_MIDWAY = """
import os, signal, sys
import sqlalchemy as sa
from tunesvc.db.schema import migrations
from tunesvc.db.engine.database import connect
with connect(sys.argv[1]) as database:
    @sa.event.listens_for(database.engine, "after_cursor_execute")
    def kill(connection, cursor, statement, *_):
        if "CREATE TABLE trials" in statement:
            os.kill(os.getpid(), signal.SIGKILL)
    with database.engine.begin() as connection:
        migrations.upgrade(connection)
"""


def test_a_migration_killed_midway_leaves_nothing_and_can_be_repeated(empty_url: str) -> None:
    """Fault 10."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_MIDWAY, empty_url], env={**os.environ}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with connect(empty_url) as database:
        assert sa.inspect(database.engine).get_table_names() == []
    with open_database(empty_url) as database:
        assert "trials" in sa.inspect(database.engine).get_table_names()


def _catalogue(engine: sa.Engine) -> list[tuple[object, ...]]:
    """Columns, constraints and indexes, as Postgres itself describes them."""
    queries = [
        """SELECT table_name, column_name, data_type, is_nullable, column_default, identity_generation
           FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> :skip""",
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
           WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> :skip""",
        """SELECT tablename, indexname, indexdef FROM pg_indexes
           WHERE schemaname = 'public' AND tablename <> :skip""",
    ]
    with engine.connect() as connection:
        rows = [
            connection.execute(sa.text(query), {"skip": VERSION_TABLE}).all() for query in queries
        ]
    return sorted((tuple(row) for part in rows for row in part), key=repr)


def _set_back(connection: sa.Connection, revision: str) -> None:
    """Give a database the schema that it had at revision 0008 and later, before heartbeats."""
    connection.execute(sa.text("ALTER TABLE trials DROP COLUMN heartbeat_at"))
    connection.execute(sa.text("ALTER TABLE attempts DROP COLUMN bundle_nodes"))
    for table in (
        "watches",
        "champion_deliveries",
        "champions",
        "logged_trials",
        "loggers",
        "deliveries",
        "alerts",
        "alert_targets",
        "agent_events",
        "agent_launches",
        "agent_jobs",
        "agents",
    ):
        connection.execute(sa.text(f"DROP TABLE {table}"))
    connection.execute(sa.text("ALTER TABLE studies DROP COLUMN project_id"))
    connection.execute(sa.text("DROP INDEX ix_studies_unfinished"))
    connection.execute(
        sa.text("DROP TABLE answers, audit, submissions, snapshots, tokens, members")
    )
    connection.execute(sa.text("DROP TABLE projects, users"))
    connection.execute(
        sa.text("UPDATE tunesvc_version SET version_num = :revision"), {"revision": revision}
    )


def test_stored_steps_become_the_values_that_people_write(database_url: str) -> None:
    """Case S1: earlier versions stored what samplers had computed in binary."""
    stepped = distribution_to_json(FloatDistribution(0.1, 0.5, step=0.1))
    smooth = distribution_to_json(FloatDistribution(0.1, 0.5))
    stored = {"x": (0.1 + 2 * 0.1, stepped), "off": (0.34, stepped), "y": (0.1 + 2 * 0.1, smooth)}
    with open_database(database_url) as database:
        storage = PgStorage(database)
        trial = storage.create_new_trial(storage.create_new_study([StudyDirection.MINIMIZE], "old"))
        with database.engine.begin() as connection:
            for position, (name, (value, distribution)) in enumerate(stored.items()):
                row = {
                    "id": trial,
                    "name": name,
                    "at": position,
                    "value": value,
                    "of": distribution,
                }
                connection.execute(
                    sa.text("INSERT INTO trial_params VALUES (:id, :name, :at, :value, :of)"), row
                )
            _set_back(connection, "0008")
    with open_database(database_url) as database:
        params = PgStorage(database).get_trial(trial).params
    assert params == {"x": 0.3, "off": 0.34, "y": 0.30000000000000004}


def test_a_failed_trial_that_was_stored_with_its_nan_loses_it(database_url: str) -> None:
    """Case P3."""
    with open_database(database_url) as database:
        storage = PgStorage(database)
        study = storage.create_new_study([StudyDirection.MINIMIZE], "old")
        trials = [storage.create_new_trial(study) for _ in range(2)]
        storage.set_trial_state_values(trials[0], TrialState.FAIL, [float("nan")])
        storage.set_trial_state_values(trials[1], TrialState.COMPLETE, [0.5])
        with database.engine.begin() as connection:
            _set_back(connection, "0009")
    with open_database(database_url) as database:
        assert [PgStorage(database).get_trial(trial).values for trial in trials] == [None, [0.5]]
