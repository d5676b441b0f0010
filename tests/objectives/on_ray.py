"""Objectives for the Ray executor's own tests."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def pid(*, trial) -> float:
    return float(os.getpid())


def together(others: str, *, trial) -> dict[str, float]:
    """Waits until four attempts run at once; says which device it has."""
    Path(others, str(trial.number)).touch()
    while len(list(Path(others).iterdir())) < 4:
        time.sleep(0.01)
    assert trial.devices == (os.environ["CUDA_VISIBLE_DEVICES"],)
    return {"loss": 0.0, "device": float(trial.devices[0])}


def gang(*, trial) -> float:
    """Runs a task in the second bundle of its gang."""
    import ray

    @ray.remote(num_cpus=0.5)
    def elsewhere() -> int:
        return os.getpid()

    assert trial.placement_group is not None
    assert ray.util.get_current_placement_group() == trial.placement_group
    assert len(trial.placement_group.bundle_specs) == 2
    assert ray.get(elsewhere.remote()) != os.getpid()
    return 1.0


def prints(*, trial) -> float:
    """Writes to both streams, by Python, by a subprocess, and bytes that are no text."""
    print("from python")
    print("to stderr", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo from a subprocess; echo and its stderr >&2"], check=True)
    os.write(1, b"\xff\x00 raw\n")
    return 0.0


def floods_stdout(*, trial) -> float:
    for _ in range(20_000):
        print("x" * 1000)
    print("the end")
    return 0.0


def environment() -> dict[str, float]:
    assert os.environ["FROM_THE_STUDY"] == "yes"
    assert Path.cwd() == Path(__file__).parent
    return {"loss": 0.0}


def kills_its_worker(*, trial) -> None:
    (trial.directory / "scratch").touch()
    trial.set_user_attr("folder", str(trial.directory))
    trial.report(0, loss=1.0)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _reports(trial, lr: float) -> None:
    for epoch in range(3):
        trial.report(epoch, loss=lr / (epoch + 1))
    trial.report(3, **{f"metric_{n}": 1.0 for n in range(500)})  # a line that a pipe would tear
    trial.checkpoint(__file__)
    trial.set_user_attr("child", True)


def has_a_child_that_reports(how: str, lr: float, *, trial) -> None:
    process = multiprocessing.get_context(how).Process(target=_reports, args=(trial, lr))
    process.start()
    process.join()
    assert process.exitcode == 0


def has_many_children_that_report(*, trial) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_one_fold, [(trial, fold) for fold in range(40)])


def _one_fold(trial, fold: int) -> None:
    trial.report(fold, **{f"metric_{n}": float(fold) for n in range(300)}, loss=float(fold))


def has_a_child_that_goes_on(*, trial) -> None:
    """Reports from a child for as long as nothing stops it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(_goes_on, trial).result()


def _goes_on(trial) -> None:
    for step in itertools.count():
        trial.report(step, loss=1.0)
        time.sleep(0.01)


def by_name(function: str, *, trial, **params) -> object:
    return globals()[function](**params, trial=trial)


def forks_by_hand(*, trial) -> float:
    """Its child comes to the end of the objective too."""
    if (child := os.fork()) == 0:
        trial.report(0, loss=0.5)
        sys.exit(7)
    return float(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def terminates_a_child(*, trial) -> float:
    """Ends a child that waits, as `Pool.terminate` does; returns the signal that ended it."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    time.sleep(0.3)  # the child is asleep
    child.terminate()
    child.join(20)
    if child.exitcode is None:
        child.kill()
    return float(-(child.exitcode or 0))


def dies(how: str) -> None:
    print(f"why it {how}", flush=True)
    if how == "leaves":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(10)


def exits(*, trial) -> None:
    sys.exit(3)


def leaves_a_thread(*, trial) -> float:
    threading.Thread(target=time.sleep, args=(60,)).start()
    return float(os.getpid())


def out_of_memory(*, trial) -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch.cuda names it."""

    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def allocates_past_its_limit(*, trial) -> float:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        return float(len(bytearray(2**30)))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def flood(reports: int, *, trial) -> float:
    for step in range(reports):
        trial.report(step, loss=float(step))
    return 0.0


def saves(*, trial) -> float:
    """Counts on from what an earlier attempt saved."""
    restored = trial.restored()
    start = int(restored.read_text()) if restored else 0
    state = Path("state.txt")
    for step in range(start, start + 3):
        state.write_text(str(step + 1))
        trial.report(None, loss=float(step))
        trial.checkpoint(state)
    state.unlink()
    return float(start)
