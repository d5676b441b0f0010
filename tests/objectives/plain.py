"""Objectives for the tests of whole studies: plain functions, generators, Optuna's and Ray
Tune's forms."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path


def quadratic(x: float, n: int, *, trial) -> float:
    """Five reports towards (x - 0.3)²."""
    loss = (x - 0.3) ** 2
    for step in range(5):
        trial.report(step, loss=loss + 1 / (1 + step))
    print(f"x is {x}")
    return loss


def conditional(model: str, depth: int = 0, lr: float = 0.0) -> float:
    """Takes only the parameters that exist."""
    return depth / 9 if model == "tree" else lr


def two_metrics(x: float) -> dict[str, float]:
    """A trade-off."""
    return {"loss": x, "ms": 10 - 9 * x, "size": 3.0}


def epochs(x: float) -> Iterator[dict[str, float]]:
    """Yields a metric per step."""
    for step in range(4):
        yield {"loss": x + 1 / (1 + step)}


def optuna_style(trial) -> float:
    """An Optuna objective as it is."""
    import optuna

    x = trial.suggest_float("x", 0.0, 1.0)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    for step in range(4):
        trial.report(x + 1 / (1 + step), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return x if kind == "a" else x + 1


def ray_style(config) -> None:
    """A Ray Tune function as it is."""
    import tempfile

    from ray import tune

    start = 0
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            start = int(Path(folder, "step").read_text())
    for step in range(start, 4):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step").write_text(str(step + 1))
            tune.report(
                {"loss": config["x"] + 1 / (1 + step)},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def killed_once(x: float, *, trial) -> float:
    """Its worker is killed after the second step of the first attempt; the next one goes on from
    the checkpoint."""
    restored = trial.restored()
    start = int(Path(restored, "step").read_text()) if restored else 0
    folder = Path(f"state-{trial.number}-{trial.attempt}")
    folder.mkdir(exist_ok=True)
    for step in range(start, 4):
        trial.report(step, loss=x + step)
        Path(folder, "step").write_text(str(step + 1))
        trial.checkpoint(folder)
        if step == 1 and trial.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return x


def devices(x: float, *, trial) -> dict[str, float]:
    """Which device it was given, as a metric; waits until four trials run side by side."""
    Path(f"running-{trial.number}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("running-*"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    return {
        "loss": x,
        "device": float(trial.devices[0]),
        "together": float(len(list(Path().glob("running-*")))),
    }


def unruly(x: float, *, trial) -> float:
    """Trial 0 never says a word, trial 1 never stops although it is asked to, the others behave."""
    if trial.number == 0:
        while True:
            time.sleep(3600)
    step = 0
    while trial.number == 1:
        with contextlib.suppress(BaseException):  # Pruned, and KeyboardInterrupt as well
            trial.report(step, loss=x)
        step += 1
        time.sleep(0.1)
    return x


def resumable(x: float, *, trial) -> float:
    """Nine steps from 1 on; each leaves a checkpoint, from which another attempt goes on. Earlier
    trials are better.

    So what is paused first is what is promoted when others have come, in whatever order two workers
    bring them. The steps are long beside the time that a verdict takes.
    """
    restored = trial.restored()
    start = int(Path(restored).read_text()) if restored else 0
    for step in range(start + 1, 10):
        trial.report(step, loss=trial.number + x + 1 / step)
        saved = Path(f"step-{trial.number}")
        saved.write_text(str(step))
        trial.checkpoint(saved)
        time.sleep(0.1)
    return trial.number + x
