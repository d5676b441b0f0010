"""Faults of running attempts. Numbers are those of the list of faults."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.jobs_and_events import OBJECTIVES, Listener, make_job, make_launch
from tunesvc import Pruned, Trial
from tunesvc.errors import BadReport
from tunesvc.execution.attempt.failures import EntrypointError, outcome_of
from tunesvc.execution.executor import (
    AttrSet,
    Failed,
    Finished,
    Launch,
    Lost,
    OutputLogged,
    Reported,
    Started,
    StoppedEarly,
)
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.trial import MAX_STEP, as_metrics

MakeListener = Callable[..., Listener]


@pytest.fixture
def listen(local_ray: None, tmp_path: Path) -> Iterator[MakeListener]:
    """Make an executor for a function in `objectives/on_ray.py`, or for another job, and listen
    to it."""
    made: list[RayExecutor] = []

    def make(function: str = "", **changes: Any) -> Listener:
        fields = {"source": str(OBJECTIVES), "entrypoint": f"on_ray:{function}"} | changes
        made.append(RayExecutor(make_job(tmp_path, **fields)))
        return Listener(made[-1])

    yield make
    for executor in made:
        executor.close()


# --- 13, 20, 21: workers that die, hang or do not listen
# ------------------------------------------------


def test_a_killed_worker_is_lost_after_all_its_events_and_its_slot_is_free(
    listen: MakeListener,
) -> None:
    """Fault 13."""
    listener, first, second = listen("kills_its_worker"), make_launch(0), make_launch(1)
    for launch in (first, second):
        listener.run(launch)
        assert [report.step for report in listener.payloads_of(launch, Reported)] == [0]
        assert isinstance(listener.outcome(launch), Lost)
        assert "process died" in listener.outcome(launch).message
    assert (
        listener.payloads_of(first, Started)[0].pid != listener.payloads_of(second, Started)[0].pid
    )
    listener.until(
        lambda _: not any(folder_of(listener, launch).exists() for launch in (first, second))
    )


def test_a_death_is_reported_by_code_or_signal_after_all_output(listen: MakeListener) -> None:
    """Fault 13."""
    listener = listen("dies")
    ends = {
        "leaves": "ended with exit code 3",
        "SIGSEGV": "was ended by SIGSEGV (segmentation fault); its stack is in the log",
        "SIGTERM": "was ended by SIGTERM",
        "SIGKILL": "died without a trace, as by SIGKILL",
    }
    for number, (how, end) in enumerate(ends.items()):
        launch = make_launch(number, how=how)
        listener.run(launch)
        assert listener.outcome(launch).message.startswith(f"the worker's process {end}")
        text = "".join(piece.text for piece in listener.payloads_of(launch, OutputLogged))
        assert text.startswith(f"why it {how}\n")
        assert ("in dies" in text) == (how == "SIGSEGV")


def test_a_swallowed_stop_ends_in_a_kill_within_seconds(listen: MakeListener) -> None:
    """Fault 21; 20 is the same with a limit as the reason."""
    listener, launch = listen(entrypoint="behaviours:act"), make_launch(behaviour="deaf")
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    listener.executor.stop(launch.attempt)
    heard = len(listener.payloads_of(launch, Reported))
    listener.until(lambda now: len(now.payloads_of(launch, Reported)) > heard + 5)
    listener.executor.kill(launch.attempt)
    listener.until_ended(launch)
    assert listener.outcome(launch) == Lost("the worker was killed")


def test_a_program_dies_with_its_killed_worker_grandchildren_included(listen: MakeListener) -> None:
    """Fault 21, for programs that ignore SIGTERM."""
    script = """
        trap '' TERM
        sleep 300 &
        echo "{\\"user_attrs\\": {\\"folder\\": \\"$TUNE_DIRECTORY\\"}, \\"step\\": $!, \\"loss\\": $$}" > $TUNE_REPORTS
        while true; do touch $TUNE_DIRECTORY/$(date +%N); done
    """
    listener, launch = listen(entrypoint=None, command=("sh", "-c", script)), make_launch()
    listener.executor.launch(launch)
    listener.until(lambda heard: heard.has(launch, Reported))
    report = listener.payloads_of(launch, Reported)[0]
    pids = [report.step, int(report.metrics["loss"])]
    assert all(alive(pid) for pid in pids)
    listener.executor.stop(launch.attempt)
    listener.once(0.3)
    listener.executor.kill(launch.attempt)
    listener.until_ended(launch)
    assert isinstance(listener.outcome(launch), Lost)
    listener.until(lambda _: not any(alive(pid) for pid in pids))
    listener.until(lambda _: not folder_of(listener, launch).exists())


def folder_of(listener: Listener, launch: Launch) -> Path:
    """Return the worker's folder for scratch files, which the attempt sent as an attribute."""
    (attribute,) = listener.payloads_of(launch, AttrSet)
    return next(
        path
        for path in Path(json.loads(attribute.value)).parents
        if path.name.startswith("tunesvc-")
    )


