"""The coordinator on a real database, with simulated workers on a virtual clock."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from tests.support.simulation import Simulation, curve, quadratic
from tests.support.specs import make_spec
from tunesvc.coordinator.attempt_state.log_window import KEPT_CHARS_MAX
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import LeaseLost, StudyBusy
from tunesvc.execution.executor import (
    STUDY,
    AttemptId,
    AttrSet,
    Checkpointed,
    Event,
    Failed,
    Finished,
    Launch,
    Lost,
    OutputLogged,
    Payload,
    Reported,
    Started,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.policy import StopCause
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_replay import replay_study
from tunesvc.queries.trials.trial_table import list_best_trials
from tunesvc.runtime.study_requests import request
from tunesvc.testing.simulated_executor import SimulatedExecutor

Steps = Iterable[tuple[float, Payload]]


@pytest.mark.parametrize("parallelism", [1, 3, 8])
def test_a_study_runs_exactly_as_many_trials_as_its_budget_says(
    database: Database, parallelism: int
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 17}, parallelism=parallelism))
    closing = simulation.run()
    assert closing.state is StudyState.FINISHED
    assert simulation.states() == {"complete": 17}
    assert simulation.sql(
        "SELECT count(*), count(DISTINCT trial_id), min(state) FROM attempts"
    ) == [(17, 17, "finished")]
    assert simulation.sql("SELECT count(*) FROM reports") == [(17 * 5,)]
    assert simulation.sql("SELECT state, reason <> '' FROM studies") == [("finished", True)]
    assert max(len(snapshot.running) for snapshot in simulation.recorder.snapshots) == parallelism


def test_every_trial_has_a_recorded_reason(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    simulation.run()
    assert simulation.sql("SELECT count(*) FROM decisions WHERE kind = 'ask' AND reason <> ''") == [
        (10,)
    ]


def test_the_cluster_bounds_how_many_run_at_a_time(database: Database) -> None:
    simulation = Simulation(database, make_spec(parallelism=8), slots=3)
    simulation.run()
    assert max(len(snapshot.running) for snapshot in simulation.recorder.snapshots) == 3


def test_poor_trials_are_pruned_with_a_reason_and_keep_their_last_value(database: Database) -> None:
    def script(launch: Launch) -> Steps:
        level = 0.1 if launch.trial_number < 4 else 0.9
        return curve(*[level] * 8)

    simulation = Simulation(
        database, make_spec(pruner={"name": "median", "n_startup_trials": 2}), script
    )
    simulation.run()
    assert simulation.states() == {"complete": 4, "pruned": 6}
    pruned = simulation.sql("""SELECT t.values[1], a.state, a.stop_cause FROM trials t JOIN attempts a USING (trial_id)
                               WHERE t.state = 'pruned'""")
    assert set(pruned) == {(0.9, "pruned", "prune")}
    reasons = simulation.sql("SELECT reason FROM decisions WHERE kind = 'prune'")
    assert len(reasons) == 6
    assert all("0.9 at step" in str(row[0]) for row in reasons)


def test_an_attempt_that_ignores_the_stop_is_killed_after_the_grace_period(
    database: Database,
) -> None:
    """Fault 21."""

    def script(launch: Launch) -> Steps:
        return curve(*[0.1 if launch.trial_number < 4 else 0.9] * 100)

    spec = make_spec(
        pruner={"name": "median", "n_startup_trials": 2},
        limits={"grace": 5.0},
        budget={"trials": 6},
    )
    simulation = Simulation(database, spec, script)
    simulation.obedient = False
    simulation.run()
    assert simulation.states() == {"complete": 4, "pruned": 2}


def test_a_lost_attempt_is_run_again_at_most_as_often_as_allowed(database: Database) -> None:
    """Fault 13, with simulated workers."""

    def script(launch: Launch) -> Steps:
        fatal = launch.trial_number == 0 or (launch.trial_number == 1 and launch.attempt.number < 3)
        return [(1.0, Lost("killed"))] if fatal else quadratic(launch)

    simulation = Simulation(database, make_spec(retries={"lost": 2}), script)
    simulation.run()
    assert simulation.states() == {"complete": 9, "fail": 1}
    attempts = simulation.sql("""SELECT t.number, count(*), count(*) FILTER (WHERE a.state = 'lost')
                                 FROM trials t JOIN attempts a USING (trial_id) GROUP BY 1 ORDER BY 1 LIMIT 3""")
    assert attempts == [(0, 3, 3), (1, 3, 2), (2, 1, 0)]
    assert simulation.sql("SELECT count(*) FROM decisions WHERE kind = 'retry'") == [(4,)]


def test_trials_share_seeds_in_turns_and_keep_theirs_over_attempts(database: Database) -> None:
    had: list[tuple[int, int]] = []

    def script(launch: Launch) -> Steps:
        had.append((launch.trial_number, launch.seed))
        return [(1.0, Lost("killed"))] if launch.attempt.number == 1 else quadratic(launch)

    Simulation(database, make_spec(seed=7, seeds=3), script).run()
    assert len(had) == 20  # each twice
    seeds = dict(had)
    assert sorted(set(had)) == sorted(seeds.items())
    assert [seeds[number] for number in range(3, 10)] == [seeds[number] for number in range(7)]
    assert len(set(seeds.values())) == 3


def test_an_error_is_stored_with_its_traceback_and_the_study_continues(database: Database) -> None:
    def script(launch: Launch) -> Steps:
        return (
            [(1.0, Failed("error", "boom", "Traceback: boom"))]
            if launch.trial_number == 2
            else quadratic(launch)
        )

    simulation = Simulation(database, make_spec(), script)
    simulation.run()
    assert simulation.states() == {"complete": 9, "fail": 1}
    failed = simulation.sql(
        "SELECT failure, message, traceback FROM attempts WHERE state = 'failed'"
    )
    assert failed == [("error", "boom", "Traceback: boom")]


def test_a_missing_entrypoint_ends_the_study_at_once(database: Database) -> None:
    """Fault 40, with simulated workers."""
    simulation = Simulation(
        database, make_spec(), lambda _: [(0.1, Failed("entrypoint", "no module named digits"))]
    )
    closing = simulation.run()
    assert closing.state is StudyState.FAILED
    assert "digits" in closing.reason
    assert simulation.sql("SELECT count(*) FROM trials")[0][0] <= 4


def test_an_objective_that_only_ever_fails_does_not_spend_the_budget(database: Database) -> None:
    simulation = Simulation(
        database, make_spec(budget={"trials": 500}), lambda _: [(1.0, Failed("error", "boom"))]
    )
    closing = simulation.run()
    assert closing.state is StudyState.FAILED
    assert "boom" in closing.reason
    assert simulation.states()["fail"] < 15


def test_healthy_trials_are_left_alone_when_others_fail(database: Database) -> None:
    def script(launch: Launch) -> Steps:
        if launch.trial_number == 0:
            return [(0.1, Reported(0, {"loss": 0.1})), (300.0, Finished({"loss": 0.1}))]
        return [(1.0, Failed("error", "boom"))] if launch.trial_number < 20 else quadratic(launch)

    simulation = Simulation(database, make_spec(budget={"trials": 25}), script)
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states() == {"complete": 6, "fail": 19}


def test_paused_trials_show_that_the_objective_is_not_broken(database: Database) -> None:
    def script(launch: Launch) -> Steps:
        return (
            [(1.0, Failed("error", "boom"))] if 3 <= launch.trial_number < 20 else curve(*[0.1] * 5)
        )

    pruner = {"name": "asha", "min": 1, "eta": 9, "form": "promote"}
    simulation = Simulation(database, make_spec(budget={"trials": 25}, pruner=pruner), script)
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states()["fail"] == 17


def test_the_pruner_is_asked_about_each_report_once(database: Database) -> None:
    asked = []

    class Curious(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            asked.append((trial.number, trial.last_step))
            return False

    simulation = Simulation(database, make_spec(pruner={"name": "median"}), quadratic)
    coordinator = simulation.start()
    coordinator._optimizer.study.pruner = Curious()
    coordinator.run()
    assert sorted(asked) == [(number, step) for number in range(10) for step in range(5)]


def test_the_target_is_not_reached_by_a_trial_that_breaks_a_constraint(database: Database) -> None:
    spec = make_spec(
        metrics=[{"name": "loss", "target": 0.2}], constraints=[{"metric": "ms", "max": 1.0}]
    )
    simulation = Simulation(database, spec, lambda _: [(1.0, Finished({"loss": 0.1, "ms": 50.0}))])
    simulation.run()
    assert simulation.states() == {"complete": 10}


def test_the_target_is_not_reached_by_a_trial_that_breaks_a_constraint_of_its_own(
    database: Database,
) -> None:
    spec = make_spec(metrics=[{"name": "loss", "target": 0.2}])
    script = lambda _: [  # noqa: E731
        (1.0, AttrSet("constraints:memory", "1.5", "system")),
        (1.0, Finished({"loss": 0.1})),
    ]
    simulation = Simulation(database, spec, script)
    simulation.run()
    assert simulation.states() == {"complete": 10}


def test_a_wrong_declaration_fails_its_trial_and_no_other(database: Database) -> None:
    def script(launch: Launch) -> Steps:
        kind = (
            CategoricalDistribution(["a"])
            if launch.trial_number == 3
            else FloatDistribution(0.0, 1.0)
        )
        return [
            (1.0, SuggestRequested("x", distribution_to_json(kind))),
            (1.0, Finished({"loss": 0.5})),
        ]

    simulation = Simulation(database, make_spec(parameters={}), script)
    simulation.run()
    assert simulation.states() == {"complete": 9, "fail": 1}
    assert "declared in different ways" in str(
        simulation.sql("SELECT message FROM attempts WHERE state = 'failed'")
    )


def test_user_attributes_of_an_objective_are_kept(database: Database) -> None:
    script = lambda _: [(1.0, AttrSet("note", '"fine"')), (1.0, Finished({"loss": 0.5}))]  # noqa: E731
    simulation = Simulation(database, make_spec(budget={"trials": 1}), script)
    simulation.run()
    assert simulation.sql("SELECT kind, name, value FROM trial_attrs") == [
        ("user", "note", '"fine"')
    ]


def test_an_objective_that_asks_for_its_study_gets_attributes_and_trials(
    database: Database,
) -> None:
    """And system attributes that it writes, such as Optuna's constraints, count for its trial."""
    received = []

    def script(launch: Launch) -> Iterator[tuple[float, Payload]]:
        yield 1.0, AttrSet("constraints:memory", str(launch.trial_number - 1.5), "system")
        yield 1.0, StudyRequested()
        held = cluster.get(launch.attempt)
        received.append(pickle.loads(held.answers[STUDY]))  # noqa: S301  # our own
        yield 1.0, Finished({"loss": 1.0 - launch.trial_number / 10})

    simulation = Simulation(database, make_spec(budget={"trials": 4}, parallelism=1), script)
    cluster = simulation.share_cluster()
    simulation.run()
    _, system, trials = received[3]
    assert system["study:metric_names"] == ["loss"]
    assert [trial.values for trial in trials] == [[1.0], [0.9], [0.8], None]
    assert trials[0].constraints == {"memory": -1.5}
    best = list_best_trials(database, simulation.record.study_id)
    assert [row.number for row in best] == [1]


