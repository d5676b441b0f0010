"""A study submitted from a browser: its folder or an archive, and what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.accounts import Team, make_team, serving_accounts
from tests.web.conftest import Dashboard, violations
from tunesvc.artifacts.artifact_store import ArtifactStore
from tunesvc.artifacts.unpacking import unpacked
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study, list_studies

STUDY = """name: {name}
entrypoint: train:train
metric: loss
parameters:
  lr: {{type: float, min: 0.1, max: 1.0}}
budget: {{trials: 7}}
"""
TRAIN = "raise SystemExit('it was imported')\ndef train(lr): ...\n"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_ARTIFACTS", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    return make_team(shared_database)


@pytest.fixture(scope="module")
def client(team: Team) -> Iterator[httpx.Client]:
    """A signed-in operator."""
    with serving_accounts(team.database) as (_, client):
        client.headers.update(team.headers("operator"))
        yield client


def write(folder: Path, name: str = "fresh") -> Path:
    files = {
        "study.yaml": STUDY.format(name=name),
        "train.py": TRAIN,
        "lib/größe.py": "x = 1\n",
        ".venv/lib/big.py": "x = 1\n",
        "notes.txt": "left out\n",
        ".tuneignore": "notes.txt\n",
    }
    for at, text in files.items():
        path = folder / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def zipped(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def test_a_folder_is_checked_and_queued(
    dashboard: Dashboard, database: Database, tmp_path: Path
) -> None:
    folder = write(tmp_path / "mine")
    page = dashboard.open("/new/upload")
    page.get_by_label("Folder").set_input_files(folder)
    expect(page.locator("#chosen")).to_contain_text("5 files")  # without .venv
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#verdict")).to_contain_text("Ends after 7 trials")
    expect(page.locator("#verdict")).to_contain_text("4 files of mine")
    assert violations(page) == []
    assert list_studies(database) == ()
    page.get_by_label("Priority").select_option("high")
    page.get_by_role("button", name="Queue it").click()
    expect(page.get_by_role("heading", name="fresh")).to_be_visible()
    study = get_study(database, "fresh")
    assert study.submission is not None
    assert study.submission.snapshot is not None
    assert (study.state, study.submission.priority) == ("queued", "high")
    there = unpacked(ArtifactStore.open(), study.submission.snapshot, tmp_path / "there")
    found = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert found == {".tuneignore", "study.yaml", "train.py", "lib/größe.py"}


def test_an_archive_is_queued_in_the_users_project(client: httpx.Client, team: Team) -> None:
    content = zipped({"mine/study.yaml": STUDY.format(name="packed"), "mine/train.py": TRAIN})
    answer = client.post("/new/upload", files={"archive": ("mine.zip", content)})
    assert answer.status_code == 200, answer.text
    digest = answer.text.split('name="digest" value="')[1][:64]
    fields = {"digest": digest, "text": STUDY.format(name="packed").replace("\n", "\r\n")}
    assert client.post("/new/submit", data=fields).status_code == 303
    study = get_study(team.database, "packed")
    assert (study.project, study.owner) == ("vision", "operator")
    assert study.source_text == STUDY.format(name="packed")


GOOD = {"study.yaml": STUDY.format(name="fresh"), "train.py": TRAIN}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({**GOOD, ".env": "PASSWORD=1"}, ".env would be sent to the server"),
        ({**GOOD, "key.txt": "-----BEGIN PRIVATE KEY-----"}, "key.txt would be sent"),
        ({"other.yaml": "name: x"}, "name one of other.yaml"),
        ({"train.py": TRAIN}, "put the study file there"),
        ({"study.yaml": STUDY.format(name="fresh")}, "there is no <code>train.py</code> in mine"),
        ({**GOOD, "study.yaml": "name: ["}, "line "),
        ({**GOOD, "study.yaml": "<script>alert(1)</script>: 1"}, "&lt;script&gt;"),
        ({**GOOD, "../out.py": "x"}, "would lie outside"),
        ({}, "put the study file there"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_stored(
    client: httpx.Client, team: Team, files: dict[str, str], expected: str
) -> None:
    before = list_studies(team.database)
    for parts in (
        [("archive", ("mine.zip", zipped(files)))],
        [("folder", (f"mine/{name}", text)) for name, text in files.items()],
    ):
        answer = client.post("/new/upload", files=parts or [("folder", ("", b""))])
        assert answer.status_code == 422
        assert "tunesvc-upload-" not in answer.text
        assert "Queue it" not in answer.text
        if parts:
            assert expected in answer.text, answer.text
    assert list_studies(team.database) == before
    assert not list(Path(ArtifactStore.open().url.removeprefix("file://")).rglob("*.tar"))


@pytest.mark.slow
def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(
    client: httpx.Client,
) -> None:
    files = [("folder", (f"mine/{name}", text)) for name, text in GOOD.items()]
    answer = client.post(
        "/new/upload", files=[*files, ("folder", ("mine/data.bin", bytes(101 * 10**6)))]
    )
    assert answer.status_code == 422
    assert "Its largest files: data.bin (101 MB)" in answer.text


def test_viewers_submit_nothing(client: httpx.Client, team: Team) -> None:
    headers = team.headers("viewer")
    files = {"archive": ("mine.zip", zipped(GOOD))}
    assert client.get("/new/upload", headers=headers).status_code == 403
    assert client.post("/new/upload", files=files, headers=headers).status_code == 403
    fields = {"digest": "0" * 64, "text": STUDY.format(name="x")}
    assert client.post("/new/submit", data=fields, headers=headers).status_code == 403


def test_a_form_from_another_site_is_refused(client: httpx.Client, team: Team) -> None:
    with httpx.Client(base_url=client.base_url) as browser:
        own = {"Origin": str(client.base_url).rstrip("/")}
        signed = browser.post("/enter", data={"secret": team.secrets["operator"]}, headers=own)
        assert signed.status_code == 303
        files = {"archive": ("mine.zip", zipped(GOOD))}
        assert browser.post("/new/upload", files=files).status_code == 403
        elsewhere = {"Origin": "https://elsewhere.example"}
        assert browser.post("/new/upload", files=files, headers=elsewhere).status_code == 403
        assert browser.post("/new/upload", files=files, headers=own).status_code == 200
