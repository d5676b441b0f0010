"""The cluster as coordinators see it, from a real Postgres."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_writer import StudyWriter
from tunesvc.execution.executor import Launch, NodeInfo, Payload
from tunesvc.queries.operations.cluster_view import get_cluster


def endless(_launch: Launch) -> Iterable[tuple[float, Payload]]:
    return curve(*[1.0] * 1000)


def running(database: Database, **changes: object) -> Simulation:
    """A study that has run for 15 s, in which its nodes were recorded twice."""
    simulation = Simulation(database, make_spec(**changes), endless)
    coordinator = simulation.start(owner="head:7")
    while simulation.clock.now() < 15:
        coordinator.step()
    return simulation


def node(key: str, total: Mapping[str, float], free: Mapping[str, float] | None = None) -> NodeInfo:
    return NodeInfo(key, f"10.0.0.{key[-1]}", key, total, total if free is None else free)


def test_a_coordinator_records_its_nodes_and_the_trials_on_them(database: Database) -> None:
    running(database, parallelism=3)
    seen = get_cluster(database)
    (one,) = seen.nodes
    assert (one.host, one.studies, one.is_stale) == ("simulated", ("test",), False)
    assert [row.trial_number for row in one.held] == [0, 1, 2]
    assert one.used("CPU") == 3
    assert seen.elsewhere == ()
    (coordinator,) = seen.coordinators
    assert (coordinator.owner, coordinator.running, coordinator.waiting) == ("head:7", 3, 0)


def test_a_gang_is_shown_with_all_its_resources_and_workers(database: Database) -> None:
    running(database, parallelism=1, resources={"cpu": 1, "workers": 3})
    seen = get_cluster(database)
    (row,) = seen.nodes[0].held
    assert (row.cpus, row.workers, row.workers_here) == (3, 3, 3)


def test_each_node_of_a_gang_shows_its_part(database: Database) -> None:
    simulation = running(database, parallelism=1, resources={"cpu": 2, "workers": 3})
    simulation.sql("""INSERT INTO nodes (study_id, key, address, host, total, free)
                      SELECT study_id, n.key, '10.0.0.1', n.key, total, free
                      FROM nodes, unnest(ARRAY['n1', 'n2', 'n3']) AS n (key)""")
    simulation.sql("DELETE FROM nodes WHERE key NOT LIKE 'n_'")
    simulation.sql("UPDATE attempts SET bundle_nodes = ARRAY['n1', 'n3', 'n1'], node = '10.0.0.1'")
    seen = get_cluster(database)
    parts = {one.key: [(row.workers_here, row.cpus) for row in one.held] for one in seen.nodes}
    assert parts == {"n1": [(2, 4.0)], "n2": [], "n3": [(1, 2.0)]}
    assert seen.elsewhere == ()


def test_a_gang_whose_nodes_are_all_gone_is_elsewhere(database: Database) -> None:
    simulation = running(database, parallelism=1, resources={"cpu": 1, "workers": 2})
    simulation.sql("UPDATE attempts SET bundle_nodes = ARRAY['lost', 'lost']")
    seen = get_cluster(database)
    assert [row.trial_number for row in seen.elsewhere] == [0]


def test_nodes_that_are_gone_are_forgotten_and_shared_ones_listed_once(database: Database) -> None:
    first, second = (Simulation(database, make_spec(name=name), endless) for name in ("a", "b"))
    one, other = (
        StudyWriter.open(database, simulation.record.study_id) for simulation in (first, second)
    )
    one.commit(StudyChanges(nodes=[node("n1", {"CPU": 4.0}), node("n2", {"CPU": 4.0})]))
    one.commit(StudyChanges(nodes=[node("n1", {"CPU": 4.0}, {"CPU": 1.0})]))
    other.commit(StudyChanges(nodes=[node("n1", {"CPU": 4.0}, {"CPU": 0.5})]))
    (shared,) = get_cluster(database).nodes
    assert shared.studies == ("a", "b")
    assert shared.used("CPU") == 3.5
    first.sql("UPDATE nodes SET seen_at = now() - interval '1 minute'")
    assert get_cluster(database).nodes[0].is_stale
    first.sql("UPDATE nodes SET seen_at = now() - interval '1 hour'")
    assert get_cluster(database).nodes == ()


def test_the_queue_says_since_when_and_why(database: Database) -> None:
    simulation = running(database, parallelism=2, resources={"cpu": 1, "gpu": 1})
    simulation.sql("UPDATE attempts SET state = 'opened', started_at = NULL WHERE trial_id & 1 = 1")
    simulation.sql("""UPDATE nodes SET total = '{"CPU": 8, "GPU": 1}', free = '{"CPU": 7}'""")
    (waiting,) = get_cluster(database).waiting
    assert waiting.trials == (1,)
    assert waiting.since is not None
    assert (
        waiting.why == "it asks for 1 CPU, 1 GPU; the most that is free on one node is 7 CPU, 0 GPU"
    )


@pytest.mark.parametrize(
    ("entrypoint", "command"),
    [
        ("module:function", "tune resume test"),
        (None, "tunesvc.load_study('test').resume(function=your_function)"),
    ],
)
def test_trials_of_a_study_without_a_coordinator_say_how_to_continue(
    database: Database, entrypoint: str | None, command: str
) -> None:
    simulation = running(database, parallelism=2, entrypoint=entrypoint)
    simulation.crash()
    simulation.sql("UPDATE attempts SET state = 'lost', ended_at = now()")
    (waiting,) = get_cluster(database).waiting
    assert (waiting.trials, waiting.count) == ((0, 1), 2)
    assert waiting.why == f"no process runs the study; `{command}` continues it"
