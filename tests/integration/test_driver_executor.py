"""The driver's process with a real Ray: which processes end together, and which survive."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import OBJECTIVES, Listener, make_job, make_launch
from tests.support.processes import processes
from tests.support.ray_fixtures import address_of_local_ray
from tunesvc.errors import ExecutorError, UnsatisfiableRequest
from tunesvc.execution.driver.driver_executor import DriverExecutor
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.executor import Finished, Lost, Outcome, Reported, Started, StoppedEarly
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.spec import Resources

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0

Make = Callable[..., DriverExecutor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make an executor for the behaviours of the contract."""
    made: list[DriverExecutor] = []

    def executor(
        *, address: str | None = None, local: LocalResources | None = None, **changes: Any
    ) -> DriverExecutor:
        fields = {"source": str(OBJECTIVES), "entrypoint": "behaviours:act"} | changes
        start = RayLauncher(address, local=local)
        made.append(DriverExecutor(make_job(tmp_path, **fields), start))
        return made[-1]

    yield executor
    for executor_made in made:
        executor_made.close()


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    """Run some code in a process and a group of its own, where no Ray is known."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=kept | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def session(leader: int) -> list[str]:
    """The command lines of a session's processes: a driver leads one, and Ray's processes stay
    in it."""
    return [process.command for process in processes() if process.session == leader]


def wait_until(happened: Callable[[], bool]) -> float:
    """Wait until something has happened; how long that took."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < PATIENCE_S, "did not happen"
        time.sleep(0.05)
    return time.monotonic() - began


def test_the_coordinators_process_needs_no_ray() -> None:
    done = start(
        "import sys, tunesvc.execution.driver.driver_executor; print('ray' in sys.modules)"
    )
    assert done.communicate(timeout=30) == ("False\n", "")


@pytest.mark.slow
def test_a_killed_driver_takes_its_local_ray_along_and_another_one_comes_up(make: Make) -> None:
    executor = make(local=LocalResources(cpu=2))
    listener = Listener(executor)
    launches = [make_launch(number, behaviour="patient") for number in range(2)]
    for launch in launches:
        executor.launch(launch)
    listener.until(lambda heard: all(heard.has(launch, Reported) for launch in launches))
    worker = listener.payloads_of(launches[0], Started)[0].pid
    driver = os.getsid(worker)
    os.kill(driver, signal.SIGKILL)
    while not (trouble := executor.health_error()):
        listener.once(0.05)
    assert trouble == "the Ray driver is gone (ended by SIGKILL); connecting again"
    assert set(executor.heartbeats()) == {launch.attempt for launch in launches}
    listener.until_ended(*launches)
    assert {listener.outcome(launch) for launch in launches} == {
        Lost("its Ray is gone (ended by SIGKILL)", "node")
    }
    assert session(driver) == []
    after = make_launch(2, behaviour="reports")
    assert listener.run(after)[-1] == Finished({"loss": 0.5})
    assert executor.health_error() == ""


def test_attempts_on_a_cluster_outlive_the_driver_and_no_event_is_missed(
    local_ray: None, make: Make
) -> None:
    """Fault 16.

    The session's Ray is a cluster for a driver that joins it by its address. `Listener` checks the
    numbers.
    """
    executor = make(address=address_of_local_ray())
    executor.adopt(1, {})
    listener, launch = Listener(executor), make_launch(behaviour="patient")
    executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    (driver,) = [
        p.pid
        for p in processes()
        if p.parent == os.getpid() and "tunesvc.execution.driver.driver_main" in p.command
    ]
    os.kill(driver, signal.SIGKILL)
    while not executor.health_error():
        listener.once(0.05)
    heard = len(listener.payloads_of(launch))
    listener.until(lambda now: len(now.payloads_of(launch)) > heard + 200)
    assert len(listener.payloads_of(launch, Started)) == 1
    executor.stop(launch.attempt)
    listener.until_ended(launch)
    assert listener.outcome(launch) == StoppedEarly()


PARENT = """
import os, signal
from pathlib import Path
from tests.support.jobs_and_events import Listener, OBJECTIVES, make_job, make_launch
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.execution.executor import Reported, Started
from tunesvc.execution.driver.driver_executor import DriverExecutor
from tunesvc.execution.driver.launcher import RayLauncher

interrupted = []
signal.signal(signal.SIGINT, lambda *_: interrupted.append("SIGINT"))
signal.signal(signal.SIGTERM, lambda *_: interrupted.append("SIGTERM"))
job = make_job(Path({folder!r}), source=str(OBJECTIVES), entrypoint="behaviours:act")
executor = DriverExecutor(job, RayLauncher(local=LocalResources(cpu=1)))
listener, launch = Listener(executor), make_launch(behaviour="patient")
executor.launch(launch)
listener.until(lambda heard: heard.has(launch, Reported))
os.killpg(0, signal.SIGINT)
os.killpg(0, signal.SIGTERM)
heard = len(listener.payloads_of(launch))
listener.until(lambda now: len(now.payloads_of(launch)) > heard + 100)
print(os.getsid(listener.payloads_of(launch, Started)[0].pid), *interrupted, executor.health_error(), flush=True)
while True:
    listener.once(1.0)
"""


