"""Submitting as people do it: a server in a process, and a laptop that reaches it by HTTP only."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_cli import Tune, study, tune

__all__ = ["tune"]

pytestmark = pytest.mark.slow


@pytest.fixture
def laptop(tune: Tune, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tune]:
    """`tune` with nothing but the address of a server and a token."""
    serving = tune.start("serve", "--port", "0", "--json")
    try:
        assert serving.stdout is not None
        said = json.loads(serving.stdout.readline())
        study(tune, "bowl", "slow")
        made = Tune(tune.folder, "", tmp_path_factory.mktemp("laptop"))
        del made.env["TUNE_DATABASE_URL"]
        made.env |= {"TUNE_SERVER": said["url"], "TUNE_TOKEN": said["token"]}
        yield made
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=60)


def test_a_study_is_submitted_followed_and_left(laptop: Tune) -> None:
    followed = laptop.start("submit", "bowl.yaml", "--name", "left", "--follow", "--json")
    assert followed.stdout is not None
    for line in followed.stdout:
        if json.loads(line).get("running"):
            break
    (laptop.folder / "bowl.py").write_text("raise SystemExit('changed after it was submitted')\n")
    followed.send_signal(signal.SIGINT)
    followed.communicate(timeout=30)
    assert followed.returncode == 130
    ended = _followed(laptop, "left")
    assert ended["counts"]["complete"] == 4
    shown = json.loads(laptop("show", "left", "--json"))
    assert shown["provenance"]["python"]
    assert shown["submission"]["snapshot"]


def _followed(laptop: Tune, name: str) -> dict[str, object]:
    """Wait for the end of a study that was left."""
    for _ in range(100):
        shown = json.loads(laptop("show", name, "--json"))
        if shown["state"] == "finished":
            return shown  # type: ignore[no-any-return]
        time.sleep(0.5)
    raise AssertionError(shown)


def test_run_on_a_server_shows_the_end(laptop: Tune, tmp_path: Path) -> None:
    out = laptop("run", "--server", laptop.env["TUNE_SERVER"], "bowl.yaml", "--json")
    end = json.loads(out.splitlines()[-1])
    assert (end["event"], end["state"], end["exit_code"]) == ("end", "finished", 0)
    again = laptop("submit", "bowl.yaml", code=5)
    assert "`--name`" in again
