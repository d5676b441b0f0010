"""Opening a database: which server, which URL, which version, and what the errors say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.db.engine.database import (
    Database,
    checked_name,
    connect,
    is_unavailable,
    masked,
    open_database,
    parse_url,
    reason_of,
)
from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.errors import BadName, DatabaseError
from tunesvc.util.characters import storable


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_usual_spelling_of_a_postgres_url_is_accepted(database_url: str, scheme: str) -> None:
    with (
        open_database(database_url.replace("postgresql+psycopg2", scheme)) as database,
        database.engine.connect() as c,
    ):
        assert c.scalar(sa.text("SELECT 1")) == 1


def test_the_environment_names_the_server(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_DATABASE_URL", database_url)
    with open_database() as database:
        assert database.url == database_url
        assert not database.is_embedded


@pytest.mark.parametrize(
    "url", ["sqlite:///study.db", "mysql://u:secret@host/db", "postgresql+asyncpg://u:secret@h/d"]
)
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


def test_an_encoding_that_cannot_hold_every_name_is_refused(
    database: Database, database_url: str
) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            sa.text("CREATE DATABASE narrow ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
        )
        url = sa.make_url(database_url).set(database="narrow").render_as_string(hide_password=False)
        with pytest.raises(DatabaseError, match=r"SQL_ASCII.*ENCODING 'UTF8'"):
            connect(url)
        connection.execute(sa.text("DROP DATABASE narrow WITH (FORCE)"))


def test_times_come_back_in_utc_under_our_name(database: Database) -> None:
    with database.engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW timezone")) == "UTC"
        assert connection.scalar(sa.text("SHOW application_name")) == "tunesvc"


def _ask(database: Database) -> int:
    with database.engine.connect() as connection:
        return int(connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)


def _ask_shortly(database: Database) -> int:
    return int(database.autocommit.rows(PreparedStatement("SELECT pg_backend_pid()"))[0][0])


@pytest.mark.parametrize("ask", [_ask, _ask_shortly])
def test_a_connection_that_the_server_cut_is_replaced(
    database: Database, database_url: str, ask: Callable[[Database], int]
) -> None:
    pid = ask(database)
    with connect(database_url) as other, other.engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    assert ask(database) != pid


def test_a_short_statement_fails_as_any_other_does(database: Database) -> None:
    with pytest.raises(sa.exc.DataError, match="division by zero") as error:
        database.autocommit.rows(PreparedStatement("SELECT 1 / CAST(%(by)s AS bigint)"), by=0)
    assert not is_unavailable(error.value)
    with pytest.raises(sa.exc.OperationalError) as error:
        database.autocommit.rows(PreparedStatement("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert is_unavailable(error.value)
    assert _ask_shortly(database)


def test_a_read_only_server_is_refused(database: Database, database_url: str) -> None:
    with database.engine.begin() as connection:
        name = connection.scalar(sa.text("SELECT current_database()"))
        connection.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    with pytest.raises(DatabaseError, match="read-only"):
        open_database(database_url)


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://u:p@one:5433,two:5434/db?sslmode=require", "one,two", "5433,5434"),
        ("postgres://u:p@one,two:5434/db", "one,two", ",5434"),
        ("postgresql+psycopg2://one,two", "one,two", ","),
        ("postgresql://u:p,q@[::1]:5433,[::2]:5434/db", "::1,::2", "5433,5434"),
        ("postgresql://u:p@/db?host=one,two&port=5433,5434", "one,two", "5433,5434"),
    ],
)
def test_several_hosts_are_accepted_as_libpq_writes_them(url: str, hosts: str, ports: str) -> None:
    parsed = parse_url(url)
    _, arguments = sa.create_engine(parsed).dialect.create_connect_args(parsed)
    assert (arguments["host"], arguments["port"]) == (hosts, ports)
    assert parse_url(parsed.render_as_string(hide_password=False)) == parsed


def test_a_password_with_a_comma_is_not_taken_for_several_hosts() -> None:
    assert parse_url("postgresql://user:p,q@host/db").password == "p,q"


def test_the_first_host_that_answers_is_used(database_url: str) -> None:
    url = sa.make_url(database_url)
    hosts = {"host": f"127.0.0.1,{url.query['host']}", "port": f"1,{url.query['port']}"}
    text = url.update_query_dict(hosts).render_as_string(hide_password=False)
    with connect(text) as database, database.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


@pytest.mark.parametrize(
    "code",
    [
        "08006",
        "25006",
        "40001",
        "40P01",
        "53100",
        "53200",
        "53300",
        "55P03",
        "57014",
        "57P01",
        "57P03",
        "58030",
    ],
)
def test_a_temporary_problem_is_recognised_and_has_a_reason(database: Database, code: str) -> None:
    error = _raised(database, code)
    assert is_unavailable(error)
    assert "on purpose" in reason_of(error)
    assert "DO" not in reason_of(error)


@pytest.mark.parametrize(
    "code", ["22012", "23505", "23503", "42601", "42501", "42P01", "XX000", "XX001", "P0001"]
)
def test_a_mistake_is_not_retried(database: Database, code: str) -> None:
    assert not is_unavailable(_raised(database, code))
    assert not is_unavailable(ValueError("on purpose"))


def test_a_reason_is_one_line_without_the_drivers_advice() -> None:
    database = Database(parse_url("postgresql://user:secret@127.0.0.1:1,127.0.0.1:2/tune"))
    with database, pytest.raises(sa.exc.OperationalError) as error:
        database.engine.connect()
    first, second = reason_of(error.value).split("; ")
    assert first == 'connection to server at "127.0.0.1", port 1 failed: Connection refused'
    assert second == 'connection to server at "127.0.0.1", port 2 failed: Connection refused'


def test_a_pool_that_is_used_up_may_have_room_later(database: Database) -> None:
    engine = sa.create_engine(database.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(sa.exc.TimeoutError) as error:
        engine.connect()
    engine.dispose()
    assert is_unavailable(error.value)


def _raised(database: Database, code: str) -> BaseException:
    """The driver's own error for a SQLSTATE, from the server."""
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$"
    with pytest.raises(sa.exc.DBAPIError) as error, database.engine.begin() as connection:
        connection.execute(sa.text(statement))
    return error.value


def test_closing_twice_is_fine(database_url: str) -> None:
    database = open_database(database_url)
    database.close()
    database.close()


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00")))
def test_text_that_can_be_stored_is_kept_as_it_is(text: str) -> None:
    assert storable(text) == text
    assert checked_name(text, "the name") == text


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_a_name_that_cannot_be_stored_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(
        BadName, match=r"the study's name .* cannot be stored: it holds a NUL"
    ) as error:
        checked_name(text, "the study's name")
    assert isinstance(error.value, ValueError)


def test_a_name_too_long_for_an_index_is_refused_with_its_length() -> None:
    assert checked_name("\N{SNAKE}" * 600, "the study's name")
    with pytest.raises(BadName, match="has 2504 bytes; at most 2500"):
        checked_name("\N{SNAKE}" * 626, "the study's name")