def test_an_exit_is_a_failure_unless_a_stop_was_asked_for(listen: MakeListener) -> None:
    listener, launch = listen("exits"), make_launch()
    listener.run(launch)
    assert listener.outcome(launch).kind == "error"
    assert listener.outcome(launch).message == "SystemExit: 3"
    assert outcome_of(SystemExit(0), stop_requested=True) == StoppedEarly()
    assert outcome_of(KeyboardInterrupt(), stop_requested=True) == StoppedEarly()


# --- 18: memory
# ---------------------------------------------------------------------------------------------


def test_running_out_of_gpu_memory_is_classed_and_the_process_given_up(
    listen: MakeListener,
) -> None:
    """Fault 18."""
    listener, first, second = listen("out_of_memory"), make_launch(0), make_launch(1)
    listener.run(first)
    listener.run(second)
    assert listener.outcome(first).kind == "gpu_oom"
    assert "Tried to allocate 20 GiB" in listener.outcome(first).message
    assert (
        listener.payloads_of(first, Started)[0].pid != listener.payloads_of(second, Started)[0].pid
    )


def test_running_out_of_main_memory_ends_one_trial_and_is_classed(listen: MakeListener) -> None:
    """Fault 19."""
    listener, first, second = listen("allocates_past_its_limit"), make_launch(0), make_launch(1)
    listener.run(first)
    assert listener.outcome(first).kind == "host_oom"
    assert "MemoryError" in listener.outcome(first).message
    listener.run(second)
    assert (
        listener.payloads_of(first, Started)[0].pid != listener.payloads_of(second, Started)[0].pid
    )


def _wrapped(cause: BaseException) -> BaseException:
    """As trainers of frameworks raise it."""
    error = RuntimeError("training failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "host_oom"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 MiB"), "gpu_oom"),
        (RuntimeError("CUDA error: out of memory"), "gpu_oom"),
        (RuntimeError("HIP out of memory. Tried to allocate 2 MiB"), "gpu_oom"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "gpu_oom"),
        (RuntimeError("XPU out of memory. Tried to allocate 2 MiB"), "gpu_oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), "gpu_oom"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "gpu_oom"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"),
            "gpu_oom",
        ),
        (RuntimeError("OOM when allocating tensor with shape[8] on device:GPU:0"), "gpu_oom"),
        (RuntimeError("OOM when allocating tensor with shape[8] on device:CPU:0"), "host_oom"),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), "gpu_oom"),
        (RuntimeError("Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"), "gpu_oom"),
        (RuntimeError("Out of memory error on GPU 0. Cannot allocate 2 MB"), "gpu_oom"),
        (RuntimeError("UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"), "gpu_oom"),
        (MemoryError("std::bad_alloc: out_of_memory: CUDA error at rmm"), "gpu_oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "host_oom"),
        (OSError(12, "Cannot allocate memory"), "host_oom"),
        (RuntimeError("std::bad_alloc"), "host_oom"),
        (_wrapped(RuntimeError("CUDA error: out of memory")), "gpu_oom"),
        (RuntimeError("the GPU has no memory of it"), "error"),
        (RuntimeError("shapes differ"), "error"),
        (BadReport("metric loss is None"), "bad_report"),
        (EntrypointError("no module"), "entrypoint"),
    ],
)
def test_an_exception_is_classed(error: BaseException, kind: str) -> None:
    outcome = outcome_of(error, stop_requested=False)
    assert isinstance(outcome, Failed)
    assert outcome.kind == kind


def test_a_traceback_shows_the_users_frames_only(tmp_path: Path, listen: MakeListener) -> None:
    (tmp_path / "mine.py").write_text(
        "def train(*, trial):\n    helper(trial)\n\n\ndef helper(trial):\n    trial.report(0, loss='x')\n"
    )
    listener, launch = listen(source=str(tmp_path), entrypoint="mine:train"), make_launch()
    listener.run(launch)
    shown = listener.outcome(launch).traceback
    assert "in train\n    helper(trial)" in shown
    assert "in helper\n    trial.report(0, loss='x')" in shown
    assert "/tunesvc/" not in shown
    assert listener.outcome(launch).kind == "bad_report"


def test_an_exception_that_cannot_be_shown_is_still_an_outcome() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

    outcome = outcome_of(Hostile(), stop_requested=False)
    assert isinstance(outcome, Failed)
    assert "Hostile" in outcome.message