@pytest.mark.slow
def test_signals_to_our_group_do_not_reach_the_driver_and_nothing_outlives_us(
    tmp_path: Path,
) -> None:
    parent = start(PARENT.format(folder=str(tmp_path)))
    assert parent.stdout is not None
    try:
        driver, *said = parent.stdout.readline().split()
        assert said == ["SIGINT", "SIGTERM"]
        assert any("gcs_server" in line for line in session(int(driver)))
        assert any("raylet" in line for line in session(int(driver)))
        assert not any("monitor.py" in line for line in session(int(driver)))  # which is not needed
    finally:
        parent.kill()
    assert parent.communicate()[1] == ""
    assert wait_until(lambda: not session(int(driver))) < 10


HEAD = """
from pathlib import Path
from ray.cluster_utils import Cluster
from tests.support.jobs_and_events import Listener, OBJECTIVES, make_job, make_launch
from tunesvc.execution.executor import Reported
from tunesvc.execution.driver.driver_executor import DriverExecutor
from tunesvc.execution.driver.launcher import RayLauncher

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
address = cluster.address
job = make_job(Path({folder!r}), source=str(OBJECTIVES), entrypoint="behaviours:act")
executor = DriverExecutor(job, RayLauncher(address))
listener, lost, after = Listener(executor), make_launch(0, behaviour="patient"), make_launch(1, behaviour="reports")
executor.launch(lost)
listener.until(lambda heard: heard.has(lost, Reported))
cluster.head_node.kill_gcs_server()
listener.until(lambda _: "is gone" in executor.health_error())
print(executor.health_error())
assert list(executor.heartbeats()) == [lost.attempt]
listener.until(lambda _: "cannot be reached" in executor.health_error())
print(executor.health_error())
executor.launch(after)
cluster.shutdown()
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "gcs_server_port": int(address.split(":")[1])}})
listener.until_ended(lost, after)
print(listener.outcome(lost).kind, listener.outcome(lost).message)
print(listener.outcome(after))
executor.close()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_lost_head_is_survived_and_reported_and_its_successor_is_joined(tmp_path: Path) -> None:
    """Fault 16.

    Ray's driver ends itself when it has not reached the head for a while, which is shortened here.
    """
    done = start(HEAD.format(folder=str(tmp_path)), RAY_gcs_rpc_server_reconnect_timeout_s="3")
    stdout, stderr = done.communicate(timeout=120)
    lines = [line for line in stdout.splitlines() if "INFO" not in line]
    assert done.returncode == 0, stdout + stderr
    assert re.match(
        r"the Ray driver is gone \(ended with exit code 1: Failed to connect to GCS", lines[0]
    )
    assert re.match(
        r"Ray cannot be reached: the Ray cluster at .*: Connection refused.*; trying again$",
        lines[1],
    )
    assert lines[2].startswith("node its Ray is gone (ended with exit code 1")
    assert lines[3] == "Finished(metrics={'loss': 0.5})"


def test_a_request_that_can_never_be_met_names_what_there_is(local_ray: None, make: Make) -> None:
    """Fault 17."""
    executor = make(address=address_of_local_ray(), resources=Resources(gpu=99))
    with pytest.raises(UnsatisfiableRequest, match=r"99 GPU.*largest has 2 GPU"):
        executor.slots()
    assert executor.capacity().gpu == 2


def test_a_ray_that_cannot_be_reached_is_an_error_with_a_remedy(make: Make) -> None:
    with pytest.raises(
        ExecutorError, match=r"^the Ray cluster at 127\.0\.0\.1:1 cannot be reached: Connection ref"
    ):
        make(address="127.0.0.1:1")


def test_a_local_ray_that_cannot_start_is_an_error_with_a_remedy(make: Make) -> None:
    """Fault 43."""
    with pytest.raises(
        ExecutorError, match=r"^Ray could not be started on this machine: .*`tune doctor`"
    ):
        make(local=LocalResources(custom={"CPU": 1}))


def test_a_flood_waits_in_the_worker_until_it_is_acknowledged(
    local_ray: None, make: Make, tmp_path: Path
) -> None:
    """Fault 24, for the pipe: what is not acknowledged bounds what is under way."""
    (tmp_path / "flood.py").write_text(
        "def train(*, trial):\n    for step in range(100_000):\n        trial.report(step, loss=0.0)\n"
    )
    executor = make(address=address_of_local_ray(), source=str(tmp_path), entrypoint="flood:train")
    launch, heard = make_launch(), 0
    executor.launch(launch)
    while (events := executor.events(0.5)) or not heard:
        heard = events[-1].seq if events else heard
    assert 0 < heard <= 25_000
    seq, last = heard, None
    while not isinstance(last, Outcome):
        executor.acknowledge({launch.attempt: seq})
        for event in executor.events(1.0):
            assert event.seq == seq + 1
            seq, last = event.seq, event.payload
    assert seq >= 50_000
