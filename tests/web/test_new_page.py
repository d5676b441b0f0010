"""A new study, in a browser; and what its form refuses."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import optuna
import pytest
from playwright.sync_api import Page, expect

from tests.support.specs import make_spec
from tests.web.conftest import ON_BOTH, Dashboard
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.queries.studies import get_study, list_studies
from tunesvc.web.app import BODY_MAX
from tunesvc.web.server import HOST

HOSTILE = '<img src=x onerror="alert(1)">'
STUDY = """name: {name}
command: python train.py ${{lr}}
metric: {{name: loss, goal: minimize}}
parameters:
  lr: {{type: float, min: 0.1, max: 1.0}}
budget: {{trials: {trials}}}
"""


@pytest.fixture
def editor(dashboard: Dashboard, tmp_path: Path) -> Page:
    page = dashboard.open("/new")
    page.get_by_label("Folder").fill(str(tmp_path))
    return page


def test_mistakes_are_marked_at_their_lines_while_one_types(editor: Page) -> None:
    editor.get_by_label("study.yaml").fill(STUDY.format(name="fresh", trials="many"))
    expect(editor.locator("#verdict")).to_contain_text("line 6")
    expect(editor.locator(".gutter .wrong")).to_have_text(["6"])
    editor.get_by_role("button", name="line 6").click()
    assert (
        editor.evaluate("text.value.slice(text.selectionStart, text.selectionEnd)")
        == "budget: {trials: many}"
    )
    editor.get_by_label("study.yaml").fill(STUDY.format(name="fresh", trials=7))
    expect(editor.locator("#verdict")).to_contain_text("Ends after 7 trials")
    expect(editor.locator(".gutter .wrong")).to_have_count(0)
    expect(editor.get_by_role("region", name="Configurations").locator("tbody tr")).to_have_count(5)


def test_missing_files_are_reported_and_the_preview_is_still_there(
    editor: Page, tmp_path: Path
) -> None:
    text = STUDY.format(name="fresh", trials=7).replace(
        "command: python train.py ${lr}", "entrypoint: mine:train"
    )
    editor.get_by_label("study.yaml").fill(text)
    expect(editor.locator("#verdict")).to_contain_text("there is no mine.py")
    expect(editor.locator("#verdict")).to_contain_text("Ends after 7 trials")
    (tmp_path / "mine.py").write_text("raise SystemExit('it was imported')\ndef train(lr): ...\n")
    editor.get_by_label("Folder").fill(f"{tmp_path}/")
    expect(editor.locator("#verdict")).to_contain_text("It can be created")


def test_a_study_is_stored_and_the_command_that_runs_it_is_shown(
    editor: Page, database: Database, tmp_path: Path
) -> None:
    editor.get_by_label("study.yaml").fill(STUDY.format(name="fresh", trials=7))
    editor.get_by_role("button", name="Create").click()
    expect(editor.locator("#resume")).to_have_text("tune resume fresh")
    view = get_study(database, "fresh")
    assert (view.state, view.source_text, view.source_dir) == (
        "created",
        STUDY.format(name="fresh", trials=7),
        str(tmp_path),
    )
    with editor.expect_download() as download:
        editor.get_by_role("link", name="Download the study file").click()
    assert download.value.path().read_text() == view.source_text


def test_blanks_around_the_folder_are_not_part_of_it(
    dashboard: Dashboard, database: Database, tmp_path: Path
) -> None:
    body = urlencode(
        {"text": STUDY.format(name="fresh", trials=7), "folder": f" {tmp_path} "}
    ).encode()
    status, _ = post(dashboard, "/new", body, {"Content-Length": str(len(body))})
    assert status == 303
    assert get_study(database, "fresh").source_dir == str(tmp_path)


def test_a_name_that_is_taken_is_reported_and_loses_nothing(
    editor: Page, dashboard: Dashboard, database: Database
) -> None:
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="taken"))
    editor.get_by_label("study.yaml").fill(STUDY.format(name="taken", trials=7))
    editor.get_by_role("button", name="Create").click()
    expect(editor.locator("#verdict")).to_contain_text("A study named 'taken' exists already")
    expect(editor.get_by_label("study.yaml")).to_have_value(STUDY.format(name="taken", trials=7))
    forget_refusals(dashboard)


def test_a_copy_has_another_name_and_the_same_text(
    dashboard: Dashboard, database: Database, tmp_path: Path
) -> None:
    text = "# mine\n" + STUDY.format(name="first-2  # the best", trials=7)
    with database.engine.begin() as connection:
        record = study_records.create(connection, make_spec(name="first-2"), text, str(tmp_path))
    page = dashboard.open(f"/new?copy={record.study_id}")
    expect(page.get_by_label("study.yaml")).to_have_value(text.replace("first-2", "first-3"))
    expect(page.locator("#verdict")).to_contain_text("It can be created")


def test_what_was_written_is_there_again_after_leaving(editor: Page, dashboard: Dashboard) -> None:
    editor.get_by_label("study.yaml").fill("name: mine\n")
    dashboard.open("/studies")
    page = dashboard.open("/new")
    expect(page.get_by_label("study.yaml")).to_have_value("name: mine\n")
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_label("study.yaml")).not_to_have_value("name: mine\n")


def test_only_what_has_a_file_can_be_copied(dashboard: Dashboard, database: Database) -> None:
    optuna.create_study(storage=PgStorage(database), study_name="bare")
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="written"))
    page = dashboard.open("/new")
    expect(page.get_by_label("Or with a copy of").locator("option")).to_have_text(["written"])


@ON_BOTH
def test_what_is_written_cannot_act(editor: Page, dashboard: Dashboard) -> None:
    """Fault 37."""
    editor.get_by_label("study.yaml").fill(
        f"{HOSTILE}: 1\n</textarea><script>alert(2)</script>: 2\n"
    )
    expect(editor.locator("#verdict")).to_contain_text(HOSTILE)
    editor.get_by_role("button", name="Create").click()
    expect(editor.locator("#verdict")).to_contain_text(HOSTILE)
    assert "<script>alert(2)" in editor.get_by_label("study.yaml").input_value()
    forget_refusals(dashboard)


def forget_refusals(dashboard: Dashboard) -> None:
    """The browser notes that a page came with status 422, as it should."""
    dashboard.complaints[:] = [text for text in dashboard.complaints if "status of 422" not in text]


BOMB = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n"


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        (BOMB, "HERE", "anchor"),
        ("name: [", "HERE", "line "),
        ("", "HERE", "no study"),
        (STUDY.format(name="x", trials=7), "", "Name the folder"),
        (STUDY.format(name="x", trials=7), "relative", "There is no folder"),
        (STUDY.format(name="x", trials=7), "/nowhere/\0", "There is no folder"),
        (STUDY.format(name="x", trials=7).replace("python", "python\0"), "HERE", "line "),
        (STUDY.format(name="x", trials=7) + "sampler: nonsense\n", "HERE", "nonsense"),
        (STUDY.format(name="x", trials=7) + "warm_start: [nothing]\n", "HERE", "nothing"),
        ("x" * 300_000, "HERE", "0.3 MB"),
    ],
)
def test_bad_input_gets_a_clear_answer_and_stores_nothing(
    shared_dashboard: Dashboard,
    shared_database: Database,
    tmp_path: Path,
    text: str,
    folder: str,
    expected: str,
) -> None:
    body = urlencode({"text": text, "folder": folder.replace("HERE", str(tmp_path))}).encode()
    status, answer = post(shared_dashboard, "/new", body, {"Content-Length": str(len(body))})
    assert status == 422
    assert expected in answer
    assert list_studies(shared_database) == ()


def test_a_body_that_says_it_is_large_is_refused_before_it_is_sent(
    shared_dashboard: Dashboard,
) -> None:
    status, _ = post(shared_dashboard, "/new", b"", {"Content-Length": "100000000"})
    assert status == 413


def test_a_body_that_says_nothing_of_its_length_is_refused_as_soon_as_it_is_too_large(
    shared_dashboard: Dashboard,
) -> None:
    chunk = b"%x\r\n%s\r\n" % (BODY_MAX + 1, b"x" * (BODY_MAX + 1))
    status, _ = post(shared_dashboard, "/new/check", chunk, {"Transfer-Encoding": "chunked"})
    assert status == 413


def post(
    dashboard: Dashboard, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, str]:
    (cookie,) = dashboard.page.context.cookies(dashboard.server.own_url)
    connection = HTTPConnection(HOST, dashboard.server.port, timeout=20)
    connection.putrequest("POST", path)
    own = {
        "Cookie": f"{cookie['name']}={cookie['value']}",
        "Origin": dashboard.server.url,
        "Content-Type": "application/x-www-form-urlencoded",
    }
    for name, value in (own | dict(headers)).items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    result = answer.status, answer.read().decode()
    connection.close()
    return result
