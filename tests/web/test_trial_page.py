"""One trial, and several side by side, in a browser."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from playwright.sync_api import expect

from tests.integration.test_queries import LR, Writer, writing
from tests.web.conftest import ON_BOTH, Dashboard
from tests.web.test_studies_page import HOSTILE
from tunesvc.db import notifications
from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import trial_id

KIND = CategoricalDistribution(["plain", HOSTILE])
ASK = {
    "sampler": "gp",
    "version": "gp 1",
    "seed": 7,
    "phase": "exploit",
    "mean": 0.3,
    "deviation": 0.05,
    "acquisition": -1.5,
}
STOP = {
    "step": 4,
    "value": 0.5,
    "rung": 4,
    "rank": 3,
    "of": 3,
    "threshold": 0.2,
    "predicted": 0.45,
    "low": 0.4,
    "high": 0.5,
}


def decide(w: Writer, number: int, kind: str, reason: str, **details: object) -> None:
    w.insert(
        tables.decisions,
        study_id=w.study_id,
        trial_number=number,
        kind=kind,
        reason=reason,
        details=details,
    )


@pytest.fixture
def study_id(database: Database) -> int:
    """Complete trials 0 ... 11; 12 was pruned, 13 failed, 14 runs; all texts are hostile."""
    with writing(database, pruner={"name": "asha"}) as w:
        for number in range(15):
            state = {12: "pruned", 13: "fail", 14: "running"}.get(number, "complete")
            w.trial(
                number, state, *([0.1 + number / 10] if state in ("complete", "pruned") else [])
            )
            w.param(number, 0, "lr", 0.001 * (number + 1), LR)
            w.param(number, 1, HOSTILE, number % 2, KIND)
            for step in range(5):
                w.report(
                    number,
                    1,
                    step,
                    1.0 / (step + 1) + number / 10,
                    metrics={"auc": 0.5 + step / 10},
                )
        near = [
            {"number": 3, "distance": 0.25, "value": 0.4},
            {"number": 9, "study": HOSTILE, "value": 1.0, "distance": 1},
        ]
        decide(w, 5, "ask", "exploit", **ASK)
        decide(w, 12, "ask", f"exploit: {HOSTILE}", **ASK, nearest=near)
        decide(
            w,
            12,
            "prune",
            "number 3 of 3 at rung 4",
            **STOP,
            best=0.1,
            comparators=[{"number": 5, "value": 0.3}],
        )
        w.attempt(12, 1, "pruned", node="box", pid=77, devices=["GPU-0"], cpus=2, gpus=0.5)
        w.attempt(
            13,
            1,
            "failed",
            failure="error",
            message=HOSTILE,
            traceback=f"Traceback ...\n\x1b[31m{HOSTILE}",
        )
        w.attempt(
            14,
            1,
            "running",
            node="box",
            ended_at=None,
            checkpoint="/ckpt/3/model.pt",
            checkpoint_step=3,
        )
        w.attr(12, "user", "made by", json.dumps(HOSTILE))
        w.attr(11, "system", "constraints:auc.max", "0.25")
        w.log(14, 1, 1, "hello\n")
        w.log(14, 1, 2, f"10%\r50%\r\x1b[31m100%\x1b[0m\x07\u202e {HOSTILE}\n")
    return w.study_id


def test_a_complete_trial_says_how_far_off_its_prediction_was(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials/5")
    expect(page.locator("#why-proposed")).to_contain_text(
        "Predicted value: 0.3 ± 0.05; the result was 0.6, 6.0 standard deviations away"
    )


def test_a_pruned_trial_says_why_it_was_proposed_and_why_it_was_stopped(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials/12")
    proposed, judged = page.locator("#why-proposed"), page.locator("#why-judged")
    expect(proposed).to_contain_text(
        "Predicted value: 0.3 ± 0.05; it was stopped before its result"
    )
    expect(proposed).to_contain_text("Drawn by gp (gp 1), seed 7")
    expect(proposed.get_by_role("link", name="trial 3")).to_have_attribute(
        "href", f"/studies/{study_id}/trials/3"
    )
    expect(judged).to_contain_text("Threshold at step 4: 0.2")
    expect(judged).to_contain_text("predicted final error: 0.45 (90 %: 0.4 … 0.5)")
    expect(judged.get_by_role("link", name="trial 5")).to_be_visible()
    expect(page.locator("#attempts")).to_contain_text("GPU-0")
    expect(page.locator("#parameters")).to_contain_text("lr")


@ON_BOTH
def test_texts_of_a_trial_cannot_act(dashboard: Dashboard, study_id: int) -> None:
    """Fault 37."""
    page = dashboard.open(f"/studies/{study_id}/trials/12")
    for part in ("#why-proposed", "#parameters", "#attempts"):
        expect(page.locator(part)).to_contain_text("<script>alert(2)</script>")
    page = dashboard.open(f"/studies/{study_id}/trials/13")
    expect(page.locator("#attempts pre")).to_contain_text(HOSTILE)
    assert "\x1b" not in page.content()


def test_its_curve_is_drawn_among_its_peers(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials/12")
    curve = page.locator("#curve")
    curve.scroll_into_view_if_needed()
    expect(curve.locator(".legendtext")).to_have_text(
        ["others", "nearest", "compared with", "best observed", "trial 12"], timeout=30_000
    )
    curve.get_by_role("button", name="Table").click()
    expect(curve.locator(".twin tbody tr").first).to_be_visible()


def test_another_metric_is_a_curve_and_a_constraint_says_by_how_much(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials/11")
    page.locator("#curve").get_by_label("Metric").select_option("auc")
    expect(page.locator("#curve h2")).to_have_text("Its curve of auc")
    expect(page.locator("#metrics")).to_contain_text("auc")
    expect(page.locator("#facts")).to_contain_text("auc is 0.25 above its maximum")


def test_a_failed_trial_is_over(dashboard: Dashboard, study_id: int) -> None:
    facts = dashboard.open(f"/studies/{study_id}/trials/13").locator("#facts")
    expect(facts).to_contain_text("reported before it failed")
    expect(facts).not_to_contain_text("not finished yet")


@pytest.mark.parametrize("path", ["", "/trials/3"])
def test_the_first_chart_is_in_view_beside_the_answer(
    dashboard: Dashboard, study_id: int, path: str
) -> None:
    dashboard.page.set_viewport_size({"width": 1440, "height": 900})
    page = dashboard.open(f"/studies/{study_id}{path}")
    plot = page.locator("[data-figure]").first.locator("[data-plot]")
    expect(plot.locator(".main-svg").first).to_be_visible(timeout=30_000)
    box = plot.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900


def test_the_model_says_which_parameters_made_it_bad(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.open(f"/studies/{study_id}/trials/11")
    local = page.locator("#local")
    expect(local).to_contain_text("of those of trial", timeout=30_000)
    expect(local.locator("tbody tr").first).to_contain_text("lr")
    local.get_by_role("button", name="the average").click()
    expect(local).to_contain_text("of the study's trials on average", timeout=30_000)
    expect(local.locator("tbody tr").first).to_contain_text("lr")
    local.get_by_role("button", name="the best").click()
    expect(local).to_contain_text("of those of trial")


@ON_BOTH
def test_output_follows_and_is_inert(
    dashboard: Dashboard, database: Database, study_id: int
) -> None:
    """Fault 37."""
    with dashboard.page.expect_response("**/events"):
        page = dashboard.open(f"/studies/{study_id}/trials/14")
    lines = page.locator("#output .lines")
    expect(lines).to_contain_text("hello")
    expect(lines).to_contain_text(f"100%\ufffd\ufffd {HOSTILE}")
    assert "50%" not in lines.inner_text(), "what was overwritten is not shown"
    with database.engine.begin() as connection:
        row = {
            "trial_id": trial_id(study_id, 14),
            "attempt": 1,
            "seq": 3,
            "stream": "stderr",
            "text": "more\n",
        }
        connection.execute(sa.insert(tables.logs).values(row))
        notifications.notify(connection, study_id)
    expect(lines.locator("pre.stderr")).to_have_text("more\n")
    page.get_by_text("stderr", exact=True).click()
    expect(lines.locator("pre.stderr")).to_be_hidden()


def test_long_output_is_shown_from_its_end_and_paged_back(
    dashboard: Dashboard, database: Database, study_id: int
) -> None:
    with database.engine.begin() as connection:
        fill = """INSERT INTO logs (trial_id, attempt, seq, stream, text)
                  SELECT :id, 1, n, 'stdout', 'line ' || n || repeat('.', 2000) || E'\\n' FROM generate_series(3, 3000) n"""
        connection.execute(sa.text(fill), {"id": trial_id(study_id, 14)})
    page = dashboard.open(f"/studies/{study_id}/trials/14")
    lines = page.locator("#output .lines")
    expect(lines).to_contain_text("line 3000")
    there = lines.locator("pre").count()
    assert there < 60
    page.get_by_role("button", name="Earlier output").click()
    expect(lines.locator("pre")).not_to_have_count(there)
    assert lines.locator("pre").first.inner_text().startswith("line 29")


def test_a_trial_changes_in_place(dashboard: Dashboard, database: Database, study_id: int) -> None:
    with dashboard.page.expect_response("**/events"):
        page = dashboard.open(f"/studies/{study_id}/trials/14")
    expect(page.locator("#facts")).to_contain_text("not finished yet")
    with database.engine.begin() as connection:
        end = "UPDATE trials SET state = 'complete', values = ARRAY[0.05], ended_at = now() WHERE trial_id = :id"
        connection.execute(sa.text(end), {"id": trial_id(study_id, 14)})
        notifications.notify(connection, study_id)
    expect(page.locator("#facts")).to_contain_text("rank 1 of 13 complete")


def test_trials_are_compared_and_only_differences_can_be_shown(
    dashboard: Dashboard, study_id: int
) -> None:
    page = dashboard.open(f"/compare?study={study_id}&trials=0,2&trials=12")
    expect(page.get_by_role("heading", name="3 trials side by side")).to_be_visible()
    row = page.locator("tr.differs", has=page.get_by_role("rowheader", name="lr"))
    expect(row.locator("td")).to_have_text(["0.001", "0.003", "0.013"])
    expect(page.locator("tr.same").first).to_be_visible()
    page.get_by_text("only differences").click()
    expect(page.locator("tr.same").first).to_be_hidden()
    page.get_by_label("Without trial 12").click()
    expect(page.get_by_role("heading", name="2 trials side by side")).to_be_visible()
    expect(page.locator("#curves .legendtext")).to_have_text(["trial 0", "trial 2"], timeout=30_000)


def test_studies_are_compared_from_their_list(
    dashboard: Dashboard, database: Database, study_id: int
) -> None:
    with writing(database, name=HOSTILE, budget={"trials": 99}) as w:
        w.trial(0, "complete", 0.05)
        w.trial(1, "complete", 0.01)
    page = dashboard.open("/studies")
    for one in ("digits", HOSTILE):
        page.get_by_label(f"Select {one}").check()
    page.get_by_role("button", name="Compare 2 selected").click()
    expect(page.get_by_role("heading", name="2 studies side by side")).to_be_visible()
    budget = page.locator("tr.differs", has=page.get_by_role("rowheader", name="budget.trials"))
    assert sorted(budget.locator("td").all_inner_texts()) == ["10", "99"]
    expect(page.locator("tr.same").first).to_be_hidden()
    expect(page.locator("#curves .legendtext")).to_have_count(2, timeout=30_000)


def test_nothing_to_compare_is_reported(dashboard: Dashboard, study_id: int) -> None:
    page = dashboard.page
    for path, text in (
        ("/compare", "nothing is selected"),
        (f"/compare?study={study_id}&trials=999", "none of these trials"),
    ):
        assert dashboard.page.goto(dashboard.server.url + path).status == 404  # type: ignore[union-attr]
        expect(page.locator("main")).to_contain_text(text)
    dashboard.complaints.clear()
