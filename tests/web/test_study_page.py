"""A study's page, in a browser: what it says, its figures under the policy, selection, tables,
and live changes."""

from __future__ import annotations

import re
from dataclasses import asdict

import sqlalchemy as sa
from playwright.sync_api import Page, Route, expect

from tests.support.stored_studies import add, fill
from tests.support.used_test_parts import searched, use_test_part
from tests.web.conftest import ON_BOTH, Dashboard
from tunesvc.champions.promotion import promote
from tunesvc.db.champions import champion_records
from tunesvc.db.champions.champion_records import PromotionEvidence
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.queries.operations.data_lineage import DATA_USED, DataUsed
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.trial_table import list_trials

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
TWO = ({"name": "loss"}, {"name": "size"})


def drawn(page: Page, kind: str) -> None:
    """Scroll to a figure and wait until it is drawn."""
    page.locator(f"#figure-{kind}").scroll_into_view_if_needed()
    expect(page.locator(f"#figure-{kind} [data-drawn] .main-svg").first).to_be_visible(
        timeout=30_000
    )


def test_a_study_without_trials_says_what_comes(dashboard: Dashboard, database: Database) -> None:
    study = fill(database, 0, 0)
    page = dashboard.open(f"/studies/{study}")
    expect(page.get_by_role("heading", name="No trials yet")).to_be_visible()
    expect(page.locator("#figure-history [data-plot]")).to_have_text("No trial is complete yet.")


def test_the_headline_names_the_trial_to_take_with_its_parameters(
    dashboard: Dashboard, database: Database
) -> None:
    study = fill(database, cost={"cpu_hour": 1.0, "currency": "EUR"})
    page = dashboard.open(f"/studies/{study}")
    answer = page.get_by_role("region", name="The trial to take")
    expect(answer.get_by_role("heading")).to_have_text(re.compile(r"Take trial \d+"))
    expect(answer.locator("pre")).to_have_text(re.compile(r"^x: 0\.\d+\s+n: \d+\s*$"))
    facts = page.locator("#facts")
    expect(facts).to_contain_text("Gain over the random start")
    expect(facts).to_contain_text("Saved by pruning")
    expect(facts).to_contain_text("0.00 EUR")
    expect(facts).to_contain_text(re.compile(r"Another 10 trials\s*[\d.e-]+ better \(90 %: 0 to"))
    expect(page.locator("#running tbody tr")).to_have_count(2)
    expect(page.locator("#lately")).to_contain_text("drawn evenly")


def test_it_says_where_its_data_came_from(dashboard: Dashboard, database: Database) -> None:
    first, second = (fill(database, 0, 0, name=name) for name in ("first", "second"))
    rows = {"train": 1_200, "validation": 400, "test": 400}
    used = DataUsed("888a0cc1d756", "shop.csv", rows, 6, ("column 'flat' is constant",))
    for study in (first, second):
        PgStorage(database).set_study_system_attr(study, DATA_USED, asdict(used))
    page = dashboard.open(f"/studies/{first}")
    data = page.get_by_role("region", name="Data")
    expect(data).to_contain_text("version 888a0cc1d756")
    expect(data).to_contain_text(re.compile(r"shop\.csv: 1,?200 rows in the training part"))
    expect(data).to_contain_text("column 'flat' is constant")
    expect(data.get_by_role("link", name="second")).to_be_visible()
    # Read at once, as a chart that arrives moves what is below it.
    tops = page.evaluate(
        "['#facts', '#data', '#data ul'].map("
        "name => document.querySelector(name).getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)
    expect(data.locator("ul")).to_be_visible()


def test_it_says_how_its_test_part_was_used(dashboard: Dashboard, database: Database) -> None:
    first, other = searched(database, "first"), searched(database, "other", version="v2")
    use_test_part(database, first, 1)
    page = dashboard.open(f"/studies/{first.study_id}")
    tested = page.locator("#tested")
    expect(page.locator("#model")).to_contain_text("none yet. tune apply first --train trains it")
    expect(tested).to_contain_text("Test part: trial 1, validation 0.25, test 0.3")
    expect(tested).to_contain_text("Used 1 time until now")
    use_test_part(database, other, 0)
    page.reload()
    expect(tested).to_contain_text("Used 2 times until now. Several configurations were evaluated")


def stay(database: Database, times: int) -> None:
    """Record that the champion of `shop` stays."""
    with database.engine.begin() as connection:
        for _ in range(times):
            today = champion_records.get_current(connection, "shop")
            evidence = PromotionEvidence("not shown to be better")
            champion_records.record(
                connection, "shop", "kept", today.configuration, evidence, "ann", follows=today
            )


def test_its_champion_is_shown_and_rolled_back(dashboard: Dashboard, database: Database) -> None:
    study = fill(database, 12, 0, name="shop")
    view = get_study(database, "shop")
    first, second, *_ = (
        row.number for row in list_trials(database, study) if row.state == "complete"
    )
    promote(database, view, first, "ann", reason="it was first")
    promote(database, view, second, "ann", reason="it is faster")
    page = dashboard.open(f"/studies/{study}")
    card = page.get_by_role("region", name="Champion", exact=True)
    expect(card).to_contain_text(f"Trial {second} of shop")
    expect(card.locator("tbody tr")).to_have_count(2)
    expect(card).to_contain_text("it was first")
    stay(database, 120)
    page.reload()
    expect(card.locator("tbody tr")).to_have_count(2)
    expect(card).to_contain_text("Stayed 120 times, last")
    card.get_by_role("link", name="Roll back").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("complaints")
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.locator(".toast").last).to_contain_text(f"is trial {first} of shop")
    page.reload()
    expect(card).to_contain_text(f"Trial {first} of shop")
    expect(card).to_contain_text("complaints")


