"""Joining clusters, in processes of their own: a process has one Ray at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run some code in a fresh process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


CONNECT = """
from tunesvc.errors import ExecutorError
from tunesvc.execution.ray.cluster_connection import connect
try:
    connect({address!r})
except ExecutorError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "127.0.0.1:1",
            "the Ray cluster at 127.0.0.1:1 cannot be reached: Connection refused. Is it running",
        ),
        (
            "ray://127.0.0.1:10001",
            "'ray://127.0.0.1:10001' is an address of Ray Client, which would end all trials with "
            "its server: write HOST:PORT of the cluster's head",
        ),
        ("somewhere", "'somewhere' is no address of a Ray cluster: write HOST:PORT"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_an_error_with_a_remedy(
    address: str, message: str
) -> None:
    done = python(CONNECT.format(address=address))
    assert done.stdout.startswith(message), done.stdout + done.stderr
    assert done.stderr == ""


def test_the_address_may_come_from_the_environment() -> None:
    done = python(CONNECT.format(address=None), RAY_ADDRESS="127.0.0.1:1")
    assert "127.0.0.1:1 cannot be reached" in done.stdout


LOCAL = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.support.jobs_and_events import Listener, OBJECTIVES, make_job, make_launch
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.execution.executor import Reported, StoppedEarly
from tunesvc.execution.ray.ray_executor import RayExecutor

interrupted = []
signal.signal(signal.SIGINT, lambda *_: interrupted.append("SIGINT"))
signal.signal(signal.SIGTERM, lambda *_: interrupted.append("SIGTERM"))
job = make_job(Path({folder!r}), source=str(OBJECTIVES), entrypoint="behaviours:act")
executor = RayExecutor(job, local=LocalResources(cpu=1))
listener, launch = Listener(executor), make_launch(behaviour="patient")
executor.launch(launch)
listener.until(lambda heard: heard.has(launch, Reported))
os.killpg(0, signal.SIGINT)
heard = len(listener.payloads_of(launch))
listener.until(lambda now: len(now.payloads_of(launch)) > heard + 20)
os.kill(os.getpid(), signal.SIGTERM)
executor.stop(launch.attempt)
listener.until_ended(launch)
assert listener.outcome(launch) == StoppedEarly()
executor.close()
print(*interrupted)
"""


def test_an_interrupt_from_the_terminal_leaves_the_workers_to_us_and_the_screen_stays_clean(
    tmp_path: Path,
) -> None:
    """Ctrl-C reaches the whole foreground group:

    Ray's processes and workers must go on until we end them.
    """
    code = LOCAL.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    )
    try:
        stdout, stderr = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (stdout, stderr) == ("SIGINT SIGTERM\n", "")
    assert process.returncode == 0


CLUSTER = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from ray.cluster_utils import Cluster
from tests.support.jobs_and_events import Listener, make_job, make_launch
from tunesvc.execution.executor import Finished, Lost, Started
from tunesvc.execution.ray.ray_executor import RayExecutor

quick = {{"health_check_initial_delay_ms": 0, "health_check_period_ms": 200, "health_check_failure_threshold": 3}}
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 0, "_system_config": quick}})
node = cluster.add_node(num_cpus=1)
folder = Path({folder!r})
executor = RayExecutor(make_job(folder, entrypoint="mine:train"), address=cluster.address)
listener, first, second = Listener(executor), make_launch(0, wait=0), make_launch(1, wait=600)
listener.run(first)
assert listener.outcome(first) == Finished({{"loss": 1.0}}), listener.outcome(first)
executor.launch(second)
listener.until(lambda heard: heard.has(second, Started))
cluster.remove_node(node, allow_graceful=False)
listener.until_ended(second)
print(listener.outcome(second))
print(os.environ.get("RAY_AUTH_MODE"))
executor.close()
cluster.shutdown()
"""


@pytest.mark.slow
def test_code_travels_to_a_cluster_and_a_lost_node_is_reported(tmp_path: Path) -> None:
    """Fault 15, as the executor sees it."""
    (tmp_path / "mine.py").write_text(
        "import os, time\n"
        "from helper import NUMBER\n"
        "def train(wait):\n"
        f"    assert os.getcwd() != {str(tmp_path)!r}\n"
        "    time.sleep(wait)\n"
        "    return NUMBER\n"
    )
    (tmp_path / "helper.py").write_text("NUMBER = 1\n")
    done = python(CLUSTER.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path)))
    # Ray tells of other clusters on this machine, such as that of another test process
    complaints = [line for line in done.stderr.splitlines() if "previous Ray address" not in line]
    assert (done.returncode, complaints) == (0, []), done.stdout + done.stderr
    # a token that lies in the home directory is not used where the cluster asks for none
    lost = """Lost(message="the worker's node went away", kind='node')"""
    assert done.stdout.splitlines()[-2:] == [lost, "None"]


FOLDERS = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from ray.cluster_utils import Cluster
from tests.support.jobs_and_events import Listener, make_job, make_launch
from tunesvc.execution.ray.actors import RayBackend
from tunesvc.execution.ray.cluster_connection import Connection, connect
from tunesvc.execution.ray.ray_executor import RayExecutor

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 2}})
folder, connection = Path({folder!r}), connect(cluster.address)
for name in ("a", "b"):
    job = make_job(folder, source=str(folder / name), entrypoint="mine:train", is_snapshot=True, key=name)
    backend = RayBackend(job, Connection(owned=False, remote=True))
    executor = RayExecutor(job, backend=backend)
    executor.adopt(1, {{}})
    for number in range(3):  # the second one meets the worker that was killed
        listener, launch = Listener(executor), make_launch(number)
        listener.run(launch)
        if number != 1:
            print(name, listener.outcome(launch).metrics)
        (folder / name / "mine.py").write_text("raise SystemExit")
        for worker in backend.names():
            backend.end_named(worker)
    executor.close()
connection.close()
cluster.shutdown()
"""


@pytest.mark.slow
def test_one_driver_gives_each_job_its_own_folder_whole_and_as_it_was(tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / ".gitignore").write_text("data.txt\n")
        (folder / "data.txt").write_text(str(number))
        (folder / "mine.py").write_text("def train(): return float(open('data.txt').read())\n")
    done = python(FOLDERS.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path)))
    expected = ["a {'loss': 1.0}"] * 2 + ["b {'loss': 2.0}"] * 2
    assert done.stdout.splitlines() == expected, done.stderr


TOKENS = """
import os, subprocess, sys
os.environ["RAY_AUTH_MODE"] = "token"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
environment = {{name: value for name, value in os.environ.items() if not name.startswith("RAY_")}}
for token in ({token!r}, "wrong-token-0000000000000000000000"):
    code = {connect!r}.format(address=cluster.address) + "import ray; print(ray.is_initialized())"
    subprocess.run([sys.executable, "-c", code], env=environment | {{"RAY_AUTH_TOKEN": token}}, timeout=60)
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token_gets_it_or_says_so() -> None:
    token = "0123456789abcdef0123456789abcdef"
    done = python(
        TOKENS.format(token=token, connect=CONNECT.replace("!r", "!r")), RAY_AUTH_TOKEN=token
    )
    lines = [line for line in done.stdout.splitlines() if "INFO" not in line]
    assert lines[0] == "True", done.stdout + done.stderr
    assert "asks for a token: put its own into RAY_AUTH_TOKEN" in lines[1]
    assert lines[2] == "False"
