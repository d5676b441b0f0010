"""OpenTelemetry: each trial that ends under this server is a trace, made of what is stored of it.

Spans are emitted at the trial's end from the recorded times, so that nothing travels with a trial
and an attempt of an earlier coordinator is in the trace, too. The trace's id follows from the study
and the number. OpenTelemetry is imported only if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from tunesvc.coordinator.progress_events import Observer, Progress, ProgressEvent
from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyNotFound
from tunesvc.queries.rows import AttemptRow, StudyView, TrialDetail
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.trial_table import get_trial
from tunesvc.util.logs import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_logger = get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_ENDS = frozenset({"complete", "best", "pruned", "failed"})
"""Kinds of events at the end of a trial."""
_LOOKS, _LOOK_S = 20, 0.5
"""An event comes before its step is committed."""


def open_provider(environment: Mapping[str, str] = os.environ) -> TracerProvider | None:
    """Return a provider that exports by the variables `OTEL_*`; None without an endpoint."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _logger.warning("traces need a package: pip install 'tunesvc[otel]'")
        return None
    return provider_of(BatchSpanProcessor(OTLPSpanExporter()))


def provider_of(processor: Any) -> TracerProvider:
    """Return a provider of this service, for a processor of spans."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider

    name = os.environ.get("OTEL_SERVICE_NAME", "tunesvc")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(processor)
    return provider


def trace_id_of(study: StudyView, number: int) -> int:
    """Return the id of a trial's trace, the same on all servers."""
    text = f"{study.created_at.timestamp()} {study.study_id} {number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def emit_trial(tracer: Tracer, study: StudyView, trial: TrialDetail) -> None:
    """Emit the spans of a trial that has ended: propose, queue and attempt of each, commit."""
    row = trial.row
    began = row.started_at or study.created_at
    ended = row.ended_at or began
    root = _root(tracer, study, trial, began)
    last = began
    for attempt in trial.attempts:
        if attempt.number == 1:
            _child(tracer, root, "propose", began, attempt.opened_at)
        _child(tracer, root, "queue", attempt.opened_at, attempt.started_at or attempt.ended_at)
        if attempt.started_at is not None:
            _attempt(tracer, root, attempt, attempt.started_at)
        last = attempt.ended_at or attempt.opened_at
    _child(tracer, root, "commit", last, ended)
    root.end(_ns(ended))


def _root(tracer: Tracer, study: StudyView, trial: TrialDetail, began: datetime) -> Any:
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    trace_id = trace_id_of(study, trial.row.number)
    # A parent decides the trace's id; it is that of no span.
    parent = SpanContext(trace_id, trace_id & (2**64 - 1), True, TraceFlags(TraceFlags.SAMPLED))
    attributes: dict[str, Any] = {
        "tunesvc.study": study.name,
        "tunesvc.trial": trial.row.number,
        "tunesvc.outcome": str(trial.row.state),
        "tunesvc.attempts": len(trial.attempts),
    }
    context = trace.set_span_in_context(NonRecordingSpan(parent))
    return tracer.start_span("trial", context, attributes=attributes, start_time=_ns(began))


def _attempt(tracer: Tracer, root: Any, attempt: AttemptRow, started: datetime) -> None:
    attributes = {
        "tunesvc.attempt": attempt.number,
        "tunesvc.outcome": attempt.failure or attempt.stop_cause or str(attempt.state),
        "tunesvc.node": attempt.node or "",
        "tunesvc.devices": attempt.devices,
        "tunesvc.cpus": attempt.cpus,
        "tunesvc.gpus": attempt.gpus,
    }
    _child(tracer, root, "attempt", started, attempt.ended_at, attributes, attempt.failure)


def _child(
    tracer: Tracer,
    root: Any,
    name: str,
    began: datetime,
    ended: datetime | None,
    attributes: Mapping[str, Any] | None = None,
    failure: str | None = None,
) -> None:
    from opentelemetry import trace
    from opentelemetry.trace import StatusCode

    context = trace.set_span_in_context(root)
    span = tracer.start_span(name, context, attributes=attributes, start_time=_ns(began))
    if failure:
        span.set_status(StatusCode.ERROR, failure)
    span.end(_ns(max(began, ended or began)))


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1e6) * 1000


class TrialTracer:
    """Emits the traces of trials in a thread of its own: no study waits for an exporter."""

    def __init__(self, database: Database, provider: TracerProvider) -> None:
        self._database = database
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("tunesvc")
        self._ended: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def __enter__(self) -> TrialTracer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Emit what has ended, for a few seconds at most."""
        self._ended.put(None)
        self._thread.join(5)
        self._stop.set()
        self._provider.shutdown()

    @property
    def tracer(self) -> Tracer:
        """The tracer, for other spans of this server."""
        return self._tracer

    def observer(self, study_id: int, inner: Observer) -> Observer:
        """Return an observer that traces a study's trials, and passes everything on."""
        return _TracedStudy(study_id, inner, self._ended)

    def _run(self) -> None:
        while (ended := self._ended.get()) is not None:
            try:
                self._emit(*ended)
            except StudyNotFound:
                continue  # deleted meanwhile
            except Exception as error:  # noqa: BLE001 - traces must not disturb what they show
                _logger.warning("trial %d of study %d is not traced: %s", *reversed(ended), error)

    def _emit(self, study_id: int, number: int) -> None:
        for _ in range(_LOOKS):
            trial = get_trial(self._database, study_id, number)
            if trial is not None and trial.row.ended_at is not None:
                study = get_study_by_id(self._database, study_id)
                emit_trial(self._tracer, study, trial)
                trace_id = f"{trace_id_of(study, number):032x}"
                names = {"study": study.name, "trial": number, "trace": trace_id}
                _logger.info("trial %d is trace %s", number, trace_id, extra=names)
                return
            if self._stop.wait(_LOOK_S):
                return


class _TracedStudy:
    def __init__(
        self,
        study_id: int,
        inner: Observer,
        ended: SimpleQueue[tuple[int, int] | None],
    ) -> None:
        self._study_id = study_id
        self._inner = inner
        self._ended = ended
        self._last: int | None = None

    def progress(self, progress: Progress) -> None:
        self._inner.progress(progress)

    def on_event(self, event: ProgressEvent) -> None:
        if event.kind in _ENDS and event.number is not None and event.number != self._last:
            self._last = event.number
            self._ended.put((self._study_id, event.number))
        self._inner.on_event(event)
