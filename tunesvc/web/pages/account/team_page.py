"""The page of projects with their members, and of all users for an administrator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from tunesvc.client.account_operations import IssuedSecret
from tunesvc.db.people.accounts import Role
from tunesvc.web.access import AccountUser, Administrator, Manager, Permission, User
from tunesvc.web.account_access import authorize_project, manageable_projects
from tunesvc.web.pages.account.own_account import operations
from tunesvc.web.render import page

router = APIRouter(prefix="/team")

Name = Annotated[str, Path(max_length=400)]
Text = Annotated[str, Form(min_length=1, max_length=400)]


@router.get("", name="team_page")
def team_page(request: Request, user: AccountUser) -> HTMLResponse:
    """Render the page."""
    return _team(request, user)


@router.post("/projects", name="new_project")
def new_project(
    request: Request,
    user: Administrator,
    name: Text,
    weight: Annotated[float, Form()] = 1.0,
) -> Response:
    """Add a project."""
    operations(request, user).add_project(name.strip(), weight)
    return _back(request)


@router.post("/projects/{project}/members", name="set_member")
def set_member(
    request: Request,
    user: Manager,
    project: Name,
    member: Text,
    role: Annotated[Role | Literal[""], Form()] = "",
) -> Response:
    """Give a user a role in a project; without a role remove the user."""
    authorize_project(request, user, Permission.MANAGE, project)
    operations(request, user).set_member(project, member.strip(), role or None)
    return _back(request)


@router.post("/users", name="new_user")
def new_user(
    request: Request,
    user: Administrator,
    name: Text,
    is_admin: Annotated[bool, Form()] = False,
) -> HTMLResponse:
    """Add a user, and render the page with its link, once."""
    issued = operations(request, user).add_user(name.strip(), is_admin=is_admin)
    return _team(request, user, issued)


@router.post("/users/{name}/link", name="new_link")
def new_link(request: Request, user: Administrator, name: Name) -> HTMLResponse:
    """Make another link for a user, and render the page with it, once."""
    return _team(request, user, operations(request, user).make_link(name))


@router.post("/users/{name}/state", name="set_user_state")
def set_user_state(
    request: Request,
    user: Administrator,
    name: Name,
    is_disabled: Annotated[bool, Form()],
) -> Response:
    """Disable or enable a user."""
    accounts = operations(request, user)
    change = accounts.disable_user if is_disabled else accounts.enable_user
    change(name)
    return _back(request)


def _team(request: Request, user: User, issued: IssuedSecret | None = None) -> HTMLResponse:
    accounts = operations(request, user)
    projects = accounts.projects()
    is_admin = request.state.can(Permission.ADMINISTER)
    links: Mapping[str, str] = {}
    if issued is not None:
        at = request.url_for("enter_page")
        links = {issued.user: str(at.include_query_params(key=issued.secret))}
    return page(
        request,
        "team.html",
        projects=projects,
        members={one.name: accounts.members(one.name) for one in projects},
        manageable=manageable_projects(request, user),
        users=accounts.users() if is_admin else (),
        roles=list(Role),
        links=links,
    )


def _back(request: Request) -> Response:
    return RedirectResponse(request.url_for("team_page").path, 303)
