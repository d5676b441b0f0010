"""The command line on a server does what it does on the database, and knows which one is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.cli import app
from tunesvc.client.stored_login import StoredLogin, store_login
from tunesvc.db.engine.database import Database
from tunesvc.web import DashboardServer


@pytest.fixture(scope="module")
def server(shared_database: Database) -> Iterator[DashboardServer]:
    fill(shared_database, 12, name="bowl")
    Simulation(shared_database, make_spec(name="done", seed=1)).run()
    with DashboardServer(shared_database, port=0) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without login, and an environment without a server."""
    for name in ("TUNE_SERVER", "TUNE_TOKEN", "TUNE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def tune(*words: str, code: int = 0) -> str:
    """Return both outputs of a command."""
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


AGO = re.compile(r"[\d.]+(s|m) ago| +")
"""Ages, and what their width does to columns."""
ALWAYS = 7
"""So many of these commands run in every run of the tests."""
READS = [
    "ls --tag nothing",
    "show done",
    "show done 3 --json",
    "show done 99",
    "best done --yaml",
    "trials done --where x<0.5 --sort -value",
    "trials done --csv -n 3",
    "trials done --where y<1",
    "logs done 1",
    "explain done 4 --json",
    "requests done",
    "stop done 2",
    "ls",
    "best done --test",
    "best done --again",
    "apply done",
    "apply done --trial 1",
    "apply nothing --train",
    "ls --json -n 1",
    "show done --json",
    "show done 3",
    "show nothing",
    "best done",
    "best done --json",
    "trials done --state complete --sort best -n 2",
    "trials done --json -n 3",
    "logs done 1 --json --follow",
    "explain done",
    "replay done",
    "replay done --pruner asha --json",
    "replay done --sampler nothing",
    "export done",
    "export done --format json",
    "export done --where number>99",
    "report done --out {out}.html",
    "export done --out {out}.parquet",
    "checkpoint done",
    "extend done --trials 0",
]


@pytest.mark.parametrize(
    "command",
    [
        *READS[:ALWAYS],
        *(pytest.param(command, marks=pytest.mark.slow) for command in READS[ALWAYS:]),
    ],
)
def test_a_command_prints_the_same(
    server: DashboardServer,
    shared_database: Database,
    home: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = command.format(out="page").split()
    local = CliRunner().invoke(app, [*words, "--database-url", url_of(shared_database)])
    files = {file.name: file.read_bytes() for file in home.glob("page.*")}
    monkeypatch.setenv("TUNE_TOKEN", server.new_token())
    remote = CliRunner().invoke(app, [*words, "--server", server.url])
    assert remote.exit_code == local.exit_code, remote.output
    assert AGO.sub(" ", remote.stdout).split() == AGO.sub(" ", local.stdout).split()
    assert remote.stderr == local.stderr
    assert {file.name for file in home.glob("page.*")} == files.keys()


def test_the_server_is_the_named_one_then_that_of_the_login(
    server: DashboardServer, shared_database: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = server.new_token()
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr("tunesvc.client.remote.connection.RETRY_S", 0.0)
    store_login(StoredLogin().with_token(server.url, token))
    assert "bowl" in tune("ls"), "the login's"
    monkeypatch.setenv("TUNE_SERVER", nowhere)
    assert f"{nowhere} cannot be reached" in _unwrapped(tune("ls", code=8))
    assert "bowl" in tune("--server", server.url, "ls"), "the token is the login's"
    assert "bowl" in tune("ls", "--server", server.url)
    assert "bowl" in tune("ls", "--database-url", url_of(shared_database))
    both = ("ls", "--database-url", url_of(shared_database), "--server", server.url)
    assert "either --server or --database-url" in _unwrapped(tune(*both, code=2))


def test_a_token_is_sent_to_its_own_server_only(server: DashboardServer, home: Path) -> None:
    store_login(StoredLogin().with_token("https://tune.example.org", server.new_token()))
    assert "valid token" in _unwrapped(tune("--server", server.url, "ls", code=8))


def test_a_server_is_examined_from_outside(
    server: DashboardServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_TOKEN", server.new_token())
    assert f"{server.url} answers" in tune("doctor", "--server", server.url)
    monkeypatch.setenv("TUNE_TOKEN", "wrong")
    assert "Unauthenticated" in tune("doctor", "--server", server.url, code=1)


def _unwrapped(text: str) -> str:
    """Return a message without the frame and the line breaks that typer adds."""
    return re.sub(r"[│╭╮╰╯─\s]+", " ", text)
