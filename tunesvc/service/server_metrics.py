"""Metrics for Prometheus: counters of this server, and numbers of the whole service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from tunesvc.coordinator.progress_events import Progress, ProgressEvent
from tunesvc.db.engine.database import Database
from tunesvc.errors import DatabaseUnavailable
from tunesvc.instrumentation import latency
from tunesvc.instrumentation.latency import Operation
from tunesvc.queries.operations.service_load import ServiceLoad, get_service_load
from tunesvc.service.study_supervisor import StudySupervisor

_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_OUTCOMES = ("complete", "pruned", "failed", "stopped")


class ServerMetrics:
    """The metrics of one server; as a context manager it measures latencies."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._registry = CollectorRegistry()
        self._latency = {
            operation: Histogram(
                f"tunesvc_{operation}_seconds",
                text,
                buckets=_BUCKETS_S,
                registry=self._registry,
            )
            for operation, text in _OPERATIONS.items()
        }
        self._trials = Counter(
            "tunesvc_trials",
            "Trials that ended under this server",
            ["outcome"],
            registry=self._registry,
        )
        self._events = Counter(
            "tunesvc_events",
            "Events of studies under this server",
            ["kind"],
            registry=self._registry,
        )
        for outcome in _OUTCOMES:
            self._trials.labels(outcome)
        for kind in ("error", "retry", "warning"):
            self._events.labels(kind)

    def __enter__(self) -> ServerMetrics:
        latency.observe_with(self._observe)
        return self

    def __exit__(self, *_: object) -> None:
        latency.observe_with(None)

    def add_server(self, supervisor: StudySupervisor) -> None:
        """Publish the state of a supervisor and of the whole service. Call it once."""
        self._registry.register(_ServiceCollector(self._database, supervisor))

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def observer(self) -> TrialCounter:
        """Return an observer that counts one study's trials and events."""
        return TrialCounter(self._trials, self._events)

    def _observe(self, operation: Operation, duration_s: float) -> None:
        self._latency[operation].observe(duration_s)


class TrialCounter:
    """Observer of one study: counts how its trials end, from one snapshot to the next."""

    def __init__(self, trials: Counter, events: Counter) -> None:
        self._trials = trials
        self._events = events
        self._last: Progress | None = None

    def progress(self, progress: Progress) -> None:
        """Count the trials that ended since the last snapshot."""
        if self._last is not None:
            for outcome in _OUTCOMES:
                ended = getattr(progress, outcome) - getattr(self._last, outcome)
                self._trials.labels(outcome).inc(max(0, ended))
        self._last = progress

    def on_event(self, event: ProgressEvent) -> None:
        """Count an event."""
        self._events.labels(event.kind).inc()


_OPERATIONS: Mapping[Operation, str] = {
    "ask": "Time until the next trial's parameters were there",
    "commit": "Time of a step's transaction",
}


class _ServiceCollector(Collector):
    def __init__(self, database: Database, supervisor: StudySupervisor) -> None:
        self._database = database
        self._supervisor = supervisor

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Describe nothing, so that registering reads no database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges; those of the database only while it answers."""
        yield _gauge("server_studies", "Studies that this server runs", self._supervisor.running)
        is_ready = not self._supervisor.problem
        yield _gauge("server_ready", "1 if this server takes studies", float(is_ready))
        try:
            load = get_service_load(self._database)
        except DatabaseUnavailable:
            yield _gauge("database_up", "1 if the database answers", 0.0)
            return
        yield _gauge("database_up", "1 if the database answers", 1.0)
        yield from _of_service(load)


def _of_service(load: ServiceLoad) -> Iterator[GaugeMetricFamily]:
    yield _labelled("studies", "Studies by state", "state", load.studies)
    yield _labelled("queued_studies", "Studies that wait for a server", "priority", load.queued)
    yield _gauge("queue_longest_wait_seconds", "Longest wait in the queue", load.longest_wait_s)
    yield _gauge("unstartable_studies", "Waiting studies with a problem", load.unstartable)
    yield _gauge("leases", "Studies with a coordinator", load.leases)
    yield _labelled("attempts", "Attempts that have not ended", "state", load.attempts)
    shown = {name: load.resources.get(name, 0.0) for name in load.used}
    yield _labelled("cluster_resources", "CPUs and GPUs of the cluster", "resource", shown)
    yield _labelled("used_resources", "CPUs and GPUs of running attempts", "resource", load.used)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tunesvc_{name}", text, value=value)


def _labelled(
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"tunesvc_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family
