"""Objectives that need a process of their own, for `isolation: process`."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any

import optuna

from tunesvc import Trial


def by_name(function: str, *, trial: Trial, **params: Any) -> object:
    """Do what the launch names."""
    return globals()[function](**params, trial=trial)


def handle_signals(*, trial: Trial) -> dict[str, float]:
    """Do what only a main thread may, and say where it ran."""
    assert threading.current_thread() is threading.main_thread()
    arrived: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, _: arrived.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not arrived:
        time.sleep(0.01)
    loop = asyncio.get_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    return {"loss": 0.0, "pid": float(os.getpid())}


def end(how: str, *, trial: Trial) -> float:
    """Report, print, and end in one of many ways."""
    print("begins")
    trial.report(0, loss=1.0)
    if how == "raise":
        raise ValueError("broken")
    if how == "exit":
        os._exit(3)
    if how == "exit_politely":
        sys.exit("no data")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "close":
        os.closerange(3, 100)
    return 0.5


def leave_things_behind(*, trial: Trial) -> float:
    """Leave a thread, a child process and an `atexit` function, and change directory and path."""
    atexit.register(print, "after the end")
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    if os.fork() == 0:
        time.sleep(60)
    (trial.directory / "scratch").write_text("x")
    os.chdir("/")
    sys.path.clear()
    return 0.0


def ask(trial: optuna.Trial) -> float:
    """Return what the sampler suggests, and check that the study is there."""
    value = trial.suggest_float("x", 0.0, 1.0)
    assert trial.suggest_float("x", 0.0, 1.0) == value
    return value + len(trial.study.trials)


def ask_in_vain(trial: optuna.Trial) -> float:
    """Ask a question that is not answered before the stop."""
    return trial.suggest_float("x", 0.0, 1.0)


def save(*, trial: Trial) -> float:
    """Continue after the last checkpoint."""
    restored = trial.restored()
    done = int(restored.read_text()) if restored else 0
    trial.report(done, loss=1.0)
    state = trial.directory / "state.txt"
    state.write_text(str(done + 1))
    trial.checkpoint(state)
    state.unlink()
    trial.set_user_attr("done", done)
    return float(done)


def fork(*, trial: Trial) -> float:
    """Report from a forked child."""
    child = os.fork()
    if child == 0:
        trial.report(7, loss=0.25)
        os._exit(0)
    os.waitpid(child, 0)
    return 0.0


def report_often(count: int, *, trial: Trial) -> None:
    """Report faster than a worker can relay."""
    for step in range(count):
        trial.report(step, loss=float(step))


def call_ray(address: str, *, trial: Trial) -> float:
    """Run a task on the cluster that runs the study."""
    import ray

    @ray.remote(num_cpus=0)
    def add(a: int, b: int) -> int:
        return a + b

    total = ray.get(add.remote(1, 2))
    assert ray.get_runtime_context().gcs_address == address
    return float(total)


def sleep_for_ever(*, trial: Trial) -> None:
    """Never look at a request to stop, with a child that does not either."""
    if os.fork() == 0:
        time.sleep(600)
    trial.report(0, loss=float(os.getpid()))
    time.sleep(600)
