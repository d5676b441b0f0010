"""Servers that end in order, are killed, or are killed at the worst moment, while they run studies
on a cluster that outlives them; and one with a local Ray, which does not."""

from __future__ import annotations

import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.support import invariant_checker
from tests.support.ray_clusters import Elsewhere, RayCluster
from tests.support.servers import Servers, servers_of, wait_until
from tunesvc.db.engine.database import Database
from tunesvc.instrumentation.failpoints import Point
from tunesvc.queries.studies import get_study

pytestmark = pytest.mark.slow
CPUS = 6


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster."""
    process = Elsewhere(RayCluster)
    process.call("add_node", CPUS)
    yield process.call("address")
    process.call("shutdown")
    process.end()


@pytest.fixture
def servers(database: Database, tmp_path: Path, cluster: str) -> Iterator[Servers]:
    with servers_of(database, tmp_path, cluster) as servers:
        yield servers


def started(database: Database) -> Counter[int]:
    """Number of attempts of each trial that have started."""
    query = sa.text("SELECT trial_id FROM attempts WHERE started_at IS NOT NULL")
    return Counter(database.scalars(query))


def owners(database: Database) -> dict[int, int]:
    """Process of the server that runs each study."""
    query = sa.text("SELECT study_id, owner FROM leases WHERE expires_at > now()")
    return {study: int(owner.rpartition(":")[2]) for study, owner in database.rows(query)}


def test_a_server_that_is_ended_in_order_hands_its_studies_over_and_no_trial_runs_twice(
    servers: Servers, database: Database
) -> None:
    """Fault 2, of a server with a shared cluster: a rolling upgrade."""
    old = servers.start()
    study = servers.submit("bowl", budget={"trials": 20})
    wait_until(lambda: get_study(database, "bowl").counts.complete >= 4)
    new = servers.start()
    began_s = time.monotonic()
    assert old.signal(signal.SIGTERM) == 0
    ended_s = time.monotonic() - began_s
    wait_until(lambda: owners(database) == {study: new.pid})
    taken_s = time.monotonic() - began_s
    servers.wait_until_finished("bowl")
    assert ended_s < 10
    assert taken_s < 10
    assert get_study(database, "bowl").counts.complete == 20
    assert set(started(database).values()) == {1}
    invariant_checker.assert_holds(servers.history, database)


def test_of_two_servers_one_is_killed_and_the_other_takes_its_studies_over(
    servers: Servers, database: Database
) -> None:
    """Fault 51: nothing is lost, and trials run on."""
    both = [servers.start(), servers.start()]
    names = [f"study-{i}" for i in range(5)]
    for name in names:
        servers.submit(name, budget={"trials": 12}, parallelism=1)
    wait_until(lambda: len(owners(database)) == 5 and len(started(database)) >= 5)
    killed, running = Counter(owners(database).values()).most_common(1)[0]
    victim = next(server for server in both if server.pid == killed)
    victim.signal(signal.SIGKILL)
    began_s = time.monotonic()
    lost = {study for study, pid in owners(database).items() if pid == killed}
    taken_s: dict[int, float] = {}

    def are_taken() -> bool:
        for study, pid in owners(database).items():
            if study in lost and pid != killed:
                taken_s.setdefault(study, time.monotonic() - began_s)
        return len(taken_s) == running

    wait_until(are_taken)
    assert statistics.median(taken_s.values()) < 16  # 10 s of them are the lease
    servers.wait_until_finished(*names)
    assert all(get_study(database, name).counts.complete == 12 for name in names)
    assert set(started(database).values()) == {1}
    invariant_checker.assert_holds(servers.history, database)


POINTS: tuple[Point, ...] = ("taking", "leased", "recovered", "adopted", "committed", "launched")


@pytest.mark.parametrize("point", POINTS)
def test_a_server_killed_while_it_takes_a_study_leaves_it_to_another_one(
    servers: Servers, database: Database, point: Point
) -> None:
    """Fault 51."""
    dying = servers.start(TUNE_FAILPOINT=f"{point}:kill")
    servers.submit("bowl", budget={"trials": 8})
    wait_until(lambda: dying.process.poll() is not None)
    assert dying.process.returncode == -signal.SIGKILL
    servers.start()
    servers.wait_until_finished("bowl")
    assert get_study(database, "bowl").counts.complete == 8
    assert set(started(database).values()) == {1}
    invariant_checker.assert_holds(servers.history, database)


def test_a_server_killed_while_it_hands_over_leaves_its_study_to_another_one(
    servers: Servers, database: Database
) -> None:
    """Fault 51."""
    dying = servers.start(TUNE_FAILPOINT="leaving:kill")
    servers.submit("bowl", budget={"trials": 12})
    wait_until(lambda: get_study(database, "bowl").counts.complete >= 2)
    assert dying.signal(signal.SIGTERM) == -signal.SIGKILL
    servers.start()
    servers.wait_until_finished("bowl")
    assert get_study(database, "bowl").counts.complete == 12
    assert set(started(database).values()) == {1}
    invariant_checker.assert_holds(servers.history, database)


def test_a_second_signal_ends_a_server_at_once(servers: Servers, database: Database) -> None:
    """Fault 2."""
    server = servers.start()
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    server.process.send_signal(signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGINT)
    assert server.signal(signal.SIGCONT) in (0, 130)


def test_a_server_with_a_local_ray_is_ended_and_started_again_in_the_middle_of_a_study(
    database: Database, tmp_path: Path
) -> None:
    """Fault 2, of a laptop: every trial ends once, and none is lost."""
    with servers_of(database, tmp_path, None) as servers:
        first = servers.start()
        servers.submit("bowl", budget={"trials": 10}, parallelism=2)
        wait_until(lambda: get_study(database, "bowl").counts.complete >= 3)
        assert first.signal(signal.SIGTERM) == 0
        left = get_study(database, "bowl")
        assert left.queued is not None
        assert left.counts.complete < 10
        servers.start()
        servers.wait_until_finished("bowl")
        assert get_study(database, "bowl").counts.complete == 10
        ended = database.scalars(sa.text("SELECT trial_id FROM attempts WHERE state = 'finished'"))
        assert Counter(ended).most_common(1)[0][1] == 1
        assert len(ended) == 10
        invariant_checker.assert_holds(servers.history, database)


def test_data_of_a_served_study_is_prepared_on_the_cluster_and_reaches_its_nodes(
    servers: Servers, database: Database
) -> None:
    (servers.project / "people.csv").write_text(
        "age,bought\n" + "".join(f"{k},{k % 2}\n" for k in range(100))
    )
    (servers.project / "training.py").write_text(
        "def train(x, n, *, trial):\n"
        "    trial.set_user_attr('rows', len(trial.data.train))\n"
        "    return x\n"
    )
    server = servers.start()
    data = {"source": "people.csv", "target": "bought"}
    servers.submit("people", budget={"trials": 4}, data=data)
    servers.wait_until_finished("people")
    assert get_study(database, "people").counts.complete == 4
    rows = database.scalars(sa.text("SELECT value FROM trial_attrs WHERE name = 'rows'"))
    assert list(rows) == ["60"] * 4
    assert "preparing data on the cluster" in server.log
