"""The Ray executor on a real Ray: placement, warm workers, output, environment."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import OBJECTIVES, Listener, launch_of, make_job, make_launch
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.executor import (
    AttrSet,
    Checkpointed,
    Finished,
    OutputLogged,
    Reported,
    Started,
    StoppedEarly,
)
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.spec import Environment, Resources

MakeListener = Callable[..., Listener]


@pytest.fixture
def listen(local_ray: None, tmp_path: Path) -> Iterator[MakeListener]:
    """Make an executor for one of the functions in `objectives/on_ray.py`, and listen to it."""
    made: list[RayExecutor] = []

    def make(function: str = "pid", **changes: Any) -> Listener:
        fields = {"source": str(OBJECTIVES), "entrypoint": f"on_ray:{function}"} | changes
        made.append(RayExecutor(make_job(tmp_path, **fields)))
        return Listener(made[-1])

    yield make
    for executor in made:
        executor.close()


@pytest.fixture(scope="module")
def shared(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    """An executor whose warm workers serve all tests for which one study is as good as another."""
    folder = tmp_path_factory.mktemp("shared")
    job = make_job(folder, source=str(OBJECTIVES), entrypoint="on_ray:by_name")
    with closing(RayExecutor(job)) as executor:
        yield executor


@pytest.fixture
def listener(shared: RayExecutor) -> Listener:
    return Listener(shared)


def test_half_a_gpu_each_lets_four_attempts_share_two_devices(
    listen: MakeListener, tmp_path: Path
) -> None:
    listener = listen("together", resources=Resources(cpu=0.5, gpu=0.5))
    assert listener.executor.slots() == 4
    (tmp_path / "others").mkdir()
    launches = [make_launch(number, others=str(tmp_path / "others")) for number in range(4)]
    for launch in launches:
        listener.executor.launch(launch)
    listener.until_ended(*launches)
    assert sorted(listener.outcome(launch).metrics["device"] for launch in launches) == [0, 0, 1, 1]
    assert sorted(listener.payloads_of(launch, Started)[0].devices for launch in launches) == [
        ("0",),
        ("0",),
        ("1",),
        ("1",),
    ]


def test_custom_resources_bound_the_slots(listen: MakeListener) -> None:
    assert listen(resources=Resources(cpu=0, custom={"licence": 1})).executor.slots() == 2


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        (Resources(gpu=99), r"99 GPU.*largest has 2 GPU"),
        (Resources(cpu=64), r"64 CPU.*largest has 4 CPU"),
        (Resources(cpu=0, custom={"tpu": 1}), r"1 tpu.*largest has 0 tpu"),
        (Resources(gpu=1, workers=3), r"gang of 3.*holds 2"),
    ],
)
def test_a_request_that_can_never_be_met_names_what_there_is(
    listen: MakeListener, resources: Resources, named: str
) -> None:
    """Fault 17."""
    with pytest.raises(UnsatisfiableRequest, match=named):
        listen(resources=resources).executor.slots()


def test_a_gang_runs_tasks_in_its_other_bundle(listen: MakeListener) -> None:
    listener = listen("gang", resources=Resources(cpu=0.5, workers=2))
    launch = make_launch()
    listener.run(launch)
    assert listener.outcome(launch) == Finished({"loss": 1.0})


def test_a_worker_is_warm_for_the_next_attempt(listener: Listener) -> None:
    pids = [listener.run(launch_of("pid"))[-1].metrics["loss"] for _ in range(3)]
    assert pids[0] == pids[1] == pids[2]


def test_isolation_gives_each_gang_a_worker_of_its_own(listen: MakeListener) -> None:
    """A gang needs the placement group of its worker's process."""
    isolated, pair = Environment(isolation="process"), Resources(cpu=0.5, workers=2)
    listener = listen(environment=isolated, resources=pair)
    pids = [listener.run(make_launch(number))[-1].metrics["loss"] for number in range(2)]
    assert pids[0] != pids[1]


def test_a_process_with_threads_left_over_is_not_used_again(listener: Listener) -> None:
    pids = [listener.run(launch_of("leaves_a_thread"))[-1].metrics["loss"] for _ in range(2)]
    assert pids[0] != pids[1]


def test_output_of_the_process_and_its_children_is_kept(listener: Listener) -> None:
    launch = launch_of("prints")
    listener.run(launch)
    text = {"stdout": "", "stderr": ""}
    for piece in listener.payloads_of(launch, OutputLogged):
        text[piece.stream] += piece.text
    assert text["stdout"] == "from python\nfrom a subprocess\n\ufffd\ufffd raw\n"
    assert text["stderr"] == "to stderr\nand its stderr\n"
    assert isinstance(listener.outcome(launch), Finished)


