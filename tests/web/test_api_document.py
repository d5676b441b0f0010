"""The API does what its document says: schemathesis sends what the document allows, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.support.accounts import make_team, serving_accounts
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.db.engine.database import Database
from tunesvc.web import DashboardServer

pytestmark = pytest.mark.slow
EXAMPLES = 15
"""Requests for each route."""
ENDLESS = ("/events", "/stream")
UNCHECKED = [positive_data_acceptance, ignored_auth]
"""Any text of a filter may be refused. What is open without a token is in test_every_route; so many
failures would lock the address out."""


@pytest.fixture(scope="module")
def database(shared_database: Database) -> Database:
    fill(shared_database, 40, name="bowl", tags=["nice"])
    Simulation(shared_database, make_spec(name="done", seed=1)).run()
    return shared_database


@pytest.fixture(scope="module", params=["key", "accounts"])
def served(
    request: pytest.FixtureRequest, database: Database
) -> Iterator[tuple[str, dict[str, str]]]:
    """A server's address, and headers with the token of its owner, or of an administrator."""
    if request.param == "key":
        with DashboardServer(database, port=0) as server:
            yield server.url, {"Authorization": f"Bearer {server.new_token()}"}
        return
    team = make_team(database)
    with serving_accounts(database) as (server, _):
        yield server.url, team.headers("admin")


def broken_words(operation: Any, headers: dict[str, str]) -> list[str]:
    """Send requests to a route; return what it did that its document does not say.

    They name a study that exists, so that more than its absence is tried.
    """

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        if "study" in (case.path_parameters or {}) and case.method != "DELETE":
            case.path_parameters["study"] = "done"
        if isinstance((case.query or {}).get("wait"), int | float):
            case.query["wait"] = 0  # a long poll would outlast the client
        case.call_and_validate(headers=headers, excluded_checks=UNCHECKED)

    try:
        send()
    except BaseExceptionGroup as group:
        return [str(error) for error in group.exceptions]
    except (AssertionError, schemathesis.errors.SchemathesisError) as error:
        return [str(error)]
    return []


@pytest.mark.timeout(1_200)
def test_every_route_keeps_its_word(served: tuple[str, dict[str, str]]) -> None:
    url, headers = served
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", headers=headers)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 60
    broken = [
        f"{operation.label}: {text}"
        for operation in operations
        if not operation.path.endswith(ENDLESS)
        for text in broken_words(operation, headers)
    ]
    if broken:
        pytest.fail("\n\n".join(broken), pytrace=False)
