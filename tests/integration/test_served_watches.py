"""Families that servers watch, on a real database: looks that wait, and what disturbs them."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.support.served_family import ServedFamily
from tunesvc.champions import announcements
from tunesvc.champions.family_lock import locked_family
from tunesvc.champions.served import queue_runner
from tunesvc.champions.served.drift_process import DriftTask, compare_apart
from tunesvc.champions.served.served_watch_check import require_served
from tunesvc.champions.served.watch_registration import remove_watch
from tunesvc.champions.watch_specs import folds_study
from tunesvc.cli import app
from tunesvc.client.local.local_client import LocalClient
from tunesvc.db import alerts, study_records, submissions
from tunesvc.db.champions import champion_records, promotion_deliveries, served_watches
from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.people.personal_data import forget
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import (
    ArtifactMissing,
    ChampionNotFound,
    DatabaseUnavailable,
    SpecError,
    StudyExists,
)
from tunesvc.preparation.data_store import DataStore
from tunesvc.queries.studies import get_study
from tunesvc.runtime import study_requests
from tunesvc.spec.sections.watch_keys import Watch


@pytest.fixture
def family(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedFamily:
    """A family without data yet."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNE_ARTIFACTS", raising=False)
    folder = tmp_path / "study"
    folder.mkdir()
    return ServedFamily(database, folder, monkeypatch)


def test_a_look_waits_for_each_study_and_uses_one_version(family: ServedFamily) -> None:
    """The data change during the re-tune and while it is evaluated on folds."""
    family.data(0.0)
    family.register()
    watch = family.step()
    assert (watch.waits_for, watch.problem, family.history) == ("shop", "", ())
    assert family.step() == watch, "it is not due before the study has ended"
    assert family.serve() == ["shop"]
    watch = family.step()
    assert watch.waits_for == folds_study(family.spec, str(watch.data_version))
    family.serve()
    watch = family.step()
    assert (watch.outcome, watch.waits_for, watch.data_version) == ("first", "", None)
    assert watch.look_at is not None
    assert watch.looked_at is not None
    assert watch.look_at - watch.looked_at == timedelta(hours=1)
    first = family.history[0]
    assert first.user_name == "ann"

    family.data(2.0, seed=1)
    family.due()
    version = family.step().data_version
    for seed in (2, 3):
        family.data(3.0, seed=seed)
        family.serve()
        watch = family.step()
    assert watch.outcome == "promoted"
    assert family.compared == 1, "versions are compared once for all steps of a look"
    assert family.history[0].configuration.data_version == version
    assert family.history[0].configuration.params["x"] == pytest.approx(2.0, abs=0.5)
    assert family.finish().outcome in ("promoted", "kept"), "the next look sees the change"
    assert family.history[0].configuration.data_version != version


@pytest.mark.slow
def test_undrifted_data_are_steady_and_the_champion_stays(family: ServedFamily) -> None:
    family.data(0.0)
    family.register()
    family.finish()
    assert family.finish().outcome == "unchanged"
    family.data(0.0, seed=1)
    assert family.finish().outcome == "steady"
    assert len(family.history) == 1


