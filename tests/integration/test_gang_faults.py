"""Gangs over several logical nodes of a shared cluster: what breaks, and what is left afterwards."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import OBJECTIVES, PATIENCE_S, Listener, make_job, make_launch
from tests.support.processes import processes
from tests.support.ray_clusters import Driver, Drivers, Elsewhere, RayCluster
from tunesvc.data.prepared_data import PreparedData
from tunesvc.execution.executor import (
    AttemptId,
    Checkpointed,
    Finished,
    Launch,
    Lost,
    OutputLogged,
    Reported,
    Started,
)
from tunesvc.execution.gang.gang_reaper import REAP_S
from tunesvc.execution.objectives.entrypoint import load_object
from tunesvc.execution.ray.dispatch_state import PollingTimeouts
from tunesvc.preparation.data_store import DataStore
from tunesvc.preparation.preparing import Preparation, prepare
from tunesvc.spec import Resources
from tunesvc.spec.sections.data_keys import Data

pytestmark = pytest.mark.slow
TIMEOUTS = PollingTimeouts(poll_s=0.5, retry_s=0.1, adoption_s=5.0, killed_s=2.0, check_s=0.3)
ON_TWO_NODES = Resources(cpu=1, workers=2, strategy="STRICT_SPREAD")

Join = Callable[..., Driver]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Elsewhere]:
    """Two nodes of one CPU; a test adds the one that it takes away."""
    process = Elsewhere(RayCluster)
    for _ in range(2):
        process.call("add_node", 1)
    yield process
    process.call("shutdown")
    process.end()


@pytest.fixture
def join(cluster: Elsewhere, tmp_path: Path) -> Iterator[Join]:
    """Have a driver join the cluster with a gang's objective. Afterwards nothing is left there."""
    address, used = cluster.call("address"), []

    def make(**changes: Any) -> Driver:
        fields = {
            "source": str(OBJECTIVES),
            "entrypoint": "gangs:train",
            "resources": ON_TWO_NODES,
        }
        process = Elsewhere(Drivers)
        used.append(Driver(process, make_job(tmp_path, **fields | changes), address, TIMEOUTS))
        return used[-1]

    yield make
    watcher = make()
    watcher.adopt(99, {})
    watcher.close()
    until(lambda: not watcher.names())
    for driver in used:
        driver.process.end()


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.1)


def start(driver: Driver, launch: Launch, steps: int) -> Listener:
    """Launch a trial as the first coordinator, and wait for so many checkpoints."""
    listener = Listener(driver)
    driver.adopt(1, {})
    driver.launch(launch)
    return listener.until(lambda heard: len(heard.payloads_of(launch, Checkpointed)) >= steps)


def members(folder: Path, attempt: int = 1) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = json.loads((folder / f"members-{attempt}").read_text())
    return described


def hold(folder: Path, *, before: int) -> None:
    """Let the training wait before a step, and its other process for ever."""
    for name in (f"wait-{before}", "hold"):
        (folder / name).touch()


def go_on(folder: Path) -> None:
    for path in [*folder.glob("wait-*"), folder / "hold"]:
        path.unlink()


def next_attempt(listener: Listener, launch: Launch) -> Launch:
    saved = listener.payloads_of(launch, Checkpointed)[-1]
    return replace(launch, attempt=AttemptId(launch.attempt.trial_id, 2), checkpoint=saved.path)


def labels(listener: Listener, launch: Launch) -> set[str]:
    """Return the processes whose output is in the trial's log."""
    text = "".join(one.text for one in listener.payloads_of(launch, OutputLogged))
    return {line.split("]")[0] for line in text.splitlines() if line.startswith("[bundle")}


def all_ended(described: list[dict[str, Any]]) -> bool:
    living = {process.pid for process in processes()}
    return not any(member["pid"] in living for member in described)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedData:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(OBJECTIVES))
    spec, store = Data(source="on_data:people", target="bought"), DataStore.open()
    load = partial(load_object, folder=OBJECTIVES, label="data")
    manifest = prepare(Preparation(spec, OBJECTIVES, store, load, ""), lambda _: None)
    return manifest.prepared(store.address)


def test_a_process_on_another_node_has_the_data_and_reports_and_restores(
    join: Join, data: PreparedData, tmp_path: Path
) -> None:
    """The reporter is not on the node of the trial's process, which is killed in between."""
    driver = join(data=data)
    launch = make_launch(folder=str(tmp_path), steps=4, reporter=1, has_data=True)
    (tmp_path / "wait-2").touch()
    listener = start(driver, launch, 2)
    first, second = described = members(tmp_path)
    assert first["node"] != second["node"]
    (started,) = listener.payloads_of(launch, Started)
    assert set(started.bundle_nodes) == {first["node"], second["node"]}
    listener.until(lambda heard: len(labels(heard, launch)) == 2)
    assert first["data"]["rows"] == second["data"]["rows"] > 1000
    assert first["data"]["sum"] != second["data"]["sum"]
    assert not first["data"]["copied"]
    assert not second["data"]["copied"]
    os.kill(listener.payloads_of(launch, Started)[0].pid, signal.SIGKILL)
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), Lost)
    until(lambda: all_ended(described))
    (tmp_path / "wait-2").unlink()
    again = next_attempt(listener, launch)
    listener.run(again)
    assert listener.outcome(again) == Finished({"loss": 0.25, "first": 2.0})
    assert [report.step for report in listener.payloads_of(again, Reported)] == [2, 3]


