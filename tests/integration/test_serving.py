"""Servers that take studies from one queue: a real database, and simulated workers that outlive the
servers as those of a cluster do."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from tests.support.simulation import quadratic
from tests.support.specs import make_spec
from tunesvc.db import notifications, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import ExecutorError
from tunesvc.execution.executor import Executor, Job
from tunesvc.instrumentation import failpoints
from tunesvc.queries.rows import StudyStatus
from tunesvc.queries.studies import get_study, list_studies
from tunesvc.runtime import study_requests
from tunesvc.service import served_study, study_supervisor
from tunesvc.service.readiness import find_problems
from tunesvc.service.served_study import ServedStudy
from tunesvc.service.server_metrics import ServerMetrics
from tunesvc.service.study_supervisor import StudySupervisor
from tunesvc.spec import StudySpec
from tunesvc.testing.simulated_executor import SimulatedCluster, SimulatedExecutor, VirtualClock
from tunesvc.web import DashboardServer
from tunesvc.web.probes import probe_router

SPEED = 50.0
"""Seconds of the simulation per second."""


class PacedClock(VirtualClock):
    """A virtual clock that follows the real one."""

    def now(self) -> float:
        return time.monotonic() * SPEED

    def advance(self, to_s: float) -> None:
        time.sleep(max(0.0, to_s - self.now()) / SPEED)


class Servers:
    """Servers of one database with one cluster."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._clusters: dict[str, SimulatedCluster] = {}

    def executor(self, job: Job, spec: StudySpec) -> Executor:
        if job.key not in self._clusters:
            self._clusters[job.key] = SimulatedCluster(quadratic, clock=PacedClock(), slots=4)
        clock = self._clusters[job.key].clock
        return SimulatedExecutor(
            quadratic, clock=clock, slots=4, cluster=self._clusters[job.key], handover_s=0.0
        )

    def make(self, studies_max: int = 20) -> StudySupervisor:
        serve = partial(ServedStudy, database=self.database, make_executor=self.executor)
        return StudySupervisor(self.database, serve, studies_max=studies_max)

    @contextmanager
    def running(self, count: int = 1) -> Iterator[list[StudySupervisor]]:
        made = [self.make() for _ in range(count)]
        for server in made:
            server.start()
        try:
            yield made
        finally:
            for server in made:
                server.stop()


@pytest.fixture
def servers(database: Database, monkeypatch: pytest.MonkeyPatch) -> Servers:
    monkeypatch.setattr(study_supervisor, "LOOK_S", 0.1)
    return Servers(database)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "module.py").write_text("def function(x, n):\n    return x\n")
    return str(tmp_path)


def submit(database: Database, name: str, folder: str, **changes: Any) -> int:
    with database.engine.begin() as connection:
        spec = make_spec(**{"name": name, "budget": {"trials": 4}} | changes)
        study = study_records.create(connection, spec, None, folder, "ada").study_id
        submissions.submit(connection, study, submitted_by="ada")
    return study


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "it does not come to pass"
        time.sleep(0.02)


def are_finished(database: Database, *names: str) -> bool:
    states = {row.name: row.state for row in list_studies(database)}
    return all(states[name] is StudyStatus.FINISHED for name in names)


def attempts_of(database: Database) -> Counter[int]:
    """Number of attempts of each trial."""
    return Counter(database.scalars(sa.text("SELECT trial_id FROM attempts")))


def test_a_server_takes_a_study_when_it_is_submitted_and_not_at_its_next_look(
    database: Database, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_supervisor, "LOOK_S", 60.0)
    servers = Servers(database)
    with servers.running() as (server,):
        wait_until(lambda: has_listener(database))
        submit(database, "prompt", folder)
        wait_until(lambda: server.running == 1, timeout_s=5.0)
        # a connection that is lost costs notifications, and no study
        rows(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = :q")
        wait_until(lambda: has_listener(database))
        submit(database, "after", folder)
        wait_until(lambda: are_finished(database, "prompt", "after"))


def has_listener(database: Database) -> bool:
    return bool(rows(database, "SELECT 1 FROM pg_stat_activity WHERE query = :q"))


def rows(database: Database, query: str) -> Sequence[Any]:
    return database.rows(sa.text(query), {"q": f"LISTEN {notifications.QUEUE}"})


def test_servers_run_what_was_submitted_once_and_leave_other_studies_alone(
    servers: Servers, database: Database, folder: str
) -> None:
    names = [f"study-{i}" for i in range(3)]
    for name in names:
        submit(database, name, folder)
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="of tune run"), None, folder)
    with servers.running(2) as (one, other):
        wait_until(lambda: are_finished(database, *names))
        wait_until(lambda: one.running + other.running == 0)
    assert get_study(database, "of tune run").state is StudyStatus.CREATED
    attempts = attempts_of(database)
    assert len(attempts) == 12
    assert set(attempts.values()) == {1}


