"""`PgStorage` beyond Optuna's contract: several clients at once, what is kept between calls, and
how it is read."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tests.integration.test_query_plans import BIG, FILL
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.db.engine.timeouts import BoundedCursor
from tunesvc.db.optuna.heartbeats import Heartbeats
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import number_of, trial_id
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import StudyBusy

on_one_database = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example has a study of its own
UNIT = FloatDistribution(0.0, 1.0)


def new_study(storage: PgStorage, direction: StudyDirection = StudyDirection.MINIMIZE) -> int:
    return storage.create_new_study([direction])


# --- several clients
# ------------------------------------------------------------------------------------


def _take_trials(storage: PgStorage, study_id: int, trials: int) -> list[int]:
    """Create and finish trials; what is seen meanwhile has no gaps, and holds what was just
    finished."""
    taken = []
    for _ in range(trials):
        mine = storage.create_new_trial(study_id)
        storage.set_trial_param(mine, "x", 0.5, UNIT)
        storage.set_trial_intermediate_value(mine, 0, 1.0)
        running = storage.get_trial(mine)
        assert (running.params, running.intermediate_values) == ({"x": 0.5}, {0: 1.0})
        assert storage.set_trial_state_values(mine, TrialState.COMPLETE, [float(running.number)])
        seen = storage.get_all_trials(study_id, deepcopy=False)
        assert [trial.number for trial in seen] == list(range(len(seen)))
        assert seen[running.number].state == TrialState.COMPLETE
        taken.append(running.number)
    return taken


def _process(
    storage: PgStorage, study_id: int, trials: int, threads: int, numbers_queue: Any
) -> None:
    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(_take_trials, storage, study_id, trials) for _ in range(threads)]
        numbers_queue.put([number for each in done for number in each.result()])


def test_processes_and_threads_get_consecutive_numbers_and_see_each_others_finished_trials(
    database: Database,
) -> None:
    storage = PgStorage(database)
    study_id = new_study(storage)
    context = multiprocessing.get_context("spawn")
    numbers_queue = context.Queue()
    processes = [
        context.Process(target=_process, args=(storage, study_id, 8, 2, numbers_queue))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    numbers = sorted(number for _ in processes for number in numbers_queue.get(timeout=60))
    for process in processes:
        process.join()
    assert numbers == list(range(48))
    assert storage.get_all_trials(study_id) == PgStorage(database).get_all_trials(study_id)
    assert {trial.state for trial in storage.get_all_trials(study_id)} == {TrialState.COMPLETE}


def test_a_number_is_not_seen_before_the_one_below_it(database: Database) -> None:
    """A reader remembers the last number seen, and would never look for an earlier one again."""
    storage = PgStorage(database)
    study_id = new_study(storage)
    with database.engine.begin() as slow, ThreadPoolExecutor(1) as pool:
        slow.execute(
            sa.text("UPDATE studies SET next_number = 1 WHERE study_id = :study"),
            {"study": study_id},
        )
        later = pool.submit(storage.create_new_trial, study_id)
        while not _waits_for_a_lock(database):
            assert not later.done()
        assert storage.get_all_trials(study_id) == []
        slow.execute(
            sa.text(
                "INSERT INTO trials (trial_id, study_id, number, state) VALUES (:id, :study, 0, 'waiting')"
            ),
            {"id": trial_id(study_id, 0), "study": study_id},
        )
        slow.commit()
        assert number_of(later.result()) == 1
    assert [trial.number for trial in storage.get_all_trials(study_id)] == [0, 1]


def _waits_for_a_lock(database: Database) -> bool:
    with database.engine.connect() as connection:
        return bool(
            connection.scalar(
                sa.text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
        )


# --- what is kept
# ---------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 1),  # which client acts
        st.sampled_from(
            ["create", "enqueue", "start", "param", "report", "attr", "complete", "prune", "get"]
        ),
        st.integers(0, 3),  # on which trial, counted from the last
        st.sampled_from(
            [
                None,
                (TrialState.COMPLETE,),
                (TrialState.WAITING,),
                (TrialState.RUNNING, TrialState.PRUNED),
            ]
        ),
    ),
    min_size=1,
    max_size=25,
)


@on_one_database
@given(actions=ACTIONS)
def test_a_client_that_remembers_reads_what_one_without_memory_reads(
    database: Database, actions: list[Any]
) -> None:
    clients = [PgStorage(database), PgStorage(database)]
    study_id = new_study(clients[0])
    trials: list[int] = []
    for step, (client, action, back, states) in enumerate(actions):
        _act(clients[client], study_id, trials, action, back, step)
        fresh = PgStorage(database).get_all_trials(study_id, states=states)
        for each in clients:
            assert each.get_all_trials(study_id, states=states) == fresh
    whole = PgStorage(database).get_all_trials(study_id)
    assert [client.get_trial(trial) for client in clients for trial in trials] == whole + whole


def _act(
    client: PgStorage, study_id: int, trials: list[int], action: str, back: int, step: int
) -> None:
    if action in ("create", "enqueue") or not trials:
        template = (
            optuna.trial.create_trial(state=TrialState.WAITING) if action == "enqueue" else None
        )
        trials.append(client.create_new_trial(study_id, template))
        return
    trial = trials[max(0, len(trials) - 1 - back)]
    if client.get_trial(trial).state.is_finished():
        return
    if action == "start":
        client.set_trial_state_values(trial, TrialState.RUNNING)
    elif action == "param":
        client.set_trial_param(trial, f"x{step % 3}", step / 25, UNIT)
    elif action == "report":
        client.set_trial_intermediate_value(trial, step % 4, float(step))
    elif action == "attr":
        client.set_trial_user_attr(trial, "step", step)
    elif action == "complete":
        client.set_trial_state_values(trial, TrialState.COMPLETE, [float(step)])
    elif action == "prune":
        client.set_trial_state_values(trial, TrialState.PRUNED)


def test_what_a_caller_does_to_its_copy_is_its_own(database: Database) -> None:
    storage = PgStorage(database)
    study_id = new_study(storage)
    first = storage.create_new_trial(study_id)
    storage.set_trial_param(first, "x", 0.5, UNIT)
    storage.set_trial_param(first, "kind", 1, CategoricalDistribution(["a", "b"]))
    storage.set_trial_user_attr(first, "deep", {"list": [1]})
    storage.set_trial_intermediate_value(first, 0, 1.0)
    storage.set_trial_state_values(first, TrialState.COMPLETE, [0.5])
    kept = storage.get_all_trials(study_id, deepcopy=False)
    assert storage.get_all_trials(study_id) == kept
    as_it_was = copy.deepcopy(kept)
    (mine,) = storage.get_all_trials(study_id)
    mine.params["x"] = 0.1
    mine.distributions["x"].high = 2.0  # type: ignore[attr-defined]
    mine.user_attrs["deep"]["list"].append(2)
    mine.intermediate_values[0] = 2.0
    mine.values = [0.1]
    assert storage.get_all_trials(study_id) == as_it_was


# --- what is read
# ---------------------------------------------------------------------------------------

ANY_FLOAT = st.floats() | st.sampled_from([1.0, 1e22, 5e-324, 2.0**53, -1e300])


@on_one_database
@given(
    curve=st.dictionaries(st.integers(0, 2**53 - 1), ANY_FLOAT, max_size=5),
    params=st.lists(st.floats(0, 1)),
)
def test_every_number_comes_back_as_it_was(
    database: Database, curve: dict[int, float], params: list[float]
) -> None:
    storage = PgStorage(database)
    trial = storage.create_new_trial(new_study(storage))
    for step, value in curve.items():
        storage.set_trial_intermediate_value(trial, step, value)
    for place, value in enumerate(params):
        storage.set_trial_param(trial, f"x{place}", value, UNIT)
    read = PgStorage(database).get_trial(trial)
    assert _as_text(read.intermediate_values) == _as_text(dict(sorted(curve.items())))
    assert list(read.params.items()) == [(f"x{place}", value) for place, value in enumerate(params)]


def _as_text(curve: dict[int, float]) -> str:
    """Format a value so that NaN equals NaN. A zero has no sign: in SQL `-0.0` is 0."""
    return repr({step: value + 0.0 for step, value in curve.items()})


@on_one_database
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 2.0, math.inf, -math.inf, math.nan]), max_size=6),
    direction=st.sampled_from([StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]),
)
def test_the_best_is_the_first_of_the_best_numbers(
    database: Database, values: list[float], direction: StudyDirection
) -> None:
    storage = PgStorage(database)
    study_id = new_study(storage, direction)
    for value in values:
        trial = optuna.trial.create_trial(value=0.0)
        trial.values = [value]  # `create_trial` takes no NaN
        storage.create_new_trial(study_id, trial)
    storage.create_new_trial(
        study_id, optuna.trial.create_trial(state=TrialState.PRUNED, value=-5.0)
    )
    numbers = [value for value in values if not math.isnan(value)]
    if numbers:
        best = min(numbers) if direction == StudyDirection.MINIMIZE else max(numbers)
        assert storage.get_best_trial(study_id).number == values.index(best)
    else:
        with pytest.raises(ValueError, match="no trial of study .* is complete yet"):
            storage.get_best_trial(study_id)


# --- how it is read
# -------------------------------------------------------------------------------------

COUNT = PreparedStatement("SELECT CAST(%(one)s AS bigint) + CAST(%(two)s AS bigint)")


def test_a_prepared_statement_is_executed_whether_the_server_forgot_it_or_knows_it(
    database: Database,
) -> None:
    """As behind a pooler in transaction mode, where each statement may go to another of the
    server's connections."""
    connection = database.engine.raw_connection()
    connection.driver_connection.autocommit = True
    cursor = connection.cursor()
    for disturb in (lambda: None, lambda: cursor.execute("DEALLOCATE ALL"), connection.info.clear):
        for _ in range(2):
            disturb()
            COUNT.run(connection, cursor, {"one": 1, "two": 2})
            assert cursor.fetchall() == [(3,)]
    connection.close()