FEW = {
    "x": {"type": "categorical", "values": [0.1, 0.2, 0.3]},
    "n": {"type": "int", "min": 1, "max": 2},
}


@pytest.mark.parametrize("sampler", ["grid", "auto", "tpe", "random", "nsga2"])
def test_few_configurations_are_tried_once_each_however_many_run_at_a_time(
    database: Database, sampler: str
) -> None:
    """Case S10: the preview promised that all are tried; five of seven were, some of them again
    and again."""
    spec = make_spec(
        parameters=FEW, sampler={"name": sampler, "seed": 1}, budget={"trials": 20}, parallelism=4
    )
    simulation = Simulation(database, spec)
    assert simulation.run().reason == "all 6 configurations have been tried"
    assert simulation.states() == {"complete": 6}
    assert simulation.sql(
        "SELECT count(DISTINCT (a.value, b.value)) FROM trial_params a JOIN trial_params b"
        " USING (trial_id) WHERE a.name = 'x' AND b.name = 'n'"
    ) == [(6,)]
    asks = replay_study(database, get_study(database, "test")).asks
    assert (asks.agreeing, asks.first) == (asks.compared, None)


def test_declared_noise_repeats_few_configurations(database: Database) -> None:
    spec = make_spec(parameters=FEW, sampler={"name": "random"}, budget={"trials": 9}, seeds=3)
    simulation = Simulation(database, spec)
    assert simulation.run().reason == "all 9 trials are done"


