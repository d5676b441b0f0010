"""Users, projects and tokens in the database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.people.accounts import Account, Role, TokenKind, authenticate
from tunesvc.db.schema.service_tables import tokens
from tunesvc.errors import AccountExists, AccountNotFound, SpecError
from tunesvc.util.redaction import redacted


@pytest.fixture
def connection(shared_database: Database) -> Iterator[sa.Connection]:
    with shared_database.engine.begin() as connection:
        yield connection


def _signed_in(
    database: Database, name: str, kind: TokenKind = TokenKind.TOKEN, **options: timedelta
) -> tuple[str, int]:
    with database.engine.begin() as connection:
        user = accounts.add_user(connection, name)
        token = accounts.create_token(connection, user, kind, "laptop", **options)
    return token.secret, token.token_id


def test_a_token_authenticates_its_user_with_the_roles(shared_database: Database) -> None:
    secret, token_id = _signed_in(shared_database, "ada")
    with shared_database.engine.begin() as connection:
        user = accounts.find_user(connection, "ada")
        project = accounts.add_project(connection, "vision")
        accounts.set_member(connection, project, user, Role.VIEWER)
        accounts.set_member(connection, project, user, Role.OPERATOR)
    account = authenticate(shared_database, secret, TokenKind.TOKEN)
    assert account == Account(user, "ada", False, {project: Role.OPERATOR}, token_id)
    with shared_database.engine.begin() as connection:
        accounts.set_member(connection, project, user, None)
    account = authenticate(shared_database, secret, TokenKind.TOKEN)
    assert account is not None
    assert account.roles == {}


def test_no_other_secret_does(shared_database: Database) -> None:
    secret, _ = _signed_in(shared_database, "eve")
    wrong = ("", "x", secret.swapcase(), secret[:-1], secret + " ", "\0", "\ud800", "ä" * 10_000)
    for other in wrong:
        assert authenticate(shared_database, other, TokenKind.TOKEN) is None, other
    assert authenticate(shared_database, secret, TokenKind.SESSION) is None, "it is no session"


def test_nothing_but_its_digest_is_stored(shared_database: Database) -> None:
    secret, token_id = _signed_in(shared_database, "dora")
    (row,) = shared_database.rows(sa.select(tokens).where(tokens.c.token_id == token_id))
    random = secret.rpartition("_")[2] if secret.count("_") == 2 else secret[11:]
    assert random not in str(row)
    assert bytes(row.digest) == accounts.digest_of(secret)


def test_an_expired_or_revoked_token_and_a_disabled_user_are_refused(
    shared_database: Database,
) -> None:
    short, _ = _signed_in(shared_database, "short", lasts=timedelta(microseconds=1))
    revoked, token_id = _signed_in(shared_database, "revoked")
    disabled, _ = _signed_in(shared_database, "disabled")
    assert authenticate(shared_database, revoked, TokenKind.TOKEN)
    assert authenticate(shared_database, disabled, TokenKind.TOKEN)
    with shared_database.engine.begin() as connection:
        accounts.add_user(connection, "root", is_admin=True)
        accounts.revoke_token(connection, token_id)
        accounts.revoke_token(connection, token_id)
        accounts.disable_user(connection, "disabled")
    for secret in (short, revoked, disabled):
        assert authenticate(shared_database, secret, TokenKind.TOKEN) is None
    with shared_database.engine.begin() as connection:
        accounts.enable_user(connection, "disabled")
    assert authenticate(shared_database, disabled, TokenKind.TOKEN) is None, "it stays revoked"


def test_the_use_of_a_token_is_recorded_once_a_minute(shared_database: Database) -> None:
    secret, token_id = _signed_in(shared_database, "used")
    used_at = sa.select(tokens.c.used_at).where(tokens.c.token_id == token_id)
    authenticate(shared_database, secret, TokenKind.TOKEN)
    first = shared_database.scalars(used_at)
    authenticate(shared_database, secret, TokenKind.TOKEN)
    assert shared_database.scalars(used_at) == first
    with shared_database.engine.begin() as connection:
        earlier = sa.func.now() - timedelta(seconds=61)
        connection.execute(
            sa.update(tokens).where(tokens.c.token_id == token_id).values(used_at=earlier)
        )
    authenticate(shared_database, secret, TokenKind.TOKEN)
    assert shared_database.scalars(used_at) > first


def test_a_link_works_once(shared_database: Database) -> None:
    lasts = timedelta(hours=1)
    secret, _ = _signed_in(shared_database, "linked", TokenKind.LINK, lasts=lasts)
    assert authenticate(shared_database, secret, TokenKind.TOKEN) is None
    with shared_database.engine.begin() as connection:
        user = accounts.find_user(connection, "linked")
        assert accounts.redeem_link(connection, secret) == user
        assert accounts.redeem_link(connection, secret) is None


def test_another_user_cannot_revoke_a_token(connection: sa.Connection) -> None:
    first = accounts.add_user(connection, "first")
    second = accounts.add_user(connection, "second")
    token = accounts.create_token(connection, first, TokenKind.TOKEN)
    with pytest.raises(AccountNotFound):
        accounts.revoke_token(connection, token.token_id, second)


def test_the_last_administrator_stays(database: Database) -> None:
    with database.engine.begin() as connection:
        accounts.add_user(connection, "only", is_admin=True)
        with pytest.raises(SpecError, match="the last administrator"):
            accounts.disable_user(connection, "only")
        accounts.add_user(connection, "other", is_admin=True)
        accounts.disable_user(connection, "only")
        with pytest.raises(SpecError):
            accounts.disable_user(connection, "other")


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "<b>", "a\0", "../x", "a/b", "-x", "é", "a" * 101]
)
def test_a_strange_name_is_refused(connection: sa.Connection, name: str) -> None:
    with pytest.raises(SpecError):
        accounts.add_user(connection, name)
    with pytest.raises(SpecError):
        accounts.add_project(connection, name)


def test_a_name_is_taken_once(connection: sa.Connection) -> None:
    accounts.add_user(connection, "twin@example.org")
    with pytest.raises(AccountExists):
        accounts.add_user(connection, "twin@example.org")


def test_the_first_start_makes_secrets_until_one_is_used(database: Database) -> None:
    assert not accounts.has_users(database)
    lost = accounts.bootstrap(database, "some body")
    again = accounts.bootstrap(database, "ignored")
    assert lost is not None
    assert again is not None
    assert lost.user == again.user == "admin"
    assert authenticate(database, lost.token, TokenKind.TOKEN) is None, "revoked by the second"
    account = authenticate(database, again.token, TokenKind.TOKEN)
    assert account is not None
    assert account.is_admin
    assert accounts.bootstrap(database, "admin") is None


def test_secrets_are_recognised_in_text() -> None:
    with_secret = f"key=tune_link_{'a-_9' * 10}abc&x"
    assert redacted(with_secret) == "key=tune_link_***&x"
    dsn = "postgresql+psycopg2://ada:hunter2@db:5432/tune?x=1"
    assert redacted(dsn) == "postgresql+psycopg2://ada:***@db:5432/tune?x=1"
    assert (
        redacted("http://127.0.0.1:8088/a:b@c at 12:30") == "http://127.0.0.1:8088/a:b@c at 12:30"
    )
    assert "a secret" not in repr(accounts.NewToken(1, "a secret"))
    assert "a secret" not in repr(accounts.FirstSecrets("u", "a secret", "a secret"))
