"""The health of a study, in a browser."""

from __future__ import annotations

import pytest
from optuna.distributions import FloatDistribution
from playwright.sync_api import APIResponse, Route, expect

from tests.integration.test_queries import LR, writing
from tests.web.conftest import ON_BOTH, Dashboard
from tunesvc.db.engine.database import Database
from tunesvc.queries.rows import StudyView
from tunesvc.queries.studies import get_study_by_id
from tunesvc.runtime import study_requests
from tunesvc.web.live import cache

HOSTILE = '<img src=x onerror="alert(1)">`'


def failing_above(database: Database, parameter: str, **spec: object) -> int:
    """A study whose trials fail for large values of a parameter of this name."""
    parameters = {parameter: {"type": "float", "min": 1e-4, "max": 1.0, "log": True}}
    with writing(database, parameters=parameters, **spec) as w:
        for number in range(60):
            bad = number % 3 == 0
            w.trial(number, *(["fail"] if bad else ["complete", 0.5 + number]))
            w.param(number, 0, parameter, 0.9 if bad else 0.001 * (number + 1), LR)
            w.attempt(number, 1, "failed" if bad else "finished", failure="error" if bad else None)
        return w.study_id


def test_a_finding_has_its_numbers_and_its_advice(dashboard: Dashboard, database: Database) -> None:
    page = dashboard.open(f"/studies/{failing_above(database, 'lr')}/health")
    card = page.get_by_role("region", name="Are failures clustered?")
    expect(card).to_contain_text("20 of 20 failed trials lie there")
    expect(card).to_contain_text("likely a problem")
    expect(page.get_by_text("too early").first).to_be_visible()


def too_narrow(database: Database) -> int:
    """A study whose best trials lie at the upper end of `x`; its id."""
    with writing(database, parameters={"x": {"type": "float", "min": 1.0, "max": 3.0}}) as w:
        for number in range(60):
            w.trial(number, "complete", number / 60)
            w.param(number, 0, "x", 3.0 - number / 40, FloatDistribution(1.0, 3.0))
        return w.study_id


def test_a_button_does_what_a_finding_advises(dashboard: Dashboard, database: Database) -> None:
    study_id = too_narrow(database)
    page = dashboard.open(f"/studies/{study_id}/health")
    page.get_by_role("button", name="Widen x to 4", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("x")
    spec = get_study_by_id(database, study_id).spec
    assert spec is not None
    assert spec.parameters["x"].max == 4.0  # type: ignore[union-attr]


def test_the_result_is_shown_even_when_the_page_follows_the_change_first(
    dashboard: Dashboard, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page learns of the change by another way than by the answer, and takes the button away
    that was pressed; later, when it is too early to look at the study again."""
    monkeypatch.setattr(cache, "PATIENCE_FIRST", 100.0)
    held: list[tuple[Route, APIResponse]] = []
    page = dashboard.open(f"/studies/{too_narrow(database)}/health")

    def hold(route: Route) -> None:
        # the browser resolves names below localhost by itself, Playwright's own client does not
        at = route.request.url.replace(dashboard.server.own_url, dashboard.server.url)
        held.append((route, route.fetch(url=at)))

    page.route("**/ask/widen", hold)
    button = page.get_by_role("button", name="Widen x to 4", exact=True)
    button.click()
    expect(button).to_be_hidden()
    ((route, answer),) = held
    route.fulfill(response=answer)
    expect(page.locator("#toasts")).to_contain_text("x")


@ON_BOTH
def test_names_in_findings_cannot_act(dashboard: Dashboard, database: Database) -> None:
    """Fault 37."""
    page = dashboard.open(f"/studies/{failing_above(database, HOSTILE)}/health")
    expect(page.get_by_role("region", name="Are failures clustered?")).to_contain_text(HOSTILE)


def test_a_change_while_the_page_is_made_is_there_when_it_is_asked_for_again(
    dashboard: Dashboard, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = too_narrow(database)
    read = get_study_by_id

    def changed_afterwards(of: Database, study: int) -> StudyView:
        view = read(of, study)
        monkeypatch.setattr("tunesvc.web.pages.figures.get_study_by_id", read)
        study_requests.request(of, study, "widen", {"parameters": {"x": {"max": 4.0}}}, "user")
        return view

    monkeypatch.setattr("tunesvc.web.pages.figures.get_study_by_id", changed_afterwards)
    page = dashboard.page
    answer = page.goto(f"{dashboard.server.url}/studies/{study_id}/health")
    assert answer is not None
    assert "Widen x to 4" in answer.text()
    page.reload()
    expect(page.get_by_role("button", name="Widen x to 4", exact=True)).to_be_hidden()