def test_a_budget_that_grew_tries_what_is_left(database: Database) -> None:
    spec = make_spec(
        parameters=FEW, sampler={"name": "random", "seed": 3}, budget={"trials": 3}, parallelism=1
    )
    simulation = Simulation(database, spec)
    simulation.run()
    request(database, get_study(database, "test").study_id, "extend", {"trials": 9}, "me")
    assert simulation.run().reason == "all 6 configurations have been tried"


def test_trials_that_wait_to_be_run_again_are_ended_when_the_budget_is_spent_meanwhile(
    database: Database,
) -> None:
    simulation = Simulation(
        database, make_spec(budget={"wall": 60.0}), lambda _: curve(*[0.5] * 100)
    )
    coordinator = simulation.start()
    for _ in range(20):
        coordinator.step()
    simulation.crash()
    simulation.sql("UPDATE studies SET active_s = 60")
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states() == {"pruned": 4}
    assert simulation.sql("SELECT count(*) FROM attempts") == [(4,)]


@pytest.mark.parametrize(
    ("limits", "steps", "failure"),
    [
        (
            {"wall": 30.0},
            [(1.0, Reported(step, {"loss": 1.0})) for step in range(10_000)],
            "timeout",
        ),
        ({"silence": 30.0}, [(1.0, Reported(0, {"loss": 1.0})), (1e9, Finished())], "silence"),
    ],
)
def test_a_trial_that_hangs_is_ended_by_its_limits(
    database: Database,
    limits: Mapping[str, float],
    steps: Sequence[tuple[float, Payload]],
    failure: str,
) -> None:
    """Fault 20."""
    spec = make_spec(limits={**limits, "grace": 2.0}, budget={"trials": 3})
    simulation = Simulation(
        database, spec, lambda launch: steps if launch.trial_number == 1 else quadratic(launch)
    )
    simulation.run()
    assert simulation.states() == {"complete": 2, "fail": 1}
    assert simulation.sql("SELECT failure FROM attempts WHERE state = 'failed'") == [(failure,)]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_result_that_is_not_finite_fails_its_trial_and_stays_in_the_attempt(
    database: Database, value: str
) -> None:
    """Fault 22, and case P3: with values, a failed trial cannot be shown by optuna-dashboard nor
    copied."""

    def script(launch: Launch) -> Steps:
        return (
            [(1.0, Finished({"loss": float(value)}))]
            if launch.trial_number == 0
            else quadratic(launch)
        )

    simulation = Simulation(
        database, make_spec(sampler={"name": "tpe", "seed": 1}, budget={"trials": 15}), script
    )
    simulation.run()
    assert simulation.states() == {"complete": 14, "fail": 1}
    trials = PgStorage(database).get_all_trials(simulation.record.study_id)
    assert trials[0].values is None
    optuna.create_study().add_trials(trials)
    message = f"the result is not finite: loss = {float(value):g}"
    assert simulation.sql("SELECT message FROM attempts WHERE failure = 'nan'") == [(message,)]
    best = simulation.recorder.snapshots[-1].best
    assert best is not None
    assert best.number != 0


