"""Users, projects, members and tokens: the write side, and the look-up of a secret.

A secret has 256 random bits behind a prefix that scanners recognise. Only its SHA-256 is stored,
so a look-up is an index search for a digest: its time says nothing about a near miss.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db import notifications
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.db.schema.service_tables import champions, members, projects, tokens, users, watches
from tunesvc.db.schema.tables import studies
from tunesvc.errors import AccountExists, AccountNotFound, SpecError, Unauthenticated
from tunesvc.util.redaction import SECRET_PREFIX

SESSION_LASTS = timedelta(days=14)
LINK_LASTS = timedelta(days=1)
TOKEN_LASTS = timedelta(days=90)
"""The default; a token may also last for ever."""
MAX_LABEL = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_BOOTSTRAP_LOCK = 0x74756E66
FORMER = "former user "
"""Beginning of the pseudonym of an erased user. No name of a user has a space."""
ERASED = "the account of its user was erased"


class Role(StrEnum):
    """Role of a member of a project."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class TokenKind(StrEnum):
    """Purpose of a secret."""

    TOKEN = "token"  # noqa: S105  # a kind, not a secret
    """Programs send it with each request."""
    SESSION = "session"
    """A browser's cookie."""
    LINK = "link"
    """Signs in once, in an address or on the command line."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user of a valid token."""

    user_id: int
    name: str
    is_admin: bool
    roles: Mapping[int, Role]
    """Roles by project."""
    token_id: int


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just created. Only now is its secret known."""

    token_id: int
    secret: str

    def __repr__(self) -> str:
        return f"NewToken({self.token_id})"


@dataclass(frozen=True, slots=True, repr=False)
class FirstSecrets:
    """Secrets of the first administrator."""

    user: str
    link: str
    """Signs in one browser."""
    token: str
    """Secret of `tune login`."""


def prefix_of(kind: TokenKind) -> str:
    """Return the prefix of secrets of a kind."""
    return f"{SECRET_PREFIX}{kind}_"


def digest_of(secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


_VALID = """
    SELECT tokens.token_id, users.user_id, users.name, users.is_admin,
        coalesce(tokens.used_at < now() - interval '1 minute', true) AS is_use_unrecorded,
        (SELECT jsonb_object_agg(members.project_id, members.role)
            FROM members WHERE members.user_id = users.user_id) AS roles
    FROM tokens JOIN users ON users.user_id = tokens.user_id
    WHERE tokens.revoked_at IS NULL AND users.disabled_at IS NULL
        AND (tokens.expires_at IS NULL OR tokens.expires_at > now())
    """
_FIND = PreparedStatement(
    _VALID
    + "AND tokens.digest = CAST(%(digest)s AS bytea) AND tokens.kind = CAST(%(kind)s AS text)"
)
_FIND_SEVERAL = PreparedStatement(
    _VALID + "AND tokens.token_id = ANY(CAST(%(token_ids)s AS bigint[]))"
)
_RECORD_USE = PreparedStatement(
    "UPDATE tokens SET used_at = now() WHERE token_id = CAST(%(token_id)s AS bigint)"
)


def authenticate(database: Database, secret: str, kind: TokenKind) -> Account | None:
    """Return the account of a valid secret; None for any other. Records its use, once a minute."""
    row = database.autocommit.first(_FIND, digest=digest_of(secret), kind=str(kind))
    if row is None:
        return None
    if row.is_use_unrecorded:
        database.autocommit.count(_RECORD_USE, token_id=row.token_id)
    return _account(row)


def valid_accounts(database: Database, token_ids: Collection[int]) -> dict[int, Account]:
    """Return the accounts of those tokens that are valid now, by token."""
    rows = database.autocommit.rows(_FIND_SEVERAL, token_ids=list(token_ids))
    return {row.token_id: _account(row) for row in rows}


def _account(row: Any) -> Account:
    roles = {int(project): Role(role) for project, role in (row.roles or {}).items()}
    return Account(row.user_id, row.name, row.is_admin, roles, row.token_id)


def create_token(
    connection: sa.Connection,
    user_id: int,
    kind: TokenKind,
    label: str = "",
    lasts: timedelta | None = None,
) -> NewToken:
    """Create a secret of a user; without `lasts` it does not expire.

    Raises:
        SpecError: the label is too long, or the duration is not positive.
    """
    if len(label) > MAX_LABEL or "\0" in label:
        raise SpecError(f"a token's label is text of at most {MAX_LABEL} characters")
    if lasts is not None and lasts <= timedelta(0):
        raise SpecError("a token lasts for a positive time: name more than 0 days")
    secret = prefix_of(kind) + secrets.token_urlsafe(32)
    row = {
        "user_id": user_id,
        "kind": kind,
        "digest": digest_of(secret),
        "label": label,
        "expires_at": None if lasts is None else sa.func.now() + lasts,
    }
    insert = sa.insert(tokens).values(row).returning(tokens.c.token_id)
    return NewToken(connection.execute(insert).scalar_one(), secret)


def create_session(connection: sa.Connection, user_id: int) -> tuple[str, NewToken]:
    """Create a session of a browser; return the user's name with it."""
    session = create_token(connection, user_id, TokenKind.SESSION, "browser", SESSION_LASTS)
    return user_name(connection, user_id), session