def test_every_figure_is_drawn_under_the_policy(dashboard: Dashboard, database: Database) -> None:
    study = fill(database)
    page = dashboard.open(f"/studies/{study}")
    kinds = page.locator("[data-figure]").evaluate_all("all => all.map(one => one.id.slice(7))")
    assert len(kinds) == 13
    for kind in kinds:
        drawn(page, kind)


def test_several_objectives_are_drawn_as_a_front(dashboard: Dashboard, database: Database) -> None:
    study = fill(database, objectives=2, metrics=TWO)
    page = dashboard.open(f"/studies/{study}")
    for kind in ("pareto", "hypervolume", "history"):
        drawn(page, kind)
    page.locator("#figure-history").get_by_label("Objective").select_option("size")
    expect(page.locator("#figure-history h2")).to_have_text("History of size")


def test_selected_points_are_marked_everywhere_and_listed(
    dashboard: Dashboard, database: Database
) -> None:
    study = fill(database)
    page = dashboard.open(f"/studies/{study}")
    drawn(page, "history")
    drawn(page, "curves")
    for trial in (3, 7):
        select(page, trial)
    selected = page.get_by_role("region", name="Selected trials").first
    expect(selected.locator("tbody th")).to_have_text(["trial 3", "trial 7"])
    expect(selected.get_by_role("link", name="Compare")).to_have_attribute(
        "href", re.compile(r"study=\d+&trials=3,7$")
    )
    page.wait_for_function(
        """() => { const plot = document.querySelector('#figure-curves [data-plot]');
           const marked = plot.data.filter(one => one.showlegend === false).flatMap(one => [...one.customdata]);
           return [...new Set(marked)].sort().join() === '3,7'; }"""
    )
    selected.get_by_role("button", name="Clear").click()
    expect(selected).to_be_hidden()
    drawn(page, "parallel")
    box = page.locator("#figure-parallel .nsewdrag").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] * 0.85)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.09, box["y"] + box["height"] - 1, steps=4)
    page.mouse.up()
    expect(page.locator("#selected tbody th").get_by_text("trial 1", exact=True)).to_be_visible()
    assert page.locator("#selected tbody th").count() < 10, "those low on the axis of trials"


def select(page: Page, trial: int) -> None:
    """Click a point of the history with the shift key."""
    page.evaluate(
        """trial => document.querySelector('#figure-history [data-plot]').emit('plotly_click',
           {points: [{data: {meta: {trials: 'x'}}, x: trial}], event: {shiftKey: true}})""",
        trial,
    )


def test_a_list_of_selected_trials_that_comes_late_does_not_replace_a_newer_one(
    dashboard: Dashboard, database: Database
) -> None:
    page = dashboard.open(f"/studies/{fill(database)}")
    drawn(page, "history")
    first = re.compile(r"trials=3$")
    held: list[Route] = []
    page.route(first, lambda route: held.append(route))
    with page.expect_request(first):
        select(page, 3)
    select(page, 7)
    rows = page.locator("#selected tbody th")
    expect(rows).to_have_text(["trial 3", "trial 7"])
    with page.expect_response(first) as answered:
        held[0].continue_()
    answered.value.finished()
    page.evaluate("() => fetch('/static/style.css').then((answer) => answer.text())")
    expect(rows).to_have_text(["trial 3", "trial 7"])


def test_one_choice_of_states_holds_for_all_figures(
    dashboard: Dashboard, database: Database
) -> None:
    study = fill(database, 30, 0)
    page = dashboard.open(f"/studies/{study}")
    drawn(page, "history")
    expect(page.locator("#figure-history [data-note]")).to_have_text(
        "30 of 30 trials, 2 pruned, at their last value"
    )
    page.locator("#figure-states").get_by_text("pruned").click()
    expect(page.locator("#figure-history [data-note]")).to_have_text("28 of 30 trials")
    drawn(page, "slice")
    expect(page.locator("#figure-slice [data-note]")).to_contain_text("28 of 30 trials")


