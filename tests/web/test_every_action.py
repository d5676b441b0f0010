"""Every action, taken in a browser on studies that a coordinator runs, and what has become of it in
the database.

One server, one database, one page of a browser and one running study for all of them; its workers
are simulated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from optuna.distributions import FloatDistribution
from playwright.sync_api import Locator, Page, expect

from tests.integration.test_queries import writing
from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tests.web.conftest import Dashboard
from tests.web.test_actions import done
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.db.engine.database import Database
from tunesvc.execution.executor import Launch, Payload
from tunesvc.util.user import whoami
from tunesvc.web.forms import FormQuestion


def slow(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Five reports, of which the last is best where x is largest."""
    return curve(
        *(2.0 - float(launch.params["x"]) + 1.0 / (1 + step) for step in range(5)), every_s=4.0
    )  # type: ignore[arg-type]


@dataclass(frozen=True)
class Running:
    """A study that runs as long as it is stepped."""

    simulation: Simulation
    coordinator: Coordinator

    @property
    def study_id(self) -> int:
        """Its id."""
        return self.simulation.record.study_id

    def until(self, sql: str) -> None:
        """Step until a query, in which ID is the study, is true; then keep the lease, since no
        further step follows."""
        asked = sql.replace("ID", str(self.study_id))
        for _ in range(1_000):
            if self.simulation.sql(asked) == [(True,)]:
                self.simulation.sql("UPDATE leases SET expires_at = now() + interval '1 hour'")
                return
            self.coordinator.step()
        raise AssertionError(asked)

    def number(self, sql: str) -> int:
        """The number of a trial, as a condition names it."""
        found = self.simulation.sql(
            f"SELECT max(number) FROM trials WHERE study_id = {self.study_id} AND {sql}"
        )
        return int(found[0][0])  # type: ignore[call-overload]


def run(database: Database, name: str) -> Running:
    """Start a study; there are trials that are complete, and others that run and have reported."""
    spec = make_spec(name=name, budget={"trials": 100, "wall": "10h"}, parallelism=2)
    simulation = Simulation(database, spec, slow)
    running = Running(simulation, simulation.start())
    running.until("SELECT count(*) >= 2 FROM trials WHERE study_id = ID AND state = 'complete'")
    running.until(f"SELECT count(*) = 2 FROM trials WHERE study_id = ID AND {REPORTED}")
    return running


REPORTED = "state = 'running' AND trial_id IN (SELECT trial_id FROM reports)"


@pytest.fixture(scope="module")
def running(shared_database: Database) -> Running:
    return run(shared_database, "bowl")


@dataclass(frozen=True)
class Action:
    """An action in the browser, and its effect once the coordinator has executed it."""

    kind: FormQuestion
    label: str
    button: str
    effect: str
    """ID is the study, NUMBER the trial that it is about, LAST the newest trial of then."""
    fields: tuple[tuple[str, str], ...] = ()
    about: str = ""
    """A condition for the trial that it is about; empty: it is about the study."""
    within: str = "main"
    toast: str = "the coordinator test carries it out"


DRAWN = """SELECT count(*) > 0 FROM trials JOIN trial_params USING (trial_id)
           WHERE study_id = ID AND number > LAST AND name = 'x' AND started_at IS NOT NULL AND value """