def user_name(connection: sa.Connection, user_id: int) -> str:
    """Return the name of a user."""
    query = sa.select(users.c.name).where(users.c.user_id == user_id)
    name: str = connection.execute(query).scalar_one()
    return name


def redeem_link(connection: sa.Connection, secret: str) -> int | None:
    """Use up a link; return its user's id, or None if it is not valid any more."""
    change = (
        sa.update(tokens)
        .where(tokens.c.digest == digest_of(secret), tokens.c.kind == TokenKind.LINK)
        .where(tokens.c.revoked_at.is_(None), tokens.c.expires_at > sa.func.now())
        .where(users.c.user_id == tokens.c.user_id, users.c.disabled_at.is_(None))
        .values(revoked_at=sa.func.now(), used_at=sa.func.now())
    )
    return connection.execute(change.returning(tokens.c.user_id)).scalar()


def revoke_token(connection: sa.Connection, token_id: int, user_id: int | None = None) -> None:
    """Revoke a token; with `user_id` only one of that user. Repeatable.

    Raises:
        AccountNotFound: there is no such token.
    """
    change = sa.update(tokens).where(tokens.c.token_id == token_id)
    if user_id is not None:
        change = change.where(tokens.c.user_id == user_id)
    when = sa.func.coalesce(tokens.c.revoked_at, sa.func.now())
    if connection.execute(change.values(revoked_at=when)).rowcount == 0:
        raise AccountNotFound(f"you have no token {token_id}: `tune token list` lists yours")


def add_user(connection: sa.Connection, name: str, *, is_admin: bool = False) -> int:
    """Add a user; return its id.

    Raises:
        AccountExists: the name is taken.
        SpecError: the name is not a user name.
    """
    row = {"name": _checked(name, "a user"), "is_admin": is_admin}
    return _insert(connection, users, row, users.c.user_id, f"a user named {name!r}")


def find_or_add_user(connection: sa.Connection, name: str) -> int:
    """Return the id of a user whom a provider has authenticated; a new one has no role.

    Raises:
        Unauthenticated: the user is disabled, or the name cannot name a user.
    """
    query = sa.select(users.c.user_id, users.c.disabled_at).where(users.c.name == name)
    found = connection.execute(query).one_or_none()
    if found is None and _NAME.fullmatch(name):
        return add_user(connection, name)
    if found is None or found.disabled_at is not None:
        raise Unauthenticated(f"{name!r} may not sign in: ask an administrator")
    return int(found.user_id)


def disable_user(connection: sa.Connection, name: str) -> None:
    """Disable a user: none of its tokens is valid any more. Repeatable.

    Raises:
        AccountNotFound: there is no such user.
        SpecError: it is the last administrator.
    """
    user_id = find_user(connection, name)
    others = sa.select(users.c.user_id).where(users.c.is_admin, users.c.disabled_at.is_(None))
    admins = connection.scalars(others.with_for_update()).all()
    if list(admins) == [user_id]:
        raise SpecError(
            f"{name!r} is the last administrator: add another one first (`tune user add --admin`)"
        )
    when = sa.func.coalesce(users.c.disabled_at, sa.func.now())
    connection.execute(sa.update(users).where(users.c.user_id == user_id).values(disabled_at=when))
    revoked = sa.update(tokens).where(tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None))
    connection.execute(revoked.values(revoked_at=sa.func.now()))


def enable_user(connection: sa.Connection, name: str) -> None:
    """Enable a user again, who then needs a new link. Repeatable.

    Raises:
        AccountNotFound: there is no such user.
    """
    user_id = find_user(connection, name)
    connection.execute(sa.update(users).where(users.c.user_id == user_id).values(disabled_at=None))


def add_project(connection: sa.Connection, name: str, weight: float = 1.0) -> int:
    """Add a project; return its id.

    Raises:
        AccountExists: the name is taken.
        SpecError: the name is not a project name, or the weight is not positive.
    """
    if not 0 < weight < float("inf"):
        raise SpecError(f"the weight of a project is a positive number, not {weight:g}")
    row = {"name": _checked(name, "a project"), "weight": weight}
    return _insert(connection, projects, row, projects.c.project_id, f"a project named {name!r}")


def set_member(
    connection: sa.Connection,
    project_id: int,
    user_id: int,
    role: Role | None,
) -> None:
    """Give a user a role in a project, or with None remove the user from it. Repeatable."""
    if role is None:
        is_member = (members.c.project_id == project_id, members.c.user_id == user_id)
        connection.execute(sa.delete(members).where(*is_member))
        return
    row = {"project_id": project_id, "user_id": user_id, "role": role}
    insert = pg.insert(members).values(row)
    keys = ["project_id", "user_id"]
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_={"role": role}))