def test_a_figure_is_also_a_table_and_can_be_taken_away(
    dashboard: Dashboard, database: Database
) -> None:
    study = fill(database, 30)
    page = dashboard.open(f"/studies/{study}")
    drawn(page, "history")
    card = page.locator("#figure-history")
    card.get_by_role("button", name="Table").click()
    expect(card.locator("table thead th")).to_have_text(
        ["trial", "loss", "state", "feasible", "best so far"]
    )
    for name, ending in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.expect_download() as download:
            card.get_by_role("button", name=name).click()
        assert download.value.path().read_bytes().startswith(ending)
    with page.expect_download() as download:
        card.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "test-history.csv"
    assert download.value.path().read_text().startswith("trial,loss,state,feasible,best so far\n0,")
    button = card.get_by_role("button", name="log y")
    for pressed, kind in (("true", "log"), ("false", "linear")):
        button.click()
        expect(button).to_have_attribute("aria-pressed", pressed)
        assert (
            page.evaluate("document.querySelector('#figure-history [data-plot]').layout.yaxis.type")
            == kind
        )
    page.route("**/trials/*", lambda route: route.fulfill(body="opened"))
    box = card.locator(".points path").nth(4).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(f"**/studies/{study}/trials/*")


def test_a_new_result_is_on_the_page_within_a_second(
    dashboard: Dashboard, database: Database
) -> None:
    study = fill(database, 20, 0)
    page = dashboard.open("/studies")
    with page.expect_response("**/events"):
        page.goto(f"{dashboard.server.url}/studies/{study}")
    drawn(page, "history")
    for first in (20, 24):  # the second one comes while the first is shown
        with database.engine.begin() as connection:
            add(connection, study, first, 4)
        expect(page.locator("#facts")).to_contain_text(f"{first + 4}", timeout=9_000)
    page.wait_for_function(
        "() => document.querySelector('#figure-history [data-plot]')._fullData[0].x.at(-1) === 27"
    )


def test_the_configuration_is_shown_to_be_copied(dashboard: Dashboard, database: Database) -> None:
    study = fill(database, 3, description="What this is about.")
    page = dashboard.open(f"/studies/{study}")
    page.get_by_role("link", name="Configuration").click()
    expect(page.get_by_text("What this is about.").first).to_be_visible()
    expect(page.locator("#study-file")).to_contain_text("parameters:")
    expect(page.get_by_role("region", name="Space").first).to_contain_text("float")
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()


def test_a_page_whose_stream_opens_late_follows_all_the_same(
    dashboard: Dashboard, database: Database
) -> None:
    study = fill(database, trials=20)
    dashboard.page.route("**/events", lambda route: None)
    page = dashboard.open(f"/studies/{study}")
    with database.engine.begin() as connection:
        add(connection, study, 20, 3)
    expect(page.locator("#facts")).to_contain_text("23", timeout=20_000)
    page.unroute_all(behavior="ignoreErrors")


def test_the_headline_comes_without_a_stream(dashboard: Dashboard, database: Database) -> None:
    study = fill(database, trials=30)
    page = dashboard.page
    page.route("**/events", lambda route: None)
    dashboard.open(f"/studies/{study}")
    expect(page.locator("#answer")).to_contain_text("The best observed value. ")
    expect(page.locator("#answer")).not_to_contain_text("in a moment")
    page.unroute_all(behavior="ignoreErrors")


def test_queued_trials_are_distinguished_from_running_ones_and_an_interrupted_study_says_what_to_do(
    dashboard: Dashboard, database: Database
) -> None:
    study = fill(database, trials=20, running=4)
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE attempts SET state = 'opened' WHERE trial_id & 4294967295 = 19")
        )
    page = dashboard.open(f"/studies/{study}")
    expect(page.locator("#facts")).to_contain_text("3 running 1 queued")
    expect(page.locator("#running header")).to_contain_text(
        "1 queued for the next free slot: trial 19"
    )
    expect(page.locator("#advice")).to_have_count(0)
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE leases SET expires_at = now()"))
        add(connection, study, 20, 1)
    expect(page.locator("#advice code")).to_have_text("tune resume test")
    expect(page.locator("#facts")).to_contain_text("interrupted")
    expect(page.locator("#running h2")).to_have_text("Interrupted")
    page = dashboard.open("/")
    expect(page.locator(f"#study-{study}")).to_contain_text("interrupted")


@ON_BOTH
def test_names_and_reasons_cannot_act(dashboard: Dashboard, database: Database) -> None:
    """Fault 37."""
    parameters = {
        HOSTILE: {"type": "float", "min": 0.0, "max": 1.0},
        "n": {"type": "int", "min": 1, "max": 8},
    }
    study = fill(database, name=HOSTILE, metrics=[{"name": HOSTILE}], parameters=parameters)
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE decisions SET reason = :text"), {"text": HOSTILE})
        connection.execute(
            sa.text("UPDATE attempts SET message = :text, node = :text"), {"text": HOSTILE}
        )
    page = dashboard.open(f"/studies/{study}")
    for kind in page.locator("[data-figure]").evaluate_all(
        "all => all.map(one => one.id.slice(7))"
    ):
        drawn(page, kind)
    page.locator("#figure-slice").get_by_role("button", name="Table").click()
    expect(page.locator("#table-figure-slice thead")).to_contain_text(HOSTILE)
    assert page.locator("main img").count() == 0
