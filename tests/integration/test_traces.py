"""Traces of trials and requests, in memory and at a real receiver of OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sqlalchemy as sa

from tests.support.accounts import make_team, serving_accounts
from tests.support.stored_studies import fill
from tunesvc.coordinator.progress_events import ProgressEvent, SilentObserver
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study_by_id
from tunesvc.service.trial_traces import (
    ENDPOINTS,
    TrialTracer,
    open_provider,
    provider_of,
    trace_id_of,
)
from tunesvc.web.middleware.request_spans import trace_requests

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)


@pytest.fixture(scope="module")
def study_id(shared_database: Database) -> int:
    """A study with a trial that failed once."""
    study_id = fill(shared_database, 4, 1, name="traced")
    with shared_database.engine.begin() as connection:
        trial = (study_id << 32) | 2
        connection.execute(
            sa.text(
                "UPDATE attempts SET state = 'failed', failure = 'stalled', devices = '{cuda:0}',"
                " started_at = opened_at + interval '1 s' WHERE trial_id = :trial"
            ),
            {"trial": trial},
        )
        connection.execute(
            sa.text(
                "INSERT INTO attempts (trial_id, number, token, state, opened_at, started_at,"
                " ended_at, node) SELECT trial_id, 2, 1, 'finished', ended_at, ended_at, ended_at,"
                " 'node-2' FROM attempts WHERE trial_id = :trial"
            ),
            {"trial": trial},
        )
    return study_id


@pytest.fixture
def received() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A receiver, and what it got."""
    requests: list[ExportTraceServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def test_a_trial_is_one_trace_with_each_of_its_attempts(
    shared_database: Database, study_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = InMemorySpanExporter()
    caplog.set_level("INFO", "tunesvc")
    with TrialTracer(shared_database, provider_of(SimpleSpanProcessor(exporter))) as tracer:
        observer = tracer.observer(study_id, SilentObserver())
        observer.on_event(ProgressEvent("complete", "trial 2", 2))
        observer.on_event(ProgressEvent("best", "trial 2", 2))
        observer.on_event(ProgressEvent("retry", "trial 1", 1))
    spans = exporter.get_finished_spans()
    names = sorted(span.name for span in spans)
    assert names == ["attempt", "attempt", "commit", "propose", "queue", "queue", "trial"]
    study = get_study_by_id(shared_database, study_id)
    assert {span.context.trace_id for span in spans} == {trace_id_of(study, 2)}
    (record,) = [one for one in caplog.records if hasattr(one, "trace")]
    assert (record.trial, record.trace) == (2, f"{trace_id_of(study, 2):032x}")  # type: ignore[attr-defined]
    (root,) = [span for span in spans if span.name == "trial"]
    assert {span.parent.span_id for span in spans if span is not root} == {root.context.span_id}
    assert root.attributes["tunesvc.study"] == "traced"
    assert all(span.start_time <= span.end_time for span in spans)
    first, second = sorted(
        (span for span in spans if span.name == "attempt"),
        key=lambda span: span.attributes["tunesvc.attempt"],
    )
    assert (first.attributes["tunesvc.outcome"], first.status.is_ok) == ("stalled", False)
    assert first.attributes["tunesvc.devices"] == ("cuda:0",)
    assert (second.attributes["tunesvc.node"], second.status.is_ok) == ("node-2", True)


def test_a_receiver_gets_trials_by_the_standard_variables(
    shared_database: Database,
    study_id: int,
    received: tuple[str, list[ExportTraceServiceRequest]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, requests = received
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    provider = open_provider()
    assert provider is not None
    with TrialTracer(shared_database, provider) as tracer:
        tracer.observer(study_id, SilentObserver()).on_event(ProgressEvent("pruned", "", 0))
    (resource,) = [one for request in requests for one in request.resource_spans]
    names = {span.name for scope in resource.scope_spans for span in scope.spans}
    assert names == {"trial", "propose", "queue", "attempt", "commit"}


def test_requests_of_the_api_are_spans_named_by_their_route(
    shared_database: Database, study_id: int
) -> None:
    exporter = InMemorySpanExporter()
    provider = provider_of(SimpleSpanProcessor(exporter))
    team = make_team(shared_database)
    with serving_accounts(
        shared_database, prepare=lambda app: trace_requests(app, provider.get_tracer("test"))
    ) as (_, client):
        answer = client.get("/api/v1/studies/traced", headers=team.headers("admin"))
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /studies/{study}"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["tunesvc.request"] == answer.headers["X-Request-ID"]


def test_without_an_endpoint_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert open_provider() is None
