"""Champions belong to the project of their family's study, and no other project can take it."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.champions.promotion import promote, roll_back
from tunesvc.cli.views import champion_text
from tunesvc.client.local import local_service
from tunesvc.client.local.local_service import LocalService
from tunesvc.db.champions import champion_records, champion_tenures, promotion_deliveries
from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.errors import ChampionNotFound
from tunesvc.queries.studies import get_study

REFUSED = "is not a family of the study's project"


@pytest.fixture
def projects(database: Database) -> dict[str, StudyScope]:
    """Two projects, and what their members view: `shop` of one, `other` and a re-tune of one."""
    scopes = {}
    with database.engine.begin() as connection:
        ids = {name: accounts.add_project(connection, name) for name in ("vision", "sound")}
    for study, project in (
        ("shop", "vision"),
        ("other", "sound"),
        ("shop@deadbeef", "sound"),
        ("new@deadbeef", "sound"),
    ):
        simulation = Simulation(database, make_spec(name=study, budget={"trials": 3}))
        simulation.run()
        with database.engine.begin() as connection:
            accounts.move_study(connection, simulation.record.study_id, ids[project])
        scopes[project] = StudyScope(frozenset({ids[project]}))
    return scopes


def test_a_family_of_another_project_cannot_be_taken(
    database: Database, projects: dict[str, StudyScope]
) -> None:
    """Also before its first champion, and before its study."""
    tried: list[tuple[str, str | None]]
    tried = [("other", "shop"), ("shop@deadbeef", None), ("new@deadbeef", None), ("other", "new")]
    for study, family in tried:
        view = get_study(database, study)
        with pytest.raises(ChampionNotFound, match=REFUSED):
            promote(database, view, None, "eve", family=family, scope=projects["sound"])
    with database.engine.connect() as connection:
        assert champion_records.list_current(connection) == ()


def test_a_champion_of_another_project_is_not_replaced(
    database: Database, projects: dict[str, StudyScope]
) -> None:
    promote(database, get_study(database, "shop"), None, "ann", scope=projects["vision"])
    view = get_study(database, "other")
    with pytest.raises(ChampionNotFound, match=REFUSED):
        promote(database, view, None, "eve", family="shop", scope=projects["sound"])
    with pytest.raises(ChampionNotFound, match="has no champion"):
        roll_back(database, "shop", "eve", scope=projects["sound"], view=view)


def test_champions_move_with_the_study_that_names_their_family(
    database: Database, projects: dict[str, StudyScope]
) -> None:
    view = get_study(database, "shop")
    for number in (0, 1):
        promote(database, view, number, "ann", scope=projects["vision"])
    promote(database, get_study(database, "other"), None, "bob", scope=projects["sound"])
    (sound,) = projects["sound"].projects or ()
    with database.engine.begin() as connection:
        accounts.move_study(connection, view.study_id, sound)
        assert champion_records.list_current(connection, projects["vision"]) == ()
        assert len(champion_records.list_history(connection, "shop", projects["sound"])) == 2
    moved = get_study(database, "shop")
    promote(database, moved, 2, "bob", scope=projects["sound"])
    roll_back(database, "shop", "bob", scope=projects["sound"], view=moved)
    with database.engine.begin() as connection:
        accounts.move_study(connection, view.study_id, None)
        (left,) = champion_records.list_current(connection, projects["sound"])
    assert left.family == "other"


def test_a_history_is_limited_and_its_newest_part_can_be_searched(database: Database) -> None:
    Simulation(database, make_spec(name="shop", budget={"trials": 3})).run()
    view = get_study(database, "shop")
    first, *_ = (promote(database, view, number, "ann") for number in (0, 1))
    with database.engine.begin() as connection:
        today = champion_records.get_current(connection, "shop")
        for _ in range(3):
            champion_records.record(
                connection,
                "shop",
                "kept",
                today.configuration,
                today.evidence,
                "ann",
                follows=champion_records.get_current(connection, "shop"),
            )
        newest = champion_records.list_history(connection, "shop", limit=2)
        everything = champion_records.list_history(connection, "shop")
        tenures = champion_tenures.list_tenures(connection, "shop")
        current = champion_tenures.list_current_tenures(connection)
        hidden = champion_tenures.list_tenures(connection, "shop", StudyScope(frozenset()))
    assert newest == everything[:2]
    assert champion_records.find_earlier(newest) is None
    assert champion_records.find_earlier(everything) == first
    assert [(one.promoted, one.stays) for one in tenures] == [(everything[3], 3), (first, 0)]
    assert [one.latest for one in tenures] == [everything[0], first]
    assert current == tenures[:1]
    assert hidden == ()


def test_a_champion_that_stays_is_shown_since_its_promotion_with_what_was_announced(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Simulation(database, make_spec(name="shop", budget={"trials": 3})).run()
    view = get_study(database, "shop")
    first, today = (promote(database, view, number, "ann") for number in (0, 1))
    with database.engine.begin() as connection:
        for champion, hook in ((first, "registry"), (today, "on_promote")):
            promotion_deliveries.plan(connection, champion.champion_id, [hook])
        due = promotion_deliveries.list_deliveries(connection, "shop", due=True)
        promotion_deliveries.finish(connection, due[1], "")
        connection.execute(sa.text("UPDATE champions SET promoted_at = now() - interval '9 days'"))
        kept = (today.configuration, today.evidence, "ann")
        champion_records.record(connection, "shop", "kept", *kept, follows=today)
    monkeypatch.setattr(local_service, "CHAMPIONS_MAX", 1)
    service = LocalService(database, "ann", ALL_STUDIES)
    champion_text.print_champions(service.champions())
    history = service.champion_history("shop")
    assert (len(history.champions), len(history.tenures)) == (1, 1)
    champion_text.print_champion(history)
    shown = capsys.readouterr().out
    listed = next(line for line in shown.splitlines() if "shop" in line)
    assert "9d 00h ago" in listed
    assert re.search(r"since +9d 00h ago", shown)
    assert f"on_promote of champion {today.champion_id}: delivered" in shown
    assert f"registry of champion {first.champion_id}: not delivered" in shown, "it is still due"
