"""`tune doctor STUDY`: a study's state explained, from the real database."""

from __future__ import annotations

from collections.abc import Iterable

import optuna
import pytest

from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tunesvc.cli.views import diagnosis_text
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import StudyNotFound
from tunesvc.execution.executor import Failed, Launch, OutputLogged, Payload
from tunesvc.execution.worker.garbage import KEEPS_MEMORY
from tunesvc.queries.operations.study_diagnosis import diagnose


def explained(simulation: Simulation) -> dict[str, str]:
    return explained_by_name(simulation.database, simulation.spec.name)


def explained_by_name(database: Database, study: str) -> dict[str, str]:
    """Findings by name, the verdict before the text."""
    found = diagnose(database, study)
    return {
        finding.name: f"{finding.verdict}: {finding.text}"
        for finding in diagnosis_text.findings(found)
    }


def endless(_launch: Launch) -> Iterable[tuple[float, Payload]]:
    return curve(*[1.0] * 1000)


def test_a_running_study_names_its_coordinator_and_where_attempts_live(database: Database) -> None:
    simulation = Simulation(database, make_spec(parallelism=3), endless)
    coordinator = simulation.start(owner="head:7")
    for _ in range(20):
        coordinator.step()
    found = explained(simulation)
    assert found["Coordinator"].startswith(
        "ok: head:7 runs it; its lease, taken once so far, expires in "
    )
    assert found["State"] == "ok: running"
    live = diagnose(database, "test").live
    assert [(row.trial_number, row.node, row.pid) for row in live] == [
        (n, "simulated", n) for n in range(3)
    ]
    assert all(
        row.left_s is not None and 600 < row.left_s <= 660 for row in live
    )  # a tenth more than `limits.stall`
    assert all(row.reported_s is not None and row.reported_s < 60 for row in live)
    table = diagnosis_text.live_table(live, 200)
    assert [column.header.plain for column in table.columns][:5] == [
        "trial",
        "attempt",
        "state",
        "node",
        "pid",
    ]  # type: ignore[union-attr]


def test_a_study_whose_coordinator_is_gone_says_what_waits_and_how_to_continue(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(parallelism=2), endless)
    coordinator = simulation.start(owner="head:7")
    for _ in range(20):
        coordinator.step()
    with database.engine.begin() as connection:
        study_records.request(connection, simulation.record.study_id, "stop", {}, "ada")
        study_records.request(
            connection, simulation.record.study_id, "enqueue", {"params": {"x": 0.5}}, "ada"
        )
    simulation.crash()
    simulation.sql(
        "UPDATE attempts SET expires_at = now() - interval '1 second' WHERE trial_id & 1 = 1"
    )
    found = explained(simulation)
    assert found["State"].startswith("warn: interrupted: no process runs it; head:7 did until 1.")
    assert "`tune resume test` continues" in found["State"]
    assert found["Attempts"].startswith("warn: trials 0, 1 had an unfinished attempt")
    assert found["Command"].endswith("is not carried out yet: no process runs the study")


def test_running_trials_of_a_study_of_optunas_own_wait_for_no_coordinator(
    database: Database,
) -> None:
    """Case W21: they run again once the study has a coordinator."""
    optuna.create_study(storage=PgStorage(database), study_name="theirs").ask()
    found = explained_by_name(database, "theirs")
    assert "Waiting" not in found
    assert found["Running"].startswith("ok: trial 0, by processes that use Optuna's API;")
    assert "`tune stop theirs`" in found["Running"]


def test_attempts_that_get_no_resources_are_named(database: Database) -> None:
    simulation = Simulation(database, make_spec(parallelism=4), endless)
    coordinator = simulation.start()
    for _ in range(20):
        coordinator.step()
    simulation.sql("""UPDATE attempts SET state = 'opened', started_at = NULL, opened_at = now() - interval '3 minutes'
                      WHERE trial_id & 3 = 2""")
    assert explained(simulation)["Resources"].startswith(
        "warn: no resources for trial 2 for up to 3m 00s"
    )


def test_failures_are_counted_by_class_with_their_limits(database: Database) -> None:
    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        return [(1.0, Failed("gpu_oom", "20 GiB"))] if launch.trial_number < 3 else curve(1.0)

    simulation = Simulation(database, make_spec(retries={"gpu_oom": 1}), script)
    simulation.run()
    found = explained(simulation)
    assert (
        found["Failures"]
        == "warn: attempts ended by 6 gpu_oom (times that a trial may be run again: gpu_oom 1)"
    )
    assert found["Lately"].endswith("not retried: retries.gpu_oom (1) is used up")
    assert found["State"] == "ok: finished: all 10 trials are done"


def test_a_worker_that_keeps_memory_is_named_with_its_remedy(database: Database) -> None:
    note = f"{KEEPS_MEMORY}: it holds 2.0 GiB, and held 0.2 GiB after its first. `isolation: process` helps]\n"

    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        return [
            (1.0, OutputLogged("stderr", note if launch.trial_number == 3 else "hello\n")),
            *curve(1.0),
        ]

    simulation = Simulation(database, make_spec(), script)
    simulation.run()
    said = explained(simulation)["Memory"]
    assert said.startswith(
        "warn: before trial 3: this worker keeps memory of earlier trials: it holds 2.0 GiB"
    )
    assert said.endswith("`isolation: process` helps")


def test_a_study_that_is_not_there_is_named(database: Database) -> None:
    with pytest.raises(StudyNotFound, match="no study named 'nowhere'"):
        diagnose(database, "nowhere")