def test_a_study_ends_when_its_wall_time_is_spent(database: Database) -> None:
    simulation = Simulation(
        database, make_spec(budget={"wall": 20.0}), lambda _: curve(*[0.5] * 1000)
    )
    closing = simulation.run()
    assert (closing.state, closing.stop) == (StudyState.FINISHED, StopCause.BUDGET)
    assert 20 <= simulation.clock.now() < 25
    assert set(simulation.states()) == {"pruned"}


def test_a_study_ends_when_its_gpu_hours_are_spent_and_a_resume_counts_them(
    database: Database,
) -> None:
    spec = make_spec(budget={"gpu_hours": 0.05}, resources={"gpu": 0.5}, parallelism=2)
    simulation = Simulation(database, spec, lambda _: curve(*[0.5] * 100, every_s=6.0))
    assert "GPU hours" in simulation.run().reason
    assert simulation.clock.now() == pytest.approx(180, abs=13)
    ended_s, states = simulation.clock.now(), simulation.states()
    with database.engine.begin() as connection:  # which has a clock of its own
        connection.execute(
            sa.text("UPDATE attempts SET started_at = started_at - interval '0.1 hours'")
        )
    assert "GPU hours" in simulation.run().reason
    assert (simulation.clock.now(), simulation.states()) == (ended_s, states)


