"""Actions in a browser: dialogs, answers, tags and notes, and their permissions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import optuna
import pytest
from playwright.sync_api import Page, expect

from tests.integration.test_coordinator_commands import slow
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tests.web.conftest import ON_BOTH, Dashboard, routes_of
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.web import DashboardServer
from tunesvc.web.access import Permission, User

HOSTILE = '<img src=x onerror="alert(1)">\u202ereversed & long ' + "x" * 300


BOWL = make_spec(name="bowl", budget={"trials": 6}, parallelism=2)


@pytest.fixture
def simulation(database: Database) -> Simulation:
    return Simulation(database, BOWL, slow)


def ask(page: Page, label: str) -> None:
    """Press the button of an action; its dialog is there."""
    page.get_by_role("link", name=label, exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()


def done(page: Page, label: str, expected: str) -> None:
    """Press the button of the dialog; it closes, and a message tells what came of it."""
    page.get_by_role("dialog").get_by_role("button", name=label, exact=True).click()
    expect(page.locator(".toast").filter(has_text=expected).last).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_values_are_changed_and_a_wrong_one_is_reported_in_the_dialog(
    dashboard: Dashboard, simulation: Simulation
) -> None:
    simulation.run()
    page = dashboard.open("/studies/1/trials/0")
    ask(page, "Change and run")
    page.get_by_role("textbox", name="x 0.0").fill("7")
    page.get_by_role("dialog").get_by_role("button", name="Enqueue").click()
    expect(page.get_by_role("alert")).to_contain_text("x = 7.0 is outside of 0 ... 1")
    page.get_by_role("textbox", name="x 0.0").fill("0.125")
    done(
        page,
        "Enqueue",
        "trial 6 is next; the budget grows to 7 trials, so that it runs; `tune resume bowl`",
    )
    assert simulation.sql("SELECT value FROM trial_attrs WHERE name = 'tunesvc:origin'") == [
        ('"by hand, from trial 0"',)
    ]

    # the refused answer is an error of the request, which browsers note
    dashboard.complaints[:] = [one for one in dashboard.complaints if "400" not in one]


@ON_BOTH
def test_tags_and_notes_are_kept_found_and_inert(
    dashboard: Dashboard, simulation: Simulation
) -> None:
    """Fault 37."""
    simulation.run()
    page = dashboard.open("/studies/1")
    ask(page, "+ tag")
    page.get_by_role("textbox", name="Add").fill("vision, <b>bold</b>")
    done(page, "Save", "Tags: vision, <b>bold</b>")
    expect(page.locator("#labels .tag")).to_have_text(["vision", "<b>bold</b>"])
    ask(page, "+ note")
    page.get_by_role("textbox", name="Note").fill(HOSTILE)
    done(page, "Save", "The note is saved.")
    expect(page.locator("#labels .annotation")).to_have_text(HOSTILE.replace("\u202e", "\ufffd"))
    ask(page, "tags")
    page.get_by_text("<b>bold</b>").last.click()
    done(page, "Save", "Tags: vision")
    dashboard.open("/studies/1/requests")
    expect(page.locator("tbody")).to_contain_text("onerror")
    dashboard.open("/studies/1/trials/0")
    page.locator("#trial-labels").get_by_text("+ note").click()
    page.get_by_role("textbox", name="Note").fill(HOSTILE)
    done(page, "Save", "The note is saved.")
    expect(page.locator("#trial-labels .annotation")).to_have_text(
        HOSTILE.replace("\u202e", "\ufffd")
    )
    dashboard.open("/studies?q=VISION")
    expect(page.locator("tbody th .tag")).to_have_text("vision")
    page.locator("tbody th .tag").click()
    page.wait_for_url("**/studies?tag=vision")
    expect(page.locator("tbody tr")).to_have_count(1)
    dashboard.open("/studies?tag=other")
    expect(page.get_by_role("heading", name="No study matches")).to_be_visible()


# --- without a browser
# -------------------------------------------------------------------------------


@contextmanager
def admitted(database: Database) -> Iterator[httpx.Client]:
    """A browser without scripts that was let in."""
    with (
        DashboardServer(database, port=0) as server,
        httpx.Client(
            base_url=server.url, headers={"Origin": server.url}, follow_redirects=True
        ) as client,
    ):
        client.get(server.new_address())
        yield client


@pytest.fixture
def client(database: Database, simulation: Simulation) -> Iterator[httpx.Client]:
    simulation.run()
    with admitted(database) as client:
        yield client


@pytest.fixture(scope="module")
def shared_client(shared_database: Database) -> Iterator[httpx.Client]:
    """For tests that change nothing."""
    Simulation(shared_database, BOWL, slow).run()
    with admitted(shared_database) as client:
        yield client


def test_without_scripts_a_form_is_a_page_and_the_answer_stands_among_the_requests(
    client: httpx.Client,
) -> None:
    form = client.get("/studies/1/ask/extend")
    assert 'action="/studies/1/ask/extend"' in form.text
    answer = client.post("/studies/1/ask/extend", data={"trials": "3"})
    assert answer.url.path == "/studies/1/requests"
    assert "extend by 3 trials" in answer.text
    refused = client.post("/studies/1/ask/extend", data={"trials": "-3"})
    assert refused.status_code == 400
    assert "no number above 0" in refused.text
    assert client.get("/studies/1/ask/pause").text.count("it is finished already") == 1
    gone = client.post("/studies/1/delete", data={"name": "bowl"})
    assert gone.url.path == "/studies"
    missing = client.get("/studies/1")
    assert missing.status_code == 404
    assert "was deleted by" in missing.text


def test_running_trials_of_a_study_of_optunas_own_can_be_failed(
    client: httpx.Client, database: Database
) -> None:
    """Case W21."""
    theirs = optuna.create_study(storage=PgStorage(database))
    for _ in range(2):
        theirs.ask()
    assert "<p>It fails." in client.get("/studies/2/ask/stop_trial?trial=0").text
    assert "failed: 0" in client.post("/studies/2/ask/stop_trial", data={"trial": "0"}).text
    assert "it does not run: it is failed" in client.get("/studies/2/ask/stop_trial?trial=0").text
    assert "1 running trial fails." in client.get("/studies/2/ask/stop").text
    assert "failed: 1" in client.post("/studies/2/ask/stop").text
    assert "no trial of it runs" in client.get("/studies/2/ask/stop").text


def test_with_scripts_the_answer_is_a_message(client: httpx.Client) -> None:
    answer = client.post(
        "/studies/1/ask/tag", data={"text": "naïve, b"}, headers={"HX-Request": "true"}
    )
    assert answer.status_code == 204
    assert json.loads(answer.headers["hx-trigger"])["message"]["text"] == "Tags: naïve, b"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies/1/ask/abolish", 422),
        ("/studies/99/ask/pause", 404),
        ("/studies/1/ask/retry?trial=99", 404),
        ("/studies/1/ask/retry?trial=-1", 422),
        ("/studies/1/ask/retry", 400),
        ("/studies/1/ask/near", 400),
        ("/studies/1/ask/stop_trial", 400),
    ],
)
def test_what_there_is_not_cannot_be_asked(
    shared_client: httpx.Client, path: str, status: int
) -> None:
    assert shared_client.get(path).status_code == status


def test_a_choice_of_nothing_but_brackets_is_taken_for_a_word(shared_client: httpx.Client) -> None:
    answer = shared_client.post(
        "/studies/1/ask/widen", data={"chooser": "x", "choices": "[" * 100_000}
    )
    assert answer.status_code == 400


class Only:
    """Admits a user with one permission."""

    def __init__(self, *rights: Permission) -> None:
        self.rights = rights

    def user(self, request: object) -> User:
        return User("bob")

    def allows(self, user: User, permission: Permission, study_id: int | None) -> bool:
        return permission in self.rights

    def viewable(self, user: User) -> StudyScope:
        return ALL_STUDIES


def test_whatever_changes_something_needs_a_right_and_an_own_origin(
    database: Database, simulation: Simulation
) -> None:
    with DashboardServer(database, port=0) as server, httpx.Client(base_url=server.url) as client:
        app = server.app
        app.state.access = Only(Permission.VIEW)
        posts = [route.path for route in routes_of(server) if "POST" in route.methods]
        assert {"/studies/{study_id}/ask/{ask}", "/studies/{study_id}/delete"} <= set(posts)
        own = {"Origin": server.url}
        for path in posts:
            at = re.sub(r"\{\w+\}", "1", path.replace("{ask}", "stop"))
            assert client.post(at).status_code == 403, "no origin"
            assert client.post(at, headers={"Origin": "http://evil.example"}).status_code == 403
            assert "Not allowed" in client.post(at, headers=own).text, at
        app.state.access = Only(Permission.VIEW, Permission.STEER)
        assert (
            client.post("/studies/1/delete", data={"name": "bowl"}, headers=own).status_code == 403
        )
        assert client.post("/studies/1/ask/stop", headers=own).status_code == 303
        app.state.access = Only(Permission.CREATE)
        assert client.get("/new?copy=1").status_code == 404, "a copy shows what is copied"
    assert simulation.sql("SELECT asked_by, answer FROM commands") == [
        ("bob", "stopped; no coordinator was running it")
    ]
    assert simulation.sql("SELECT state FROM studies") == [("stopped",)]