def test_a_gang_that_loses_a_node_continues_on_another(
    join: Join, cluster: Elsewhere, tmp_path: Path
) -> None:
    added = cluster.call("add_node", 1, {"extra": 1})
    driver = join()
    launch = make_launch(folder=str(tmp_path), steps=4)
    hold(tmp_path, before=2)
    listener, lost = start(driver, launch, 2), added
    described = members(tmp_path)
    if added not in [member["node"] for member in described[1:]]:
        lost = described[1]["node"]
    cluster.call("remove_node", lost)
    if lost != added:
        cluster.call("add_node", 1)
    listener.until_ended(launch)
    outcome = listener.outcome(launch)
    assert isinstance(outcome, Lost)
    assert outcome.kind == "node", outcome
    go_on(tmp_path)
    again = next_attempt(listener, launch)
    listener.run(again)
    assert listener.outcome(again) == Finished({"loss": 0.25, "first": 2.0})


def test_a_process_that_stands_still_ends_with_its_gang(join: Join, tmp_path: Path) -> None:
    driver = join()
    launch = make_launch(folder=str(tmp_path), steps=4)
    hold(tmp_path, before=1)
    listener = start(driver, launch, 1)
    described = members(tmp_path)
    os.kill(described[1]["pid"], signal.SIGSTOP)
    driver.kill(launch.attempt)
    listener.until_ended(launch)
    until(lambda: all_ended(described))


def test_a_gang_whose_coordinator_was_killed_goes_on_and_is_taken_over(
    join: Join, tmp_path: Path
) -> None:
    driver = join()
    launch = make_launch(folder=str(tmp_path), steps=4)
    (tmp_path / "wait-2").touch()
    listener = start(driver, launch, 2)
    described = members(tmp_path)
    driver.process.signal(signal.SIGKILL)
    (tmp_path / "wait-2").unlink()
    listener.take_over(join(), token=2)
    listener.until_ended(launch)
    assert listener.outcome(launch) == Finished({"loss": 0.25, "first": 0.0})
    assert [report.step for report in listener.payloads_of(launch, Reported)] == [0, 1, 2, 3]
    listener.until(lambda _: all_ended(described))


@pytest.mark.parametrize("also", ["nothing", "its reaper"])
def test_a_gang_whose_coordinator_and_process_were_killed_is_removed(
    join: Join, tmp_path: Path, also: str
) -> None:
    """Fault 62."""
    driver, watcher = join(), join()
    launch = make_launch(folder=str(tmp_path), steps=4)
    hold(tmp_path, before=2)
    listener = start(driver, launch, 2)
    described = members(tmp_path)
    if also == "its reaper":
        (reaper,) = (one for one in processes() if one.command.startswith("ray::GangReaper"))
        os.kill(reaper.pid, signal.SIGKILL)
    driver.process.signal(signal.SIGKILL)
    os.kill(listener.payloads_of(launch, Started)[0].pid, signal.SIGKILL)
    until(lambda: not watcher.names())
    until(lambda: all_ended(described))


def test_a_gang_that_was_taken_over_is_kept(join: Join, tmp_path: Path) -> None:
    """Fault 62: as long as its process lives, its reaper leaves it alone."""
    driver = join()
    launch = make_launch(folder=str(tmp_path), steps=4)
    (tmp_path / "wait-2").touch()
    listener = start(driver, launch, 2)
    driver.process.signal(signal.SIGKILL)
    listener.take_over(join(), token=2)
    deadline_s = time.monotonic() + 2 * REAP_S
    while time.monotonic() < deadline_s:
        listener.once(0.1)
    assert not all_ended(members(tmp_path))
    (tmp_path / "wait-2").unlink()
    listener.until_ended(launch)
    assert listener.outcome(launch) == Finished({"loss": 0.25, "first": 0.0})


def test_gangs_wait_for_each_other_whole(join: Join, tmp_path: Path) -> None:
    """Three gangs of two coordinators on nodes for one."""
    finished = 0
    folders = [tmp_path / name for name in ("a", "b")]
    listeners = []
    for index, folder in enumerate(folders):
        folder.mkdir()
        driver = join(key=f"key-of-{tmp_path.name}-{index}", checkpoint_root=str(folder))
        driver.adopt(1, {})
        listeners.append(Listener(driver))
    launches = [make_launch(number, folder=str(folders[number % 2])) for number in range(3)]
    for number, launch in enumerate(launches):
        listeners[number % 2].executor.launch(launch)
    deadline = time.monotonic() + 2 * PATIENCE_S
    while finished < 3:
        assert time.monotonic() < deadline
        for listener in listeners:
            listener.once(0.1)
        ended = [listeners[number % 2].has(one, Finished) for number, one in enumerate(launches)]
        finished = sum(ended)
    for listener in listeners:
        listener.executor.close()
