"""The table of trials, in a browser."""

from __future__ import annotations

import math

import httpx
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from playwright.sync_api import Page, expect

from tests.integration.test_queries import LR, Writer, writing
from tests.web.conftest import ON_BOTH, Dashboard
from tests.web.test_studies_page import HOSTILE
from tunesvc.db import notifications
from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import trial_id

KIND = CategoricalDistribution(["plain", HOSTILE])


@pytest.fixture
def study_id(database: Database) -> int:
    """120 trials, of which one runs, one is NaN and one failed."""
    with writing(database) as w:
        for number in range(120):
            add(w, number)
        w.trial(120, "running")
        w.report(120, 1, 3, 0.25)
        w.trial(121, "complete", math.nan)
        w.trial(122, "fail")
        w.attempt(122, 1, "failed", failure="error")
    return w.study_id


def add(w: Writer, number: int) -> None:
    w.trial(number, "complete", number / 1000)
    w.param(number, 0, "lr", 0.001 * (number + 1), LR)
    w.param(number, 1, HOSTILE, number % 2, KIND)


def shown(page: Page) -> list[str]:
    return page.locator("tbody th a").all_inner_texts()


def test_a_filter_narrows_the_table_and_stays_in_the_address(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials")
    expect(page.locator("tbody tr[data-number]")).to_have_count(100)
    page.keyboard.press("/")
    page.keyboard.type("lr < 0.0045 and error < 0.1")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr[data-number]")).to_have_count(4)
    expect(page.get_by_text("4 of 123 trials")).to_be_visible()
    page.reload()
    assert shown(page) == ["3", "2", "1", "0"]
    page.get_by_role("link", name="error", exact=True).click()
    page.wait_for_url("**sort=value*")
    assert shown(page) == ["0", "1", "2", "3"]
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("error ")


def test_back_leads_to_the_whole_page_before(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials")
    before = page.locator("tbody tr[data-number]").count()
    page.get_by_label("Filter", exact=True).fill("number < 3")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr[data-number]")).to_have_count(3)
    page.go_back()
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()
    expect(page.locator("tbody tr[data-number]")).to_have_count(before)
    page.get_by_label("Filter", exact=True).fill("number < 2")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr[data-number]")).to_have_count(2)


def test_a_filter_that_means_nothing_is_answered_with_its_place(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials")
    page.get_by_label("Filter", exact=True).fill("state == complete and lrr < 1")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("mark")).to_have_text("lrr")
    expect(page.get_by_role("alert")).to_contain_text("did you mean 'lr'?")


def test_further_pages_continue_after_the_last_row(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials?sort=number")
    page.get_by_role("link", name="Next").click()
    expect(page.locator("tbody tr[data-number]")).to_have_count(123)
    assert shown(page) == [str(number) for number in range(123)]


def test_columns_are_chosen_in_the_address(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials?col=state&col=attempts")
    heads = [text.strip() for text in page.locator("thead th").all_inner_texts()]
    assert heads == ["Select", "trial", "state", "attempts"]
    page.locator("summary", has_text="Columns").click()
    page.get_by_label("failure", exact=True).check()
    expect(page.locator("thead th")).to_have_count(5)
    assert "col=failure" in page.url


def test_a_selection_outlives_filters_and_leads_to_a_comparison(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials?sort=number")
    page.get_by_label("Select trial 1", exact=True).check()
    page.get_by_label("Filter", exact=True).fill("number == 7")
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Select trial 7", exact=True).check()
    page.get_by_role("button", name="Compare 2 selected").click()
    expect(page.get_by_role("heading", name="2 trials side by side")).to_be_visible()


def test_keys_move_from_row_to_row_and_open_a_trial(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials?sort=number")
    for key in ("j", "j", "j", "k", "x", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.get_by_label("Select trial 1", exact=True)).to_be_checked()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{study_id}/trials/2")


def test_a_running_trial_changes_in_place_and_new_ones_are_announced(
    dashboard: Dashboard, database: Database, study_id: int
) -> None:
    with dashboard.page.expect_response("**/events"):
        page = dashboard.open(f"/studies/{study_id}/trials")
    expect(page.locator("#t120")).to_contain_text("0.25")
    page.locator("#t120 a").focus()
    at = trial_id(study_id, 120)
    with database.engine.begin() as connection:
        end = "UPDATE trials SET state = 'complete', values = ARRAY[0.125], ended_at = now() WHERE trial_id = :id"
        connection.execute(sa.text(end), {"id": at})
        new = {
            "trial_id": trial_id(study_id, 123),
            "study_id": study_id,
            "number": 123,
            "state": "waiting",
        }
        connection.execute(sa.insert(tables.trials).values(new))
        notifications.notify(connection, study_id)
    expect(page.locator("#t120")).to_contain_text("0.125")
    expect(page.locator("#t120 a")).to_be_focused()
    expect(page.get_by_text("1 new: show")).to_be_visible()


@ON_BOTH
def test_names_and_values_of_parameters_cannot_act(dashboard: Dashboard, study_id: int) -> None:
    """Fault 37."""
    page = dashboard.open(f"/studies/{study_id}/trials?where=number<2")
    expect(page.locator("thead")).to_contain_text(HOSTILE)
    expect(page.locator("#t1")).to_contain_text(HOSTILE)
    page.locator("summary", has_text="Help").click()
    expect(page.locator("#names")).to_contain_text(HOSTILE)


def test_menus_close_as_in_any_application(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials")
    opened = page.locator("details.menu[open] > summary")
    page.get_by_text("Columns", exact=True).first.click()
    expect(opened).to_have_text("Columns")
    page.get_by_text("Help", exact=True).click()
    expect(opened).to_have_text("Help")
    page.keyboard.press("Escape")
    expect(opened).to_have_count(0)
    page.get_by_text("Help", exact=True).click()
    page.get_by_role("heading", level=1).click(position={"x": 90, "y": 5})
    expect(opened).to_have_count(0)


def test_files_hold_what_is_filtered(dashboard: Dashboard, study_id: int) -> None:
    cookies = {one["name"]: one["value"] for one in dashboard.page.context.cookies()}
    with httpx.Client(base_url=dashboard.server.url, cookies=cookies, timeout=60.0) as client:
        answer = client.get(
            f"/studies/{study_id}/trials.csv", params={"where": "number < 2", "sort": "-number"}
        )
        assert [line.split(",")[0] for line in answer.text.splitlines()] == ["number", "1", "0"]
        assert answer.headers["content-disposition"] == 'attachment; filename="digits.csv"'
        answer = client.get(f"/studies/{study_id}/trials.parquet", params={"where": "number < 2"})
        assert answer.content[:4] == b"PAR1"
        assert (
            client.get(f"/studies/{study_id}/trials.csv", params={"where": "nothing"}).status_code
            == 400
        )


def test_an_address_that_is_older_than_its_names_still_shows_trials(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials?sort=params.gone&col=params.gone")
    assert shown(page)[0] == "122"
