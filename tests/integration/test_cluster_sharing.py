"""Sharing of a cluster by servers: grants in the database, limits by what was used."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tunesvc.db import lease, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import Priority
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries.operations.shared_demand import get_cluster_demand
from tunesvc.service.cluster_shares import get_shares
from tunesvc.service.cluster_sharing import ClusterSharing

NODE = """INSERT INTO nodes (study_id, key, address, host, total, free)
          VALUES (:study, 'node', '10.0.0.1', 'gpu-1', '{"CPU": 64, "GPU": 8}', '{}')"""
ATTEMPT = """INSERT INTO attempts (trial_id, number, token, state, started_at, ended_at, cpus, gpus)
             VALUES (:trial, 1, 1, :state, now() - interval '2 hours',
                     CASE WHEN :state = 'running' THEN NULL ELSE now() END, 1, 1)"""
TRIAL = """INSERT INTO trials (trial_id, study_id, number, state, started_at)
           VALUES (:trial, :study, :number, 'running', now())"""


def submit(
    database: Database, name: str, user: str, project: str = "vision", **options: object
) -> int:
    spec = make_spec(
        name=name, resources={"cpu": 1, "gpu": 1}, budget={"trials": 100}, parallelism=None
    )
    with database.engine.begin() as connection:
        record = study_records.create(connection, spec)
        submissions.submit(connection, record.study_id, submitted_by=user, **options)  # type: ignore[arg-type]
        connection.execute(
            sa.text("INSERT INTO projects (name) VALUES (:name) ON CONFLICT DO NOTHING"),
            {"name": project},
        )
        connection.execute(
            sa.text(
                "UPDATE studies SET project_id = (SELECT project_id FROM projects WHERE name = :p) "
                "WHERE study_id = :study"
            ),
            {"p": project, "study": record.study_id},
        )
    return record.study_id


def execute(database: Database, statement: str, **values: object) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(statement), values)


def run_trials(database: Database, study: int, count: int, state: str = "running") -> None:
    for number in range(count):
        trial = (study << 32) + number
        execute(database, TRIAL, trial=trial, study=study, number=number)
        execute(database, ATTEMPT, trial=trial, state=state)


@pytest.fixture
def cluster(database: Database) -> Database:
    """A database in which a cluster of 8 GPUs was seen."""
    seen = submit(database, "seen", "eve", project="other")
    execute(database, NODE, study=seen)
    execute(database, "UPDATE studies SET state = 'finished' WHERE study_id = :id", id=seen)
    return database


def test_one_study_is_granted_the_cluster_and_two_of_two_users_half_each(cluster: Database) -> None:
    first = submit(cluster, "first", "ann")
    sharing = ClusterSharing(cluster)
    assert sharing.update([first]).grants[first].slots == 8
    second = submit(cluster, "second", "bob")
    assert sharing.update([first, second]).grants[first].slots == 4
    assert sharing.update([first, second]).grants[second].slots == 4


def test_without_a_cluster_one_study_starts_and_looks_at_it(database: Database) -> None:
    studies = [submit(database, name, "ann") for name in ("first", "second")]
    assert ClusterSharing(database).update([]).startable == (studies[0],)


def test_a_limit_holds_while_another_server_still_uses_an_earlier_grant(cluster: Database) -> None:
    execute(cluster, """INSERT INTO users (name, limits) VALUES ('ann', '{"gpus": 4}')""")
    first = submit(cluster, "first", "ann")
    one, other = ClusterSharing(cluster), ClusterSharing(cluster)
    assert one.update([first]).grants[first].slots == 4
    second = submit(cluster, "second", "ann")
    assert other.update([second]).grants[second].slots == 0
    one.update([first])  # takes two slots back; they may be in use until the next call
    assert other.update([second]).grants[second].slots == 0
    one.update([first])
    assert other.update([second]).grants[second].slots == 2


def test_an_urgent_study_makes_others_give_up_running_trials(cluster: Database) -> None:
    first = submit(cluster, "first", "ann")
    run_trials(cluster, first, 8)
    urgent = submit(cluster, "now", "bob", project="text", priority=Priority.URGENT)
    found = ClusterSharing(cluster).update([first])
    assert found.startable == (urgent,)
    assert found.grants[first].ceiling == 0
    assert found.grants[first].reason == "'now' is urgent"
    with cluster.engine.begin() as connection:
        lease.acquire(connection, urgent, "server")
    assert ClusterSharing(cluster).update([urgent]).grants[urgent].slots == 8


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ('{"gpu_hours": 3.5}', "its 3.5 GPU hours are used up"),
        (
            '{"cost": 20, "cost_per_gpu_hour": 4, "cost_per_cpu_hour": 1.1}',
            "its 20 of cost are used up",
        ),
    ],
)
def test_spent_hours_and_money_end_what_a_project_may_start(
    cluster: Database, limits: str, reason: str
) -> None:
    first = submit(cluster, "first", "ann")
    run_trials(cluster, first, 2, state="finished")
    execute(
        cluster, "UPDATE projects SET limits = CAST(:l AS jsonb) WHERE name = 'vision'", l=limits
    )
    with cluster.engine.connect() as connection:
        demand = get_cluster_demand(connection)
    assert demand.projects["vision"].limits.exhausted == reason
    assert ClusterSharing(cluster).update([first]).grants[first].slots == 0


def test_shares_say_what_each_study_uses_why_it_waits_and_until_when(cluster: Database) -> None:
    first = submit(cluster, "first", "ann")
    run_trials(cluster, first, 8)
    with cluster.engine.begin() as connection:
        lease.acquire(connection, first, "server")
    execute(
        cluster,
        "UPDATE attempts SET state = 'finished', ended_at = started_at + interval '3 hours' "
        "WHERE trial_id = :t",
        t=first << 32,
    )
    submit(cluster, "second", "bob")
    execute(cluster, """INSERT INTO users (name, limits) VALUES ('eve', '{"gpu_hours": 0}')""")
    submit(cluster, "third", "eve")
    shares = get_shares(cluster)
    assert shares.total == {"CPU": 64, "GPU": 8}
    found = {share.study: share for share in shares.studies}
    assert (found["first"].running, found["first"].slots) == (7, 4)
    assert not found["first"].is_waiting
    assert found["second"].slots == 4
    assert found["second"].likely_s == pytest.approx(3600, abs=60)
    assert found["third"].reason == "user eve: its 0 GPU hours are used up"
    assert found["third"].likely_s is None
    hidden = get_shares(cluster, StudyScope(frozenset()))
    assert hidden.studies == ()


def test_shares_name_use_by_other_programs_and_studies_that_could_not_be_started(
    cluster: Database,
) -> None:
    first = submit(cluster, "first", "ann")
    run_trials(cluster, first, 3)
    execute(cluster, """UPDATE nodes SET free = '{"CPU": 8}'""")
    submit(cluster, "greedy", "bob")
    execute(
        cluster,
        "UPDATE submissions SET problem = 'it asks for too much', "
        "retry_at = now() + interval '1 hour' FROM studies s "
        "WHERE s.study_id = submissions.study_id AND s.name = 'greedy'",
    )
    shares = get_shares(cluster).studies
    assert [share.study for share in shares] == ["first", "greedy"]
    in_use = "8 of the cluster's 8 GPUs are in use, 3 of them by trials of submitted studies"
    assert shares[0].reason == in_use
    assert "it could not be started: it asks for too much; next try" in shares[1].reason
    assert get_shares(cluster, StudyScope(frozenset())).studies == ()


def test_what_each_party_has_received_counts_since_all_of_its_group_wait(cluster: Database) -> None:
    first = submit(cluster, "first", "ann")  # an hour of its two counts: the window
    run_trials(cluster, first, 2, state="finished")
    assert received(cluster, first) == ({}, {}, {})
    second, third = submit(cluster, "second", "ann"), submit(cluster, "third", "bob", "text")
    for study, minutes in ((first, 60), (second, 30), (third, 10)):
        execute(
            cluster,
            "UPDATE submissions SET queued_at = now() - make_interval(mins => :m) "
            "WHERE study_id = :id",
            m=minutes,
            id=study,
        )
    ended = submit(cluster, "ended", "bob", "text")  # its project has received what it used
    run_trials(cluster, ended, 1, state="finished")
    execute(cluster, "UPDATE studies SET state = 'finished' WHERE study_id = :id", id=ended)
    of_project, of_user, of_study = received(cluster, first)
    assert of_project == pytest.approx({"CPU": 1200, "GPU": 1200}, rel=0.05)
    assert of_user == pytest.approx({"CPU": 7200, "GPU": 7200}, rel=0.05)
    assert of_study == pytest.approx({"CPU": 3600, "GPU": 3600}, rel=0.05)
    assert received(cluster, third)[0] == pytest.approx({"CPU": 600, "GPU": 600}, rel=0.05)
    assert received(cluster, third)[2] == {}


def received(database: Database, study: int) -> tuple[Mapping[str, float], ...]:
    with database.engine.connect() as connection:
        studies = get_cluster_demand(connection).studies
    return next(one.received for one in studies if one.study_id == study)


def test_two_studies_take_turns_with_a_gpu_that_is_left_over(cluster: Database) -> None:
    execute(cluster, """UPDATE nodes SET total = '{"CPU": 64, "GPU": 1}'""")
    first, second = submit(cluster, "first", "ann"), submit(cluster, "second", "bob")
    execute(cluster, "UPDATE submissions SET queued_at = now() - interval '1 hour'")
    run_trials(cluster, first, 1)
    grants = ClusterSharing(cluster).update([first, second]).grants
    assert (grants[first].slots, grants[second].slots) == (0, 1)
    run_trials(cluster, second, 1)
    execute(
        cluster,
        "UPDATE attempts SET state = 'finished', started_at = now() - interval '9 minutes', "
        "ended_at = now() WHERE trial_id = :t",
        t=first << 32,
    )
    grants = ClusterSharing(cluster).update([first, second]).grants
    assert (grants[first].slots, grants[second].slots) == (1, 0)


def test_until_the_cluster_is_seen_one_study_starts_and_the_most_urgent_first(
    database: Database,
) -> None:
    submit(database, "first", "ada")
    urgent = submit(database, "urgent", "bob", priority=Priority.URGENT)
    submit(database, "last", "ada", priority=Priority.LOW)
    assert ClusterSharing(database).update(frozenset()).startable == (urgent,)
