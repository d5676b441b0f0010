"""Samplers and pruners in `study.optimize(n_jobs=...)`: threads that take turns wherever they
can."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

import tunesvc
from tunesvc.search.pruners.rungs import RungTable
from tunesvc.search.tracking.objectives import cut, points_of

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS, STEPS = 120, 4


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def objective(trial: optuna.Trial) -> float:
    x, n = trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 9)
    for step in range(1, STEPS + 1):
        trial.report((x - 0.3) ** 2 + n / 10 + 1 / step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return (x - 0.3) ** 2 + n / 10


def optimized(sampler: BaseSampler, pruner: BasePruner) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=TRIALS, n_jobs=4)
    return study


@pytest.mark.usefixtures("frequent_switches")
def test_no_thread_counts_a_trial_twice_at_a_rung() -> None:
    """Case P1: there were 410 arrivals of 400 trials."""
    pruner = tunesvc.AshaPruner(min=1, eta=2)
    study = optimized(optuna.samplers.RandomSampler(seed=0), pruner)
    assert len(study.trials) == TRIALS
    rungs = pruner._rungs.of(study)
    for rung in (1, 2, 4):
        arrived, _ = rungs.ranking_at(study.trials, rung)
        there = [trial.number for trial in study.trials if max(trial.intermediate_values) >= rung]
        assert sorted(one.number for one in arrived) == there


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize(
    "read",
    [
        lambda trial: RungTable(np.array([1.0])).ranking_at([trial], 1),
        lambda trial: points_of(trial, 1),
        lambda trial: cut(trial, 50),
    ],
    ids=["rungs", "points", "cut"],
)
def test_a_curve_is_read_while_its_trial_reports(read: Callable[[FrozenTrial], object]) -> None:
    """Optuna's own trial object shares its curve with trials that other threads hold."""
    study = optuna.create_study()
    trial = study._storage.get_trial(study.ask()._trial_id)
    ended = threading.Event()

    def report() -> None:
        while not ended.is_set():
            for step in range(1, 100):
                trial.intermediate_values[step] = 0.5
            trial.intermediate_values.clear()

    reporter = threading.Thread(target=report)
    reporter.start()
    try:
        for _ in range(3_000):
            read(trial)
    finally:
        ended.set()
        reporter.join()


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize(
    "make", [tunesvc.AutoSampler, tunesvc.GPSampler, tunesvc.TPESampler], ids=["auto", "gp", "tpe"]
)
def test_samplers_and_forecasts_are_shared_by_threads(make: Callable[..., BaseSampler]) -> None:
    study = optimized(make(seed=0), tunesvc.CurvePruner())
    states = {trial.state for trial in study.trials}
    assert len(study.trials) == TRIALS
    assert states <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    assert study.best_value < 0.2