def test_a_flood_of_output_is_bounded_and_the_log_records_what_is_dropped(
    listener: Listener,
) -> None:
    launch = launch_of("floods_stdout")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Started))
    listener.until_ended(launch)
    pieces = listener.payloads_of(launch, OutputLogged)
    kept = sum(len(piece.text) for piece in pieces if piece.stream == "stdout")
    assert kept + sum(piece.left_out for piece in pieces) == 20_000 * 1001 + 8


def test_the_environment_and_the_folder_of_the_study_reach_the_worker(listen: MakeListener) -> None:
    listener = listen("environment", environment=Environment(env={"FROM_THE_STUDY": "yes"}))
    launch = make_launch()
    listener.run(launch)
    assert isinstance(listener.outcome(launch), Finished), listener.outcome(launch)


def test_a_later_attempt_continues_from_the_checkpoint_and_its_step(
    listener: Listener,
) -> None:
    first = launch_of("saves")
    listener.run(first)
    saved = listener.payloads_of(first, Checkpointed)
    assert [checkpoint.step for checkpoint in saved] == [0, 1, 2]
    assert Path(saved[-1].path).read_text() == "3"
    second = make_launch(first.trial_number, attempt=2, checkpoint=saved[-1].path, function="saves")
    listener.run(second)
    assert listener.outcome(second) == Finished({"loss": 3.0})
    assert [report.step for report in listener.payloads_of(second, Reported)] == [3, 4, 5]


def test_what_the_attempt_ran_is_named_by_a_digest(listen: MakeListener, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def train(): return 1")
    (tmp_path / "two.py").write_text("def train(): return 2")
    codes = []
    for name in ("one", "two", "one"):
        listener, launch = listen(source=str(tmp_path), entrypoint=f"{name}:train"), make_launch()
        listener.run(launch)
        codes.append(listener.payloads_of(launch, Started)[0].code)
        listener.executor.close()
    assert codes[0] == codes[2] != codes[1]


def test_a_ray_tune_function_brings_its_resources_unless_the_study_has_some(
    listen: MakeListener, tmp_path: Path
) -> None:
    (tmp_path / "tuned.py").write_text(
        "from ray import tune\n"
        "def objective(config):\n"
        "    tune.report({'loss': len(tune.get_context().get_trial_resources().bundles)})\n"
        "train = tune.with_resources(objective, {'cpu': 1, 'gpu': 1})\n"
    )
    listener, launch = listen(source=str(tmp_path), entrypoint="tuned:train"), make_launch()
    assert listener.executor.slots() == 2
    listener.run(launch)
    assert len(listener.payloads_of(launch, Started)[0].devices) == 1
    assert listener.payloads_of(launch, Reported) == [Reported(1, {"loss": 1.0})]
    assert (
        listen(
            source=str(tmp_path), entrypoint="tuned:train", resources=Resources(cpu=2)
        ).executor.slots()
        == 2
    )


def test_a_child_process_reports_however_it_is_started(listener: Listener) -> None:
    for how in ("fork", "spawn", "forkserver"):
        launch = launch_of("has_a_child_that_reports", how=how, lr=0.5)
        listener.run(launch)
        assert isinstance(listener.outcome(launch), Finished), listener.outcome(launch)
        curve = [
            (report.step, report.metrics.get("loss"))
            for report in listener.payloads_of(launch, Reported)
        ]
        assert curve == [(0, 0.5), (1, 0.25), (2, 0.5 / 3), (3, None)]
        assert [checkpoint.step for checkpoint in listener.payloads_of(launch, Checkpointed)] == [3]
        assert listener.payloads_of(launch, AttrSet) == [AttrSet("child", "true")]


def test_long_reports_of_many_children_are_not_torn(listener: Listener) -> None:
    launch = launch_of("has_many_children_that_report")
    listener.run(launch)
    assert isinstance(listener.outcome(launch), Finished), listener.outcome(launch)
    assert sorted(report.step for report in listener.payloads_of(launch, Reported)) == list(
        range(40)
    )


def test_a_forked_child_ends_by_sigterm_as_outside_ray(listener: Listener) -> None:
    launch = launch_of("terminates_a_child")
    listener.run(launch)
    assert listener.outcome(launch) == Finished({"loss": float(signal.SIGTERM)})


def test_a_stop_reaches_a_child_and_through_it_its_parent(listener: Listener) -> None:
    launch = launch_of("has_a_child_that_goes_on")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    listener.executor.stop(launch.attempt)
    listener.until_ended(launch)
    assert listener.outcome(launch) == StoppedEarly()


def test_a_child_that_comes_to_the_end_of_the_objective_ends_there(listener: Listener) -> None:
    launch = launch_of("forks_by_hand")
    listener.run(launch)
    assert listener.payloads_of(launch, Reported) == [Reported(0, {"loss": 0.5})]
    assert listener.outcome(launch) == Finished({"loss": 7.0})