def test_a_study_ends_when_its_target_is_reached(database: Database) -> None:
    spec = make_spec(metrics=[{"name": "loss", "target": 0.2}], budget={"trials": 500})
    simulation = Simulation(
        database, spec, lambda launch: curve(0.1 if launch.trial_number == 5 else 0.5)
    )
    closing = simulation.run()
    assert "trial 5 reached the target" in closing.reason
    assert sum(simulation.states().values()) < 20


def test_an_interrupt_keeps_what_is_done_and_a_resume_completes_the_budget_exactly(
    database: Database,
) -> None:
    """Fault 2, with simulated workers."""
    simulation = Simulation(database, make_spec(budget={"trials": 30}, parallelism=8))
    coordinator = simulation.start()
    while simulation.states().get("complete", 0) < 9:
        assert coordinator.step() is None
    simulation.interrupt.set()
    assert coordinator.run(simulation.interrupt).state is None
    simulation.study_writer.release()
    done = simulation.states()["complete"]
    assert simulation.states()["running"] > 0
    assert simulation.sql("SELECT count(*) FROM attempts WHERE state IN ('opened', 'running')") == [
        (0,)
    ]

    simulation.interrupt.clear()
    assert simulation.run().state is StudyState.FINISHED
    assert done >= 9
    assert simulation.states() == {"complete": 30}


def test_a_crash_loses_no_trial_and_asks_for_none_twice(database: Database) -> None:
    """Fault 1, between two steps."""
    simulation = Simulation(database, make_spec(budget={"trials": 12}))
    for _ in range(3):
        coordinator = simulation.start()
        for _ in range(9):
            coordinator.step()
        simulation.crash()
    simulation.run()
    assert simulation.states() == {"complete": 12}
    assert simulation.sql("SELECT max(number), count(*) FROM trials") == [(11, 12)]
    twice = simulation.sql(
        "SELECT trial_id FROM attempts WHERE state = 'finished' GROUP BY 1 HAVING count(*) > 1"
    )
    assert not twice


def test_a_trial_resumes_from_its_checkpoint_and_later_reports_no_longer_count(
    database: Database,
) -> None:
    launches: list[Launch] = []

    def script(launch: Launch) -> Steps:
        launches.append(launch)
        if launch.attempt.number == 1:
            early = [(1.0, Reported(step, {"loss": 1.0 - step / 10})) for step in range(3)]
            return [
                *early,
                (0.0, Checkpointed("/shared/2", 2)),
                *curve(0.5, 0.5, 0.5)[:0],
                (1.0, Reported(3, {"loss": 0.1})),
                (1.0, Lost("killed")),
            ]
        return [(1.0, Reported(3, {"loss": 0.65})), (1.0, Finished())]

    simulation = Simulation(database, make_spec(budget={"trials": 1}), script)
    simulation.run()
    assert [launch.checkpoint for launch in launches] == [None, "/shared/2"]
    assert simulation.sql("SELECT values[1] FROM trials") == [(0.65,)]
    kept = simulation.sql(
        "SELECT attempt, step, value, superseded FROM reports ORDER BY attempt, step"
    )
    assert kept == [
        (1, 0, 1.0, False),
        (1, 1, 0.9, False),
        (1, 2, 0.8, False),
        (1, 3, 0.1, True),
        (2, 3, 0.65, False),
    ]


