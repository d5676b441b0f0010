"""Opening a database: which server, which URL, which version, and what the errors say."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.errors import BadName, DatabaseError
from tunesvc.store.database import Database, checked_name, connect, masked, open_database, parse_url, safe_text


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_usual_spelling_of_a_postgres_url_is_accepted(database_url: str, scheme: str) -> None:
    with (
        open_database(database_url.replace("postgresql+psycopg2", scheme)) as database,
        database.engine.connect() as c,
    ):
        assert c.scalar(sa.text("SELECT 1")) == 1


def test_the_environment_names_the_server(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_DATABASE_URL", database_url)
    with open_database() as database:
        assert database.url == database_url
        assert not database.is_embedded


@pytest.mark.parametrize("url", ["sqlite:///study.db", "mysql://u:secret@host/db", "postgresql+asyncpg://u:secret@h/d"])
def test_another_kind_of_database_is_refused_with_the_right_spelling(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"Postgres only.*write postgresql://") as error:
        open_database(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["", "nonsense secret", "postgresql://u:secret@host:port/db"])
def test_an_unreadable_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(DatabaseError, match="cannot be read") as error:
        parse_url(url)
    assert "secret" not in str(error.value)


def test_a_wrong_password_is_named_as_the_cause_but_never_shown(database_url: str) -> None:
    url = sa.make_url(database_url).set(password="hunter2-is-wrong")
    with pytest.raises(DatabaseError, match="password authentication failed") as error:
        open_database(url.render_as_string(hide_password=False))
    assert "hunter2" not in str(error.value)


def test_a_server_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1.*cannot be reached.*refused"):
        open_database("postgresql://user:secret@127.0.0.1:1/tune")


def test_a_password_among_the_parameters_is_masked() -> None:
    shown = masked(parse_url("postgresql://user@host/db?password=secret&sslmode=require"))
    assert "secret" not in shown
    assert "sslmode=require" in shown


def test_an_encoding_that_cannot_hold_every_name_is_refused(database: Database, database_url: str) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE DATABASE narrow ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'"))
        url = sa.make_url(database_url).set(database="narrow").render_as_string(hide_password=False)
        with pytest.raises(DatabaseError, match=r"SQL_ASCII.*ENCODING 'UTF8'"):
            connect(url)
        connection.execute(sa.text("DROP DATABASE narrow WITH (FORCE)"))


def test_times_come_back_in_utc_under_our_name(database: Database) -> None:
    with database.engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW timezone")) == "UTC"
        assert connection.scalar(sa.text("SHOW application_name")) == "tunesvc"


def test_a_connection_that_the_server_cut_is_replaced(database: Database, database_url: str) -> None:
    with database.engine.connect() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    with connect(database_url) as other, other.engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with database.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) != pid


def test_a_read_only_server_is_refused(database: Database, database_url: str) -> None:
    with database.engine.begin() as connection:
        name = connection.scalar(sa.text("SELECT current_database()"))
        connection.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    with pytest.raises(DatabaseError, match="read-only"):
        open_database(database_url)


def test_closing_twice_is_fine(database_url: str) -> None:
    database = open_database(database_url)
    database.close()
    database.close()


@given(st.text(alphabet=st.characters(codec=None)))
def test_safe_text_can_always_be_encoded_and_holds_no_nul(text: str) -> None:
    safe = safe_text(text)
    assert "\x00" not in safe.encode().decode()
    assert safe_text(safe) == safe


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00")))
def test_text_that_can_be_stored_is_kept_as_it_is(text: str) -> None:
    assert safe_text(text) == text
    assert checked_name(text, "the name") == text


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_a_name_that_cannot_be_stored_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(BadName, match=r"the study's name .* cannot be stored: it holds a NUL") as error:
        checked_name(text, "the study's name")
    assert isinstance(error.value, ValueError)


def test_a_name_too_long_for_an_index_is_refused_with_its_length() -> None:
    assert checked_name("\N{SNAKE}" * 600, "the study's name")
    with pytest.raises(BadName, match="has 2504 bytes; at most 2500"):
        checked_name("\N{SNAKE}" * 626, "the study's name")
