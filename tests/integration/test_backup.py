"""Backups: complete or absent, restored at once or not at all, and never over existing studies by
accident."""

from __future__ import annotations

import stat
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from tunesvc.db.backup import backup, restore, status
from tunesvc.db.engine.database import Database, connect
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema import migrations
from tunesvc.errors import DatabaseError, SchemaVersionError, StudyBusy


@pytest.fixture
def filled(database: Database) -> Database:
    study = optuna.create_study(storage=PgStorage(database), study_name="kept")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return database


def test_a_study_comes_back_from_a_backup_as_it_was(
    filled: Database, empty_url: str, tmp_path: Path
) -> None:
    backup(filled, tmp_path / "b.dump")
    with connect(empty_url) as other:
        restore(other, tmp_path / "b.dump")
        ours, theirs = (
            optuna.load_study(study_name="kept", storage=PgStorage(d)) for d in (filled, other)
        )
        assert ours.trials == theirs.trials
        theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        assert [trial.number for trial in theirs.trials] == [0, 1, 2, 3]


def test_a_backup_is_one_private_file(filled: Database, tmp_path: Path) -> None:
    backup(filled, tmp_path / "b.dump")
    backup(filled, tmp_path / "b.dump")
    assert [path.name for path in tmp_path.iterdir()] == ["b.dump"]
    assert stat.S_IMODE((tmp_path / "b.dump").stat().st_mode) == 0o600


def test_a_backup_that_fails_leaves_the_older_one(filled: Database, tmp_path: Path) -> None:
    path = tmp_path / "b.dump"
    path.write_text("yesterday's")
    with filled.engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE reader LOGIN PASSWORD 'x'"))
    try:
        url = (
            sa.make_url(filled.url)
            .set(username="reader", password="x")
            .render_as_string(hide_password=False)
        )
        with (
            connect(url) as unprivileged,
            pytest.raises(DatabaseError, match=r"pg_dump failed.*permission denied"),
        ):
            backup(unprivileged, path)
    finally:
        with filled.engine.begin() as connection:
            connection.execute(sa.text("DROP ROLE reader"))
    assert path.read_text() == "yesterday's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_backup_into_no_directory_names_the_path(filled: Database, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"nowhere/b\.dump cannot be written: No such file"):
        backup(filled, tmp_path / "nowhere" / "b.dump")


def test_studies_are_not_overwritten_unless_asked_for(filled: Database, tmp_path: Path) -> None:
    backup(filled, tmp_path / "b.dump")
    optuna.create_study(storage=PgStorage(filled), study_name="later")
    with pytest.raises(DatabaseError, match=r"holds 2 studies.*--replace"):
        restore(filled, tmp_path / "b.dump")
    restore(filled, tmp_path / "b.dump", replace=True)
    assert optuna.get_all_study_names(PgStorage(filled)) == ["kept"]


def test_a_running_study_is_not_replaced(filled: Database, tmp_path: Path) -> None:
    backup(filled, tmp_path / "b.dump")
    with filled.engine.begin() as connection:
        connection.execute(
            sa.text(
                """INSERT INTO leases (study_id, owner, token, batch, expires_at)
                   SELECT study_id, 'someone', 1, 0, now() + interval '1 hour' FROM studies"""
            )
        )
    with pytest.raises(StudyBusy, match="being run"):
        restore(filled, tmp_path / "b.dump", replace=True)


@pytest.mark.parametrize("missing_bytes", [1, 200, 20_000])
def test_a_backup_that_lost_its_end_changes_nothing(
    filled: Database, tmp_path: Path, missing_bytes: int
) -> None:
    path = tmp_path / "b.dump"
    backup(filled, path)
    path.write_bytes(path.read_bytes()[:-missing_bytes])
    with pytest.raises(DatabaseError, match="pg_restore"):
        restore(filled, path, replace=True)
    assert status(filled).trials == 3


@pytest.mark.parametrize("content", [b"", b"not a dump at all"])
def test_a_file_that_is_no_backup_is_refused(
    database: Database, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "b.dump").write_bytes(content)
    with pytest.raises(DatabaseError, match="pg_restore failed|no backup"):
        restore(database, tmp_path / "b.dump")


def test_a_backup_of_another_program_is_refused(
    database: Database, empty_url: str, tmp_path: Path
) -> None:
    with connect(empty_url) as other:
        backup(other, tmp_path / "b.dump")
    with pytest.raises(DatabaseError, match="no backup of a tunesvc database"):
        restore(database, tmp_path / "b.dump")


def test_a_backup_of_a_newer_program_is_refused(filled: Database, tmp_path: Path) -> None:
    with filled.engine.begin() as connection:
        connection.execute(sa.text("UPDATE tunesvc_version SET version_num = '9999'"))
    backup(filled, tmp_path / "b.dump")
    with pytest.raises(SchemaVersionError, match="9999, newer than this program's"):
        restore(filled, tmp_path / "b.dump", replace=True)


def test_an_older_backup_replaces_a_database_with_later_tables(
    database: Database, empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later tables went away, so that the upgrade can make them."""
    upgrade_revisions = ScriptDirectory._upgrade_revs
    with connect(empty_url) as older, older.engine.begin() as connection:
        with monkeypatch.context() as earlier_program:
            earlier_program.setattr(
                ScriptDirectory,
                "_upgrade_revs",
                lambda scripts, _, revision: upgrade_revisions(scripts, "0006", revision),
            )
            migrations.upgrade(connection)
        assert "nodes" not in sa.inspect(connection).get_table_names()
    with connect(empty_url) as older:
        backup(older, tmp_path / "older.dump")
    restore(database, tmp_path / "older.dump", replace=True)
    with database.engine.connect() as connection:
        assert migrations.database_revision(connection) == migrations.program_revision()
        assert "nodes" in sa.inspect(connection).get_table_names()


def test_the_status_tells_what_is_there(filled: Database) -> None:
    now = status(filled)
    assert (now.studies, now.trials, now.running) == (1, 3, 0)
    assert now.revision == now.program_revision == migrations.program_revision()
    assert now.server_version.startswith("18.")
    assert now.size_bytes > 1_000_000
    assert str(filled.engine.url.password) not in now.name


def test_the_status_of_an_empty_database_has_no_revision(empty_url: str) -> None:
    with connect(empty_url) as database:
        assert status(database).revision is None