OPERATIONS: dict[str, Callable[[PgStorage, int, int], object]] = {
    "create_new_trial": lambda storage, study, _: storage.create_new_trial(study),
    "set_trial_param": lambda storage, _, trial: storage.set_trial_param(trial, "new", 0.5, UNIT),
    "set_trial_intermediate_value": lambda storage, _, trial: storage.set_trial_intermediate_value(
        trial, 9, 0.5
    ),
    "set_trial_user_attr": lambda storage, _, trial: storage.set_trial_user_attr(
        trial, "note", "seen"
    ),
    "get_trial": lambda storage, _, trial: storage.get_trial(trial),
    "set_trial_state_values": lambda storage, _, trial: storage.set_trial_state_values(
        trial, TrialState.PRUNED
    ),
    "get_all_trials": lambda storage, study, _: storage.get_all_trials(study),
    "get_all_trials again": lambda storage, study, _: storage.get_all_trials(study),
    "get_best_trial": lambda storage, study, _: storage.get_best_trial(study),
    "get_study_user_attrs": lambda storage, study, _: storage.get_study_user_attrs(study),
}


def test_finished_trials_are_read_when_they_are_wanted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random sampler only looks for waiting ones, and other clients may finish thousands."""
    storage, other = PgStorage(database), PgStorage(database)
    study = new_study(storage)
    for state in (TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE):
        other.set_trial_state_values(other.create_new_trial(study), state)

    def look(*states: TrialState) -> tuple[int, list[int]]:
        found: list[optuna.trial.FrozenTrial] = []
        read = _executed(
            monkeypatch, lambda: found.extend(storage.get_all_trials(study, False, states))
        )
        return len(read), [trial.number for trial in found]

    assert look(TrialState.WAITING) == (1, [])
    assert look(TrialState.COMPLETE) == (2, [1, 3])
    assert look(TrialState.COMPLETE) == (1, [1, 3])
    storage.get_trial(trial_id(study, 0))
    assert look(TrialState.COMPLETE, TrialState.PRUNED) == (1, [0, 1, 3])
    assert look(*TrialState) == (2, [0, 1, 2, 3])


def test_every_operation_finds_its_rows_by_an_index(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(FILL.replace(": ", "\\: ")))
        study_id = connection.execute(
            sa.text("SELECT study_id FROM studies WHERE name = 's7'")
        ).scalar_one()
        connection.execute(
            sa.text("UPDATE studies SET next_number = 10000 WHERE study_id = :id"), {"id": study_id}
        )
    storage = PgStorage(database)
    trial = storage.create_new_trial(study_id)
    read = {
        name: set(_scans(monkeypatch, lambda r=run: r(storage, study_id, trial)))
        for name, run in OPERATIONS.items()
    }
    assert {table for tables in read.values() for table, _ in tables} > {
        "trials",
        "trial_params",
        "reports",
    }
    assert {
        name: unguided
        for name, scans in read.items()
        if (unguided := {t for t, by in scans if not by})
    } == {}


def _scans(patch: pytest.MonkeyPatch, run: Callable[[], object]) -> Iterator[tuple[str, bool]]:
    """Big tables that the statements of `run` read, each with whether an index led to the rows."""
    statements = _executed(patch, run)
    assert statements
    for connection, sql, values in statements:
        cursor = connection.cursor()
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", values)
        ((plan,),) = cursor.fetchone()
        yield from ((table, by) for table, by in _tables(plan["Plan"]) if table in BIG)


def _executed(patch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[tuple[Any, str, Any]]:
    """The prepared statements that `run` carries out: on which connection, what and with which
    values."""
    statements: list[tuple[Any, str, Any]] = []
    execute = BoundedCursor.execute

    def remember(cursor: BoundedCursor, statement: str, values: Any = None) -> None:
        if statement.startswith("EXECUTE"):
            statements.append((cursor.connection, statement, values))
        execute(cursor, statement, values)

    with patch.context() as patched:
        patched.setattr(BoundedCursor, "execute", remember)
        run()
    return statements


def _tables(plan: dict[str, Any], under: str = "") -> Iterator[tuple[str, bool]]:
    table = plan.get("Relation Name", under)
    if plan["Node Type"] in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        yield table, "Index Cond" in plan
    for child in plan.get("Plans", ()):
        yield from _tables(child, table)


# --- beside a coordinator, and refusals
# -----------------------------------------------------------------


def test_a_study_that_a_coordinator_runs_is_not_deleted(database: Database) -> None:
    """Case P9: optuna-dashboard's Delete ended the coordinator."""
    storage = PgStorage(database)
    study_id = new_study(storage)
    study_writer = StudyWriter.open(database, study_id)
    with pytest.raises(StudyBusy, match="is running this study now"):
        storage.delete_study(study_id)
    study_writer.release()
    storage.delete_study(study_id)


