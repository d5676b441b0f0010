"""Runs that end early, wait or are watched: Ctrl-C, one GPU for two, a page beside a run."""

from __future__ import annotations

import json
import re
import signal
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from tests.support.command_line import Tune, write_study

MANY = ("--trials", "6", "--parallelism", "2")


def interrupted(tune: Tune) -> tuple[dict[str, Any], str]:
    """Press Ctrl-C once two of six trials are complete; return the end, and what it said."""
    write_study(tune, "slow", "slow", "resources: {cpu: 0.1}\n        pruner: none")
    running = tune.start("run", "slow.yaml", *MANY, "--json")
    assert running.stdout is not None
    for line in running.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["complete"] >= 2 and event["running"]:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    end = json.loads(out.splitlines()[-1])
    assert (end["event"], end["exit_code"]) == ("end", 130)
    return end, err


def trials_of(tune: Tune) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(tune.here("trials", "slow", "-n", "100", "--json"))
    return found


def assert_complete(tune: Tune) -> None:
    trials = trials_of(tune)
    assert sorted(trial["number"] for trial in trials) == list(range(6))
    assert {trial["state"] for trial in trials} == {"complete"}


@pytest.mark.usefixtures("joins")
def test_ctrl_c_keeps_what_is_recorded_and_resume_completes_the_budget_exactly(
    local_tune: Tune,
) -> None:
    """Fault 2, with two trials at a time."""
    end, err = interrupted(local_tune)
    assert end["state"] == "interrupted"
    assert "press Ctrl-C again" in err
    assert [row["state"] for row in json.loads(local_tune.here("ls", "--json"))] == ["interrupted"]
    assert "tune resume slow" in local_tune.here("show", "slow")
    assert "tune resume slow" in local_tune("run", "slow.yaml", code=5)
    kept = {trial["number"] for trial in trials_of(local_tune) if trial["state"] == "complete"}
    local_tune("resume", "slow", "--quiet")
    assert_complete(local_tune)
    assert len(kept) >= 2
    assert all(
        trial["attempts"] == 1 for trial in trials_of(local_tune) if trial["number"] in kept
    ), "what was done is not done again"


@pytest.mark.slow
def test_ctrl_c_leaves_a_study_on_its_server_which_completes_the_budget_exactly(
    remote_tune: Tune,
) -> None:
    end, err = interrupted(remote_tune)
    assert end["state"] == "running"
    assert "slow continues without this terminal" in err
    assert "tune show slow --follow" in remote_tune("run", "slow.yaml", code=5)
    assert "6 complete" in remote_tune("show", "slow", "--follow")
    assert_complete(remote_tune)
    assert {trial["attempts"] for trial in trials_of(remote_tune)} == {1}


@pytest.mark.slow
def test_ctrl_c_while_ray_starts_says_that_it_is_interrupted_and_how_to_continue(
    local_tune: Tune,
) -> None:
    running = local_tune.start("run", "bowl.yaml")
    assert running.stdout is not None
    for line in running.stdout:
        if "waiting for Ray" in line:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    assert "bowl interrupted before its first trial" in out
    assert "tune resume bowl" in out


@pytest.mark.slow
def test_a_gpu_has_one_owner_and_a_second_command_names_it_while_it_waits(local_tune: Tune) -> None:
    local_tune.env["TUNE_LOCAL_GPUS"] = "1"
    for name in ("first", "second"):
        write_study(local_tune, name, "owns_its_gpu", "resources: {cpu: 0, gpu: 1}")
    running = {name: local_tune.start("run", f"{name}.yaml") for name in ("first", "second")}
    ended = {name: process.communicate(timeout=200) for name, process in running.items()}
    assert [process.returncode for process in running.values()] == [0, 0], ended
    said = "".join(part for parts in ended.values() for part in parts)
    owner = re.search(
        r"waiting for this machine's GPUs, in use by study '(\w+)' \(process (\d+)\)", said
    )
    assert owner is not None, said
    assert running[owner[1]].pid == int(owner[2])
    for name in running:
        assert {row["state"] for row in json.loads(local_tune.here("trials", name, "--json"))} == {
            "complete"
        }


@pytest.mark.slow
def test_a_dashboard_is_served_beside_a_run_and_ends_with_it_on_ctrl_c(local_tune: Tune) -> None:
    write_study(local_tune, "slow", "slow", "resources: {cpu: 0.1}\n        pruner: none")
    running = local_tune.start("run", "slow.yaml", "--trials", "500", "--json", "--dashboard")
    assert running.stdout is not None
    address = ""
    for line in running.stdout:
        event = json.loads(line)
        if event["event"] == "note" and event["kind"] == "dashboard":
            address = event["text"]
        if event["event"] == "progress" and event["complete"] >= 2:
            break
    browser = build_opener(HTTPCookieProcessor())
    with browser.open(address, timeout=20) as page:
        assert "slow" in page.read().decode()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130
    with pytest.raises(URLError, match="refused"):
        browser.open(address, timeout=20)