BEFORE = "(SELECT value FROM trial_params WHERE name = 'x' AND trial_id = (CAST(ID AS bigint) << 32) + NUMBER)"
ORIGIN = "(SELECT count(*) = 1 FROM trial_attrs WHERE name = 'tunesvc:origin' AND value = '\"near trial NUMBER\"')"
OF_STUDY = "FROM studies WHERE study_id = ID"
OF_TRIAL = "FROM trial_annotations WHERE trial_id = (CAST(ID AS bigint) << 32) + NUMBER"
ACTIONS = [
    Action(
        FormQuestion.EXTEND,
        "Extend",
        "Extend",
        f"SELECT spec->'budget'->>'trials' = '104' {OF_STUDY}",
        (("trials", "4"),),
    ),
    Action(
        *(FormQuestion.PARALLELISM, "Trials at a time …", "Change"),
        "SELECT count(*) = 3 FROM trials WHERE study_id = ID AND state = 'running'",
        (("trials", "3"),),
    ),
    Action(FormQuestion.WIDEN, "Widen the space …", "Widen", f"{DRAWN} > 1", (("high", "2"),)),
    Action(
        FormQuestion.ENQUEUE,
        "Enqueue a trial …",
        "Enqueue",
        f"{DRAWN} = 0.125",
        (("value", "0.125"),),
    ),
    Action(
        FormQuestion.ENQUEUE,
        "Change and run",
        "Enqueue",
        f"{DRAWN} = 0.25",
        (("value", "0.25"),),
        "state = 'complete'",
    ),
    Action(
        FormQuestion.NEAR,
        "Try near this",
        "Try near it",
        f"SELECT {ORIGIN}",
        about="state = 'complete'",
    ),
    Action(
        FormQuestion.RETRY,
        "Run again",
        "Run again",
        f"{DRAWN} = {BEFORE}",
        about="state = 'complete'",
    ),
    Action(
        *(FormQuestion.STOP_TRIAL, "Stop this trial", "Stop this trial"),
        "SELECT state = 'pruned' FROM trials WHERE study_id = ID AND number = NUMBER",
        about=REPORTED,
    ),
    Action(
        *(
            FormQuestion.TAG,
            "+ tag",
            "Save",
            f"SELECT tags = '{{vision}}' {OF_STUDY}",
            (("text", "vision"),),
        ),
        within="#labels",
        toast="Tags: vision",
    ),
    Action(
        *(
            FormQuestion.NOTE,
            "+ note",
            "Save",
            f"SELECT note = 'why' {OF_STUDY}",
            (("text", "why"),),
        ),
        within="#labels",
        toast="The note is saved.",
    ),
    Action(
        *(
            FormQuestion.TAG,
            "+ tag",
            "Save",
            f"SELECT tags = '{{odd}}' {OF_TRIAL}",
            (("text", "odd"),),
            "number = 0",
        ),
        within="#trial-labels",
        toast="Tags: odd",
    ),
    Action(
        *(
            FormQuestion.NOTE,
            "+ note",
            "Save",
            f"SELECT note = 'how' {OF_TRIAL}",
            (("text", "how"),),
            "number = 0",
        ),
        within="#trial-labels",
        toast="The note is saved.",
    ),
]


@pytest.mark.parametrize(
    "action", ACTIONS, ids=lambda one: f"{one.kind}, of a {'trial' if one.about else 'study'}"
)
def test_an_action_does_what_it_says(
    shared_dashboard: Dashboard, running: Running, action: Action
) -> None:
    about = action.about or "true"
    running.until(f"SELECT count(*) > 0 FROM trials WHERE study_id = ID AND {about}")
    number, last = running.number(about), running.number("true")
    trial = f"/trials/{number}" if action.about else ""
    page = shared_dashboard.open(f"/studies/{running.study_id}{trial}")
    dialog = ask(page, action.label, action.within)
    for name, text in action.fields:
        dialog.locator(f"[name={name}]").first.fill(text)
    done(page, action.button, action.toast)
    running.until(action.effect.replace("NUMBER", str(number)).replace("LAST", str(last)))
    assert newest_request(running) == (whoami(), True)


def test_every_action_is_taken() -> None:
    taken = {action.kind for action in ACTIONS}
    # test_study_page.py rolls a champion back
    assert taken | {
        FormQuestion.ROLLBACK,
        FormQuestion.PAUSE,
        FormQuestion.RESUME,
        FormQuestion.STOP,
    } == set(FormQuestion), "those in tests of their own"


def test_a_pause_is_requested_shown_cancelled_and_executed(
    shared_dashboard: Dashboard, shared_database: Database
) -> None:
    running = run(shared_database, "paused")
    page = shared_dashboard.open(f"/studies/{running.study_id}")
    dialog = ask(page, "Pause")
    expect(dialog).to_contain_text("2 running trials come to their end")
    done(page, "Pause", "the coordinator test carries it out")
    expect(page.locator("#head")).to_contain_text("pausing")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_have_attribute(
        "title", "it is being paused"
    )
    ask(page, "Resume")
    done(page, "Continue", "carries it out")
    running.until("SELECT count(*) = 2 FROM commands WHERE study_id = ID AND done_at IS NOT NULL")
    expect(page.locator("#head")).not_to_contain_text("pausing")
    ask(page, "Pause")
    done(page, "Pause", "carries it out")
    running.coordinator.run()
    running.simulation.study_writer.release()
    expect(page.locator("#head .standing")).to_contain_text("paused")
    dialog = ask(page, "Resume")
    expect(dialog).to_contain_text("A dashboard cannot run a study")
    expect(page.locator("#resume-command")).to_have_text("tune resume paused")