def test_an_attribute_beside_a_deletion_finds_no_study(database: Database) -> None:
    """Case P11: it violated a foreign key."""
    storage = PgStorage(database)
    for _ in range(20):
        study_id = new_study(storage)
        with ThreadPoolExecutor(2) as pool:
            writing = pool.submit(storage.set_study_user_attr, study_id, "note", 1)
            pool.submit(storage.delete_study, study_id).result()
            error = writing.exception()
        assert error is None or type(error) is KeyError


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1])
def test_a_step_that_no_column_holds_is_a_value_error(database: Database, step: int) -> None:
    """Case P11: it was the driver's own error."""
    storage = PgStorage(database)
    trial = storage.create_new_trial(new_study(storage))
    with pytest.raises(ValueError, match="beyond 2\\^63-1"):
        storage.set_trial_intermediate_value(trial, step, 0.5)


# --- heartbeats
# -----------------------------------------------------------------------------------------

heartbeats_are_experimental = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning"
)


def _die(trial: optuna.Trial) -> float:
    trial.suggest_float("x", 0.0, 1.0)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _optimize_and_die(storage: PgStorage, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.load_study(study_name=name, storage=storage).optimize(_die, n_trials=1)


def _age_heartbeats(database: Database, seconds: float) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE trials SET heartbeat_at = heartbeat_at - make_interval(secs => :seconds)"
            ),
            {"seconds": seconds},
        )


