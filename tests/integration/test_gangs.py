"""Gangs of plain Ray actors on a real Ray: their trial in every process, deaths, and what is left."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import OBJECTIVES, Listener, make_job, make_launch
from tunesvc.execution.executor import (
    AttemptId,
    AttrSet,
    Checkpointed,
    Finished,
    Launch,
    Lost,
    OutputLogged,
    Reported,
    Started,
    StoppedEarly,
)
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.spec import Resources

MakeListener = Callable[..., Listener]


@pytest.fixture
def listen(local_ray: None, tmp_path: Path) -> Iterator[MakeListener]:
    """Make an executor for an objective with a gang of two. Afterwards no gang is left."""
    made: list[RayExecutor] = []

    def make(function: str = "train", **changes: Any) -> Listener:
        fields = {
            "source": str(OBJECTIVES),
            "entrypoint": f"gangs:{function}",
            "resources": Resources(cpu=1, gpu=0.5, workers=2),
        }
        made.append(RayExecutor(make_job(tmp_path, **fields | changes)))
        return Listener(made[-1])

    yield make
    for executor in made:
        executor.close()
    until(lambda: not living_groups())


def living_groups() -> list[str]:
    from ray.util.placement_group import placement_group_table

    return [
        group["placement_group_id"]
        for group in placement_group_table().values()
        if group["state"] != "REMOVED"
    ]


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def members(folder: Path, attempt: int = 1) -> list[dict[str, Any]]:
    """Return what the processes of a gang have told of themselves."""
    path = folder / f"members-{attempt}"
    until(path.exists)
    until(lambda: path.stat().st_size)
    described: list[dict[str, Any]] = json.loads(path.read_text())
    return described


def lines_of(listener: Listener, launch: Launch, stream: str) -> list[str]:
    """Return the sorted lines of a gang's processes in the trial's log."""
    logged = listener.payloads_of(launch, OutputLogged)
    text = "".join(one.text for one in logged if one.stream == stream)
    return sorted(line for line in text.splitlines() if line.startswith("["))


def test_the_trial_works_in_every_process_of_its_gang(listen: MakeListener, tmp_path: Path) -> None:
    listener, launch = listen(), make_launch(folder=str(tmp_path), steps=3)
    listener.run(launch)
    assert listener.outcome(launch) == Finished({"loss": 1 / 3, "first": 0.0})
    assert [report.step for report in listener.payloads_of(launch, Reported)] == [0, 1, 2]
    assert [saved.step for saved in listener.payloads_of(launch, Checkpointed)] == [0, 1, 2]
    for stream, does in (("stdout", "begins at 0"), ("stderr", "ends")):
        lines = lines_of(listener, launch, stream)
        assert [line.split("] ")[0] for line in lines] == ["[bundle 0", "[bundle 1"]
        # Ray chooses the bundle of an actor
        said = sorted(line.split("] ")[1] for line in lines)
        assert said == [f"member {rank} {does}" for rank in range(2)]
    (started,) = listener.payloads_of(launch, Started)
    assert started.bundle_nodes == tuple(member["node"] for member in members(tmp_path))
    pids = {member["pid"] for member in members(tmp_path)}
    assert len(pids) == 2
    assert all(len(member["devices"]) == 1 for member in members(tmp_path))
    listener.until(lambda _: not living_groups())
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_gang_that_loses_a_process_continues_from_its_checkpoint(
    listen: MakeListener, tmp_path: Path
) -> None:
    listener, launch = listen(), make_launch(folder=str(tmp_path), steps=5)
    for name in ("wait-3", "hold"):
        (tmp_path / name).touch()
    listener.executor.launch(launch)
    listener.until(lambda heard: len(heard.payloads_of(launch, Checkpointed)) == 3)
    os.kill(members(tmp_path)[1]["pid"], signal.SIGKILL)
    listener.until_ended(launch)
    lost = listener.outcome(launch)
    assert isinstance(lost, Lost)
    assert lost.message.startswith("a process of the gang died: Member, process ")
    assert lost.message.endswith(", without a trace, as by SIGKILL")
    for name in ("wait-3", "hold"):
        (tmp_path / name).unlink()
    saved = listener.payloads_of(launch, Checkpointed)[-1]
    second = replace(launch, attempt=AttemptId(launch.attempt.trial_id, 2), checkpoint=saved.path)
    listener.run(second)
    assert listener.outcome(second).metrics["first"] == 3.0
    assert [report.step for report in listener.payloads_of(second, Reported)] == [3, 4]


@pytest.mark.slow
def test_a_gang_stops_as_a_whole(listen: MakeListener, tmp_path: Path) -> None:
    listener, launch = listen(), make_launch(folder=str(tmp_path), steps=50)
    for name in ("wait-2", "hold"):
        (tmp_path / name).touch()
    listener.executor.launch(launch)
    listener.until(lambda heard: len(heard.payloads_of(launch, Reported)) == 2)
    pids = [member["pid"] for member in members(tmp_path)]
    listener.executor.stop(launch.attempt)
    (tmp_path / "wait-2").unlink()
    listener.until_ended(launch)
    assert listener.outcome(launch) == StoppedEarly()
    listener.until(lambda _: not living_groups())
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.slow
def test_ray_train_runs_in_the_gang_and_continues_from_its_checkpoint(
    listen: MakeListener,
) -> None:
    listener, launch = listen("with_ray_train"), make_launch(steps=3)
    listener.run(launch)
    assert listener.outcome(launch) == Finished()
    assert [report.step for report in listener.payloads_of(launch, Reported)] == [0, 1, 2]
    saved = listener.payloads_of(launch, Checkpointed)
    assert [one.step for one in saved] == [0, 1, 2]
    assert listener.payloads_of(launch, AttrSet)[-1] == AttrSet("attempt", '"of 1"')
    second = replace(
        launch,
        attempt=AttemptId(launch.attempt.trial_id, 2),
        checkpoint=saved[-1].path,
        params={"steps": 5},
    )
    listener.run(second)
    assert [report.step for report in listener.payloads_of(second, Reported)] == [3, 4]
    assert listener.payloads_of(second, AttrSet)[-1] == AttrSet("attempt", '"of 2"')
    listener.until(lambda _: not named_actors())


def named_actors() -> list[dict[str, str]]:
    import ray

    actors: list[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)
    return actors