CLICK_AT_ONCE = """label => {
  const press = (_, observer) => {
    const link = [...document.querySelectorAll("#head a")].find((a) => a.textContent === label);
    if (link) { observer.disconnect(); link.click(); }
  };
  new MutationObserver(press).observe(document.getElementById("main"), {childList: true, subtree: true});
}"""
"""Press an action in the moment in which the page comes to offer it."""


def test_a_button_that_has_just_changed_does_what_it_now_says(
    shared_dashboard: Dashboard, shared_database: Database
) -> None:
    running = run(shared_database, "resumed")
    page = shared_dashboard.open(f"/studies/{running.study_id}")
    dialog = ask(page, "Pause")
    page.evaluate(CLICK_AT_ONCE, "Resume")
    dialog.get_by_role("button", name="Pause", exact=True).click()
    expect(dialog).to_contain_text("Cancel the pause?")
    page.evaluate(CLICK_AT_ONCE, "Pause")
    dialog.get_by_role("button", name="Continue", exact=True).click()
    running.until("SELECT count(*) = 2 FROM commands WHERE study_id = ID AND done_at IS NOT NULL")
    expect(dialog).to_contain_text("Pause this study?")
    expect(dialog.get_by_role("button", name="Pause", exact=True)).to_be_visible()


def test_a_study_is_stopped_and_deleted_when_its_name_is_typed(
    shared_dashboard: Dashboard, shared_database: Database
) -> None:
    running = run(shared_database, "stopped")
    page = shared_dashboard.open(f"/studies/{running.study_id}")
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_role("button", name="Delete …")).to_have_attribute(
        "title", "test runs it: stop it first"
    )
    dialog = ask(page, "Stop")
    expect(dialog).to_contain_text("2 running trials are stopped now")
    done(page, "Stop", "carries it out")
    running.coordinator.run()
    expect(page.locator("#head .standing")).to_contain_text("stopped")
    # the page has seen the last step, but not yet that the study has no coordinator; its menu
    # stays open
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_role("button", name="Delete …")).to_be_visible()
    running.simulation.study_writer.release()
    expect(page.get_by_role("link", name="Delete …")).to_be_visible()
    dialog = ask(page, "Delete …")
    name = dialog.get_by_role("textbox")
    name.fill("stop")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("nothing is deleted")
    name.fill("stopped")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url("**/studies")
    assert running.simulation.sql("SELECT count(*) FROM studies WHERE name = 'stopped'") == [(0,)]
    # the refused name; and parts of the page that were asked for again before it was left, of a
    # study that is no more
    known = ("400", "404")
    shared_dashboard.complaints[:] = [
        one for one in shared_dashboard.complaints if not any(s in one for s in known)
    ]


def test_a_button_of_the_health_page_widens_a_study_that_runs(
    shared_dashboard: Dashboard, shared_database: Database
) -> None:
    spec = make_spec(
        name="narrow",
        parameters={"x": {"type": "float", "min": 1.0, "max": 3.0}},
        budget={"trials": 100},
    )
    with writing(shared_database, **spec.model_dump(mode="json")) as w:
        for number in range(60):
            w.trial(number, "complete", number / 60)
            w.param(number, 0, "x", 3.0 - number / 40, FloatDistribution(1.0, 3.0))
    simulation = Simulation(shared_database, spec, slow)
    running = Running(simulation, simulation.start())
    running.until("SELECT count(*) > 0 FROM trials WHERE study_id = ID AND state = 'running'")
    page = shared_dashboard.open(f"/studies/{running.study_id}/health")
    page.get_by_role("button", name="Widen x to 4", exact=True).click()
    expect(page.locator(".toast").last).to_contain_text("the coordinator test carries it out")
    running.until(f"SELECT spec->'parameters'->'x'->>'max' = '4.0' {OF_STUDY}")
    assert newest_request(running) == (whoami(), True)


def ask(page: Page, label: str, within: str = "main") -> Locator:
    """Press the button of an action, in a menu if need be; returns its dialog."""
    if label.endswith("…") and not page.get_by_role("link", name=label, exact=True).is_visible():
        page.get_by_text("More", exact=True).click()
    page.locator(within).get_by_role("link", name=label, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def newest_request(running: Running) -> tuple[object, object]:
    """Return the author of the newest request, and whether it was executed."""
    newest = "ORDER BY command_id DESC LIMIT 1"
    ((author, is_done),) = running.simulation.sql(
        f"SELECT asked_by, done_at IS NOT NULL FROM commands WHERE study_id = {running.study_id} {newest}"
    )
    return author, is_done
