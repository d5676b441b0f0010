"""Routes of accounts. Answers with secrets are never stored for an idempotency key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from tunesvc.client.account_operations import (
    TOKEN_DAYS,
    AccountOperations,
    IssuedSecret,
    OwnAccount,
)
from tunesvc.client.local.local_accounts import LocalAccounts
from tunesvc.client.wire_format import encode
from tunesvc.db.people.accounts import TOKEN_LASTS, Role, TokenKind, create_token, user_name
from tunesvc.db.people.personal_data import PersonalRow
from tunesvc.errors import SpecError, Unauthenticated
from tunesvc.queries.operations.account_rows import MemberRow, ProjectRow, TokenRow, UserRow
from tunesvc.queries.operations.audit_entries import AuditEntry, iterate_audit
from tunesvc.queries.rows import RowPage
from tunesvc.web.access import (
    AccountUser,
    Administrator,
    Manager,
    Permission,
    User,
    bearer_token,
    viewable_studies,
)
from tunesvc.web.account_access import AccountAccess, authorize_project
from tunesvc.web.api.api_requests import After, Limit, StudyName, unstored_answer
from tunesvc.web.audit_trail import record_sign_in

router = APIRouter(tags=["accounts"])

Name = Annotated[str, Path(max_length=400)]


@dataclass(frozen=True, slots=True)
class TokenBody:
    """A token to create."""

    label: str = ""
    days: float | None = TOKEN_DAYS
    """None for a token that does not expire."""


@dataclass(frozen=True, slots=True)
class LinkBody:
    """A token to be made for a link."""

    label: str = ""
    """Purpose of the token."""


@dataclass(frozen=True, slots=True)
class UserBody:
    """A user to add."""

    name: str
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class UserPatch:
    """Changes of a user."""

    is_disabled: bool


@dataclass(frozen=True, slots=True)
class ProjectBody:
    """A project to add."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ShareBody:
    """Weight and limits to change."""

    weight: float | None = None
    limits: dict[str, float | None] = field(default_factory=dict)
    """None removes a limit."""


@dataclass(frozen=True, slots=True)
class ErasureBody:
    """A user to erase."""

    name: str
    """The name once more, since it cannot be undone."""


@dataclass(frozen=True, slots=True)
class StudyProjectBody:
    """Project of a study; None for none."""

    project: str | None


@dataclass(frozen=True, slots=True)
class RoleBody:
    """Role of a member."""

    role: Role


def operations_of(request: Request, user: User) -> AccountOperations:
    """Return the operations for a user whose permission was checked."""
    database = request.app.state.database
    among = viewable_studies(request, user)
    return LocalAccounts(database, user.name, among, has_entries=True)


def _own(request: Request, user: AccountUser) -> AccountOperations:
    return operations_of(request, user)


def _all(request: Request, user: Administrator) -> AccountOperations:
    return operations_of(request, user)


def _showing(request: Request, user: AccountUser, project: Name) -> AccountOperations:
    authorize_project(request, user, Permission.VIEW, unquote(project))
    return operations_of(request, user)


def _managing(request: Request, user: Manager, project: Name) -> AccountOperations:
    authorize_project(request, user, Permission.MANAGE, unquote(project))
    return operations_of(request, user)


Own = Annotated[AccountOperations, Depends(_own)]
All = Annotated[AccountOperations, Depends(_all)]
Showing = Annotated[AccountOperations, Depends(_showing)]
Managing = Annotated[AccountOperations, Depends(_managing)]


@router.post("/links/redeem", response_model=IssuedSecret, status_code=201)
def redeem_link(request: Request, body: Annotated[LinkBody, Body()]) -> Response:
    """Exchange a link, whose secret is this request's bearer token, for a token. Works once."""
    access = request.app.state.access
    secret = bearer_token(request) or ""
    user_id = access.redeem(request, secret) if isinstance(access, AccountAccess) else None
    if user_id is None:
        record_sign_in(request, "", 401)
        raise Unauthenticated("this link is not valid, or was used: `tune user link` makes another")
    with request.app.state.database.engine.begin() as connection:
        name = user_name(connection, user_id)
        token = create_token(connection, user_id, TokenKind.TOKEN, body.label, TOKEN_LASTS)
    record_sign_in(request, name, 201, token.token_id)
    return unstored_answer(IssuedSecret(name, token.secret), 201)


@router.get("/me", response_model=OwnAccount)
def get_me(own: Own) -> Response:
    """Return the user of the token, with its roles."""
    return unstored_answer(own.me())


@router.get("/tokens", response_model=tuple[TokenRow, ...])
def list_tokens(own: Own) -> Response:
    """List the user's valid tokens and sessions."""
    return unstored_answer(own.tokens())


@router.post("/tokens", response_model=IssuedSecret, status_code=201)
def issue_token(own: Own, body: Annotated[TokenBody, Body()]) -> Response:
    """Create a token. Its secret is in this answer only."""
    return unstored_answer(own.create_token(body.label, body.days), 201)