def test_a_stop_that_was_decided_before_a_crash_stands(database: Database) -> None:
    spec = make_spec(
        pruner={"name": "median", "n_startup_trials": 2}, budget={"trials": 5}, parallelism=1
    )
    simulation = Simulation(
        database, spec, lambda launch: curve(*[0.1 if launch.trial_number < 4 else 0.9] * 20)
    )
    coordinator = simulation.start()
    while not simulation.sql("SELECT 1 FROM attempts WHERE stop_cause = 'prune'"):
        coordinator.step()
    simulation.crash()
    simulation.run()
    assert simulation.states() == {"complete": 4, "pruned": 1}
    assert simulation.sql("SELECT count(*) FROM attempts") == [(5,)]


class Repeating(SimulatedExecutor):
    """Delivers everything twice, as after an acknowledgement that was lost."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        events = super().events(timeout_s)
        return [*events, *events]


def test_an_event_delivered_twice_is_recorded_once(database: Database) -> None:
    """Fault 25."""
    simulation = Simulation(database, make_spec())
    simulation.start(Repeating(quadratic, clock=simulation.clock, slots=8)).run()
    assert simulation.states() == {"complete": 10}
    assert simulation.sql("SELECT count(*) FROM reports") == [(50,)]


def test_a_second_coordinator_is_refused_with_the_owners_name(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    simulation.start(owner="alice:17")
    with pytest.raises(StudyBusy, match="alice:17"):
        simulation.start(owner="bob:18")


def test_a_coordinator_that_lost_its_lease_can_write_nothing(database: Database) -> None:
    """Fault 12, between two steps."""
    simulation = Simulation(database, make_spec())
    frozen = simulation.start(owner="frozen")
    frozen.step()
    simulation.crash()
    simulation.start(owner="heir")
    before = (
        simulation.sql("SELECT * FROM reports ORDER BY 1, 2, 3"),
        simulation.sql("SELECT * FROM attempts ORDER BY 1, 2"),
    )
    with pytest.raises(LeaseLost):
        for _ in range(20):
            frozen.step()
    after = (
        simulation.sql("SELECT * FROM reports ORDER BY 1, 2, 3"),
        simulation.sql("SELECT * FROM attempts ORDER BY 1, 2"),
    )
    assert before == after


def test_an_objective_may_declare_its_parameters_while_it_runs(database: Database) -> None:
    declared = distribution_to_json(FloatDistribution(0.0, 1.0))

    def script(_: Launch) -> Steps:
        return [
            (1.0, SuggestRequested("a", declared)),
            (1.0, SuggestRequested("b", declared)),
            (1.0, Finished({"loss": 0.5})),
        ]

    simulation = Simulation(database, make_spec(parameters={}), script)
    simulation.run()
    assert simulation.states() == {"complete": 10}
    assert simulation.sql(
        "SELECT name, count(DISTINCT value) FROM trial_params GROUP BY 1 ORDER BY 1"
    ) == [
        ("a", 10),
        ("b", 10),
    ]


def test_several_objectives_and_constraints_are_stored(database: Database) -> None:
    spec = make_spec(
        metrics=[{"name": "loss"}, {"name": "acc", "goal": "maximize"}],
        constraints=[{"metric": "ms", "max": 10.0}],
        sampler={"name": "nsga2", "seed": 1},
    )

    def script(launch: Launch) -> Steps:
        x = float(launch.params["x"])  # type: ignore[arg-type]
        return [(1.0, Finished({"loss": x, "acc": x, "ms": 5.0 + launch.trial_number}))]

    simulation = Simulation(database, spec, script)
    simulation.run()
    rows = simulation.sql("""SELECT t.number, cardinality(t.values), a.value FROM trials t
                             JOIN trial_attrs a USING (trial_id) WHERE a.name = 'constraints:ms.max' ORDER BY 1""")
    assert [(row[0], row[1]) for row in rows] == [(number, 2) for number in range(10)]
    assert rows[0][2] == "-5.0"


def test_output_is_kept_in_order_without_what_postgres_refuses(database: Database) -> None:
    def script(_: Launch) -> Steps:
        return [
            (0.1, OutputLogged("stdout", "a\x00b\n")),
            (0.1, OutputLogged("stderr", "c\n")),
            (0.1, Finished({"loss": 1.0})),
        ]

    simulation = Simulation(database, make_spec(budget={"trials": 1}), script)
    simulation.run()
    assert simulation.sql("SELECT stream, text FROM logs ORDER BY seq") == [
        ("stdout", "a\ufffdb\n"),
        ("stderr", "c\n"),
    ]


def test_of_much_output_beginning_and_end_are_kept_and_a_line_counts_the_rest(
    database: Database,
) -> None:
    lines = [f"{number:<{2**16 - 1}}\n" for number in range(120)]

    def script(_: Launch) -> Steps:
        return [
            *((0.1, OutputLogged("stdout", line)) for line in lines),
            (0.1, Finished({"loss": 1.0})),
        ]

    simulation = Simulation(database, make_spec(budget={"trials": 1}), script)
    simulation.run()
    kept = KEPT_CHARS_MAX // 2**16
    assert [text for (text,) in simulation.sql("SELECT text FROM logs ORDER BY seq")] == [
        *lines[:kept],
        f"\n[tunesvc: {(120 - 2 * kept) * 2**16:,} characters of output are left out here]\n",
        *lines[-kept:],
    ]


class Late(SimulatedExecutor):
    """Delivers a report of the first attempt long after it has ended."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        events = list(super().events(timeout_s))
        for event in events:
            if isinstance(event.payload, Finished):
                self.done: AttemptId = event.attempt
        if hasattr(self, "done") and timeout_s > 0:  # again and again, at every wait
            events.append(Event(self.done, 99, Reported(99, {"loss": -1.0})))
        return events


