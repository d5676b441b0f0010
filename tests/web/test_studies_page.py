"""The list of studies, in a browser."""

from __future__ import annotations

import optuna
import pytest
from playwright.sync_api import expect

from tests.support.specs import make_spec
from tests.support.stored_studies import add, fill
from tests.web.conftest import ON_BOTH, Dashboard
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.web.live.watcher import LISTENING_POLL_S

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture
def two_studies(database: Database) -> None:
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="digits"))
        study_records.create(connection, make_spec(name="boosting"))


def test_without_studies_it_says_how_to_make_one(dashboard: Dashboard) -> None:
    expect(dashboard.open("/studies").get_by_role("heading", name="No studies yet")).to_be_visible()


@pytest.mark.usefixtures("two_studies")
def test_a_search_narrows_the_list_and_stays_in_the_address(dashboard: Dashboard) -> None:
    page = dashboard.open("/studies")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("dig")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("dig")
    expect(page.locator("tbody th a")).to_have_text("digits")


def test_a_new_study_appears_by_itself_within_moments(
    dashboard: Dashboard, database: Database
) -> None:
    page = dashboard.open("/studies")
    page.wait_for_function("() => document.getElementById('stale').hidden")
    with page.expect_response("**/events"):  # the stream is open
        page.reload()
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="fresh"))
    expect(page.locator("tbody th a")).to_have_text("fresh", timeout=900 * LISTENING_POLL_S)


@pytest.mark.usefixtures("two_studies")
def test_back_leads_to_the_whole_list_before(dashboard: Dashboard) -> None:
    page = dashboard.open("/studies")
    page.get_by_role("searchbox").fill("dig")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.go_back()
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_list_that_changes_keeps_scroll_focus_and_ticks(
    dashboard: Dashboard, database: Database
) -> None:
    changing, other = fill(database, trials=20), fill(database, trials=20, name="other")
    page = dashboard.page
    page.set_viewport_size({"width": 360, "height": 700})
    dashboard.open("/studies")
    row = page.locator(f"#study-{changing}")
    page.evaluate("window.first = document.querySelector('tbody tr')")
    page.locator(f"#study-{other}").get_by_role("checkbox").check()
    row.get_by_role("link").focus()
    page.locator("#studies .scroll").evaluate("box => { box.scrollLeft = 120 }")
    expect(row.get_by_role("cell", name="20", exact=True)).to_have_count(0)
    with database.engine.begin() as connection:
        add(connection, changing, 20, 2)
    expect(row.get_by_role("cell", name="20", exact=True)).to_be_visible()
    assert page.evaluate("window.first.isConnected"), "the row is the same element"
    assert page.locator("#studies .scroll").evaluate("box => box.scrollLeft") == 120
    expect(row.get_by_role("link")).to_be_focused()
    expect(page.locator(f"#study-{other}").get_by_role("checkbox")).to_be_checked()


def test_names_can_be_read_and_clicked_whatever_they_are(
    dashboard: Dashboard, database: Database
) -> None:
    for name in ("   ", "\u202eabc", "n" * 180):
        optuna.create_study(storage=PgStorage(database), study_name=name)
    page = dashboard.open("/studies")
    links = page.locator("tbody th > a")
    expect(links).to_have_text(["n" * 180, "\ufffdabc", "“   ”"], use_inner_text=False)
    width = links.first.evaluate("link => link.getBoundingClientRect().width")
    assert width <= 300, "the other columns stay on the screen"
    expect(links.first).to_have_attribute("title", "n" * 180)


@ON_BOTH
def test_names_cannot_act(dashboard: Dashboard, database: Database) -> None:
    """Fault 37."""
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name=HOSTILE))
    page = dashboard.open("/studies")
    expect(page.locator("tbody th a")).to_have_text(HOSTILE)


def test_the_theme_can_be_chosen_and_is_kept(dashboard: Dashboard) -> None:
    page = dashboard.open("/studies")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground


def test_the_newest_are_shown_and_all_are_counted(dashboard: Dashboard, database: Database) -> None:
    with database.engine.begin() as connection:
        for number in range(5):
            study_records.create(connection, make_spec(name=f"s{number}"))
    for sort in ("newest", "name"):
        page = dashboard.open(f"/studies?show=2&sort={sort}&q=s")
        expect(page.locator("tbody th a")).to_have_text(
            ["s4", "s3"] if sort == "newest" else ["s0", "s1"]
        )
        expect(page.get_by_text("Showing 2 of 5.")).to_be_visible()
