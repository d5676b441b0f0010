"""The database's password from a file, as containers get it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tunesvc.db.engine.database import connect
from tunesvc.errors import DatabaseError


@pytest.fixture
def url_without_password(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    url = sa.make_url(database_url)
    (tmp_path / "password").write_text(f"{url.password}\n")
    monkeypatch.setenv("TUNE_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    return sa.URL.create(
        url.drivername,
        username=url.username,
        host=url.host,
        port=url.port,
        database=url.database,
        query=url.query,
    ).render_as_string()


def test_a_url_without_password_takes_it_from_the_file(url_without_password: str) -> None:
    with connect(url_without_password) as database, database.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_password_in_the_url_goes_before_the_file(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNE_DATABASE_PASSWORD_FILE", str(tmp_path / "there is none"))
    connect(database_url).close()


def test_a_password_file_that_cannot_be_read_is_named(
    url_without_password: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNE_DATABASE_PASSWORD_FILE", str(tmp_path / "missing"))
    with pytest.raises(DatabaseError, match=r"TUNE_DATABASE_PASSWORD_FILE names .*missing"):
        connect(url_without_password)
