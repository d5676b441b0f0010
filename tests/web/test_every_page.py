"""Every page and every form, in every state that it has: accessible, on a bright desktop
and a dark phone, with nothing inline and nothing from elsewhere. One server, one database and one
page of a browser for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, Response, expect

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tests.web.conftest import Dashboard, routes_of, violations
from tests.web.test_health_page import failing_above
from tunesvc.db.engine.database import Database
from tunesvc.errors import DatabaseUnavailable
from tunesvc.execution.executor import Failed, Finished, Launch, OutputLogged, Payload, Reported
from tunesvc.runtime.study_requests import note, request, tag
from tunesvc.web.forms import FormQuestion
from tunesvc.web.middleware.security import POLICY

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@dataclass(frozen=True)
class Sight:
    """A page in one of its states."""

    path: str
    status: int = 200
    figure: str = ""
    """One that is drawn, and shown as a table, before the page is looked at."""


SIGHTS = {
    "studies": Sight("/studies"),
    "studies, none of which matches": Sight("/studies?q=nothing"),
    "a study that runs": Sight("/studies/{live}#trials=1,2", figure="figure-history"),
    "a study of two objectives": Sight("/studies/{front}", figure="figure-pareto"),
    "a study without trials": Sight("/studies/{bare}"),
    "trials": Sight("/studies/{live}/trials"),
    "trials, none of which matches": Sight("/studies/{live}/trials?where=number<0"),
    "trials, filtered by what there is not": Sight("/studies/{live}/trials?where=lrr<0", 422),
    "no trials": Sight("/studies/{bare}/trials"),
    "a trial that is complete": Sight("/studies/{live}/trials/0"),
    "a trial that was pruned": Sight("/studies/{live}/trials/{pruned}", figure="curve"),
    "a trial that failed": Sight("/studies/{live}/trials/{fail}"),
    "a trial that runs": Sight("/studies/{live}/trials/{running}"),
    "checkpoints of a trial": Sight("/studies/{live}/trials/0/checkpoints"),
    "trials side by side": Sight("/compare?study={live}&trials=0,{pruned}", figure="curves"),
    "studies side by side": Sight("/compare?studies={live},{bare}", figure="curves"),
    "nothing to compare": Sight("/compare", 404),
    "health": Sight("/studies/{live}/health"),
    "health, with findings": Sight("/studies/{ill}/health"),
    "health of a study without trials": Sight("/studies/{bare}/health"),
    "configuration": Sight("/studies/{live}/configuration"),
    "requests": Sight("/studies/{live}/requests"),
    "no requests": Sight("/studies/{bare}/requests"),
    "the cluster": Sight("/cluster"),
    "a new study": Sight("/new"),
    "a study to upload": Sight("/new/upload"),
    "a copy of a study": Sight("/new?copy={live}"),
    "how to run a study": Sight("/studies/{bare}/start"),
    "a page that there is not": Sight("/nothing", 404),
    "a study that there is not": Sight("/studies/999", 404),
    "an address that means nothing": Sight("/studies?sort=nothing", 422),
    "a form to delete": Sight("/studies/{bare}/delete"),
    **{
        f"a form to {one}": Sight(f"/studies/{{live}}/ask/{one}?trial={{running}}")
        for one in FormQuestion
    },
}


def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Every seventh fails; of the others the loss tells from the first step on which of them are
    poor."""
    yield 1.0, OutputLogged("stdout", "begins\n")
    for step in range(6):
        yield 1.0, Reported(step, {"loss": 1 / (1 + step) + launch.trial_number % 4})
        if launch.trial_number % 7 == 5 and step == 2:
            yield 1.0, Failed("error", "ValueError: no", "Traceback ...\nValueError: no")
            return
    yield 1.0, Finished()


@pytest.fixture(scope="module")
def known(shared_database: Database) -> Mapping[str, int]:
    """Studies that the addresses name: a running one with trials of every kind, one of two
    objectives, and a bare one."""
    simulation = Simulation(shared_database, make_spec(name="live", **LIVE), script)
    coordinator = simulation.start()
    while simulation.clock.now() < 40:
        coordinator.step()
    simulation.sql("UPDATE leases SET expires_at = now() + interval '1 hour'")
    simulation.sql(
        "UPDATE attempts SET state = 'opened', started_at = NULL WHERE trial_id = (SELECT max(trial_id) FROM attempts)"
    )
    live = simulation.record.study_id
    request(shared_database, live, "extend", {"trials": 5}, "ada")
    tag(shared_database, live, None, add=["vision"], asked_by="ada")
    note(shared_database, live, 0, "looks fine", asked_by="ada")
    numbers = dict(simulation.sql("SELECT state, min(number) FROM trials GROUP BY state"))
    assert {"complete", "pruned", "fail", "running"} <= numbers.keys()
    front = fill(
        shared_database, objectives=2, name="front", metrics=({"name": "loss"}, {"name": "size"})
    )
    ill = failing_above(shared_database, "lr", name="ill")
    bare = Simulation(shared_database, make_spec(name="bare")).record.study_id
    return {"live": live, "front": front, "ill": ill, "bare": bare, **numbers}  # type: ignore[dict-item]


LIVE = {
    "parameters": {
        "x": {"type": "float", "min": 0.0, "max": 1.0},
        "n": {"type": "int", "min": 1, "max": 8},
        "kind": {"type": "categorical", "values": ["plain", "fancy"]},
    },
    "pruner": {"name": "asha", "min": 1, "max": 6},
    "budget": {"trials": 1000, "wall": "2h", "gpu_hours": 4.0},
    "retries": {"error": 0},
}


