"""Several studies in one process, as people run them: a real Postgres, a real Ray with room for
two trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.command_line import Tune, write_study
from tests.support.processes import processes
from tunesvc.db.engine.database import Database

ON_ONE_GPU = "resources: {cpu: 0.1, gpu: 1}\n        pruner: none"
"""The session's Ray has two, wherever this runs."""

pytestmark = pytest.mark.usefixtures("joins")


def events_of(running: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Events that a run with `--json` prints."""
    assert running.stdout is not None
    for line in running.stdout:
        yield json.loads(line)


def drivers_of(running: subprocess.Popen[str]) -> list[int]:
    return [
        p.pid
        for p in processes()
        if p.parent == running.pid and "tunesvc.execution.driver.driver_main" in p.command
    ]


def spans(database: Database) -> dict[str, list[tuple[float, float]]]:
    """When each attempt that has ended began and ended, by study, in the order of their ends."""
    with database.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                """SELECT s.name, extract(epoch FROM a.started_at), extract(epoch FROM a.ended_at)
                   FROM attempts a JOIN trials t USING (trial_id) JOIN studies s USING (study_id)
                   WHERE a.started_at IS NOT NULL AND a.ended_at IS NOT NULL ORDER BY a.ended_at"""
            )
        ).all()
    made: dict[str, list[tuple[float, float]]] = {}
    for name, began, ended in rows:
        made.setdefault(name, []).append((float(began), float(ended)))
    return made


@pytest.mark.slow
def test_studies_share_a_ray_and_one_that_cannot_run_does_not_end_the_others(
    local_tune: Tune, database: Database
) -> None:
    """`first` would take all that there is, several times over, and has the most to do."""
    files = write_three(local_tune)
    write_study(local_tune, "greedy", "slow", "resources: {gpu: 99}")
    running = local_tune.start("run", *files, "greedy.yaml", "-p", "8", "--json")
    said, drivers = [], set()
    for event in events_of(running):
        said.append(event)
        drivers |= set(drivers_of(running)) if event["event"] == "progress" else set()
    _, err = running.communicate(timeout=100)
    assert running.returncode == 6, err
    assert "greedy: a trial asks for" in err
    assert len(drivers) == 1
    assert codes_of(said) == {"first": 0, "second": 0, "third": 0, "greedy": 6}
    assert {event["study"] for event in said} == {None, "first", "second", "third", "greedy"}
    assert_shared(database)


@pytest.mark.slow
def test_studies_share_a_server_and_one_that_is_refused_does_not_keep_it_from_the_others(
    remote_tune: Tune, shared_database: Database
) -> None:
    files = write_three(remote_tune)
    remote_tune("submit", "bowl.yaml", "--trials", "1")
    running = remote_tune.start("run", "bowl.yaml", *files, "-p", "8", "--json")
    said = list(events_of(running))
    _, err = running.communicate(timeout=100)
    assert running.returncode == 5, err
    assert "bowl: a study named 'bowl' exists already" in err
    assert codes_of(said) == {"first": 0, "second": 0, "third": 0, "bowl": 5}
    assert_shared(shared_database)


def write_three(tune: Tune) -> list[str]:
    """Write studies, the first with the most to do; return their files."""
    for name in ("first", "second", "third"):
        write_study(tune, name, "slow", ON_ONE_GPU)
    first = tune.folder / "first.yaml"
    first.write_text(first.read_text().replace("trials: 4", "trials: 20"))
    return ["first.yaml", "second.yaml", "third.yaml"]


def codes_of(said: list[dict[str, Any]]) -> dict[str, int]:
    return {event["study"]: event["exit_code"] for event in said if event["event"] == "end"}


def assert_shared(database: Database) -> None:
    """All trials ran, two at a time, and the other studies did not wait for the first to end."""
    ran = spans(database)
    ran.pop("bowl", None)
    assert {name: len(attempts) for name, attempts in ran.items()} == {
        "first": 20,
        "second": 4,
        "third": 4,
    }
    assert max(ran["second"][-1][1], ran["third"][-1][1]) < ran["first"][-2][1]
    moments = sorted(
        [(began, 1) for spans in ran.values() for began, _ in spans]
        + [(e, -1) for s in ran.values() for _, e in s]
    )
    under_way = [sum(change for _, change in moments[: index + 1]) for index in range(len(moments))]
    assert max(under_way) == 2


@pytest.mark.slow
def test_studies_outlive_their_driver_and_are_resumed_after_ctrl_c(
    local_tune: Tune, database: Database
) -> None:
    for name in ("first", "second"):
        write_study(local_tune, name, "slow", ON_ONE_GPU)
    running = local_tune.start("run", "first.yaml", "second.yaml", "--trials", "9", "--json")
    done: dict[str, int] = {}
    killed = False
    for event in events_of(running):
        if event["event"] == "progress":
            done[event["study"]] = event["complete"]
        if not killed and len(done) == 2 and min(done.values()) >= 1:
            (driver,) = drivers_of(running)
            os.kill(driver, signal.SIGKILL)
            killed = True
            at_kill = dict(done)
        if killed and all(done[name] >= at_kill[name] + 1 for name in done):
            break
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    output = local_tune.here("ls")
    assert output.count("interrupted") == 2
    with database.engine.connect() as connection:
        lost = connection.execute(
            sa.text("SELECT count(*) FROM attempts WHERE state = 'lost'")
        ).scalar_one()
    assert lost == 0, "what ran went on under the next driver"
    local_tune("resume", "first", "second", "--quiet")
    with database.engine.connect() as connection:
        counts = connection.execute(
            sa.text(
                "SELECT s.name, count(*) FROM trials t JOIN studies s USING (study_id) WHERE t.state = 'complete' GROUP BY 1"
            )
        ).all()
    assert dict(map(tuple, counts)) == {"first": 9, "second": 9}


def test_wrong_use_is_reported_before_anything_starts(tune: Tune) -> None:
    write_study(tune, "twin", "train")
    tune.write("other.yaml", (tune.folder / "twin.yaml").read_text())
    assert "twin.yaml and other.yaml are both named 'twin'" in tune.here(
        "run", "twin.yaml", "other.yaml", code=2
    )
    assert "no study" in tune.here("resume", "twin", "missing", code=3)
