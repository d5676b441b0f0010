"""Requests to a running study, on a real database with simulated workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.support.simulation import Simulation, curve, quadratic
from tests.support.specs import make_spec
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.execution.executor import Failed, Finished, Launch, Payload, Reported
from tunesvc.instrumentation import failpoints
from tunesvc.queries.explain.explanation import explain_study
from tunesvc.queries.studies import get_study, list_studies
from tunesvc.queries.trials.trial_table import get_trial, list_trials


def ask(simulation: Simulation, kind: str, payload: Mapping[str, object] | None = None) -> None:
    with simulation.database.engine.begin() as connection:
        study_records.request(connection, simulation.record.study_id, kind, payload or {}, "test")


def test_a_pause_lets_running_trials_finish_and_a_resume_continues(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    for _ in range(6):
        coordinator.step()
    ask(simulation, "pause")
    closing = coordinator.run()
    simulation.study_writer.release()
    assert closing.state is StudyState.PAUSED
    assert simulation.sql("SELECT state FROM studies") == [("paused",)]
    assert "running" not in simulation.states()
    assert sum(simulation.states().values()) < 10
    simulation.run()
    assert simulation.states() == {"complete": 10}


@pytest.mark.parametrize("kind", ["stop", "pause"])
def test_a_request_that_came_too_late_for_its_run_does_not_end_the_next_one(
    database: Database, kind: str
) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    coordinator.step()
    simulation.crash()
    ask(simulation, kind)
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.sql("SELECT answer FROM commands") == [
        ("the run that this was meant for had ended",)
    ]


@pytest.mark.parametrize(
    ("kind", "state"), [("stop", StudyState.STOPPED), ("pause", StudyState.PAUSED)]
)
@pytest.mark.parametrize("seen", [True, False])
def test_a_request_whose_coordinator_died_is_executed_by_the_standby(
    database: Database, kind: str, state: StudyState, seen: bool
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 1000}))
    simulation.share_cluster()
    coordinator = simulation.start()
    for _ in range(6):
        coordinator.step()
    ask(simulation, kind)
    if seen:
        while "by request" not in " ".join(simulation.recorder.texts("study")):
            coordinator.step()
        assert simulation.sql("SELECT done_at FROM commands") == [(None,)]
    simulation.crash()
    assert simulation.start(standby=True).run().state is state
    assert simulation.sql("SELECT done_at IS NOT NULL, answer FROM commands") == [(True, "")]
    assert simulation.sql("SELECT state FROM studies") == [(state,)]
    assert sum(simulation.states().values()) < 100


def test_a_pause_that_is_cancelled_says_so_and_the_study_continues(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    coordinator.step()
    ask(simulation, "pause")
    while not simulation.recorder.texts("study"):
        coordinator.step()
    ask(simulation, "resume")
    assert coordinator.run().state is StudyState.FINISHED
    assert simulation.sql("SELECT kind, answer FROM commands ORDER BY command_id") == [
        ("pause", "taken back"),
        ("resume", ""),
    ]


def test_a_study_that_is_interrupted_while_it_is_being_paused_stays_paused(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    coordinator.step()
    ask(simulation, "pause")
    while not simulation.recorder.texts("study"):
        coordinator.step()
    simulation.interrupt.set()
    assert coordinator.run(simulation.interrupt).state is StudyState.PAUSED
    simulation.study_writer.release()
    assert simulation.states()["running"] > 0
    simulation.interrupt.clear()
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states() == {"complete": 10}


def test_a_stop_ends_what_runs(database: Database) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 1000}))
    coordinator = simulation.start()
    for _ in range(6):
        coordinator.step()
    ask(simulation, "stop")
    assert coordinator.run().state is StudyState.STOPPED
    assert "running" not in simulation.states()


def test_an_extended_study_runs_that_many_trials_more(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    simulation.run()
    ask(simulation, "extend", {"trials": 5})
    simulation.run()
    assert simulation.states() == {"complete": 15}
    assert simulation.sql("SELECT spec->'budget'->>'trials' FROM studies") == [("15",)]


@pytest.mark.parametrize(
    ("kind", "payload", "ends", "trials"),
    [
        ("extend", {"trials": 2}, StudyState.FINISHED, 3),
        ("pause", {}, StudyState.PAUSED, 1),
        ("stop", {}, StudyState.STOPPED, 1),
        ("parallelism", {"trials": 3}, StudyState.FINISHED, 1),
    ],
)
def test_a_request_of_the_last_moment_is_executed(
    database: Database, kind: str, payload: Mapping[str, object], ends: StudyState, trials: int
) -> None:
    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        yield 0.5, Reported(0, {"loss": 1.0})
        if launch.trial_number == 0:
            ask(simulation, kind, payload)
        yield 0.001, Finished()

    simulation = Simulation(database, make_spec(budget={"trials": 1}), script)
    assert simulation.run().state is ends
    assert sum(simulation.states().values()) == trials
    assert simulation.sql("SELECT done_at IS NOT NULL, answer FROM commands") == [(True, "")]


def test_an_enqueued_trial_runs_with_its_values_and_a_wrong_one_is_answered(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec())
    ask(simulation, "enqueue", {"params": {"x": 0.3, "n": 2}})
    ask(simulation, "enqueue", {"params": {"y": 1}})
    simulation.run()
    answers = simulation.sql("SELECT answer, done_at IS NOT NULL FROM commands ORDER BY command_id")
    assert answers[0] == ("trial 0 is next", True)
    assert "no parameter 'y'" in str(answers[1][0])
    best = simulation.recorder.snapshots[-1].best
    assert best is not None
    assert (best.number, best.params) == (0, {"x": 0.3, "n": 2})


# --- single trials
# -----------------------------------------------------------------------------------


def step_until(coordinator: Coordinator, sql: str, simulation: Simulation, wanted: object) -> None:
    """Step on until a query gives that."""
    for _ in range(500):
        if simulation.sql(sql) == wanted:
            return
        coordinator.step()
    raise AssertionError(f"{sql}: {simulation.sql(sql)}, not {wanted}")


def slow(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """A report every few seconds, so that there is time to do something about it."""
    return curve(*(1.0 / (1 + step) for step in range(5)), every_s=4.0)


def silent(launch: Launch) -> Iterable[tuple[float, Payload]]:
    return [(1e6, Finished({"loss": 0.0}))]


TRIAL_1 = 'SELECT state, "values" FROM trials WHERE number = 1'


def test_a_stopped_trial_is_pruned_with_what_it_reported_and_the_others_continue(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 4}), slow)
    coordinator = simulation.start()
    step_until(
        coordinator,
        "SELECT count(*) >= 3 FROM reports WHERE trial_id % 4294967296 = 1",
        simulation,
        [(True,)],
    )
    ask(simulation, "stop_trial", {"number": 1})
    assert coordinator.run().state is StudyState.FINISHED
    ((state, values),) = simulation.sql(TRIAL_1)
    assert state == "pruned"
    assert values
    assert simulation.states() == {"complete": 3, "pruned": 1}
    assert simulation.sql("SELECT reason FROM decisions WHERE kind = 'stop'") == [
        ("by request of test",)
    ]
    assert simulation.sql("SELECT stop_cause FROM attempts WHERE trial_id % 4294967296 = 1") == [
        ("request",)
    ]


def test_a_trial_that_is_stopped_before_it_reported_has_failed_and_says_nothing_to_the_sampler(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 4}), silent)
    coordinator = simulation.start()
    coordinator.step()
    for number in range(4):
        ask(simulation, "stop_trial", {"number": number})
    assert coordinator.run().reason == "all 4 trials are done", (
        "nothing is broken, though nothing came to a result"
    )
    assert simulation.states() == {"fail": 4}
    assert simulation.sql("SELECT DISTINCT state, failure, message FROM attempts") == [
        ("failed", None, "stopped before its first report: by request of test")
    ]


@pytest.mark.parametrize("restarts", [False, True])
def test_trials_stopped_by_a_user_do_not_show_that_the_objective_is_broken(
    database: Database, *, restarts: bool
) -> None:
    def script(launch: Launch) -> Any:
        if launch.trial_number < 8:
            return silent(launch)
        return [(1.0, Failed("error", "boom"))] if launch.trial_number == 8 else quadratic(launch)

    simulation = Simulation(database, make_spec(parallelism=8, budget={"trials": 12}), script)
    coordinator = simulation.start()
    coordinator.step()
    for number in range(8):
        ask(simulation, "stop_trial", {"number": number})
    if restarts:
        step_until(
            coordinator, "SELECT count(*) FROM trials WHERE state = 'fail'", simulation, [(8,)]
        )
        simulation.crash()
        coordinator = simulation.start()
    assert coordinator.run().state is StudyState.FINISHED
    assert simulation.states() == {"complete": 3, "fail": 9}


def test_a_trial_that_waits_to_be_run_again_is_ended_at_once(database: Database) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 4}), slow)
    coordinator = simulation.start()
    for _ in range(60):
        coordinator.step()
    simulation.crash()
    ask(simulation, "stop_trial", {"number": 1})
    coordinator = simulation.start()
    step_until(coordinator, "SELECT answer FROM commands", simulation, [("",)])
    assert simulation.sql(TRIAL_1)[0][0] in ("pruned", "fail")
    assert coordinator.run().state is StudyState.FINISHED
    assert simulation.sql("SELECT count(*) FROM attempts WHERE trial_id % 4294967296 = 1") == [(1,)]


@pytest.mark.parametrize(
    ("kind", "payload", "answer"),
    [
        ("stop_trial", {"number": 99}, "refused: there is no trial 99"),
        ("stop_trial", {"number": "1"}, "refused: '1' is no number of a trial"),
        ("stop_trial", {"number": 0}, "refused: trial 0 has finished: it is complete"),
        ("retry", {"number": 99}, "refused: there is no trial 99"),
        ("enqueue", {"near": 99}, "refused: there is no trial 99"),
        (
            "enqueue",
            {"x": 0.5},
            "refused: enqueue takes `params`, values by name, or `near`, the number of a trial",
        ),
        ("parallelism", {"trials": 0}, "refused: parallelism: 0 is no whole number above 0"),
        (
            "widen",
            {"parameters": {"x": {"max": 0.5}}},
            "refused: trials would not fit any more: x: its range 0 ... 1",
        ),
    ],
)
def test_what_makes_no_sense_is_answered_and_the_study_continues(
    database: Database, kind: str, payload: Mapping[str, object], answer: str
) -> None:
    simulation = Simulation(database, make_spec(parallelism=1))
    coordinator = simulation.start()
    step_until(
        coordinator, "SELECT state FROM trials WHERE number = 0", simulation, [("complete",)]
    )
    ask(simulation, kind, payload)
    assert coordinator.run().state is StudyState.FINISHED
    ((given,),) = simulation.sql("SELECT answer FROM commands")
    assert str(given).startswith(answer)
    assert simulation.states() == {"complete": 10}


def test_an_enqueued_trial_that_is_cancelled_never_runs_and_costs_no_budget(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(parallelism=1, budget={"trials": 3}), slow)
    coordinator = simulation.start()
    coordinator.step()
    ask(simulation, "enqueue", {"params": {"x": 0.5}})
    step_until(coordinator, TRIAL_1, simulation, [("waiting", None)])
    ask(simulation, "stop_trial", {"number": 1})
    assert coordinator.run().state is StudyState.FINISHED
    assert simulation.states() == {"complete": 3, "fail": 1}
    assert simulation.sql("SELECT count(*) FROM attempts WHERE trial_id % 4294967296 = 1") == [(0,)]
    (row,) = list_studies(database)
    assert row.fraction == 1.0
    simulation.study_writer.release()
    ask(simulation, "extend", {"trials": 1})
    simulation.run()
    assert simulation.states() == {"complete": 4, "fail": 1}, "the next run counts alike"


def test_a_retried_trial_is_another_one_with_the_same_parameters(database: Database) -> None:
    simulation = Simulation(database, make_spec(parallelism=1))
    coordinator = simulation.start()
    step_until(
        coordinator, "SELECT state FROM trials WHERE number = 0", simulation, [("complete",)]
    )
    ask(simulation, "retry", {"number": 0})
    coordinator.run()
    ((answer,),) = simulation.sql("SELECT answer FROM commands")
    number = int(str(answer).split()[1])
    first, again = (get_trial(database, simulation.record.study_id, one) for one in (0, number))
    assert first is not None
    assert again is not None
    assert again.row.params == first.row.params
    assert [d.reason for d in again.decisions if d.kind == "ask"] == [
        "enqueued: trial 0 again, by request of test"
    ]
    assert first.row.state == "complete", "what is over stays as it was"


def test_a_trial_near_another_one_is_run(database: Database) -> None:
    simulation = Simulation(database, make_spec(parallelism=1))
    coordinator = simulation.start()
    step_until(
        coordinator, "SELECT state FROM trials WHERE number = 0", simulation, [("complete",)]
    )
    ask(simulation, "enqueue", {"near": 0})
    coordinator.run()
    ((answer,),) = simulation.sql("SELECT answer FROM commands")
    rows = list_trials(database, simulation.record.study_id)
    near = rows[int(str(answer).split()[1])].params
    assert near != rows[0].params
    assert abs(float(near["x"]) - float(rows[0].params["x"])) < 0.3  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["retry", "enqueue", "stop_trial", "widen"])
@pytest.mark.parametrize("point", ["decided", "written", "committed"])
def test_a_command_is_executed_once_wherever_its_coordinator_dies(
    database: Database, kind: str, point: Any
) -> None:
    payloads: dict[str, dict[str, object]] = {
        "retry": {"number": 0},
        "enqueue": {"near": 0},
        "stop_trial": {"number": 1},
        "widen": {"parameters": {"x": {"max": 2.0}}},
    }
    simulation = Simulation(database, make_spec(parallelism=1, budget={"trials": 3}), slow)
    simulation.share_cluster()
    coordinator = simulation.start()
    step_until(coordinator, TRIAL_1, simulation, [("running", None)])
    ask(simulation, kind, payloads[kind])
    failpoints.arm(f"{point}:raise@7")
    try:
        with pytest.raises(failpoints.FailpointReached):
            coordinator.run()
    finally:
        failpoints.arm(None)
    simulation.crash()
    assert simulation.run().state is StudyState.FINISHED
    assert len(list_trials(database, simulation.record.study_id)) == 3
    asked = simulation.sql("SELECT count(*) FROM trial_attrs WHERE name = 'tunesvc:origin'")
    assert asked == [(1 if kind in ("retry", "enqueue") else 0,)]
    stops = simulation.sql("SELECT count(*) FROM decisions WHERE kind = 'stop'")
    assert stops == [(1 if kind == "stop_trial" else 0,)]
    wider = simulation.sql("SELECT count(*) FROM decisions WHERE kind = 'sampler'")
    assert wider == [(1 if kind == "widen" else 0,)]
    assert simulation.sql("SELECT count(*) FROM commands WHERE done_at IS NOT NULL") == [(1,)]


# --- the study as a whole
# ------------------------------------------------------------------------------


def test_fewer_trials_at_a_time_lets_those_that_run_finish_and_more_start_at_once(
    database: Database,
) -> None:
    running = "SELECT count(*) FROM trials WHERE state = 'running'"
    simulation = Simulation(database, make_spec(budget={"trials": 100}), slots=6)
    coordinator = simulation.start()
    coordinator.step()
    assert simulation.sql(running) == [(4,)]
    ask(simulation, "parallelism", {"trials": 1})
    step_until(coordinator, running, simulation, [(1,)])
    assert "pruned" not in simulation.states()
    ask(simulation, "parallelism", {"trials": None})
    step_until(coordinator, running, simulation, [(6,)])
    assert simulation.sql("SELECT spec->>'parallelism' FROM studies") == [(None,)]


CONDITIONAL = {
    "x": {"type": "float", "min": 0.4, "max": 0.6},
    "c": {"type": "categorical", "values": ["a", "b"]},
    "y": {"type": "float", "min": 1e-3, "max": 1e-2, "log": True, "when": {"c": "a"}},
}


@pytest.mark.parametrize("sampler", ["tpe", "auto", "random"])
def test_a_study_that_runs_continues_in_a_wider_space_without_losing_its_trials(
    database: Database, sampler: str
) -> None:
    spec = make_spec(
        parameters=CONDITIONAL,
        sampler={"name": sampler, "seed": 1},
        pruner={"name": "auto"},
        budget={"trials": 24},
    )
    simulation = Simulation(database, spec)
    coordinator = simulation.start()
    step_until(coordinator, "SELECT count(*) >= 10 FROM trials", simulation, [(True,)])
    before = len(list_trials(database, simulation.record.study_id))
    ask(
        simulation, "widen", {"parameters": {"x": {"min": 0.0, "max": 1.0}, "c": {"values": ["d"]}}}
    )
    assert coordinator.run().state is StudyState.FINISHED
    ((answer,),) = simulation.sql("SELECT answer FROM commands")
    assert answer == "x 0.4…0.6 -> 0…1; c [a, b] -> [a, b, d]"
    rows = list_trials(database, simulation.record.study_id)
    assert len(rows) == 24
    assert all(0.4 <= float(row.params["x"]) <= 0.6 for row in rows[:before])  # type: ignore[arg-type]
    later = rows[before:]
    assert any(not 0.4 <= float(row.params["x"]) <= 0.6 for row in later)  # type: ignore[arg-type]
    if sampler == "random":
        assert any(row.params["c"] == "d" for row in later)
    warnings = [
        text for text in simulation.recorder.texts("warning") if "trial.checkpoint" not in text
    ]
    assert warnings == [], "the sampler goes on by itself"
    assert get_study(database, "test").spec == coordinator.spec
    explanation = explain_study(database, get_study(database, "test"))
    assert any("Search space widened" in said.text for said in explanation.statements)
