"""Plain PyTorch: the steps of a loop, with the state of model, optimizer and random numbers."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tunesvc.integrations.step_reporter import StepReporter
from tunesvc.trial import Trial


class TorchReporter:
    """Counts the steps of a loop, reports them, and saves and restores what it is given::

        reporter = TorchReporter(trial, checkpoint_every=1, model=model, optimizer=optimizer)
        for epoch in reporter.steps(20):
            ...
            reporter.report(epoch, val_loss=loss)

    After an interruption the loop continues with the step after the last checkpoint. Everything
    with `state_dict` and `load_state_dict` can be part of it: schedulers, gradient scalers, data
    loaders. The states of Python's, NumPy's and PyTorch's random numbers are always saved.
    """

    def __init__(self, trial: Trial, checkpoint_every: int = 0, **parts: Any) -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            checkpoint_every: steps from one checkpoint to the next; 0 saves none.
            parts: what is saved and restored, by any names.
        """
        self._reporter = StepReporter(trial, checkpoint_every=checkpoint_every)
        self._parts = parts

    def steps(self, number: int) -> Iterator[int]:
        """Restore the last checkpoint if there is one; yield the steps left of 1 ... `number`."""
        done, self._reporter.last_step = 0, number
        if (restored := self._reporter.restored) is not None and self._reporter.saves:
            # The trial has written it itself, so it may contain any objects.
            state = torch.load(restored, map_location="cpu", weights_only=False)
            for name, part in self._parts.items():
                part.load_state_dict(state["parts"][name])
            _restore_random(state["random"])
            done = state["step"]
        yield from range(done + 1, number + 1)

    def report(self, step: int, value: float | None = None, **metrics: float) -> None:
        """Report a step: `report(epoch, loss)` or `report(epoch, val_loss=loss, accuracy=...)`.

        Raises:
            Pruned: the trial has been asked to stop.
        """

        def save(path: Path) -> None:
            parts = {name: part.state_dict() for name, part in self._parts.items()}
            torch.save({"step": step, "parts": parts, "random": _random_states()}, path)

        reported = metrics if value is None else value
        self._reporter.report(step, reported, save, "state.pt")


def _random_states() -> dict[str, Any]:
    states = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        states["numpy"] = sys.modules["numpy"].random.get_state()
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _restore_random(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if "numpy" in states:
        import numpy as np

        np.random.set_state(states["numpy"])
    if "cuda" in states and torch.cuda.is_available():
        # The machine that continues may have fewer devices.
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
