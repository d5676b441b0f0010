"""Signing in and managing accounts from the command line, at a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.accounts import Team, make_team, serving_accounts
from tunesvc.cli import app
from tunesvc.cli.exits import ExitCode
from tunesvc.client.stored_login import load_login
from tunesvc.db.engine.database import Database


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    return make_team(shared_database)


@pytest.fixture(scope="module")
def address(team: Team) -> Iterator[str]:
    with serving_accounts(team.database) as (server, _):
        yield server.url


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    for name in ("TUNE_TOKEN", "TUNE_SERVER", "TUNE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def tune(*words: str, stdin: str | None = None, code: int = 0) -> str:
    """Run a command; return its output, of an error too."""
    result = CliRunner().invoke(app, words, input=stdin)
    assert result.exit_code == code, result.output
    return result.output


def tune_json(*words: str) -> Any:
    return json.loads(tune(*words, "--json"))


def test_commands_use_the_server_from_login_to_logout(team: Team, address: str) -> None:
    assert "not signed in" in tune("login")
    shown = tune("login", f"{address}/", "--token-stdin", stdin=team.secrets["manager"] + "\n")
    assert f"signed in at {address} as manager" in shown
    assert team.secrets["manager"] not in shown
    assert f"{address} as manager" in tune("login")
    issued = tune_json("token", "create", "--label", "ci", "--days", "2")
    assert issued["user"] == "manager"
    (token,) = [one for one in tune_json("token", "list") if one["label"] == "ci"]
    assert "ci" in tune("token", "list")
    assert f"revoked token {token['token_id']}" in tune("token", "revoke", str(token["token_id"]))
    assert [one["name"] for one in tune_json("project", "list")] == ["vision"]
    assert "outsider is viewer of vision" in tune(
        "project", "grant", "vision", "outsider", "viewer"
    )
    assert "outsider" in tune("project", "members", "vision")
    tune("project", "remove", "vision", "outsider")
    assert "may not administer" in tune("user", "list", code=ExitCode.SERVER)
    assert "forgot" in tune("logout")
    assert load_login().server is None


def test_an_administrator_adds_people_who_sign_in_by_a_link(
    team: Team, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune("login", address, "--token-stdin", stdin=team.secrets["admin"])
    link = tune("user", "add", "dora").strip()
    tune("project", "add", "sound", "--weight", "2")
    tune("project", "grant", "sound", "dora", "operator")
    tune("logout")
    monkeypatch.setenv("TUNE_TOKEN", link)
    assert "as dora" in tune("login", address)
    assert "was used" in tune("login", address, code=ExitCode.SERVER)
    monkeypatch.delenv("TUNE_TOKEN")
    assert [one["name"] for one in tune_json("project", "list")] == ["sound"]
    tune("logout")
    tune("login", address, "--token-stdin", stdin=team.secrets["admin"])
    tune("user", "disable", "dora")
    users = {one["name"]: one for one in tune_json("user", "list")}
    assert users["dora"]["disabled_at"]
    assert users["dora"]["roles"] == {"sound": "operator"}
    tune("user", "enable", "dora")
    assert tune("user", "link", "dora").startswith("tune_link_")
    entries = tune_json("audit", "--limit", "1000")
    assert {"sign in", "POST /users", "PATCH /users/{user}"} <= {one["action"] for one in entries}
    assert "sign in" in tune("audit", "--user", "dora")


@pytest.mark.parametrize("secret", ["", "two words", "tune_token_wrong", "ü"])
def test_a_wrong_token_is_not_stored(address: str, secret: str) -> None:
    code = ExitCode.SERVER if secret.startswith("tune_") else ExitCode.FAILED
    said = " ".join(tune("login", address, "--token-stdin", stdin=secret, code=code).split())
    assert ("the token is not valid" if secret.startswith("tune_") else "is no token") in said
    assert load_login().tokens == {}


def test_without_a_server_accounts_are_those_of_the_database(database_url: str) -> None:
    local = ("--database-url", database_url)
    link = tune("user", "add", "root-of-it", "--admin", *local)
    assert link.startswith("tune_link_")
    assert "last administrator" in tune("user", "disable", "root-of-it", *local, code=2)
    entries = tune_json("audit", *local)
    assert [(one["action"], one["subject"], one["outcome"]) for one in entries] == [
        ("disable user", "root-of-it", None),
        ("add administrator", "root-of-it", None),
    ]
    assert "have no account: `tune user add" in tune("token", "list", *local, code=1)
