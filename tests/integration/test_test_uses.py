"""The record of uses of a test part, without runs: found by its rows, scoped, one trial each."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.support.used_test_parts import complete, searched, use_test_part
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.study_scope import StudyScope
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import StudyBusy
from tunesvc.queries.operations.data_lineage import DATA_USED
from tunesvc.queries.operations.final_results import get_test_result, list_test_uses
from tunesvc.queries.operations.final_runs import OF_TRIAL, find_final_study
from tunesvc.runtime.finals import final_study


def test_uses_are_found_by_the_rows_of_the_test_part(database: Database) -> None:
    """Other steps, folds or draws give other versions, and leave the test part as it is."""
    first = searched(database, "first")
    other = searched(database, "other", version="v2")
    foreign = searched(database, "foreign", version="v3", test_rows="others")
    for record in (first, other, foreign):
        use_test_part(database, record, 1)
    uses = list_test_uses(database, "v2", "rows")
    assert [(use.study, use.trial, use.value, use.by) for use in uses] == [
        ("first", 1, 0.3, "ann"),
        ("other", 1, 0.3, "ann"),
    ]
    result = get_test_result(database, other.study_id)
    assert result is not None
    assert result.uses == uses
    assert not result.is_clean
    assert [use.study for use in list_test_uses(database, "v3", "others")] == ["foreign"]
    assert list_test_uses(database, "v4", "") == ()


def test_uses_of_studies_that_a_reader_may_not_see_are_not_counted(database: Database) -> None:
    first, other = searched(database, "first"), searched(database, "other", version="v2")
    with database.engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO projects (name) VALUES ('mine'), ('theirs')"))
        for record, project in ((first, "mine"), (other, "theirs")):
            connection.execute(
                sa.text(
                    "UPDATE studies SET project_id = (SELECT project_id FROM projects WHERE name = :p) "
                    "WHERE study_id = :id"
                ),
                {"p": project, "id": record.study_id},
            )
        mine = connection.scalar(sa.text("SELECT project_id FROM projects WHERE name = 'mine'"))
    for record in (first, other):
        use_test_part(database, record, 1)
    result = get_test_result(database, first.study_id, StudyScope(frozenset({mine})))
    assert result is not None
    assert [use.study for use in result.uses] == ["first"]
    everything = get_test_result(database, first.study_id)
    assert everything is not None
    assert len(everything.uses) == 2


@pytest.mark.parametrize("scoring", [["roc_auc"], None])
def test_an_interrupted_final_run_that_has_reported_is_a_use_without_scorers(
    database: Database, scoring: list[str] | None
) -> None:
    """Reports of an objective that judges itself are values on the test part; with scorers they are
    of the validation part."""
    spec = {"evaluation": {"scoring": scoring}, "metrics": [{"name": "roc_auc"}]}
    record = searched(database, "shop", **(spec if scoring else {}))
    final = final_study.prepare(database, record, "test", 1, started_by="ann")
    storage = PgStorage(database)
    attrs = storage.get_study_system_attrs(record.study_id)[DATA_USED]
    storage.set_study_system_attr(final.record.study_id, DATA_USED, attrs)
    started = trial_id(final.record.study_id, final.number)
    storage.set_trial_state_values(started, TrialState.RUNNING)
    assert list_test_uses(database, "v1", "rows") == ()
    for step, value in enumerate((0.5, 0.4)):
        storage.set_trial_intermediate_value(started, step, value)
    uses = list_test_uses(database, "v1", "rows")
    assert [(use.value, use.is_complete) for use in uses] == ([] if scoring else [(0.4, False)])
    storage.set_trial_state_values(started, TrialState.COMPLETE, [0.3])
    (use,) = list_test_uses(database, "v1", "rows")
    assert (use.value, use.is_complete) == (0.3, True)


def test_a_page_without_a_final_run_reads_one_attribute(database: Database) -> None:
    """The record of other studies is not read, however many there are."""
    plain = searched(database, "plain")
    use_test_part(database, searched(database, "other", version="v2"), 1)
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    assert get_test_result(database, plain.study_id) is None
    assert len([one for one in statements if "FROM" in one]) <= 1


def test_an_interrupted_trial_of_other_parameters_is_stopped(database: Database) -> None:
    record = searched(database, "shop")
    storage = PgStorage(database)
    first = final_study.prepare(database, record, "apply", 0, started_by="ann")
    started = trial_id(first.record.study_id, first.number)
    storage.set_trial_state_values(started, TrialState.RUNNING)
    same = final_study.prepare(database, record, "apply", 0, started_by="ann")
    assert same.number == first.number
    second = final_study.prepare(database, record, "apply", 1, started_by="bob")
    assert second.number != first.number
    trials = storage.get_all_trials(second.record.study_id)
    assert [(trial.state, trial.user_attrs[OF_TRIAL]) for trial in trials] == [
        (TrialState.FAIL, 0),
        (TrialState.WAITING, 1),
    ]


def test_several_processes_at_once_make_one_final_run_with_one_trial(database: Database) -> None:
    record = searched(database, "shop")
    found: list[final_study.FinalTrial] = []

    def prepare() -> None:
        trial = final_study.prepare(database, record, "test", 1, started_by="ann", again=False)
        found.append(trial)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(one.record.study_id, one.number) for one in found}) == 1
    assert len(found) == 4
    final = found[0].record
    complete(PgStorage(database), final, trial_id(final.study_id, found[0].number), 0.3)
    late = final_study.prepare(database, record, "test", 1, started_by="bob", again=False)
    assert (late.number, late.is_complete) == (found[0].number, True)
    again = final_study.prepare(database, record, "test", 1, started_by="bob", again=True)
    assert (again.number, again.is_complete) == (found[0].number + 1, False)


def test_a_final_run_that_runs_is_left_alone(database: Database) -> None:
    record = searched(database, "shop")
    first = final_study.prepare(database, record, "apply", 0, started_by="ann")
    writer = StudyWriter.open(database, first.record.study_id)
    with pytest.raises(StudyBusy):
        final_study.prepare(database, record, "apply", 1, started_by="bob")
    writer.release()
    assert find_final_study(database, record.study_id, "apply") == first.record.study_id