def test_a_report_that_comes_after_the_end_is_refused(database: Database) -> None:
    """Fault 27."""
    simulation = Simulation(database, make_spec())
    simulation.start(Late(quadratic, clock=simulation.clock, slots=8)).run()
    assert simulation.sql("SELECT count(*), max(step) FROM reports") == [(50, 4)]


def test_code_that_changed_between_attempts_is_recorded_and_shown(database: Database) -> None:
    """Fault 40."""

    def script(launch: Launch) -> Steps:
        return [
            (0.0, Started("node", 1, code="old" if launch.trial_number < 5 else "new")),
            *quadratic(launch),
        ]

    simulation = Simulation(database, make_spec(), script)
    simulation.run()
    assert simulation.sql("SELECT trial_number, details FROM decisions WHERE kind = 'code'") == [
        (5, {"before": "old", "now": "new"})
    ]
    assert any("source code has changed" in text for text in simulation.recorder.texts("warning"))


def test_parameters_are_stored_as_they_were_used(database: Database) -> None:
    seen: dict[int, Mapping[str, object]] = {}

    def script(launch: Launch) -> Steps:
        seen[launch.trial_number] = launch.params
        return quadratic(launch)

    simulation = Simulation(database, make_spec(constants={"batch": 32}), script)
    simulation.run()
    stored = simulation.sql(
        "SELECT number, name, value FROM trials JOIN trial_params USING (trial_id)"
    )
    assert len(stored) == 20
    assert all(seen[int(str(number))][str(name)] == value for number, name, value in stored)
    assert all(params["batch"] == 32 for params in seen.values())


class Timed(SimulatedExecutor):
    """Remembers when each attempt was launched."""

    def launch(self, launch: Launch) -> None:
        self.launched_s = [*getattr(self, "launched_s", []), self.cluster.clock.now()]
        super().launch(launch)


def test_reports_that_come_close_together_are_written_together_without_a_wait(
    database: Database,
) -> None:
    def script(_: Launch) -> Steps:
        return [
            *[(0.005, Reported(step, {"loss": 1.0})) for step in range(200)],
            (0.001, Finished()),
        ]

    simulation = Simulation(database, make_spec(budget={"trials": 3}, parallelism=1), script)
    executor = Timed(script, clock=simulation.clock, slots=1)
    simulation.start(executor).run()
    assert simulation.sql("SELECT count(*) FROM reports") == [(600,)]
    ((batches,),) = simulation.sql("SELECT batch FROM leases")
    assert 3 * 20 <= batches < 3 * 30, "twenty times a second, and not two hundred times"
    assert executor.launched_s == pytest.approx([0.0, 1.001, 2.002])