@pytest.fixture(autouse=True)
def as_before(shared_dashboard: Dashboard) -> None:
    """Every page begins on a bright desktop."""
    shared_dashboard.page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    shared_dashboard.page.emulate_media(color_scheme="light")


ALWAYS = {
    "studies",
    "a study that runs",
    "a study of two objectives",
    "trials",
    "a trial that was pruned",
    "a trial that failed",
    "trials side by side",
    "health, with findings",
    "configuration",
    "requests",
    "the cluster",
    "a new study",
    "a study to upload",
    "a page that there is not",
    "a form to delete",
    "a form to enqueue",
}
"""One state of each page; the others are looked at among the slow tests."""
assert SIGHTS.keys() >= ALWAYS


@pytest.mark.parametrize(
    "name",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in SIGHTS],
)
def test_a_page_is_accessible(
    shared_dashboard: Dashboard, known: Mapping[str, int], name: str
) -> None:
    sight = SIGHTS[name]
    answer = visit(shared_dashboard, sight.path.format(**known))
    assert answer.status == sight.status
    if sight.figure:
        card = shared_dashboard.page.locator(f"#{sight.figure}")
        card.scroll_into_view_if_needed()
        expect(card.locator("[data-drawn]")).to_be_visible(timeout=30_000)
        card.get_by_role("button", name="Table").click()
        expect(card.locator("table")).to_be_visible()
        with shared_dashboard.page.expect_download() as download:
            card.get_by_role("link", name="CSV").click()
        assert download.value.path().read_text().count("\n") > 1
    is_sound(shared_dashboard, answer)


def test_a_dialog_is_accessible(shared_dashboard: Dashboard, known: Mapping[str, int]) -> None:
    answer = visit(shared_dashboard, f"/studies/{known['live']}")
    shared_dashboard.page.get_by_role("link", name="Extend", exact=True).click()
    expect(shared_dashboard.page.get_by_role("dialog")).to_be_visible()
    is_sound(shared_dashboard, answer)
    shared_dashboard.page.keyboard.press("Escape")
    expect(shared_dashboard.page.get_by_role("dialog")).to_be_hidden()


def test_the_editor_with_mistakes_is_accessible(shared_dashboard: Dashboard) -> None:
    answer = visit(shared_dashboard, "/new")
    shared_dashboard.page.get_by_label("study.yaml").fill("name: x\nbudget: {trials: many}\n")
    expect(shared_dashboard.page.locator("#verdict .faults")).to_contain_text("line 2")
    is_sound(shared_dashboard, answer)


def test_the_error_page_is_accessible(
    shared_dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesvc.web.pages.cluster.get_cluster", lambda *_: 1 / 0)
    answer = visit(shared_dashboard, "/cluster")
    assert answer.status == 500
    is_sound(shared_dashboard, answer)


def test_the_page_of_an_outage_is_accessible(
    shared_dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise DatabaseUnavailable("nothing listens there")

    monkeypatch.setattr("tunesvc.web.pages.cluster.get_cluster", away)
    answer = visit(shared_dashboard, "/cluster")
    assert answer.status == 503
    is_sound(shared_dashboard, answer)


def test_the_page_for_an_unknown_browser_is_accessible(shared_dashboard: Dashboard) -> None:
    context = shared_dashboard.page.context
    cookies = context.cookies()
    context.clear_cookies()
    answer = visit(shared_dashboard, "/studies")
    assert answer.status == 401
    is_sound(shared_dashboard, answer)
    context.add_cookies(cookies)  # type: ignore[arg-type]


def test_no_page_is_left_out(shared_dashboard: Dashboard) -> None:
    paths = [sight.path.partition("?")[0].partition("#")[0] for sight in SIGHTS.values()]
    for route in routes_of(shared_dashboard.server):
        if route.name.endswith(("_page", "_form")):
            pattern = re.sub(r"\\\{\w+\\\}", r"[^/]+", re.escape(route.path))
            assert any(re.fullmatch(pattern, path) for path in paths), route.path


def visit(dashboard: Dashboard, path: str) -> Response:
    """Go to a page. Browsers note an answer that tells of a mistake; this one is meant."""
    answer = dashboard.page.goto(dashboard.server.url + path)
    assert answer is not None
    if not answer.ok:
        dashboard.complaints[:] = [
            one for one in dashboard.complaints if f"status of {answer.status}" not in one
        ]
    return answer


def is_sound(dashboard: Dashboard, answer: Response) -> None:
    """Nothing inline, nothing from elsewhere (the fixture looks for that); usable on a bright
    desktop and a dark phone."""
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert INLINE.findall(answer.text()) == []
    page = dashboard.page
    page.evaluate(
        "document.querySelectorAll('details.menu').forEach(menu => { menu.open = true; })"
    )
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert violations(page) == []
    assert overflow(page) == []


INLINE = re.compile(
    r"<script(?![^>]*\ssrc=)[^>]*>|<style|<[^>]*\sstyle=|<[^>]*\son\w+=|javascript:"
)


def overflow(page: Page) -> list[str]:
    """Return the elements that are cut off at the right of a page."""
    found: list[str] = page.evaluate(
        """() => { const width = document.documentElement.scrollWidth;
           return width <= innerWidth ? [] : [`the page is ${width} wide`, ...[...document.querySelectorAll('main *')]
             .filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll'))
             .map(one => one.outerHTML.slice(0, 200))]; }"""
    )
    return found
