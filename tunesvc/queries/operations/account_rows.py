"""Reads users, projects, members and tokens. Never selects a digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.service_tables import members, projects, tokens, users
from tunesvc.db.schema.tables import studies
from tunesvc.queries.rows import from_row


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user."""

    name: str
    is_admin: bool
    """May do everything, in every project."""
    weight: float
    """Share of the cluster, relative to other users of a project."""
    limits: Mapping[str, float]
    """See `db.people.shares`."""
    created_at: datetime
    disabled_at: datetime | None
    used_at: datetime | None
    """Last use of one of its tokens, to the minute."""
    roles: Mapping[str, str]
    """Roles by project."""


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """A project."""

    name: str
    weight: float
    """Share of the cluster, relative to other projects."""
    limits: Mapping[str, float]
    """See `db.people.shares`."""
    created_at: datetime
    members: int
    studies: int


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A member of a project."""

    user: str
    role: str
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token or session, without its secret."""

    token_id: int
    kind: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


def list_users(database: Database, name: str | None = None) -> tuple[UserRow, ...]:
    """Return all users by name, or the one of that name."""
    used_at = sa.select(sa.func.max(tokens.c.used_at)).where(tokens.c.user_id == users.c.user_id)
    roles = (
        sa.select(sa.func.jsonb_object_agg(projects.c.name, members.c.role))
        .join(projects, projects.c.project_id == members.c.project_id)
        .where(members.c.user_id == users.c.user_id)
        .correlate(users)
        .scalar_subquery()
    )
    query = sa.select(
        users.c.name,
        users.c.is_admin,
        users.c.weight,
        users.c.limits,
        users.c.created_at,
        users.c.disabled_at,
        used_at.scalar_subquery().label("used_at"),
        sa.func.coalesce(roles, sa.text("CAST('{}' AS jsonb)")).label("roles"),
    ).order_by(users.c.name)
    if name is not None:
        query = query.where(users.c.name == name)
    return tuple(from_row(UserRow, row) for row in database.rows(query))


def list_projects(
    database: Database,
    ids: frozenset[int] | None = None,
) -> tuple[ProjectRow, ...]:
    """Return projects by name: those with these ids, or all."""
    count = sa.func.count()
    in_project = members.c.project_id == projects.c.project_id
    of_project = studies.c.project_id == projects.c.project_id
    query = sa.select(
        projects.c.name,
        projects.c.weight,
        projects.c.limits,
        projects.c.created_at,
        sa.select(count).where(in_project).scalar_subquery().label("members"),
        sa.select(count).where(of_project).scalar_subquery().label("studies"),
    ).order_by(projects.c.name)
    if ids is not None:
        query = query.where(projects.c.project_id.in_(ids))
    return tuple(from_row(ProjectRow, row) for row in database.rows(query))


def list_members(database: Database, project_id: int) -> tuple[MemberRow, ...]:
    """Return the members of a project by name."""
    query = (
        sa.select(
            users.c.name.label("user"),
            members.c.role,
            users.c.disabled_at.is_not(None).label("is_disabled"),
        )
        .join(users, users.c.user_id == members.c.user_id)
        .where(members.c.project_id == project_id)
        .order_by(users.c.name)
    )
    return tuple(from_row(MemberRow, row) for row in database.rows(query))


def list_tokens(database: Database, user_id: int) -> tuple[TokenRow, ...]:
    """Return the valid tokens and sessions of a user, the newest first."""
    columns = [tokens.c[name] for name in TokenRow.__dataclass_fields__]
    query = (
        sa.select(*columns)
        .where(tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None))
        .where(sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > sa.func.now()))
        .order_by(tokens.c.token_id.desc())
    )
    return tuple(from_row(TokenRow, row) for row in database.rows(query))