def test_a_message_that_no_database_takes_is_cleaned_and_shortened() -> None:
    """Fault 39, in errors."""
    outcome = outcome_of(ValueError("a\x00b\udcff" + "x" * 100_000), stop_requested=False)
    assert isinstance(outcome, Failed)
    assert outcome.message.startswith("ValueError: a\ufffdb\ufffd")
    assert len(outcome.message) < 5_000
    outcome.message.encode()


# --- 22 to 26: what is reported
# ---------------------------------------------------------------------------------


class Recorded:
    """A channel that remembers."""

    stop_requested = False

    def __init__(self) -> None:
        self.reports: list[tuple[int, dict[str, float]]] = []

    def report(self, step: int, metrics: Any) -> None:
        self.reports.append((step, dict(metrics)))

    def checkpoint(self, path: Path, step: int | None) -> None:
        raise AssertionError("nothing is saved")


class Tensor:
    """Stand-in for a tensor of one element."""

    def item(self) -> float:
        return 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_pass_as_they_are(value: float) -> None:
    """Fault 22."""
    channel = Recorded()
    Trial(channel).report(0, loss=value)
    assert repr(channel.reports) == repr([(0, {"loss": value})])
    assert repr(as_metrics(value, ("loss",))) == repr({"loss": value})


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        Fraction(1, 2),
        np.float32(0.5),
        np.float64(0.5),
        np.array(0.5),
        np.array([0.5]),
        Tensor(),
    ],
)
def test_whatever_is_one_number_is_taken(value: object) -> None:
    """Fault 23, the good ones."""
    channel = Recorded()
    Trial(channel).report(0, loss=value)
    assert channel.reports == [(0, {"loss": 0.5})]
    assert as_metrics(value, ("loss",)) == {"loss": 0.5}


@pytest.mark.parametrize(
    "value",
    ["0.5", b"0.5", True, np.True_, np.array([1.0, 2.0]), object(), 1j, 10**400, [0.5], {"a": 1}],
)
def test_a_value_that_is_not_one_number_is_refused_by_name(value: object) -> None:
    """Fault 23, the bad ones."""
    with pytest.raises(BadReport, match="metric loss is "):
        Trial(Recorded()).report(0, loss=value)


def test_a_metric_of_none_and_a_report_of_nothing_are_refused() -> None:
    """Fault 23."""
    with pytest.raises(BadReport, match="metric loss is None"):
        Trial(Recorded()).report(0, loss=None)
    with pytest.raises(BadReport, match="has no metric"):
        Trial(Recorded()).report(0)


@pytest.mark.parametrize("step", [-1, 2**63, 1.5, float("nan"), "1", True, None.__class__])
def test_a_step_that_cannot_be_stored_is_refused(step: Any) -> None:
    """Fault 26."""
    with pytest.raises(BadReport, match="step"):
        Trial(Recorded()).report(step, loss=1.0)


@pytest.mark.parametrize("step", [0, 2**31, MAX_STEP, np.int64(7), 3.0])
def test_large_steps_and_numpy_steps_are_taken(step: int) -> None:
    """Fault 26."""
    channel = Recorded()
    Trial(channel).report(step, loss=1.0)
    assert channel.reports == [(int(step), {"loss": 1.0})]


def test_far_too_many_reports_are_thinned_and_the_log_records_it(listen: MakeListener) -> None:
    """Fault 24."""
    many = 200_000
    listener, launch = listen("flood"), make_launch(reports=many)
    listener.run(launch)
    steps = [report.step for report in listener.payloads_of(launch, Reported)]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, many - 1)
    assert isinstance(listener.outcome(launch), Finished)
    left_out = sum(
        int(p.text.split()[1])
        for p in listener.payloads_of(launch, OutputLogged)
        if "reports came faster" in p.text
    )
    assert left_out > 0
    assert len(steps) + left_out == many


# --- 40: the entrypoint
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entrypoint", "message"),
    [
        ("nowhere:train", "no module 'nowhere'"),
        ("on_ray:prnts", "did you mean `prints`?"),
        ("absent.py:train", "there is no file"),
    ],
)
def test_a_missing_entrypoint_fails_at_once_and_names_it(
    listen: MakeListener, entrypoint: str, message: str
) -> None:
    """Fault 40."""
    listener, launch = listen(entrypoint=entrypoint), make_launch()
    listener.run(launch)
    assert listener.outcome(launch).kind == "entrypoint"
    assert message in listener.outcome(launch).message


def test_pruned_is_no_failure() -> None:
    assert outcome_of(Pruned("enough"), stop_requested=False) == StoppedEarly()


def alive(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")
