"""Accounts, projects and alerts from an administrator's command line."""

from __future__ import annotations

import json
from typing import Any

from tests.support.command_line import Tune
from tests.support.stored_studies import fill
from tunesvc.db.engine.database import Database
from tunesvc.util.user import whoami


def read(desk: Tune, *words: str) -> Any:
    return json.loads(desk.here(*words, "--json"))


def test_users_are_added_shared_to_disabled_and_forgotten(desk: Tune) -> None:
    assert desk.here("user", "add", "dora").startswith("tune_link_")
    assert desk.here("user", "link", "dora").startswith("tune_link_")
    desk.here("user", "share", "dora", "--weight", "2", "--limit", "gpus=4")
    desk.here("user", "disable", "dora")
    (dora,) = [one for one in read(desk, "user", "list") if one["name"] == "dora"]
    assert dora["disabled_at"]
    assert (dora["weight"], dora["limits"]) == (2.0, {"gpus": 4.0})
    desk.here("user", "enable", "dora")
    assert '"dora"' in desk.here("user", "data", "dora")
    assert "erased dora" in desk.here("user", "forget", "dora", "--yes")
    assert [one["name"] for one in read(desk, "user", "list") if one["name"] == "dora"] == []
    assert "dora" in desk.here("user", "disable", "dora", code=1)
    assert "last administrator" in desk.here("user", "disable", whoami(), code=2)
    assert read(desk, "audit")
    assert desk.here("audit", "--user", whoami())


def test_without_studies_the_next_command_is_that_of_the_place(desk: Tune) -> None:
    assert f"`tune {'submit' if desk.is_remote else 'run'} FILE` runs it" in desk.here("ls")


def test_tokens_are_made_listed_and_revoked(desk: Tune) -> None:
    issued = read(desk, "token", "create", "--label", "ci", "--days", "2")
    assert issued["user"] == whoami()
    (token,) = [one for one in read(desk, "token", "list") if one["label"] == "ci"]
    number = str(token["token_id"])
    assert f"revoked token {number}" in desk.here("token", "revoke", number)
    desk.here("token", "revoke", "99", code=1)


def test_projects_have_members_studies_and_shares(desk: Tune, database: Database) -> None:
    fill(database, 1, name="bowl")
    desk.here("project", "add", "vision", "--weight", "3")
    desk.here("user", "add", "dora")
    assert "dora is operator of vision" in desk.here(
        "project", "grant", "vision", "dora", "operator"
    )
    assert [one["role"] for one in read(desk, "project", "members", "vision")] == ["operator"]
    desk.here("project", "remove", "vision", "dora")
    assert read(desk, "project", "members", "vision") == []
    desk.here("project", "share", "vision", "--limit", "trials=4")
    assert "bowl belongs to vision" in desk.here("project", "move", "bowl", "vision")
    (vision,) = read(desk, "project", "list")
    assert (vision["weight"], vision["limits"], vision["studies"]) == (3.0, {"trials": 4.0}, 1)
    desk.here("project", "move", "bowl", "nothing", code=1)


def test_alerts_are_added_listed_and_removed(desk: Tune) -> None:
    assert "tune alert test 1" in desk.here("alert", "add", "json://127.0.0.1:9/secret")
    (alert,) = read(desk, "alert", "list")
    assert "secret" not in json.dumps(alert)
    desk.here("alert", "test", "1", code=1)
    desk.here("alert", "remove", "1")
    assert read(desk, "alert", "list") == []
