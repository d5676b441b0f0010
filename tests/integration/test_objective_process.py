"""`isolation: process`: each attempt in the main thread of a process of its own, on a real Ray."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import (
    OBJECTIVES,
    PATIENCE_S,
    Listener,
    launch_of,
    make_job,
    make_launch,
)
from tests.support.ray_fixtures import address_of_local_ray
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.executor import (
    STUDY,
    AttrSet,
    Checkpointed,
    Failed,
    Finished,
    Lost,
    OutputLogged,
    Reported,
    Started,
    StoppedEarly,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.execution.objectives.objective_process import ProcessRunner
from tunesvc.execution.objectives.pickled_function import pickle_function
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.execution.worker.outbox import Outbox
from tunesvc.spec import Environment

MakeListener = Callable[..., Listener]


@pytest.fixture
def listen(local_ray: None, tmp_path: Path) -> Iterator[MakeListener]:
    """Make an executor for one of the functions in `objectives/own_process.py`."""
    made: list[RayExecutor] = []

    def make(objective: str = "", **changes: Any) -> Listener:
        fields: dict[str, Any] = {
            "source": str(OBJECTIVES),
            "entrypoint": f"own_process:{objective}",
            "environment": Environment(isolation="process"),
        }
        made.append(RayExecutor(make_job(tmp_path, **fields | changes)))
        return Listener(made[-1])

    yield make
    for executor in made:
        executor.close()


@pytest.fixture(scope="module")
def shared(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    """An executor for functions of `objectives/own_process.py` that launches name. Its workers serve
    all tests of this module: each attempt has a process of its own anyway."""
    job = make_job(
        tmp_path_factory.mktemp("shared"),
        source=str(OBJECTIVES),
        entrypoint="own_process:by_name",
        environment=Environment(isolation="process"),
    )
    with closing(RayExecutor(job)) as executor:
        yield executor


@pytest.fixture
def listener(shared: RayExecutor) -> Listener:
    return Listener(shared)


def output(listener: Listener, launch: Any, stream: str = "stdout") -> str:
    pieces = listener.payloads_of(launch, OutputLogged)
    return "".join(piece.text for piece in pieces if piece.stream == stream)


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} lives"
        time.sleep(0.02)


def wait_until_group_is_dead(group: int) -> None:
    """Wait for its last process: a child that was killed with its parent is reaped after it."""
    deadline = time.monotonic() + PATIENCE_S
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.02)


def test_an_objective_handles_signals_in_its_main_thread(listener: Listener) -> None:
    """Case W16. The worker stays, so that the next attempt does not wait for another one."""
    launches = [launch_of("handle_signals"), launch_of("handle_signals")]
    for launch in launches:
        listener.run(launch)
    first, second = (listener.outcome(launch).metrics["pid"] for launch in launches)
    workers = {listener.payloads_of(launch, Started)[0].pid for launch in launches}
    assert first != second
    assert len(workers) == 1


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("exit", Lost("the objective's process ended with exit code 3")),
        (
            "kill",
            Lost("the objective's process was ended by SIGKILL, perhaps because memory ran out"),
        ),
        ("segfault", Lost("the objective's process was ended by SIGSEGV; its stack is in the log")),
        ("close", Lost("the objective's process ended with exit code 1")),
    ],
)
def test_a_death_costs_the_attempt_but_not_the_worker(
    listener: Listener, how: str, outcome: Lost
) -> None:
    dies, ends = launch_of("end", how=how), launch_of("end", how="return")
    listener.run(dies)
    listener.run(ends)
    assert listener.outcome(dies) == outcome
    assert output(listener, dies) == "begins\n"
    assert listener.payloads_of(dies, Reported) == [Reported(0, {"loss": 1.0})]
    assert listener.outcome(ends) == Finished({"loss": 0.5})
    assert listener.payloads_of(dies, Started)[0].pid == listener.payloads_of(ends, Started)[0].pid
    if how == "segfault":
        assert "own_process.py" in output(listener, dies, "stderr")


@pytest.mark.parametrize(
    ("how", "message"), [("raise", "ValueError: broken"), ("exit_politely", "SystemExit: no data")]
)
def test_an_exception_is_a_failure_with_the_users_frames(
    listener: Listener, how: str, message: str
) -> None:
    launch = launch_of("end", how=how)
    listener.run(launch)
    outcome = listener.outcome(launch)
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.message) == ("error", message)
    assert outcome.traceback.count("File ") == 2, "the named function, and the one that calls it"


def test_nothing_outlives_its_attempt(listener: Listener) -> None:
    launches = [launch_of("leave_things_behind"), launch_of("leave_things_behind")]
    for launch in launches:
        listener.run(launch)
        assert listener.outcome(launch) == Finished({"loss": 0.0})
        assert output(listener, launch) == "after the end\n"


def test_questions_are_answered(listen: MakeListener) -> None:
    listener, launch = listen("ask", define_by_run=True), make_launch()
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, SuggestRequested))
    listener.executor.answer(launch.attempt, "x", 0.25)
    listener.until(lambda heard: heard.has(launch, StudyRequested))
    listener.executor.answer(launch.attempt, STUDY, pickle.dumps(({}, {}, [])))
    listener.until_ended(launch)
    assert listener.outcome(launch) == Finished({"loss": 0.25})


def test_a_stop_ends_a_question(listen: MakeListener) -> None:
    listener, launch = listen("ask_in_vain", define_by_run=True), make_launch()
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, SuggestRequested))
    listener.executor.stop(launch.attempt)
    listener.until_ended(launch)
    assert listener.outcome(launch) == StoppedEarly()


def test_a_stop_is_seen_at_the_next_report(listen: MakeListener) -> None:
    listener = listen(entrypoint="behaviours:act")
    launch = make_launch(behaviour="patient")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    listener.executor.stop(launch.attempt)
    listener.until_ended(launch)
    assert listener.outcome(launch) == StoppedEarly()


def test_a_checkpoint_is_kept_and_given_to_the_next_attempt(listener: Listener) -> None:
    first = launch_of("save")
    listener.run(first)
    (saved,) = listener.payloads_of(first, Checkpointed)
    second = make_launch(first.trial_number, attempt=2, checkpoint=saved.path, function="save")
    listener.run(second)
    assert listener.outcome(second) == Finished({"loss": 1.0})
    assert listener.payloads_of(second, AttrSet) == [AttrSet("done", "1")]


def test_a_forked_child_reports(listener: Listener) -> None:
    launch = launch_of("fork")
    listener.run(launch)
    assert listener.payloads_of(launch, Reported) == [Reported(7, {"loss": 0.25})]


def test_reports_that_come_faster_than_they_can_be_relayed_arrive_in_order(
    listener: Listener,
) -> None:
    launch = launch_of("report_often", count=30_000)
    listener.run(launch)
    assert [report.step for report in listener.payloads_of(launch, Reported)] == list(range(30_000))


def test_a_function_of_a_script_travels(listen: MakeListener) -> None:
    offset = 0.5

    def train(x: float) -> float:
        return x + offset

    listener = listen(entrypoint=None, function=pickle_function(train))
    launch = make_launch(x=1.0)
    listener.run(launch)
    assert listener.outcome(launch) == Finished({"loss": 1.5})


def test_a_process_that_cannot_start_is_lost_however_much_is_sent_to_it(tmp_path: Path) -> None:
    """The message is larger than what a socket holds without a reader."""
    job = make_job(tmp_path, function=b"x" * 2**24)
    attempt = Attempt(job, make_launch(), WorkerInfo("here", os.getpid()), Outbox())
    environment = {"PYTHONHOME": str(tmp_path)}
    run = ProcessRunner(job, tmp_path, is_copy=False, environment=environment)
    assert run(attempt) == Lost("the objective's process ended with exit code 1")


def test_rays_functions_reach_the_cluster_of_the_study(listener: Listener) -> None:
    launch = launch_of("call_ray", address=address_of_local_ray())
    listener.run(launch)
    assert listener.outcome(launch) == Finished({"loss": 3.0})


@pytest.mark.parametrize("by", ["executor", "signal"])
def test_a_worker_takes_the_process_and_its_children_with_it(listener: Listener, by: str) -> None:
    launch = launch_of("sleep_for_ever")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    pid = int(listener.payloads_of(launch, Reported)[0].metrics["loss"])
    group = os.getpgid(pid)
    if by == "executor":
        listener.executor.kill(launch.attempt)
    else:
        os.kill(listener.payloads_of(launch, Started)[0].pid, signal.SIGKILL)
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), Lost)
    wait_until_dead(pid)
    wait_until_group_is_dead(group)
