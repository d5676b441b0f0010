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
EXAMPLES = 20
"""Requests for each route."""


@pytest.fixture(scope="module")
def server(shared_database: Database) -> Iterator[DashboardServer]:
    fill(shared_database, 40, name="bowl", tags=["nice"])
    Simulation(shared_database, make_spec(name="done", seed=1)).run()
    with DashboardServer(shared_database, port=0) as server:
        yield server


@pytest.fixture(scope="module")
def headers(server: DashboardServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.new_token()}"}


ENDLESS = ("/events", "/stream")


def test_every_route_keeps_its_word(server: DashboardServer, headers: dict[str, str]) -> None:
    """Names that studies have are sent too, so that more than their absence is tried."""
    schema = schemathesis.openapi.from_url(f"{server.url}/api/v1/openapi.json", headers=headers)
    broken = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith(ENDLESS):
            continue

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def keeps_its_word(case: Any) -> None:
            if "study" in (case.path_parameters or {}) and case.method != "DELETE":
                case.path_parameters["study"] = "done"
            case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

        try:
            keeps_its_word()
        except BaseExceptionGroup as group:
            broken[operation.label] = [str(error) for error in group.exceptions]
        except Exception as error:
            broken[operation.label] = [str(error)]
    if broken:
        lines = [f"{label}: {text}" for label, texts in broken.items() for text in texts]
        pytest.fail("\n\n".join(lines), pytrace=False)
