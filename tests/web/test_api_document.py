"""The API does what its document says: schemathesis sends what the document allows, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.db.engine.database import Database
from tunesvc.web import DashboardServer

pytestmark = pytest.mark.slow
EXAMPLES = 30
"""Requests for each route."""
ENDLESS = ("/events", "/stream")


@pytest.fixture(scope="module")
def server(shared_database: Database) -> Iterator[DashboardServer]:
    fill(shared_database, 40, name="bowl", tags=["nice"])
    Simulation(shared_database, make_spec(name="done", seed=1)).run()
    with DashboardServer(shared_database, port=0) as server:
        yield server


@pytest.fixture(scope="module")
def headers(server: DashboardServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.new_token()}"}


def broken_words(operation: Any, headers: dict[str, str]) -> list[str]:
    """Send requests to a route; return what it did that its document does not say.

    They name a study that exists, so that more than its absence is tried. Which filters are
    understood is not in the document: any text may be refused.
    """

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        if "study" in (case.path_parameters or {}) and case.method != "DELETE":
            case.path_parameters["study"] = "done"
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    try:
        send()
    except BaseExceptionGroup as group:
        return [str(error) for error in group.exceptions]
    except (AssertionError, schemathesis.errors.SchemathesisError) as error:
        return [str(error)]
    return []


@pytest.mark.timeout(1_200)
def test_every_route_keeps_its_word(server: DashboardServer, headers: dict[str, str]) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/api/v1/openapi.json", headers=headers)
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