@router.delete("/tokens/{token_id}", response_model=None)
def revoke_token(own: Own, token_id: Annotated[int, Path(ge=0, lt=2**63)]) -> Response:
    """Revoke a token or session of the user."""
    own.revoke_token(token_id)
    return unstored_answer(None)


@router.get("/users", response_model=tuple[UserRow, ...])
def list_users(every: All) -> Response:
    """List all users."""
    return unstored_answer(every.users())


@router.post("/users", response_model=IssuedSecret, status_code=201)
def add_user(every: All, body: Annotated[UserBody, Body()]) -> Response:
    """Add a user. The secret of a link that signs in once is in this answer only."""
    return unstored_answer(every.add_user(body.name, is_admin=body.is_admin), 201)


@router.post("/users/{user}/links", response_model=IssuedSecret, status_code=201)
def make_link(every: All, user: Name) -> Response:
    """Make a link that signs in once, for a user that lost all tokens."""
    return unstored_answer(every.make_link(unquote(user)), 201)


@router.patch("/users/{user}", response_model=None)
def change_user(every: All, user: Name, body: Annotated[UserPatch, Body()]) -> Response:
    """Disable or enable a user."""
    change = every.disable_user if body.is_disabled else every.enable_user
    change(unquote(user))
    return unstored_answer(None)


@router.get("/projects", response_model=tuple[ProjectRow, ...])
def list_projects(own: Own) -> Response:
    """List the user's projects."""
    return unstored_answer(own.projects())


@router.post("/projects", response_model=str, status_code=201)
def add_project(every: All, body: Annotated[ProjectBody, Body()]) -> Response:
    """Add a project."""
    return unstored_answer(every.add_project(body.name, body.weight), 201)


@router.get("/projects/{project}/members", response_model=tuple[MemberRow, ...])
def list_members(showing: Showing, project: Name) -> Response:
    """List the members of a project."""
    return unstored_answer(showing.members(unquote(project)))


@router.put("/projects/{project}/members/{user}", response_model=None)
def set_member(
    managing: Managing,
    project: Name,
    user: Name,
    body: Annotated[RoleBody, Body()],
) -> Response:
    """Give a user a role in a project."""
    managing.set_member(unquote(project), unquote(user), body.role)
    return unstored_answer(None)


@router.delete("/projects/{project}/members/{user}", response_model=None)
def remove_member(managing: Managing, project: Name, user: Name) -> Response:
    """Remove a user from a project."""
    managing.set_member(unquote(project), unquote(user), None)
    return unstored_answer(None)


@router.put("/studies/{study}/project", response_model=None)
def move_study(
    request: Request,
    every: All,
    study: StudyName,
    body: Annotated[StudyProjectBody, Body()],
) -> Response:
    """Put a study into a project, whose members then may view it, or into none."""
    every.move_study(request.state.study, body.project)
    return unstored_answer(None)


@router.put("/projects/{project}/share", response_model=dict[str, float])
def set_project_share(
    every: All,
    project: Name,
    body: Annotated[ShareBody, Body()],
) -> Response:
    """Change the weight and limits of a project."""
    name = unquote(project)
    return unstored_answer(
        every.set_share("project", name, weight=body.weight, limits=body.limits),
    )


@router.put("/users/{user}/share", response_model=dict[str, float])
def set_user_share(
    every: All,
    user: Name,
    body: Annotated[ShareBody, Body()],
) -> Response:
    """Change the weight and limits of a user."""
    name = unquote(user)
    return unstored_answer(every.set_share("user", name, weight=body.weight, limits=body.limits))


@router.get("/users/{user}/data", response_model=tuple[PersonalRow, ...])
def get_personal_data(every: All, user: Name) -> Response:
    """Return everything that names a user, without secrets."""
    return unstored_answer(every.personal_data(unquote(user)))


@router.post("/users/{user}/erasure", response_model=str)
def forget_user(
    every: All,
    user: Name,
    body: Annotated[ErasureBody, Body()],
) -> Response:
    """Erase a user from everything; return the pseudonym that stands in its place."""
    if body.name != unquote(user):
        raise SpecError(f"nothing is erased: `name` has to be {unquote(user)!r}, too")
    return unstored_answer(every.forget_user(body.name))


@router.get("/audit", response_model=RowPage[AuditEntry])
def list_audit(
    every: All,
    user: Annotated[str | None, Query(max_length=400)] = None,
    after: After = "",
    limit: Limit = 100,
) -> Response:
    """List who changed or tried what, the newest first."""
    return unstored_answer(every.audit(user=user, after=after, limit=limit))


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {}}}},
)
def export_audit(
    request: Request,
    _: Administrator,
    user: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """Return the whole audit log as JSON lines."""
    entries = iterate_audit(request.app.state.database, user)
    return StreamingResponse(audit_lines(entries), media_type="application/jsonl")


def audit_lines(entries: Iterator[AuditEntry]) -> Iterator[bytes]:
    """Yield entries as JSON lines."""
    for entry in entries:
        yield encode(entry) + b"\n"
