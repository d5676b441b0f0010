"""Who may use which route: one table, which every route of the application has to be in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.routing import Mount

from tests.integration.test_cluster_view import running
from tests.support.accounts import PEOPLE, Team, make_team, serving_accounts
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study
from tunesvc.web import DashboardServer

EVERYBODY = "everybody"
USER = "user"
"""Any signed-in user."""
MEMBER, OPERATOR, MANAGER = "viewer", "operator", "manager"
"""A member of the study's or project's project with this role, or a higher one."""
ADMIN = "admin"

API = "/api/v1"
EXPECTED: dict[str, str] = {
    "GET /": EVERYBODY,
    "GET /healthz": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /metrics": USER,
    "GET /provider/start": EVERYBODY,
    "GET /provider/back": EVERYBODY,
    "GET /enter": EVERYBODY,
    "POST /enter": EVERYBODY,
    "POST /leave": USER,
    "GET /account": USER,
    "POST /account/tokens": USER,
    "POST /account/tokens/{token_id}/revoke": USER,
    "POST /account/alerts": USER,
    "POST /account/alerts/{target_id}/test": USER,
    "POST /account/alerts/{target_id}/remove": USER,
    "GET /team": USER,
    "POST /team/projects": ADMIN,
    "POST /team/projects/{project}/members": MANAGER,
    "POST /team/users": ADMIN,
    "POST /team/users/{name}/link": ADMIN,
    "POST /team/users/{name}/state": ADMIN,
    "GET /audit": ADMIN,
    "GET /audit/audit.jsonl": ADMIN,
    "GET /studies": USER,
    "GET /cluster": USER,
    "GET /events": USER,
    "GET /compare": USER,
    "GET /compare/studies/{listed}": MEMBER,
    "GET /compare/studies/{listed}/table": MEMBER,
    "GET /compare/studies/{listed}/data.csv": MEMBER,
    "GET /compare/trials/{study_id}/{listed}": MEMBER,
    "GET /compare/trials/{study_id}/{listed}/table": MEMBER,
    "GET /compare/trials/{study_id}/{listed}/data.csv": MEMBER,
    "GET /new": OPERATOR,
    "POST /new": OPERATOR,
    "POST /new/check": OPERATOR,
    "POST /new/download": OPERATOR,
    "GET /new/upload": OPERATOR,
    "POST /new/upload": OPERATOR,
    "POST /new/submit": OPERATOR,
    "GET /studies/{study_id}/ask/{ask}": OPERATOR,
    "POST /studies/{study_id}/ask/{ask}": OPERATOR,
    "GET /studies/{study_id}/delete": MANAGER,
    "POST /studies/{study_id}/delete": MANAGER,
    f"GET {API}/openapi.json": EVERYBODY,
    f"GET {API}/studies": USER,
    f"POST {API}/studies": OPERATOR,
    f"PATCH {API}/studies/{{study}}": OPERATOR,
    f"DELETE {API}/studies/{{study}}": MANAGER,
    f"POST {API}/studies/{{study}}/tags": OPERATOR,
    f"PUT {API}/studies/{{study}}/note": OPERATOR,
    f"POST {API}/studies/{{study}}/trials/{{number}}/tags": OPERATOR,
    f"PUT {API}/studies/{{study}}/trials/{{number}}/note": OPERATOR,
    f"GET {API}/names": USER,
    f"GET {API}/comparison": USER,
    f"GET {API}/cluster": USER,
    f"GET {API}/queue": USER,
    f"GET {API}/shares": USER,
    f"GET {API}/champions": USER,
    f"GET {API}/champion": USER,
    f"GET {API}/server": USER,
    f"GET {API}/events": USER,
    f"POST {API}/studies/{{study}}/commands": OPERATOR,
    f"GET {API}/snapshots/{{digest}}": OPERATOR,
    f"PUT {API}/snapshots/{{digest}}": OPERATOR,
    f"POST {API}/submissions": OPERATOR,
    f"POST {API}/studies/{{study}}/confirmation": OPERATOR,
    f"GET {API}/watches": USER,
    f"PUT {API}/watches/{{family}}": OPERATOR,
    f"DELETE {API}/watches/{{family}}": OPERATOR,
    f"POST {API}/studies/{{study}}/test": OPERATOR,
    f"POST {API}/studies/{{study}}/model": OPERATOR,
    f"POST {API}/links/redeem": EVERYBODY,
    f"PUT {API}/studies/{{study}}/project": ADMIN,
    f"GET {API}/me": USER,
    f"GET {API}/tokens": USER,
    f"POST {API}/tokens": USER,
    f"DELETE {API}/tokens/{{token_id}}": USER,
    f"GET {API}/users": ADMIN,
    f"POST {API}/users": ADMIN,
    f"PATCH {API}/users/{{user}}": ADMIN,
    f"POST {API}/users/{{user}}/links": ADMIN,
    f"PUT {API}/users/{{user}}/share": ADMIN,
    f"GET {API}/users/{{user}}/data": ADMIN,
    f"POST {API}/users/{{user}}/erasure": ADMIN,
    f"PUT {API}/projects/{{project}}/share": ADMIN,
    f"GET {API}/projects": USER,
    f"POST {API}/projects": ADMIN,
    f"GET {API}/projects/{{project}}/members": MEMBER,
    f"PUT {API}/projects/{{project}}/members/{{user}}": MANAGER,
    f"DELETE {API}/projects/{{project}}/members/{{user}}": MANAGER,
    f"GET {API}/alerts": USER,
    f"POST {API}/alerts": USER,
    f"DELETE {API}/alerts/{{target_id}}": USER,
    f"POST {API}/alerts/{{target_id}}/test": USER,
    f"GET {API}/audit": ADMIN,
    f"GET {API}/audit/export": ADMIN,
    f"GET {API}/studies/{{study}}/data/{{digest}}": OPERATOR,
    f"GET {API}/studies/{{study}}/snapshot": OPERATOR,
    f"POST {API}/studies/{{study}}/agents": OPERATOR,
    f"POST {API}/studies/{{study}}/agents/{{agent}}/poll": OPERATOR,
    f"POST {API}/studies/{{study}}/agents/{{agent}}/end": OPERATOR,
    f"POST {API}/studies/{{study}}/ask": OPERATOR,
    f"POST {API}/studies/{{study}}/attempts/{{token}}/events": OPERATOR,
    f"POST {API}/studies/{{study}}/attempts/{{token}}/heartbeat": OPERATOR,
    f"POST {API}/studies/{{study}}/attempts/{{token}}/report": OPERATOR,
    f"POST {API}/studies/{{study}}/attempts/{{token}}/tell": OPERATOR,
    f"PUT {API}/studies/{{study}}/attempts/{{token}}/checkpoint": OPERATOR,
    f"GET {API}/studies/{{study}}/attempts/{{token}}/checkpoint": OPERATOR,
}
"""Least role by method and path. What only shows a study is not listed one by one."""

SHOWS_A_STUDY = re.compile(
    rf"GET (/studies/\{{study_id\}}(?!/(ask|delete)\b)|{API}/studies/\{{study\}}).*"
)
APART = {
    "GET /events",
    "GET /provider/start",
    "GET /provider/back",
    f"GET {API}/events",
    "POST /enter",
    "POST /leave",
    f"POST {API}/links/redeem",
}
"""Streams never end; the others answer by a secret, see test_accounts."""
HIDDEN = re.compile("there is no (study|project)")
"""In an answer, the study or project of the path is hidden; else something in it is missing."""
VALUES = {
    "ask": "note",
    "number": "0",
    "listed": "1",
    "study": "test",
    "project": "vision",
    "user": "outsider",
    "name": "outsider",
    "token_id": "999999",
    "target_id": "999999",
}


def routes_below(app: Any, prefix: str = "") -> Iterator[str]:
    """Yield method and path of every route, mounted and included ones too."""
    for route in app.routes:
        if isinstance(route, Mount):
            yield from routes_below(route, prefix + route.path)
        elif hasattr(route, "original_router"):
            yield from routes_below(route.original_router, prefix)
        else:
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                yield f"{method} {prefix}{route.path}"


def expected_of(route: str) -> str | None:
    return EXPECTED.get(route) or (MEMBER if SHOWS_A_STUDY.fullmatch(route) else None)


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    team = make_team(shared_database)
    running(shared_database, name="test")
    team.own(get_study(shared_database, "test").study_id)
    return team


@pytest.fixture(scope="module")
def served(team: Team) -> Iterator[tuple[DashboardServer, httpx.Client]]:
    with serving_accounts(team.database) as made:
        yield made


def _ask(client: httpx.Client, team: Team, route: str, user: str | None, study: int) -> int:
    method, _, path = route.partition(" ")
    at = re.sub(r"\{(\w+)\}", lambda m: VALUES.get(m[1], str(study)), path)
    with client.stream(method, at, headers=team.headers(user)) as answer:
        if answer.status_code == 404 and HIDDEN.search(answer.read().decode()):
            return 403
        return answer.status_code


def test_every_route_is_in_the_table(served: tuple[DashboardServer, httpx.Client]) -> None:
    routes = set(routes_below(served[0].app))
    assert len(routes) > 40
    assert {route for route in routes if expected_of(route) is None} == set(), "say who may use it"
    assert {route for route in EXPECTED if route not in routes} == set(), "there is no such route"


def test_every_route_is_for_those_in_the_table_only(
    served: tuple[DashboardServer, httpx.Client], team: Team
) -> None:
    """Nobody, the highest role that is not enough, and the lowest that is."""
    holes = list(_holes(*served, team, _around))
    assert holes == [], holes


@pytest.mark.slow
def test_every_route_is_for_those_in_the_table_only_with_every_role(
    served: tuple[DashboardServer, httpx.Client], team: Team
) -> None:
    assert list(_holes(*served, team, lambda *_: (None, *PEOPLE))) == []


@pytest.mark.slow
def test_no_other_method_is_answered(
    served: tuple[DashboardServer, httpx.Client], team: Team
) -> None:
    server, client = served
    routes = set(routes_below(server.app))
    for path in {route.partition(" ")[2] for route in routes}:
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}:
            if f"{method} {path}" not in routes:
                assert _ask(client, team, f"{method} {path}", None, 1) in (401, 403, 404, 405)


def _holes(
    server: DashboardServer,
    client: httpx.Client,
    team: Team,
    users_for: Callable[[str, str], Sequence[str | None]],
) -> Iterator[tuple[str, str | None, int]]:
    study = get_study(team.database, "test").study_id
    for route in sorted(set(routes_below(server.app)) - APART):
        least = expected_of(route)
        for user in users_for(route, least or ADMIN):
            status = _ask(client, team, route, user, study)
            is_refused = status in (401, 403)
            if is_refused == _may(user, least or ADMIN) or status >= 500:
                yield route, user, status


def _around(route: str, least: str) -> Sequence[str | None]:
    if SHOWS_A_STUDY.fullmatch(route):
        return (None, "outsider")  # other tests show that pages and answers work
    if least == EVERYBODY:
        return (None,)
    first = 0 if least == USER else PEOPLE.index(least)
    return tuple(dict.fromkeys((None, *PEOPLE[max(0, first - 1) : first + 1])))


def _may(user: str | None, least: str) -> bool:
    if least == EVERYBODY:
        return True
    if user is None:
        return False
    return PEOPLE.index(user) >= (0 if least == USER else PEOPLE.index(least))
