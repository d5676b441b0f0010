"""Submitting as people do it: a server in a process, and a laptop that reaches it by HTTP only."""

from __future__ import annotations

import json
import signal

import pytest

from tests.support.command_line import Tune, write_study

pytestmark = pytest.mark.slow


def test_a_study_is_submitted_followed_left_and_followed_again(remote_tune: Tune) -> None:
    write_study(remote_tune, "bowl", "slow")
    followed = remote_tune.start("submit", "bowl.yaml", "--name", "left", "--follow", "--json")
    assert followed.stdout is not None
    for line in followed.stdout:
        if json.loads(line).get("running"):
            break
    changed = "raise SystemExit('changed after it was submitted')\n"
    (remote_tune.folder / "bowl.py").write_text(changed)
    followed.send_signal(signal.SIGINT)
    followed.communicate(timeout=30)
    assert followed.returncode == 130
    end = json.loads(remote_tune("show", "left", "--follow", "--json").splitlines()[-1])
    assert (end["event"], end["state"], end["exit_code"]) == ("end", "finished", 0)
    assert end["counts"]["complete"] + end["counts"]["pruned"] == 4
    shown = json.loads(remote_tune("show", "left", "--json"))
    assert shown["provenance"]["python"]
    assert shown["submission"]["snapshot"]


def test_a_name_that_is_taken_is_refused_with_what_to_do(tune: Tune) -> None:
    assert "tune show bowl" in tune.here("submit", "bowl.yaml")
    refusal = tune.here("submit", "bowl.yaml", code=5)
    assert "`--name`" in refusal
    assert "tune rm bowl" in refusal
    tune.here("stop", "bowl")