@pytest.mark.slow
def test_looks_continue_from_what_a_dead_server_has_left(
    family: ServedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server dies after each statement of its looks in turn."""
    family.data(0.0)
    family.register()

    class Killed(BaseException):
        pass

    lives = 0

    def live(*_: object) -> None:
        nonlocal lives
        lives -= 1
        if lives < 0:
            raise Killed

    sa.event.listen(family.database.engine, "before_cursor_execute", live)
    deaths = 0
    for mean, seed in ((0.0, 0), (2.0, 1)):
        family.data(mean, seed=seed)
        lives = 10**9
        family.due()
        for allowed in range(5, 2000, 7):
            lives = allowed
            try:
                watch = family.step()
            except Killed:
                deaths += 1
                continue
            finally:
                lives = 10**9
            if watch.outcome in ("first", "promoted") and not watch.waits_for:
                break
            family.serve()
    sa.event.remove(family.database.engine, "before_cursor_execute", live)
    assert deaths > 10
    assert [one.kind for one in family.history] == ["challenge", "first"]


def test_a_champion_outside_the_space_is_evaluated_with_the_code_of_the_snapshot(
    family: ServedFamily,
) -> None:
    family.data(0.0)
    family.pack("def train(x): return x\n")
    family.register()
    assert family.finish().outcome == "first"
    family.parameters = {"x": {"type": "float", "min": 2.0, "max": 4.0}}
    family.data(3.0, seed=1)
    family.register()
    assert family.finish().outcome == "promoted"


@pytest.mark.slow
def test_a_challenger_is_evaluated_although_the_champion_fails_on_the_folds(
    family: ServedFamily,
) -> None:
    family.data(0.0)
    family.register()
    family.finish()
    family.data(0.0, seed=1)
    family.due()
    folds = family.step().waits_for
    family.fails_on_folds = True
    family.serve()
    family.fails_on_folds = False
    assert family.step().waits_for != folds
    family.serve()
    assert family.step().waits_for == folds
    assert family.serve() == [folds]
    watch = family.step()
    assert (watch.outcome, watch.problem) == ("undecided", "")
    counts = get_study(family.database, folds).counts
    assert (counts.failed, counts.complete) == (1, 1)


def test_mended_code_of_a_watch_replaces_what_has_failed(family: ServedFamily) -> None:
    family.data(0.0)
    family.pack("def train(x): raise ValueError\n")
    family.register()
    family.step()
    with family.database.engine.begin() as connection:
        study = study_records.find(connection, "shop")
        connection.exec_driver_sql("UPDATE studies SET state = 'failed', active_s = 1")
    problem = family.step().problem
    assert "`tune resume shop` tries again, and `tune watch` with mended code" in problem
    mended = family.pack("def train(x): return x\n")
    family.register()
    assert family.step().waits_for == "shop"
    with family.database.engine.begin() as connection:
        replaced = study_records.find(connection, "shop")
        submission = submissions.get(connection, replaced.study_id)
    assert replaced.study_id != study.study_id
    assert submission is not None
    assert submission.snapshot == mended
    assert family.finish().outcome == "first"


def test_one_server_at_a_time_looks(family: ServedFamily) -> None:
    family.data(0.0)
    family.register()
    with locked_family(family.database, "shop"):
        assert family.step().waits_for == "", "the other one looks"
    assert family.step().waits_for == "shop"


@pytest.mark.slow
def test_what_cannot_be_prepared_is_shown_and_tried_again_later(family: ServedFamily) -> None:
    family.register()
    watch = family.step()
    assert "rows.csv" in watch.problem
    assert (watch.failures, watch.outcome) == (1, "")
    assert watch.look_at is not None
    family.data(0.0)
    assert family.finish().outcome == "first"
    assert (family.state.problem, family.state.failures) == ("", 0)


@pytest.mark.slow
def test_a_paused_study_keeps_its_look_waiting_and_a_deleted_one_begins_it_again(
    family: ServedFamily,
) -> None:
    family.data(0.0)
    family.register()
    family.step()
    with family.database.engine.begin() as connection:
        record = study_records.find(connection, "shop")
    study_requests.request(family.database, record.study_id, "pause", {}, "ann")
    family.due()
    assert family.step().waits_for == "shop"
    with family.database.engine.begin() as connection:
        study_records.remove(connection, record.study_id, "ann")
    watch = family.step()
    assert "study 'shop' was deleted" in watch.problem
    assert watch.data_version is None
    assert family.finish().outcome == "first"


@pytest.mark.slow
def test_a_version_that_is_removed_ends_the_look(family: ServedFamily) -> None:
    family.data(0.0)
    family.register()
    watch = family.step()
    store = DataStore.open()
    for manifest in list(store.list()):
        store.remove(manifest)
    family.due()
    watch = family.step()
    assert "was removed, so that the look begins again with today's data" in watch.problem
    with family.database.engine.connect() as connection:
        assert study_records.find(connection, "shop").state is StudyState.STOPPED
    assert family.step().waits_for == "shop", "the same version comes again, and has no result yet"
    with family.database.engine.connect() as connection:
        assert study_records.find(connection, "shop").state is StudyState.RUNNING
    assert family.finish().outcome == "first"
    with family.database.engine.begin() as connection:
        study = study_records.find(connection, "shop")
        assert study.state is StudyState.FINISHED
        assert study_records.trials_counted(connection, study.study_id) == 24


@pytest.mark.slow
def test_a_single_look_ends_and_a_replaced_watch_looks_at_once(family: ServedFamily) -> None:
    family.data(0.0)
    family.register(every_s=None)
    assert family.finish().look_at is None
    before = family.register(every_s=60.0, user="bob")
    again = family.register(every_s=None, user="bob")
    assert (again.interval_s, again.outcome) == (60.0, "first")
    with family.database.engine.begin() as connection:
        assert not served_watches.begin_version(connection, before, "1f3a9c20d41b")
    remove_watch(family.database, "shop")
    with pytest.raises(ChampionNotFound, match="servers do not watch a family 'shop'"):
        remove_watch(family.database, "shop")


def test_a_watch_ends_with_its_user(family: ServedFamily) -> None:
    family.data(0.0)
    with family.database.engine.begin() as connection:
        project = accounts.add_project(connection, "vision")
        user = accounts.add_user(connection, "ann")
        accounts.set_member(connection, project, user, accounts.Role.OPERATOR)
    family.register(project="vision")
    assert family.step().waits_for == "shop"
    with family.database.engine.connect() as connection:
        record = study_records.find(connection, "shop")
        assert study_records.project_of(connection, record.study_id) == project
    with family.database.engine.begin() as connection:
        accounts.set_member(connection, project, user, accounts.Role.VIEWER)
    family.due()
    assert family.step().problem == "user 'ann' may not submit studies to its project any more"
    assert family.state.is_stopped
    with family.database.engine.begin() as connection:
        accounts.set_member(connection, project, user, accounts.Role.OPERATOR)
    family.register(project="vision")
    with family.database.engine.begin() as connection:
        accounts.disable_user(connection, "ann")
    assert family.step().problem == "user 'ann' is disabled"
    family.register(project="vision")
    with family.database.engine.begin() as connection:
        forget(connection, "ann")
    assert family.state.problem == "the account of its user was erased"
    assert family.state.is_stopped


def test_a_user_that_is_erased_during_a_look_is_named_no_more(
    family: ServedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    family.data(0.0)
    with family.database.engine.begin() as connection:
        accounts.add_user(connection, "ann", is_admin=True)
    family.register()
    prepare = family._prepare

    def erase_and_prepare(*arguments: Any, **options: Any) -> object:
        with family.database.engine.begin() as connection:
            forget(connection, "ann")
        return prepare(*arguments, **options)

    monkeypatch.setattr(queue_runner, "prepare_version", erase_and_prepare)
    watch = family.step()
    assert watch.is_stopped
    assert watch.problem == accounts.ERASED
    with family.database.engine.connect() as connection:
        assert study_records.look_up(connection, "shop") is None
        assert accounts.why_not_operator(connection, watch.submitted_by, None) == accounts.ERASED


def test_a_look_at_a_watch_that_is_replaced_promotes_nothing(
    family: ServedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[str] = []

    def post(url: str, _: str) -> str:
        posted.append(url)
        return ""

    monkeypatch.setattr(announcements, "_post", post)
    family.data(0.0)
    family.watch |= {"on_promote": "https://example.org/old"}
    family.register()
    for _ in range(2):
        family.step()
        family.serve()
    record = champion_records.record

    def replace_and_record(*arguments: Any, **options: Any) -> int:
        monkeypatch.setattr(champion_records, "record", record)
        family.watch |= {"on_promote": "https://example.org/new"}
        family.register()
        return record(*arguments, **options)

    monkeypatch.setattr(champion_records, "record", replace_and_record)
    assert family.step().outcome == ""
    assert family.history == ()
    assert family.finish().outcome == "first"
    assert posted == ["https://example.org/new"]


def test_errors_of_the_database_and_unexpected_ones_keep_the_version(
    family: ServedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    family.data(0.0)
    family.register()
    version = family.step().data_version
    assert version is not None
    family.serve()
    lost = sa.exc.OperationalError("SELECT 1", {}, Exception("closed"))
    for error in (lost, ValueError("SELECT secret")):
        look_up = Mock(side_effect=error)
        with monkeypatch.context() as patch:
            patch.setattr("tunesvc.service.served_look.study_records.look_up", look_up)
            if error is lost:
                with pytest.raises(DatabaseUnavailable):
                    family.step()
                assert family.state.failures == 0
            else:
                family.step()
        assert look_up.called
        assert family.state.data_version == version
    assert family.state.problem == "an unexpected ValueError: the server's log has more"


@pytest.mark.slow
def test_a_family_stays_in_its_project_and_moves_with_its_study(family: ServedFamily) -> None:
    family.data(0.0)
    with family.database.engine.begin() as connection:
        vision = accounts.add_project(connection, "vision")
        other = accounts.add_project(connection, "other")
    family.register(project="vision")
    with pytest.raises(StudyExists, match="a family 'shop' in another project"):
        family.register(project="other")
    family.finish()
    family.data(2.0, seed=1)
    family.due()
    assert family.step().waits_for.startswith("shop@"), "it moves during a look"
    LocalClient(family.database, "ann").accounts.move_study("shop", "other")
    assert family.state.project_id == other != vision
    assert family.finish().outcome == "promoted"


def test_all_studies_of_a_family_move_with_the_first(
    database: Database, family: ServedFamily
) -> None:
    """Others that are named like them stay."""
    moving = ("shop", "shop@1f3a9c20", "shop@1f3a9c20:folds-4be0d1")
    staying = ("shop@1f3a9c20-mine", "shopping", "shop2@1f3a9c20")
    with database.engine.begin() as connection:
        other = accounts.add_project(connection, "other")
        for name in (*moving, *staying):
            spec = family.spec.model_copy(update={"name": name})
            study_records.create(connection, spec, None, None)
    LocalClient(database, "ann").accounts.move_study("shop", "other")
    with database.engine.connect() as connection:
        found = {name: study_records.find(connection, name) for name in (*moving, *staying)}
        projects = {
            name: study_records.project_of(connection, one.study_id) for name, one in found.items()
        }
    assert projects == dict.fromkeys(moving, other) | dict.fromkeys(staying)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"data": {"source": "rows.csv"}}, "name an absolute path that workers reach"),
        ({"watch": {"on_promote": "python deploy.py"}}, "servers run no commands: name a URL"),
        ({"watch": {"on_promote": "$SLACK_URL"}}, "--on promoted"),
        ({"watch": {"on_promote": "https://h/?token=$TOKEN"}}, "--on promoted"),
        ({"watch": {"registry": "mlflow"}}, "servers send to no trackers"),
        ({"data": None}, "needs `data`"),
    ],
)
def test_what_servers_cannot_do_is_refused_with_the_remedy(
    family: ServedFamily, changes: dict[str, object], remedy: str
) -> None:
    spec = family.spec.model_validate({**family.spec.model_dump(), "watch": {}, **changes})
    with pytest.raises(SpecError, match="servers cannot watch study 'shop'") as error:
        require_served(spec)
    assert remedy in str(error.value)


def test_sources_beyond_the_folder_can_be_watched(family: ServedFamily) -> None:
    for source in ("s3://bucket/rows.csv", "rows:load", "/srv/rows.csv", "file:///srv/rows.csv"):
        assert family.spec.data is not None
        data = family.spec.data.model_copy(update={"source": source})
        require_served(family.spec.model_copy(update={"data": data}))


def test_a_snapshot_that_a_watch_names_is_kept(family: ServedFamily) -> None:
    digest = "ab" * 32
    with family.database.engine.begin() as connection:
        submissions.record_snapshot(connection, digest, bytes=1, files=1, created_by="ann")
        watch = family.register()
        connection.execute(sa.text("UPDATE watches SET snapshot = :one"), {"one": digest})
        assert submissions.remove_unused_snapshots(connection, timedelta(seconds=-1)) == []
        served_watches.remove(connection, watch.family)
        assert submissions.remove_unused_snapshots(connection, timedelta(seconds=-1)) == [digest]


@pytest.mark.slow
def test_a_rollback_is_delivered_at_once_and_a_failed_delivery_later(
    family: ServedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[str] = []

    def post(url: str, text: str) -> str:
        posted.append(text)
        return "the answer was 500" if len(posted) == 1 else ""

    monkeypatch.setattr("tunesvc.champions.announcements._post", post)
    family.watch |= {"on_promote": "https://example.org/deploy"}
    family.data(0.0)
    family.register()
    family.finish()
    with family.database.engine.connect() as connection:
        assert promotion_deliveries.list_due_families(connection) == [], "it waits"
    tried = sa.text("UPDATE champion_deliveries SET tried_at = now() - interval '1 minute'")
    with family.database.engine.begin() as connection:
        connection.execute(tried)
        assert promotion_deliveries.list_due_families(connection) == ["shop"]
    look_at = family.state.look_at
    assert family.step().look_at == look_at, "a delivery is no look"
    assert len(posted) == 2
    with family.database.engine.connect() as connection:
        assert promotion_deliveries.list_due_families(connection) == []


@pytest.mark.slow
def test_deliveries_of_a_stopped_watch_wait_and_say_so(
    family: ServedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesvc.champions.announcements._post", lambda url, text: "down")
    family.watch |= {"on_promote": "https://example.org/deploy"}
    family.data(0.0)
    family.register()
    family.finish()
    url = ("--database-url", family.database.url)
    shown = CliRunner().invoke(app, ["champion", "show", "shop", *url])
    assert "its hooks wait" not in shown.output
    with family.database.engine.begin() as connection:
        served_watches.stop(connection, family.state, "user 'ann' is disabled")
    waits = "its hooks wait, since its watch was stopped (user 'ann' is disabled): `tune watch"
    shown = CliRunner().invoke(app, ["champion", "show", "shop", *url])
    assert waits in shown.output
    monkeypatch.setattr(
        "tunesvc.cli.groups.champion.chosen_server", lambda server: "https://tune.example.org"
    )
    promoted = CliRunner().invoke(app, ["champion", "promote", "shop", "3", *url])
    assert waits in promoted.output


@pytest.mark.slow
def test_a_promotion_is_an_alert(family: ServedFamily) -> None:
    family.data(0.0)
    family.register()
    with family.database.engine.begin() as connection:
        alerts.add_target(connection, "ann", "json://example.org", kinds=["promoted"])
        alerts.add_target(connection, "bob", "json://example.org", kinds=["promoted"])
    family.finish()
    with family.database.engine.begin() as connection:
        alerts.raise_alerts(connection)
        delivery = alerts.take_delivery(connection)
        assert delivery is not None
        assert (delivery.study, delivery.kind) == ("shop", "promoted")
        assert delivery.text.startswith("champion 1 of shop is trial ")
        alerts.record_delivery(connection, delivery, "")
        assert alerts.take_delivery(connection) is None


@pytest.mark.slow
def test_versions_are_compared_in_a_process_that_can_be_ended(family: ServedFamily) -> None:
    assert family.spec.data is not None
    made = []
    for mean in (0.0, 2.0):
        family.data(mean, seed=int(mean))
        made.append(family.prepare())
    task = DriftTask(DataStore.open().address, made[0], made[1], Watch())
    drift = compare_apart(task, threading.Event())
    assert drift is not None
    assert [one.column for one in drift.drifted] == ["a"]
    interrupt = threading.Event()
    interrupt.set()
    assert compare_apart(task, interrupt) is None
    DataStore.open().remove(made[0])
    with pytest.raises(ArtifactMissing):
        compare_apart(task, threading.Event())


@pytest.mark.slow
def test_a_study_of_this_name_of_another_project_is_left_alone(family: ServedFamily) -> None:
    family.data(0.0)
    family.register()
    with family.database.engine.begin() as connection:
        project = accounts.add_project(connection, "other")
        study_records.create(connection, family.spec, project_id=project)
    assert "a study 'shop' of another project than the watch's" in family.step().problem
    with family.database.engine.begin() as connection:
        accounts.move_study(connection, study_records.find(connection, "shop").study_id, None)
    family.due()
    watch = family.step()
    assert (watch.waits_for, watch.problem) == ("shop", "")
