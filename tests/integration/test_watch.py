"""A family that is watched on a real database: drift, re-tune, promotion, rollback, hooks."""

from __future__ import annotations

import http.server
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from tests.support.watched_family import Killed, WatchedFamily
from tunesvc.champions.announcements import deliver_due, payload
from tunesvc.champions.family_lock import locked_family
from tunesvc.champions.promotion import export_champion, promote, roll_back
from tunesvc.champions.watch_specs import folds_study
from tunesvc.db import study_records
from tunesvc.db.champions import champion_records, promotion_deliveries
from tunesvc.db.champions.champion_records import Champion, PromotionEvidence
from tunesvc.db.engine.database import Database
from tunesvc.db.lease import default_owner
from tunesvc.db.people import accounts
from tunesvc.db.schema.service_tables import champions
from tunesvc.errors import ChampionNotFound, DataError, StudyBusy, TuneError
from tunesvc.preparation.data_store import DataStore
from tunesvc.queries.studies import get_study


@pytest.fixture
def family(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedFamily:
    """A family without data yet."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNE_ARTIFACTS", raising=False)
    folder = tmp_path / "study"
    folder.mkdir()
    return WatchedFamily(database, folder)


def history(family: WatchedFamily) -> tuple[Champion, ...]:
    """All champions, the newest first."""
    with family.database.engine.connect() as connection:
        return champion_records.list_history(connection, "shop")


def test_a_first_look_tunes_and_promotes_and_a_second_one_does_nothing(
    family: WatchedFamily,
) -> None:
    family.data(0.0)
    first = family.look()
    assert first.outcome == "first"
    assert first.champion is not None
    configuration = first.champion.configuration
    assert (configuration.study, len(configuration.fold_values)) == ("shop", 5)
    assert abs(configuration.params["x"]) < 0.5
    assert family.look().outcome == "unchanged"
    assert family.runner.ran == []
    (hooked,) = family.hooked
    assert (hooked["id"], hooked["attempt"]) == (first.champion.champion_id, 1)
    assert hooked["params"] == configuration.params


def test_drift_is_answered_by_a_warm_re_tune_and_a_tested_promotion(
    family: WatchedFamily,
) -> None:
    family.data(0.0)
    family.look()
    family.data(2.0, seed=1)
    result = family.look()
    assert (result.outcome, result.undelivered) == ("promoted", 0)
    assert result.drift is not None
    assert [one.column for one in result.drift.drifted] == ["a"]
    version = result.data_version
    assert version is not None
    study = f"shop@{version[:8]}"
    assert family.runner.ran == [study, folds_study(family.spec, version)]
    spec = get_study(family.database, study).spec
    assert spec is not None
    assert (spec.warm_start, spec.budget.trials) == (("shop",), 12)
    champion, first = history(family)
    assert (champion.kind, champion.previous_id) == ("challenge", first.champion_id)
    assert champion.user_name == "ann"
    assert champion.configuration.params["x"] == pytest.approx(2.0, abs=0.5)
    evidence = champion.evidence
    assert evidence.p_value is not None
    assert evidence.p_value <= 0.05
    assert len(evidence.rival_values) == 5
    assert evidence.drift == result.drift
    assert min(evidence.rival_values) > max(champion.configuration.fold_values)
    assert json.loads(json.dumps(export_champion(champion)))["promotion"]["drifted"] == ["a"]
    assert [one["id"] for one in family.hooked] == [first.champion_id, champion.champion_id]


def test_other_rows_of_the_same_source_change_nothing(family: WatchedFamily) -> None:
    family.data(0.0)
    family.look()
    for seed in (1, 2, 3):
        family.data(0.0, seed=seed)
        result = family.look()
        assert result.outcome == "steady"
        assert result.degradation is not None
        assert family.look().outcome == "steady"
        assert family.runner.ran == []  # its values are stored
    assert len(history(family)) == 1


def test_a_champion_that_wins_stays_and_later_versions_are_compared_with_this_one(
    family: WatchedFamily,
) -> None:
    family.data(0.0)
    family.watch |= {"distance": 0.0, "budget": {"trials": 1}}
    family.look()
    family.data(0.0, seed=1)
    result = family.look(always=True)
    assert result.outcome == "kept"
    kept, first = history(family)
    assert kept.configuration.params == first.configuration.params
    assert kept.configuration.data_version == result.data_version
    assert kept.kind == "kept"
    assert family.look().outcome == "unchanged"
    assert len(family.hooked) == 1  # the configuration is the same


def test_a_rollback_restores_and_the_same_data_promote_nothing_again(
    family: WatchedFamily,
) -> None:
    family.data(0.0)
    family.look()
    family.data(2.0, seed=1)
    family.look()
    restored = roll_back(family.database, "shop", "bob", reason="complaints")
    second, first = history(family)[1:]
    assert restored.configuration == first.configuration
    assert (restored.restores_id, restored.evidence.reason) == (first.champion_id, "complaints")
    result = family.look()  # announces the rollback, too
    assert result.outcome == "declined"
    assert [one["id"] for one in family.hooked][-1] == restored.champion_id
    family.data(-2.0, seed=2)
    assert family.look().outcome == "promoted"
    again = roll_back(family.database, "shop", "bob", champion_id=second.champion_id)
    assert again.configuration == second.configuration
    with pytest.raises(ChampionNotFound, match="had no champion 99"):
        roll_back(family.database, "shop", "bob", champion_id=99)


def test_a_first_champion_cannot_be_rolled_back_and_a_trial_can_be_chosen(
    family: WatchedFamily,
) -> None:
    family.data(0.0)
    family.look()
    with pytest.raises(ChampionNotFound, match="had no other champion before"):
        roll_back(family.database, "shop", "bob")
    view = get_study(family.database, "shop")
    chosen = promote(family.database, view, 3, "bob", reason="faster")
    assert (chosen.kind, chosen.configuration.trial_number) == ("manual", 3)
    with pytest.raises(ChampionNotFound, match="has no trial 99"):
        promote(family.database, view, 99, "bob")
    assert family.look().outcome == "unchanged"
    assert len(family.hooked) == 2


def test_a_champion_that_fails_on_new_data_is_challenged(family: WatchedFamily) -> None:
    family.data(0.0)
    first = family.look().champion
    family.data(0.0, seed=1)
    family.fails_on_folds = True
    result = family.look()
    assert len(family.runner.ran) == 3, "champion on folds, re-tune, challenger on folds"
    assert (result.outcome, result.champion) == ("undecided", first)
    assert result.reason.startswith("the champion fails on the folds of these data; trial")
    assert "values on folds are missing" in result.reason


def test_a_champion_that_is_worse_without_drift_is_challenged(family: WatchedFamily) -> None:
    """Its values on folds are there before those of the challenger."""
    family.watch |= {"distance": 0.99}
    family.data(0.0)
    family.look()
    family.data(2.0, seed=1)
    result = family.look()
    assert (result.outcome, result.drift.is_alarm if result.drift else None) == ("promoted", False)
    assert "the champion is worse on these data" in result.reason


def test_data_that_change_while_it_tunes_do_not_disturb_a_look(family: WatchedFamily) -> None:
    family.data(0.0)
    family.look()
    family.data(2.0, seed=2)
    family.before_run["shop@"] = lambda: family.data(3.0, seed=3)
    second = family.look()
    assert second.outcome == "promoted"
    assert history(family)[0].configuration.params["x"] == pytest.approx(2.0, abs=0.5)
    family.before_run.clear()
    assert family.look().data_version != second.data_version
    assert history(family)[0].configuration.params["x"] == pytest.approx(3.0, abs=0.5)


@pytest.mark.slow
def test_a_version_that_is_removed_while_it_tunes_is_named(family: WatchedFamily) -> None:
    family.data(0.0)

    def remove() -> None:
        for manifest in list(DataStore.open().list()):
            DataStore.open().remove(manifest)

    family.before_run["shop"] = remove
    with pytest.raises(DataError, match="uses the rows of version [0-9a-f]{12}, which was removed"):
        family.look()
    family.before_run.clear()
    assert family.look().outcome == "first"


@pytest.mark.slow
def test_a_study_of_equal_rows_of_another_source_is_learned_from(family: WatchedFamily) -> None:
    """As of a study that `tune run` has ended, before its file named an absolute path."""
    family.data(0.0)
    version = str(family.look().data_version)
    with family.database.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE champions CASCADE"))
        folds = study_records.find(connection, folds_study(family.spec, version))
        study_records.remove(connection, folds.study_id, "ann")
    family.source = str(family.folder / "rows.csv")
    result = family.look()
    assert result.outcome == "first"
    assert result.champion is not None
    study = result.champion.configuration.study
    assert study == f"shop@{str(result.data_version)[:8]}"
    spec = get_study(family.database, study).spec
    assert spec is not None
    assert spec.warm_start == ("shop",)


def test_a_first_champion_that_fails_on_folds_is_not_promoted(family: WatchedFamily) -> None:
    family.data(0.0)
    family.fails_on_folds = True
    with pytest.raises(TuneError, match=r"of 'shop', the recommended one, fails .*tune rm shop@"):
        family.look()
    assert (history(family), family.hooked) == ((), [])


def test_a_hook_gets_json_even_with_nan(family: WatchedFamily) -> None:
    family.data(0.0)
    champion = family.look().champion
    assert champion is not None
    values = (math.nan, 1.0)
    missing = replace(champion, configuration=replace(champion.configuration, fold_values=values))
    text = json.dumps(payload(missing, 1), allow_nan=False)
    assert json.loads(text)["metric"]["fold_values"] == ["NaN", 1.0]


def test_a_champion_is_evaluated_with_its_own_constants(family: WatchedFamily) -> None:
    """With the new constant its loss would be about 9, so that any challenger would win."""
    family.data(0.0)
    first = family.look().champion
    assert first is not None
    family.constants = {"shift": 3.0}
    family.data(0.0, seed=1)
    family.watch |= {"budget": {"trials": 6}}
    result = family.look()
    misfit = "the champion does not fit the study file: it has no constant shift"
    assert result.reason.startswith(misfit)
    champion = result.champion
    assert champion is not None
    others = champion.evidence.rival_values
    if result.outcome == "promoted":
        assert champion.configuration.constants == {"shift": 3.0}
    else:
        assert (result.outcome, champion.configuration.constants) == ("kept", {})
        others = champion.configuration.fold_values
    assert max(others) < 1.0


def test_a_champion_outside_of_the_space_is_compared_by_the_spec_that_it_was_tuned_with(
    family: WatchedFamily,
) -> None:
    family.data(0.0)
    first = family.look().champion
    assert first is not None
    (family.folder / "module.py").write_text("def function(x): ...")
    family.parameters = {"x": {"type": "float", "min": 1.0, "max": 4.0}}
    unchanged = family.look()
    assert (unchanged.outcome, unchanged.champion) == ("unchanged", first)
    assert "is outside of 1 ... 4" in unchanged.reason
    family.data(0.0, seed=1)
    result = family.look()
    assert result.outcome == "kept"
    assert result.reason.startswith("the champion does not fit the study file: x = ")
    kept = result.champion
    assert kept is not None
    assert kept.configuration.params == first.configuration.params
    assert max(kept.configuration.fold_values) < min(kept.evidence.rival_values)
    (family.folder / "module.py").write_text("def function(z, w): ...")
    family.data(0.0, seed=2)
    result = family.look()
    assert result.outcome == "undecided"
    assert "cannot be evaluated (`function` in `module.py`" in result.reason


def test_a_champion_that_fits_no_known_spec_is_left_to_a_user(family: WatchedFamily) -> None:
    family.data(0.0)
    family.look()
    old = get_study(family.database, "shop")
    with family.database.engine.begin() as connection:
        study_records.remove(connection, old.study_id, "ann")
    family.parameters = {"x": family.parameters["x"], "y": {"type": "int", "min": 1, "max": 2}}
    family.data(2.0, seed=1)
    for _ in range(2):
        result = family.look()
        assert result.outcome == "undecided"
        assert "study file: it has no value of y; the challenger is trial" in result.reason
        assert "tuned with is not known any more), so that no test is possible" in result.reason
    assert family.runner.ran == []
    assert result.data_version is not None
    chosen = get_study(family.database, f"shop@{result.data_version[:8]}")
    promote(family.database, chosen, None, "ann")
    assert family.look().outcome == "unchanged"


def test_values_on_folds_by_time_have_the_error_of_their_windows(family: WatchedFamily) -> None:
    """The first window trains on as many rows as it validates on, the last on five times as many:
    as folds at random, the mean would seem less uncertain than it is."""
    family.data(0.0)
    family.split = {"time": "day"}
    champion = family.look().champion
    assert champion is not None
    values, error = champion.configuration.fold_values, champion.configuration.standard_error
    windows = np.mean([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert error == pytest.approx(np.std(values, ddof=1) * np.sqrt(1 / 5 + windows))
    family.data(0.0, seed=1)
    steady = family.look()
    store = DataStore.open()
    for manifest in [one for one in store.list() if one.folds]:
        store.remove(manifest)
    assert family.look().degradation == steady.degradation is not None


@pytest.mark.slow
def test_a_champion_without_rows_to_compare_with_is_challenged(family: WatchedFamily) -> None:
    family.data(0.0)
    first = family.look()
    assert first.data_version is not None
    store = DataStore.open()
    for manifest in list(store.list()):
        store.remove(manifest)
    family.data(2.0, seed=1)
    result = family.look()
    assert (result.outcome, result.drift) == ("promoted", None)
    assert "were removed" in result.reason


def test_a_killed_watch_is_continued_and_promotes_once(family: WatchedFamily) -> None:
    """Killed after each of its actions in turn, for a first champion and for a challenge."""
    kills = 0
    for mean, seed in ((0.0, 0), (2.0, 1)):
        family.data(mean, seed=seed)
        for lives in range(100):
            try:
                result = family.look(lives=lives)
            except Killed:
                kills += 1
                continue
            break
        assert result.outcome in ("first", "promoted", "unchanged")
    assert kills > 12
    assert [one.kind for one in history(family)] == ["challenge", "first"]
    ids = [one["id"] for one in family.hooked]
    assert sorted(set(ids)) == sorted(one.champion_id for one in history(family))
    assert len(ids) == 2


def test_a_hook_that_was_killed_is_called_again_and_says_so(family: WatchedFamily) -> None:
    family.data(0.0)
    (family.folder / "hook.py").write_text(
        "import json, os, sys\nfrom pathlib import Path\n"
        "text = sys.stdin.read()\nopen('hook.jsonl', 'a').write(text + '\\n')\n"
        "sys.exit('no room' if json.loads(text)['attempt'] < 3 else 0)\n"
    )
    result = family.look()
    assert result.undelivered == 1
    with family.database.engine.connect() as connection:
        (due,) = promotion_deliveries.list_deliveries(connection, "shop", due=True)
    assert due.error == "the command ended with code 1: no room"
    with family.database.engine.begin() as connection:
        promotion_deliveries.begin(connection, due)  # and then the process is killed
    assert family.look().undelivered == 0
    assert [(one["id"], one["attempt"]) for one in family.hooked] == [(1, 1), (1, 3)]
    assert family.look().undelivered == 0
    assert len(family.hooked) == 2


def due_hooks(family: WatchedFamily) -> list[tuple[str, int]]:
    """Hooks that are due, with the number of their champion."""
    with family.database.engine.connect() as connection:
        due = promotion_deliveries.list_deliveries(connection, "shop", due=True)
    return [(one.hook, one.champion_id) for one in due]


def deliver(family: WatchedFamily) -> int:
    """Deliver without the study file."""
    return deliver_due(family.database, "shop", lambda text: None)


def test_a_hook_that_cannot_be_called_is_recorded(
    family: WatchedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "secret")
    commands = {
        "no-such-program": "cannot be started",
        "python 'unclosed": "cannot be started: No closing quotation",
        "http://127.0.0.1:9/hook?token=$HOOK_TOKEN": "no answer: ConnectError",
        "http://127.0.0.1:9/hook?token=$NO_TOKEN": "variable NO_TOKEN is not set",
        "http://127.0.0.1:port/": "no answer: InvalidURL",
    }
    family.data(0.0)
    for command, error in commands.items():
        family.watch["on_promote"] = command
        assert family.look().undelivered == 1
        with family.database.engine.connect() as connection:
            (due,) = promotion_deliveries.list_deliveries(connection, "shop", due=True)
        assert error in due.error
        assert "secret" not in due.error


def test_an_older_champion_is_not_announced_after_a_newer_one(
    family: WatchedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a registry still gets both."""
    monkeypatch.setattr("tunesvc.champions.announcements.register", lambda champion: "away")
    family.data(0.0)
    family.watch |= {"on_promote": "no-such-program", "registry": "mlflow"}
    first = family.look().champion
    assert first is not None
    chosen = promote(family.database, get_study(family.database, "shop"), 3, "bob")
    assert due_hooks(family) == [
        ("registry", first.champion_id),
        ("on_promote", chosen.champion_id),
        ("registry", chosen.champion_id),
    ]
    family.watch = {"on_promote": "python hook.py"}
    assert family.look().undelivered == 0
    assert [one["id"] for one in family.hooked] == [chosen.champion_id]
    assert due_hooks(family) == []
    with family.database.engine.connect() as connection:
        made = promotion_deliveries.list_deliveries(connection, "shop")
    reasons = {one.error for one in made if one.champion_id == first.champion_id}
    assert f"champion {chosen.champion_id} has replaced it" in reasons


def test_a_promotion_by_hand_calls_the_hooks_that_the_study_has_now(family: WatchedFamily) -> None:
    """Added, changed and removed ones."""
    family.data(0.0)
    family.watch = {}
    family.look()
    view = get_study(family.database, "shop")
    promote(family.database, view, 3, "bob")
    assert due_hooks(family) == []
    family.watch = {"on_promote": "python hook.py"}
    family.look()
    assert family.hooked == []  # a champion that was announced already
    added = promote(family.database, view, 2, "bob")
    assert deliver(family) == 0
    assert [one["id"] for one in family.hooked] == [added.champion_id]
    roll_back(family.database, "shop", "bob")
    family.watch = {"on_promote": "no-such-program"}
    assert family.look().undelivered == 1
    assert deliver(family) == 1
    family.watch = {}
    assert family.look().undelivered == 0
    assert due_hooks(family) == []
    assert len(family.hooked) == 1


def test_a_family_without_its_study_is_announced_by_the_next_watch(family: WatchedFamily) -> None:
    family.data(0.0)
    family.look()
    other = get_study(family.database, next(iter(family.runner.ran)))
    promote(family.database, other, 3, "bob")
    assert deliver(family) == 0
    with family.database.engine.begin() as connection:
        study_records.remove(connection, other.study_id, "bob")
    restored = roll_back(family.database, "shop", "bob")
    assert deliver(family) == 1
    assert family.look().undelivered == 0
    assert family.hooked[-1]["id"] == restored.champion_id


@contextmanager
def serving(received: list[bytes]) -> Iterator[str]:
    """A server that keeps what is posted to it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_a_url_gets_the_promotion_as_json(
    family: WatchedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []
    family.data(0.0)
    with serving(received) as url:
        monkeypatch.setenv("HOOK_URL", url)
        family.watch["on_promote"] = "$HOOK_URL"
        assert family.look().undelivered == 0
    (body,) = map(json.loads, received)
    assert (body["family"], body["promotion"]["kind"]) == ("shop", "first")


def test_one_process_watches_a_family_at_a_time(family: WatchedFamily) -> None:
    family.data(0.0)
    with (
        locked_family(family.database, "shop"),
        locked_family(family.database, "other"),
        pytest.raises(StudyBusy, match=f"{default_owner()} watches 'shop' now"),
    ):
        family.look()
    assert family.look().outcome == "first"


def test_a_champion_is_replaced_by_one_process_only(family: WatchedFamily) -> None:
    family.data(0.0)
    stale = family.look().champion
    assert stale is not None
    promote(family.database, get_study(family.database, "shop"), 3, "bob")
    with (
        family.database.engine.begin() as connection,
        pytest.raises(StudyBusy, match="has replaced the champion of 'shop' meanwhile"),
    ):
        champion_records.record(
            connection,
            "shop",
            "challenge",
            stale.configuration,
            PromotionEvidence("late"),
            "ann",
            follows=stale,
        )
    assert len(history(family)) == 2


@pytest.mark.slow
def test_mlflow_has_one_run_for_a_promotion(
    family: WatchedFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    family.watch = {"registry": "mlflow"}
    family.data(0.0)
    result = family.look()
    assert (result.outcome, result.undelivered) == ("first", 0)
    champion = result.champion
    assert champion is not None
    with family.database.engine.begin() as connection:
        (made,) = promotion_deliveries.list_deliveries(connection, "shop")
        promotion_deliveries.finish(connection, made, "as if it was killed before its record")
    assert deliver_due(family.database, "shop", lambda text: None) == 0
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("shop")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["tunesvc.kind"] == "first"
    assert float(run.data.params["x"]) == champion.configuration.params["x"]
    assert run.data.metrics["loss"] == pytest.approx(champion.configuration.value)
    assert len(client.get_metric_history(run.info.run_id, "loss_fold")) == 5


def test_a_watch_does_not_continue_from_a_champion_of_another_project(
    family: WatchedFamily,
) -> None:
    family.data(0.0)
    family.look()
    with family.database.engine.begin() as connection:
        project = accounts.add_project(connection, "vision")
        connection.execute(sa.update(champions).values(project_id=project))
    with pytest.raises(ChampionNotFound, match="is of another project than the study"):
        family.look()