def project_name(connection: sa.Connection, project_id: int | None) -> str | None:
    """Return the name of a project; None for none."""
    query = sa.select(projects.c.name).where(projects.c.project_id == project_id)
    name: str | None = connection.scalar(query)
    return name


def why_not_operator(connection: sa.Connection, name: str, project_id: int | None) -> str:
    """Return why a user may not submit studies to a project; empty if the user may.

    A user without an account is one of the database itself, who may, unless it was erased.
    """
    if name.startswith(FORMER):
        return ERASED
    user = connection.execute(sa.select(users).where(users.c.name == name)).one_or_none()
    if user is None or (user.is_admin and user.disabled_at is None):
        return ""
    if user.disabled_at is not None:
        return f"user {name!r} is disabled"
    role = sa.select(members.c.role).where(
        members.c.project_id == project_id, members.c.user_id == user.user_id
    )
    if connection.scalar(role) in (Role.OPERATOR, Role.ADMIN):
        return ""
    return f"user {name!r} may not submit studies to its project any more"


def move_study(connection: sa.Connection, study_id: int, project_id: int | None) -> None:
    """Put a study into a project, or with None into none. Repeatable.

    The champions and the watch of the family that is named for it move with it.
    """
    moved = sa.select(studies.c.name, studies.c.project_id).where(studies.c.study_id == study_id)
    study = connection.execute(moved.with_for_update()).one_or_none()
    if study is None:
        return
    change = sa.update(studies).where(studies.c.study_id == study_id)
    connection.execute(change.values(project_id=project_id))
    for table in (champions, watches):
        is_its = (
            table.c.family == study.name,
            table.c.project_id.is_not_distinct_from(study.project_id),
        )
        connection.execute(sa.update(table).where(*is_its).values(project_id=project_id))
    notifications.notify(connection, study_id)


def find_user(connection: sa.Connection, name: str) -> int:
    """Return the id of the user of that name, disabled or not.

    Raises:
        AccountNotFound: there is none.
    """
    query = sa.select(users.c.user_id).where(users.c.name == name.replace("\0", ""))
    found: int | None = connection.execute(query).scalar()
    if found is None:
        raise AccountNotFound(f"there is no user {name!r}: `tune user list` lists them")
    return found


def find_project(connection: sa.Connection, name: str) -> int:
    """Return the id of the project of that name.

    Raises:
        AccountNotFound: there is none.
    """
    query = sa.select(projects.c.project_id).where(projects.c.name == name.replace("\0", ""))
    found: int | None = connection.execute(query).scalar()
    if found is None:
        raise AccountNotFound(no_project(name))
    return found


def no_project(name: str) -> str:
    """Return the text for a project that does not exist, or that the user may not see."""
    return f"there is no project {name!r}: `tune project list` lists yours"


def bootstrap(database: Database, name: str) -> FirstSecrets | None:
    """Make secrets of a first administrator `name`, as long as no user has signed in.

    Returns None after that. May be repeated and run by several servers at once: earlier secrets
    that were not used are revoked.
    """
    with database.engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_BOOTSTRAP_LOCK)))
        if connection.execute(sa.select(tokens.c.token_id).where(_was_used()).limit(1)).first():
            return None
        admin = _first_admin(connection, name)
        if admin is None:
            return None
        unused = sa.update(tokens).where(tokens.c.user_id == admin.user_id)
        connection.execute(unused.values(revoked_at=sa.func.now()))
        link = create_token(connection, admin.user_id, TokenKind.LINK, "first start", LINK_LASTS)
        token = create_token(
            connection,
            admin.user_id,
            TokenKind.TOKEN,
            "first start",
            TOKEN_LASTS,
        )
    return FirstSecrets(admin.name, link.secret, token.secret)


def has_users(database: Database) -> bool:
    """Return True if the service has accounts."""
    return bool(database.rows(sa.select(users.c.user_id).limit(1)))


def _was_used() -> sa.ColumnElement[bool]:
    return tokens.c.used_at.is_not(None)


def _first_admin(connection: sa.Connection, name: str) -> Any:
    """Return the only user, an administrator, and make it if there is none; None otherwise."""
    found = connection.execute(
        sa.select(users.c.user_id, users.c.name, users.c.is_admin, users.c.disabled_at).limit(2)
    ).all()
    if not found:
        add_user(connection, name if _NAME.fullmatch(name) else "admin", is_admin=True)
        return _first_admin(connection, name)
    is_alone = len(found) == 1 and found[0].is_admin and found[0].disabled_at is None
    return found[0] if is_alone else None


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"{name[:120]!r} cannot name {what}: use letters, digits and ._@+-, 100 at most, and "
            "begin with a letter or digit"
        )
    return name


def _insert(
    connection: sa.Connection,
    table: sa.Table,
    row: Mapping[str, Any],
    key: sa.ColumnElement[int],
    what: str,
) -> int:
    try:
        with connection.begin_nested():
            made: int = connection.execute(sa.insert(table).values(row).returning(key)).scalar_one()
    except sa.exc.IntegrityError:
        raise AccountExists(f"{what} exists already") from None
    return made
