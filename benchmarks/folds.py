"""Real training on real data, cross-validated: one fold a trial with `seeds: 5`, against common
practice.

    python -m benchmarks.folds [--seeds 10] [--tasks svr forest boosting]

Each study may train 100 models. `all`: Optuna's TPE, each trial trains on all five folds, so it has
20. `held out`:
TPE, every trial on the same fold. `random`: TPE, each trial on a random fold. `shared`: our
Gaussian process, each trial on one fold in turns, as `seeds: 5` has it. All recommend as their
users do, `study.best_trial` or `tune best`.

The recommendation is evaluated by its mean loss over 20 other splits. Regret: (that - the best of
all studies of the task) / (median of 40 random configurations - that best). Intervals are 95 %
bootstrap over seeds.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingClassifier
from sklearn.metrics import log_loss, mean_absolute_error
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from benchmarks.search import interval
from tunesvc.search.analysis.recommend import recommend
from tunesvc.search.samplers.gp.gp_sampler import GPSampler

FOLDS = 5
MARKS = (50, 100)
"""Numbers of trainings after which the recommendation is evaluated."""
METHODS = ("all", "held out", "random", "shared")
_JUDGED_BY = 4
"""Other shuffles of the data, of five folds each."""

Splits = list[tuple[np.ndarray, np.ndarray]]
Params = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """A data set, a family of models, and their evaluation."""

    data: tuple[np.ndarray, np.ndarray]
    suggest: Callable[[BaseTrial], BaseEstimator]
    is_classifier: bool = False

    def splits(self, shuffle: int) -> Splits:
        """Five folds."""
        return list(KFold(FOLDS, shuffle=True, random_state=shuffle).split(self.data[0]))

    def loss(self, model: BaseEstimator, split: tuple[np.ndarray, np.ndarray]) -> float:
        """Train on one part, and evaluate on the other."""
        (inputs, outputs), (train, held_out) = self.data, split
        model.fit(inputs[train], outputs[train])
        truth = outputs[held_out]
        if self.is_classifier:
            return float(
                log_loss(truth, model.predict_proba(inputs[held_out]), labels=np.unique(outputs))
            )
        return float(mean_absolute_error(truth, model.predict(inputs[held_out])))

    def judge(self, params: Params) -> float:
        """Return the mean over splits that no study has seen."""
        splits = [split for shuffle in range(_JUDGED_BY) for split in self.splits(1_000 + shuffle)]
        return float(
            np.mean(
                [
                    self.loss(self.suggest(optuna.trial.FixedTrial(params)), split)
                    for split in splits
                ]
            )
        )


def svr(trial: BaseTrial) -> BaseEstimator:
    return make_pipeline(
        StandardScaler(),
        SVR(
            C=trial.suggest_float("C", 0.1, 1e3, log=True),
            gamma=trial.suggest_float("gamma", 1e-4, 1.0, log=True),
            epsilon=trial.suggest_float("epsilon", 0.1, 50.0, log=True),
        ),
    )


def forest(trial: BaseTrial) -> BaseEstimator:
    return ExtraTreesRegressor(
        40,
        max_depth=trial.suggest_int("max_depth", 2, 16),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 1, 40, log=True),
        max_features=trial.suggest_float("max_features", 0.1, 1.0),
        criterion=trial.suggest_categorical("criterion", ["squared_error", "friedman_mse"]),
        random_state=0,
    )


def boosting(trial: BaseTrial) -> BaseEstimator:
    return HistGradientBoostingClassifier(
        max_iter=40,
        learning_rate=trial.suggest_float("learning_rate", 0.01, 1.0, log=True),
        max_leaf_nodes=trial.suggest_int("max_leaf_nodes", 2, 31, log=True),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 2, 60, log=True),
        l2_regularization=trial.suggest_float("l2", 1e-3, 1e2, log=True),
        max_bins=trial.suggest_int("max_bins", 8, 255, log=True),
        early_stopping=False,
        random_state=0,
    )


TASKS = {
    "svr": Task(load_diabetes(return_X_y=True), svr),
    "forest": Task(load_diabetes(return_X_y=True), forest),
    "boosting": Task(load_breast_cancer(return_X_y=True), boosting, is_classifier=True),
}


def play(task: Task, method: str, seed: int) -> Iterator[Params]:
    """Run one study; return its recommendation at each mark."""
    rng, splits = np.random.default_rng([seed, 11]), task.splits(seed)
    cost = FOLDS if method == "all" else 1
    sampler: BaseSampler = (
        GPSampler(seed=seed, shared_seeds=FOLDS) if method == "shared" else TPESampler(seed=seed)
    )
    study = optuna.create_study(sampler=sampler)
    for spent in range(cost, MARKS[-1] + 1, cost):
        trial = study.ask()
        held_out = {
            "all": range(FOLDS),
            "held out": [0],
            "random": [int(rng.integers(FOLDS))],
            "shared": [trial.number % FOLDS],
        }[method]
        losses = [task.loss(task.suggest(trial), splits[fold]) for fold in held_out]
        study.tell(trial, float(np.mean(losses)))
        if spent in MARKS:
            best = (
                recommend(study.get_trials(deepcopy=False), "minimize", FOLDS)
                if method == "shared"
                else None
            )
            yield study.trials[best.number].params if best else study.best_trial.params


def middling(task: Task) -> float:
    """Return the loss of a random configuration."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    trials = [study.ask() for _ in range(40)]
    for trial in trials:
        task.suggest(trial)
    return float(np.median([task.judge(trial.params) for trial in trials]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    regrets = np.empty((len(given.tasks), len(METHODS), given.seeds, len(MARKS)))
    for t, name in enumerate(given.tasks):
        task = TASKS[name]
        for m, method in enumerate(METHODS):
            for seed in range(given.seeds):
                regrets[t, m, seed] = [task.judge(params) for params in play(task, method, seed)]
        best, median = regrets[t].min(), middling(task)
        regrets[t] = (regrets[t] - best) / (median - best)
        for m, method in enumerate(METHODS):
            print(
                f"  {name:10} {method:10}"
                + "".join(_cell(regrets[t, m, :, k]) for k in range(len(MARKS))),
                flush=True,
            )
    print(f"\nmean regret      {''.join(f'  after {mark:<24}' for mark in MARKS)}")
    for m, method in enumerate(METHODS):
        print(
            f"  {'all tasks':10} {method:10}"
            + "".join(_cell(regrets[:, m, :, k].mean(axis=0)) for k in range(2))
        )


def _cell(values: np.ndarray) -> str:
    low, high = interval(values)
    return f"  {values.mean():.4f} [{low:.4f}, {high:.4f}]    "


if __name__ == "__main__":
    main()
