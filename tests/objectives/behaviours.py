"""Behaviours of the executor contract's attempts, on real workers."""

from __future__ import annotations

import time

import optuna

from tunesvc import Pruned, Trial


def act(behaviour: str, *, trial: Trial) -> float:
    """Do what the trial's constant says."""
    return _BEHAVIOURS[behaviour](trial)


def ask(trial: optuna.Trial) -> float:
    """Asks for its only parameter."""
    return trial.suggest_float("x", 0.0, 1.0)


def _reports(trial: Trial) -> float:
    for step in range(3):
        trial.report(step, loss=float(step))
    return 0.5


def _patient(trial: Trial) -> float:
    step = 0
    while True:
        trial.report(step, loss=1.0)
        step += 1
        time.sleep(0.01)


def _deaf(trial: Trial) -> float:
    while True:
        try:
            trial.report(None, loss=1.0)
            time.sleep(0.01)
        except Pruned:
            pass


def _fails(trial: Trial) -> float:
    raise ValueError("broken")


_BEHAVIOURS = {"reports": _reports, "patient": _patient, "deaf": _deaf, "fails": _fails}