@heartbeats_are_experimental
def test_trials_of_a_killed_process_fail_and_are_handed_to_the_callback(database: Database) -> None:
    """Case W21."""
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
    storage = PgStorage(database, heartbeats=Heartbeats(60, on_stale=retry))
    study = optuna.create_study(storage=storage)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_optimize_and_die, args=(storage, study.study_name))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    storage.create_new_trial(study._study_id)  # without a heartbeat
    _age_heartbeats(database, 119)
    optuna.storages.fail_stale_trials(study)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING"]
    _age_heartbeats(database, 2)
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=1)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "COMPLETE"]
    assert study.trials[2].params == study.trials[0].params
    assert study.trials[2].system_attrs["failed_trial"] == 0


def test_a_finished_trial_has_no_more_heartbeats_and_options_travel_with_the_storage(
    database: Database,
) -> None:
    storage = PgStorage(database, heartbeats=Heartbeats(60, 90))
    trial = storage.create_new_trial(new_study(storage))
    storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
    storage.record_heartbeat(trial)
    with database.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(heartbeat_at) FROM trials")) == 0
    assert copy.copy(storage).get_heartbeat_interval() == 60
    assert PgStorage(database).get_heartbeat_interval() is None


@pytest.mark.parametrize("seconds", [(0, None), (-1, None), (60, 0)])
def test_heartbeats_need_positive_seconds(seconds: tuple[int, int | None]) -> None:
    with pytest.raises(ValueError, match="a positive number of seconds is needed"):
        Heartbeats(*seconds)
