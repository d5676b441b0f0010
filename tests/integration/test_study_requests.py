"""Requests to a study without a coordinator, and to one that has one; on a real database."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integration.test_coordinator_commands import slow
from tests.support.simulation import Recorder, Simulation
from tests.support.specs import make_spec
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import SpecError, StudyBusy, StudyExists, StudyNotFound, TuneError
from tunesvc.execution.executor import Failed
from tunesvc.queries.operations.request_log import list_requests
from tunesvc.queries.rows import Labels
from tunesvc.queries.studies import get_study, list_labels, list_studies
from tunesvc.queries.trials.attempt_events import list_decisions
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.runtime import study_requests, takeover
from tunesvc.runtime.run_study import StudySource, create_or_resume


def ask(simulation: Simulation, kind: str, payload: Mapping[str, object] | None = None) -> str:
    return study_requests.request(
        simulation.database, simulation.record.study_id, kind, payload or {}, "ada"
    )


def asked(simulation: Simulation) -> list[tuple[object, ...]]:
    rows = simulation.sql(
        "SELECT kind, asked_by, answer, done_at IS NOT NULL FROM commands ORDER BY command_id"
    )
    return [tuple(row) for row in rows]


def interrupted(simulation: Simulation) -> None:
    """Run until trial 0 is complete, and stop in order; trials that ran are to be gone on with."""
    coordinator = simulation.start()
    while not simulation.sql("SELECT 1 FROM trials WHERE number = 0 AND state = 'complete'"):
        coordinator.step()
    simulation.interrupt.set()
    coordinator.run(simulation.interrupt)
    simulation.interrupt.clear()
    simulation.study_writer.release()


def test_more_budget_for_a_study_that_has_tried_everything_says_that_it_changes_nothing(
    database: Database,
) -> None:
    simulation = Simulation(
        database, make_spec(parameters={"x": {"type": "int", "min": 1, "max": 2}}, seed=1)
    )
    simulation.run()
    assert ask(simulation, "extend", {"trials": 3}).endswith(
        "have been tried: `tune widen test` allows more"
    )
    assert "x 1…2 -> 1…3; `tune resume" in ask(
        simulation, "widen", {"parameters": {"x": {"max": 3}}}
    )
    simulation.run()
    assert simulation.sql("SELECT count(*) FROM trials") == [(3,)]


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("pause", {}, "paused; no coordinator was running it"),
        ("stop", {}, "stopped; no coordinator was running it"),
        ("resume", {}, "no process runs test; `tune resume test` does"),
        ("extend", {"trials": 3}, "extended; `tune resume test` continues it"),
        ("parallelism", {"trials": None}, "changed; `tune resume test` continues it"),
        (
            "widen",
            {"parameters": {"x": {"max": 2}}},
            "x 0…1 -> 0…2; `tune resume test` continues it",
        ),
        ("enqueue", {"params": {"x": 0.25}}, "trial 0 is next; `tune resume test` continues it"),
    ],
)
def test_a_request_to_a_study_without_a_coordinator_is_executed_and_recorded(
    database: Database, kind: str, payload: Mapping[str, object], expected: str
) -> None:
    simulation = Simulation(database, make_spec())
    assert ask(simulation, kind, payload) == expected
    ((recorded, author, answer, done),) = asked(simulation)
    assert (recorded, author, done) == (kind, "ada", True)
    assert str(answer) in expected
    with database.engine.connect() as connection:
        after = study_records.get(connection, simulation.record.study_id)
    spec = after.spec
    assert spec is not None
    done_to = {"pause": StudyState.PAUSED, "stop": StudyState.STOPPED}
    assert after.state is done_to.get(kind, StudyState.CREATED)
    assert spec.budget.trials == (13 if kind == "extend" else 10)
    assert spec.parallelism == (None if kind == "parallelism" else 4)
    assert spec.parameters["x"].max == (2.0 if kind == "widen" else 1.0)  # type: ignore[union-attr]
    waiting = simulation.sql("SELECT number, state FROM trials")
    assert waiting == ([(0, "waiting")] if kind == "enqueue" else [])


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("extend", {}),
        ("parallelism", {"trials": -1}),
        ("widen", {"parameters": {"x": {"max": 0.1}}}),
        ("enqueue", {"params": {"x": 7}}),
        ("retry", {"number": 0}),
        ("stop_trial", {"number": 0}),
        ("abolish", {}),
    ],
)
@pytest.mark.parametrize("is_running", [True, False])
def test_what_makes_no_sense_is_refused_at_once_and_not_recorded(
    database: Database, kind: str, payload: Mapping[str, object], is_running: bool
) -> None:
    simulation = Simulation(database, make_spec())
    if is_running:
        simulation.start()
    with pytest.raises(SpecError):
        ask(simulation, kind, payload)
    assert asked(simulation) == []


def test_a_widening_that_its_sampler_cannot_follow_is_refused(database: Database) -> None:
    spec = make_spec(
        parameters={"n": {"type": "int", "min": 1, "max": 8}}, sampler={"name": "brute"}
    )
    with pytest.raises(SpecError, match="at most 10,000"):
        ask(Simulation(database, spec), "widen", {"parameters": {"n": {"max": 20_000}}})


def test_a_running_study_is_left_to_its_coordinator(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    assert (
        ask(simulation, "extend", {"trials": 2})
        == "extend test: the coordinator test carries it out"
    )
    assert asked(simulation) == [("extend", "ada", None, False)]
    coordinator.run()
    assert asked(simulation) == [("extend", "ada", "", True)]
    assert simulation.states() == {"complete": 12}


def test_only_a_pause_or_a_stop_takes_a_study_from_a_coordinator_that_fell_silent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "BACK_S", 0.0)
    simulation = Simulation(database, make_spec())
    simulation.start().step()
    simulation.crash()
    assert "waits for the next run" in ask(simulation, "extend", {"trials": 2})
    assert "waits for the next run" in ask(simulation, "enqueue", {"params": {"x": 0.5}})
    assert simulation.sql("SELECT token FROM leases") == [(1,)]
    assert ask(simulation, "pause") == "paused; no coordinator was running it"
    assert simulation.sql("SELECT token FROM leases") == [(2,)]
    simulation.run()
    assert simulation.states() == {"complete": 12}
    assert {row[3] for row in asked(simulation)} == {True}


def test_trials_that_were_enqueued_meanwhile_are_run_first_and_the_budget_holds(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(parallelism=1))
    interrupted(simulation)
    ask(simulation, "enqueue", {"params": {"x": 0.25, "n": 3}, "origin": "a hunch"})
    ask(simulation, "retry", {"number": 0})
    answer = ask(simulation, "enqueue", {"near": 0})
    numbers = [
        number
        for (number,) in simulation.sql(
            "SELECT number FROM trials WHERE state = 'waiting' ORDER BY 1"
        )
    ]
    assert answer.startswith(f"trial {numbers[-1]} is next")
    simulation.run()
    assert simulation.states() == {"complete": 10}
    rows = {row.number: row for row in list_trials(database, simulation.record.study_id)}
    hunch, again, near = (rows[number].params for number in numbers)  # type: ignore[index]
    assert hunch == {"x": 0.25, "n": 3}
    assert again == rows[0].params
    assert near != rows[0].params
    reasons = {
        d.trial_number: d.reason for d in list_decisions(database, simulation.record.study_id)
    }
    assert reasons[numbers[0]] == "enqueued: a hunch"
    assert reasons[numbers[1]] == "enqueued: trial 0 again, by request of ada"


def test_a_trial_that_is_enqueued_for_a_spent_budget_extends_it_and_runs(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec())
    simulation.run()
    answer = ask(simulation, "enqueue", {"params": {"x": 0.25, "n": 3}})
    assert answer.startswith("trial 10 is next; the budget grows to 11 trials, so that it runs")
    assert "the budget grows to 12 trials" in ask(simulation, "retry", {"number": 0})
    simulation.run()
    assert simulation.states() == {"complete": 12}


def test_a_failed_study_without_results_is_replaced_by_a_corrected_one(database: Database) -> None:
    recorder = Recorder()
    broken = Simulation(database, make_spec(), lambda _: [(1.0, Failed("error", "a typo"))])
    broken.run()
    assert broken.states().keys() == {"fail"}
    mended = make_spec(parameters={"z": {"type": "float", "min": 0.0, "max": 1.0}})
    record = create_or_resume(database, mended, StudySource(), resume=False, observer=recorder)
    assert record.study_id != broken.record.study_id
    assert record.state is StudyState.CREATED
    assert "this one replaces it" in recorder.texts("study")[0]
    assert (
        create_or_resume(database, mended, StudySource(), resume=True).study_id == record.study_id
    )


def test_a_study_with_a_result_is_never_replaced(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    simulation.run()
    simulation.sql("UPDATE studies SET state = 'failed'")
    with pytest.raises(StudyExists, match="tune resume"):
        create_or_resume(database, make_spec(), StudySource(), resume=False)


def test_a_trial_that_is_enqueued_before_the_first_run_does_not_keep_earlier_studies_from_teaching(
    database: Database,
) -> None:
    Simulation(database, make_spec(name="earlier")).run()
    simulation = Simulation(database, make_spec(warm_start=["earlier"]))
    ask(simulation, "enqueue", {"params": {"x": 0.5}})
    simulation.start()
    assert simulation.sql(
        "SELECT count(*) FROM decisions WHERE study_id = 2 AND reason LIKE 'warm start%'"
    ) == [(1,)]
    assert simulation.sql(
        "SELECT count(*) > 1 FROM trials WHERE study_id = 2 AND state = 'waiting'"
    ) == [(True,)]


def test_a_trial_between_two_runs_is_ended_with_what_it_reported(database: Database) -> None:
    simulation = Simulation(database, make_spec(parallelism=2, budget={"trials": 4}), slow)
    interrupted(simulation)
    (number,) = simulation.sql("SELECT min(number) FROM trials WHERE state = 'running'")[0]
    ask(simulation, "enqueue", {"params": {"x": 0.5}})
    (waiting,) = simulation.sql("SELECT number FROM trials WHERE state = 'waiting'")[0]
    assert f"trial {number} ends" in ask(simulation, "stop_trial", {"number": number})
    assert "never will be" in ask(simulation, "stop_trial", {"number": waiting})
    with pytest.raises(SpecError, match=f"trial {number} has finished"):
        ask(simulation, "stop_trial", {"number": number})
    simulation.run()
    assert sum(simulation.states().values()) == 5, "four, and the one that never ran"
    kinds = simulation.sql(
        f"SELECT kind FROM decisions WHERE trial_number = {number} ORDER BY decision_id"
    )
    assert kinds[-1] == ("stop",)


@pytest.mark.parametrize(
    "pruner", [{"name": "none"}, {"name": "asha", "min": 1, "eta": 3, "form": "promote"}]
)
def test_a_study_that_is_stopped_between_two_runs_leaves_no_trial_open(
    database: Database, pruner: Mapping[str, object]
) -> None:
    """As a stop of a running one does: neither paused trials nor those that would have been run
    again."""
    simulation = Simulation(
        database, make_spec(parallelism=3, budget={"trials": 9}, pruner=pruner), slow
    )
    interrupted(simulation)
    assert simulation.states()["running"] > 0
    is_paused = simulation.sql("SELECT count(*) > 0 FROM attempts WHERE state = 'paused'")[0][0]
    assert is_paused is (pruner["name"] == "asha")
    ask(simulation, "stop")
    assert "running" not in simulation.states()
    reported = "SELECT trial_id FROM reports WHERE NOT superseded"
    lost = f"SELECT number FROM trials WHERE state = 'pruned' AND values IS NULL AND trial_id IN ({reported})"
    assert simulation.sql(lost) == []
    unexplained = """SELECT t.number FROM trials t WHERE t.state = 'pruned' AND NOT EXISTS (
        SELECT 1 FROM decisions d WHERE d.trial_number = t.number AND d.kind = 'stop')"""
    assert simulation.sql(unexplained) == []


def test_a_trial_that_may_still_run_somewhere_is_left_to_the_next_run(database: Database) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 2}), slow)
    simulation.start().step()
    simulation.study_writer.release()  # as a coordinator does that dies of a mistake of its own
    assert "waits for the next run" in ask(simulation, "stop_trial", {"number": 0})
    simulation.run()
    assert simulation.sql("SELECT state FROM trials WHERE number = 0") in (
        [("fail",)],
        [("pruned",)],
    )


def test_a_study_of_optunas_own_has_no_coordinator_to_ask(database: Database) -> None:
    import optuna

    optuna.create_study(storage=PgStorage(database), study_name="theirs")
    with database.engine.connect() as connection:
        record = study_records.find(connection, "theirs")
    for kind in ("pause", "extend", "enqueue", "retry"):
        with pytest.raises(TuneError, match="Optuna's API"):
            study_requests.request(
                database, record.study_id, kind, {"params": {}, "trials": 1, "number": 0}, "ada"
            )


def test_running_trials_of_a_study_of_optunas_own_can_be_failed_by_request(
    database: Database,
) -> None:
    """Case W21: they belong to processes that may be gone."""
    import optuna

    theirs = optuna.create_study(storage=PgStorage(database), study_name="theirs")
    for _ in range(3):
        theirs.ask()
    theirs.enqueue_trial({"x": 1.0})
    theirs.tell(0, 0.5)
    with database.engine.connect() as connection:
        study_id = study_records.find(connection, "theirs").study_id
    with pytest.raises(SpecError, match="trial 0 of theirs does not run"):
        study_requests.request(database, study_id, "stop_trial", {"number": 0}, "ada")
    assert "failed: 1;" in study_requests.request(
        database, study_id, "stop_trial", {"number": 1}, "ada"
    )
    assert "failed: 2;" in study_requests.request(database, study_id, "stop", {}, "ada")
    with pytest.raises(SpecError, match="no trial of theirs runs"):
        study_requests.request(database, study_id, "stop", {}, "ada")
    assert [trial.state.name for trial in theirs.trials] == ["COMPLETE", "FAIL", "FAIL", "WAITING"]
    assert all(trial.datetime_complete for trial in theirs.trials[:3])
    answers = [(row.kind, row.answer) for row in list_requests(database, study_id)]
    assert answers == [("stop", "failed: 2"), ("stop_trial", "failed: 1")]


# --- deleting
# ----------------------------------------------------------------------------------------


def test_a_deleted_study_is_named_with_the_user_that_deleted_it(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    simulation.run()
    assert study_requests.remove(database, simulation.record.study_id, "ada") == "deleted test"
    with database.engine.connect() as connection:
        for look in (
            lambda: study_records.find(connection, "test"),
            lambda: study_records.get(connection, 1),
        ):
            with pytest.raises(
                StudyNotFound, match="'test', with 10 trials, was deleted by ada at 20"
            ):
                look()
    assert simulation.sql("SELECT count(*) FROM commands") == [(0,)]


def test_a_running_study_is_not_deleted(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    simulation.start()
    with pytest.raises(StudyBusy, match="is running this study"):
        study_requests.remove(database, simulation.record.study_id, "ada")
    assert simulation.sql("SELECT count(*) FROM deletions") == [(0,)]


def test_what_optuna_deletes_is_kept_in_mind_too(database: Database) -> None:
    storage = PgStorage(database)
    storage.delete_study(Simulation(database, make_spec()).record.study_id)
    with database.engine.connect() as connection, pytest.raises(StudyNotFound, match="deleted by"):
        study_records.find(connection, "test")


# --- tags and notes
# ----------------------------------------------------------------------------------


def test_tags_and_notes_are_written_while_the_study_runs_and_are_recorded(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(tags=["from-the-file"]))
    simulation.start().step()
    record = simulation.record
    assert study_requests.tag(
        database, record.study_id, None, add=["a", "b", "a"], asked_by="ada"
    ) == (
        "from-the-file",
        "a",
        "b",
    )
    assert study_requests.tag(
        database, record.study_id, None, add=["c"], remove=["a", "never"], asked_by="bob"
    )[-2:] == (
        "b",
        "c",
    )
    assert study_requests.tag(database, record.study_id, 0, add=["look"], asked_by="bob") == (
        "look",
    )
    study_requests.note(database, record.study_id, None, "first", asked_by="ada")
    study_requests.note(database, record.study_id, None, "second", asked_by="bob")
    study_requests.note(database, record.study_id, 0, "odd <b>curve</b>", asked_by="bob")
    view = get_study(database, "test")
    assert (view.tags, view.note) == (("from-the-file", "b", "c"), "second")
    trial = list_trials(database, record.study_id)[0]
    assert (trial.tags, trial.note) == (("look",), "odd <b>curve</b>")
    notes = simulation.sql(
        "SELECT payload->>'note' FROM commands WHERE kind = 'note' ORDER BY command_id"
    )
    assert notes == [("first",), ("second",), ("odd <b>curve</b>",)], (
        "what was written over can be read"
    )
    assert all(done for *_, done in asked(simulation))


def test_what_cannot_be_a_tag_or_a_note_is_refused(database: Database) -> None:
    record = Simulation(database, make_spec()).record
    for tags, why in (
        ([""], "at least one character"),
        (["x" * 61], "60 is the most"),
        (["a\x00"], "cannot be stored"),
        (["a\u202eb"], "invisible"),
        ([" a"], "space around"),
        ([str(n) for n in range(51)], "50 is the most"),
    ):
        with pytest.raises(SpecError, match=why):
            study_requests.tag(database, record.study_id, None, add=tags, asked_by="ada")
    with pytest.raises(SpecError, match="20000 is the most"):
        study_requests.note(database, record.study_id, None, "x" * 20_001, asked_by="ada")
    with pytest.raises(SpecError, match="the note.*cannot be stored"):
        study_requests.note(database, record.study_id, None, "\x00", asked_by="ada")
    with pytest.raises(StudyNotFound, match="no trial 3"):
        study_requests.tag(database, record.study_id, 3, add=["a"], asked_by="ada")
    assert get_study(database, "test").tags == ()
    assert list_requests(database, record.study_id) == ()


def test_tags_of_a_file_are_added_at_a_resume_and_those_taken_away_stay_away(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(tags=["old", "dull"]))
    study_requests.tag(database, simulation.record.study_id, None, remove=["dull"], asked_by="ada")
    with database.engine.begin() as connection:
        study_records.renew(
            connection, simulation.record, make_spec(tags=["old", "dull", "new"]), None, None
        )
    assert get_study(database, "test").tags == ("old", "new")


def test_the_owner_is_the_user_that_made_the_study(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_records, "whoami", lambda: "ada")
    Simulation(database, make_spec())
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="of-the-page"), owner="bob")
    assert {row.name: row.owner for row in list_studies(database)} == {
        "test": "ada",
        "of-the-page": "bob",
    }


def test_studies_are_found_by_tag_and_owner(database: Database) -> None:
    with database.engine.begin() as connection:
        study_records.create(
            connection, make_spec(name="one", tags=["vision", "2026"]), owner="ada"
        )
        study_records.create(connection, make_spec(name="two", tags=["vision"]), owner="bob")

    def found(**wanted: object) -> list[str]:
        return [row.name for row in list_studies(database, **wanted)]  # type: ignore[arg-type]

    assert found(tags=["vision"]) == ["two", "one"]
    assert found(tags=["vision", "2026"]) == ["one"]
    assert found(owner="bob") == ["two"]
    assert found(search="2026") == ["one"], "a search looks at names, tags and owners"
    assert found(search="ADA") == ["one"]
    assert list_labels(database) == Labels(owners=("ada", "bob"), tags=("2026", "vision"))