def test_a_server_that_stops_leaves_trials_running_and_another_one_adopts_them(
    servers: Servers, database: Database, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    submit(database, "bowl", folder, budget={"trials": 16})
    with servers.running():
        wait_until(lambda: get_study(database, "bowl").counts.done >= 3)
    left = get_study(database, "bowl")
    assert left.state is StudyStatus.QUEUED
    assert left.counts.done < 16
    assert left.counts.interrupted > 0
    assert "it waits for a server" in left.queued.reason  # type: ignore[union-attr]
    with servers.running():
        wait_until(lambda: are_finished(database, "bowl"))
    assert get_study(database, "bowl").counts.complete == 16
    # Those that had not started when the first server left are opened again.
    states = database.scalars(sa.text("SELECT state FROM attempts WHERE started_at IS NOT NULL"))
    assert Counter(states) == {"finished": 16}


def test_a_study_that_cannot_run_shows_why_and_runs_once_that_is_mended(
    servers: Servers, database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "later"
    submit(database, "bowl", str(folder))
    submit(database, "other", str(tmp_path))
    (tmp_path / "module.py").write_text("def function(x, n):\n    return x\n")
    with servers.running():
        wait_until(lambda: are_finished(database, "other"))
        queued = get_study(database, "bowl").queued
        assert queued is not None
        assert f"it could not be started: study 'bowl' cannot run: there is no folder {folder}" in (
            queued.reason
        )
        folder.mkdir()
        (tmp_path / "module.py").rename(folder / "module.py")
        study_requests.request(database, queued_id(database), "resume", {}, "ada")
        wait_until(lambda: are_finished(database, "bowl"))
    submission = get_study(database, "bowl").submission
    assert submission is not None
    assert submission.problem == ""


def queued_id(database: Database) -> int:
    return get_study(database, "bowl").study_id


def test_a_study_that_is_paused_while_a_server_takes_it_does_not_run(
    servers: Servers, database: Database, folder: str
) -> None:
    study = submit(database, "bowl", folder)
    server = servers.make()
    asked = []
    failpoints.interpose(
        "taking",
        1,
        lambda: asked.append(study_requests.request(database, study, "pause", {}, "ada")),
    )
    try:
        wait_until(server.step)
    finally:
        failpoints.arm(None)
    wait_until(lambda: server.running == 0)
    assert asked == ["paused; no coordinator was running it"]
    assert get_study(database, "bowl").state is StudyStatus.PAUSED
    assert attempts_of(database) == {}


def test_a_server_runs_no_more_studies_than_it_may(
    servers: Servers, database: Database, folder: str
) -> None:
    for name in ("first", "second"):
        submit(database, name, folder)
    server = servers.make(studies_max=1)
    wait_until(server.step)
    assert not server.step()
    assert server.running == 1
    wait_until(lambda: (server.step(), are_finished(database, "first", "second"))[1])
    server.stop()


def test_a_server_without_studies_gives_its_ray_back(
    servers: Servers, database: Database, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_supervisor, "IDLE_S", 0.2)
    ended: list[str] = []
    serve = partial(ServedStudy, database=database, make_executor=servers.executor)
    server = StudySupervisor(database, serve, on_idle=lambda: ended.append("ray"))
    server.step()
    assert ended == []  # it has none
    submit(database, "bowl", folder)
    wait_until(lambda: (server.step(), are_finished(database, "bowl"))[1])
    assert ended == []
    wait_until(lambda: (server.step(), bool(ended))[1])
    wait_until(lambda: not server.step())
    assert ended == ["ray"]
    server.stop()


def test_a_server_says_whether_it_is_alive_and_ready(servers: Servers, database: Database) -> None:
    server = servers.make()
    web = DashboardServer(database, port=0)
    web.app.include_router(probe_router(lambda: find_problems(database, server)))
    with web:
        assert httpx.get(f"{web.url}/healthz").json() == {"alive": True}
        not_started = httpx.get(f"{web.url}/readyz")
        assert (not_started.status_code, not_started.json()["ready"]) == (503, False)
        server.start()
        assert httpx.get(f"{web.url}/readyz").json() == {"ready": True, "problems": []}
        with database.engine.begin() as connection:
            connection.execute(sa.text("UPDATE tunesvc_version SET version_num = '9999'"))
        newer = httpx.get(f"{web.url}/readyz")
        assert newer.status_code == 503
        assert "newer than this program's" in newer.json()["problems"][0]
        server.stop()
        assert "the server is shutting down" in httpx.get(f"{web.url}/readyz").json()["problems"]
        assert httpx.get(f"{web.url}/healthz").status_code == 200


def test_metrics_tell_the_queue_the_trials_and_the_latencies(
    servers: Servers, database: Database, folder: str
) -> None:
    for name in ("waiting", "bowl"):
        submit(database, name, folder)
    with database.engine.begin() as connection:
        submissions.fail(connection, get_study(database, "waiting").study_id, "no folder")
    with ServerMetrics(database) as metrics:
        server = StudySupervisor(
            database,
            partial(
                ServedStudy,
                database=database,
                make_executor=servers.executor,
                observer=metrics.observer(),
            ),
        )
        metrics.add_server(server)
        wait_until(lambda: (server.step(), are_finished(database, "bowl"))[1])
        server.stop()
        text = metrics.text().decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["tunesvc_studies", "queued"] == found["tunesvc_studies", "finished"] == 1
    assert found["tunesvc_queued_studies", "normal"] == 1
    assert found["tunesvc_unstartable_studies",] == 1
    assert found["tunesvc_attempts", "running"] == 0
    assert found["tunesvc_trials_total", "complete"] >= 1
    assert found["tunesvc_cluster_resources", "CPU"] == 4
    assert found["tunesvc_commit_seconds_count",] >= 4
    assert found["tunesvc_ask_seconds_count",] == 4
    assert found["tunesvc_database_up",] == 1
    board = (Path(__file__).parents[2] / "docker" / "grafana.json").read_text()
    assert set(re.findall(r"tunesvc_\w+", board)) <= {name for name, *_ in found}


@pytest.mark.slow
def test_a_server_waits_for_a_database_that_is_away_and_goes_on(
    servers: Servers, database: Database, folder: str, set_away: Callable[[bool], None]
) -> None:
    """Fault 3, of a server."""
    submit(database, "bowl", folder, budget={"trials": 40})
    with servers.running() as (server,):
        wait_until(lambda: get_study(database, "bowl").counts.done >= 3)
        set_away(True)
        wait_until(lambda: "the database is away" in server.problem)
        assert find_problems(database, server)
        set_away(False)
        wait_until(lambda: server.problem == "")
        wait_until(lambda: are_finished(database, "bowl"))
    assert set(attempts_of(database).values()) == {1}


def test_a_server_does_not_wait_for_a_ray_that_does_not_come(
    database: Database, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_study, "UNBEGUN_S", 0.1)
    begun, over = threading.Event(), threading.Event()

    def executor(_job: Job, _spec: StudySpec) -> Executor:
        begun.set()
        over.wait()
        raise ExecutorError("the cluster cannot be reached")

    submit(database, "bowl", folder)
    serve = partial(ServedStudy, database=database, make_executor=executor)
    server = StudySupervisor(database, serve)
    wait_until(server.step)
    assert begun.wait(30)
    server.stop()
    assert server.running == 1
    over.set()
    wait_until(lambda: server.running == 0)


def test_a_queue_that_cannot_be_read_is_a_reason_not_to_be_ready(
    servers: Servers, database: Database
) -> None:
    server = servers.make()
    server.start()
    with database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE submissions RENAME TO mislaid"))
    wait_until(lambda: "mislaid" in server.problem or "submissions" in server.problem)
    with database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE mislaid RENAME TO submissions"))
    wait_until(lambda: server.problem == "")
    server.stop()
    assert study_state(database) == []


def study_state(database: Database) -> list[StudyState]:
    return [StudyState(row.state) for row in list_studies(database)]