def test_short_trials_are_launched_ahead_and_no_more_run_than_may(database: Database) -> None:
    running: list[int] = []

    class Watched(SimulatedExecutor):
        def launch(self, launch: Launch) -> None:
            super().launch(launch)
            running.append(len(self.cluster.running))
            in_all.append(len(self.heartbeats()))

    in_all: list[int] = []
    simulation = Simulation(database, make_spec(budget={"trials": 40}, parallelism=3), quadratic)
    executor = Watched(quadratic, clock=simulation.clock, slots=8, handover_s=1.0)
    closing = simulation.start(executor).run()
    assert closing.state is StudyState.FINISHED
    assert max(running) == 3
    assert max(in_all) == 6
    states = "SELECT state, count(*) FROM attempts WHERE started_at IS NOT NULL GROUP BY state"
    assert simulation.sql(states) == [("finished", 40)]


def test_what_waits_for_its_turn_when_a_study_is_interrupted_is_run_later(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 40}, parallelism=3), quadratic)
    coordinator = simulation.start(
        SimulatedExecutor(quadratic, clock=simulation.clock, slots=8, handover_s=1.0)
    )
    while len(simulation.executor.heartbeats()) < 5:
        coordinator.step()
    simulation.interrupt.set()
    assert coordinator.run(simulation.interrupt).reason == "interrupted"
    simulation.study_writer.release()
    simulation.interrupt.clear()
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.sql("SELECT state, count(*) FROM trials GROUP BY state") == [("complete", 40)]


def failing(*kinds: str) -> Callable[[Launch], list[tuple[float, Payload]]]:
    """A script whose trials fail in these ways in turns, but the last of twelve."""

    def script(launch: Launch) -> list[tuple[float, Payload]]:
        kind = kinds[launch.trial_number % len(kinds)]
        if launch.trial_number == 11:
            return [(1.0, Finished({"loss": 0.5}))]
        return [
            (1.0, Finished({"loss": math.nan}) if kind == "nan" else Failed(kind, "out of memory"))
        ]

    return script


def test_failures_from_which_samplers_learn_do_not_end_a_study(database: Database) -> None:
    """Case S9: a space that is mostly infeasible was given up after eight trials."""
    spec = make_spec(budget={"trials": 12}, sampler={"name": "auto"})
    simulation = Simulation(database, spec, failing("nan", "gpu_oom"))
    assert simulation.run().reason == "all 12 trials are done"
    assert simulation.states() == {"complete": 1, "fail": 11}


def test_the_failures_that_end_a_run_can_be_set_and_a_resumed_study_counts_from_zero(
    database: Database,
) -> None:
    spec = make_spec(budget={"trials": 12}, limits={"failures": 3}, parallelism=1)
    simulation = Simulation(database, spec, failing("error"))
    closing = simulation.run()
    assert closing.state is StudyState.FAILED
    assert closing.reason == "every trial failed (limits.failures: 3); the last one: out of memory"
    assert simulation.states() == {"fail": 3}
    simulation.run()
    assert simulation.states() == {"fail": 6}


def test_the_first_trial_with_values_under_another_name_ends_the_study(database: Database) -> None:
    """Case W19: eight trainings passed before any message."""

    def script(launch: Launch) -> Steps:
        return [
            (1.0, Reported(0, {"los": 0.5})),
            (1.0 + launch.trial_number, Finished({"los": 1.0})),
        ]

    simulation = Simulation(database, make_spec(budget={"trials": 12}, parallelism=4), script)
    closing = simulation.run()
    assert closing.state is StudyState.FAILED
    assert "without a value for loss, but with one for los, did you mean `loss`?" in closing.reason
    assert simulation.states() == {"fail": 4}, "none but those that ran already"
    warnings = [event.text for event in simulation.recorder.events if event.kind == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("the first report is of los, not of loss, did you mean `loss`?")


def test_a_metric_that_one_trial_lacks_ends_no_study_that_has_results(database: Database) -> None:
    def script(launch: Launch) -> Steps:
        return [
            (
                1.0 + launch.trial_number,
                Finished({"los" if launch.trial_number == 3 else "loss": 1.0}),
            )
        ]

    simulation = Simulation(database, make_spec(budget={"trials": 6}), script)
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states() == {"complete": 5, "fail": 1}
