"""The API does what its document says: schemathesis sends what the document allows, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.support.accounts import PEOPLE, Team, make_team, serving_accounts
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study
from tunesvc.web import DashboardServer
from tunesvc.web.api.agent_routes import WAIT_MAX_S

EXAMPLES, FEW = 15, 1
"""Requests for each route, and in the default suite."""
ENDLESS = ("/events", "/stream")
"""Ends of the paths of streams."""
WAIT_S = 0.1
"""Longest wait of a long poll here: what the document allows would outlast the client."""
UNCHECKED = [positive_data_acceptance, ignored_auth]
"""Any text of a filter may be refused. What is open without a token is in test_every_route; so many
failures would lock the address out."""


@pytest.fixture(scope="module")
def database(shared_database: Database) -> Database:
    fill(shared_database, 40, name="bowl", tags=["nice"])
    Simulation(shared_database, make_spec(name="done", seed=1)).run()
    return shared_database


@pytest.fixture(scope="module")
def team(database: Database) -> Team:
    team = make_team(database)
    team.own(get_study(database, "done").study_id)
    return team


@pytest.fixture(scope="module")
def with_accounts(team: Team) -> Iterator[str]:
    """Return the address of a server with accounts."""
    with serving_accounts(team.database) as (server, _):
        yield server.url


def broken_words(operation: Any, headers: dict[str, str], examples: int = EXAMPLES) -> list[str]:
    """Send requests to a route; return what it did that its document does not say.

    They name a study that exists, so that more than its absence is tried.
    """

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        if "study" in (case.path_parameters or {}) and case.method != "DELETE":
            case.path_parameters["study"] = "done"
        wait = (case.query or {}).get("wait")
        if isinstance(wait, int | float) and WAIT_S < wait <= WAIT_MAX_S:
            case.query["wait"] = WAIT_S
        case.call_and_validate(headers=headers, excluded_checks=UNCHECKED)

    try:
        send()
    except BaseExceptionGroup as group:
        return [str(error) for error in group.exceptions]
    except (AssertionError, schemathesis.errors.SchemathesisError) as error:
        return [str(error)]
    return []


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_every_route_keeps_its_word(database: Database) -> None:
    with DashboardServer(database, port=0) as server:
        assert_kept(server.url, {"Authorization": f"Bearer {server.new_token()}"})


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("user", PEOPLE)
def test_every_route_keeps_its_word_with_accounts(
    with_accounts: str, team: Team, user: str
) -> None:
    assert_kept(with_accounts, team.headers(user))


def test_the_routes_of_agents_and_accounts_keep_their_word(with_accounts: str, team: Team) -> None:
    """A few requests to each, in the default suite."""
    for tag, user in (("agents", "operator"), ("accounts", "admin"), ("alerts", "viewer")):
        assert_kept(with_accounts, team.headers(user), FEW, tag)


def assert_kept(url: str, headers: dict[str, str], examples: int = EXAMPLES, tag: str = "") -> None:
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", headers=headers)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 60
    broken = [
        f"{operation.label}: {text}"
        for operation in operations
        if tag in ("", *(operation.tags or ()))
        if operation.method != "get" or not operation.path.endswith(ENDLESS)
        for text in broken_words(operation, headers, examples)
    ]
    if broken:
        pytest.fail("\n\n".join(broken), pytrace=False)
