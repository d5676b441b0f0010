"""Measures the fold evaluations that pruning between folds saves, at equal final test error.

    OMP_NUM_THREADS=1 python -m benchmarks.folds [--seeds 10] [--trials 40] [--first 0]

Each study tunes one model by five-fold cross-validation on 60 % of a data set of scikit-learn. The
configuration with the best mean of all five folds is then trained on those 60 % and tested on the
rest. Only the pruner differs: none, `PairedPruner`, or Optuna's `WilcoxonPruner`, which returns the
mean so far where it stops, as its documentation advises. All have the same sampler, folds and
number of trials. Differences are paired by seed, with 95 % intervals by Student's t.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from scipy.stats import t as student
from sklearn import datasets
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from tunesvc import AutoSampler, PairedPruner

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """A data set and a model to tune on it."""

    load: Callable[[], Any]
    model: Any
    space: dict[str, BaseDistribution]
    is_classifier: bool
    rows: int = 10_000

    def losses(self, model: Any, X: np.ndarray, y: np.ndarray) -> float:  # noqa: N803
        """Return the share of errors, or the root mean squared error."""
        predicted = model.predict(X)
        if self.is_classifier:
            return float((predicted != y).mean())
        return float(((predicted - y) ** 2).mean() ** 0.5)


def _log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


PROBLEMS = {
    "breast cancer, SVM": Problem(
        datasets.load_breast_cancer,
        make_pipeline(StandardScaler(), SVC()),
        {"svc__C": _log(1e-2, 1e3), "svc__gamma": _log(1e-5, 1.0)},
        is_classifier=True,
    ),
    "digits, SVM": Problem(
        datasets.load_digits,
        make_pipeline(StandardScaler(), SVC()),
        {"svc__C": _log(1e-2, 1e3), "svc__gamma": _log(1e-5, 1.0)},
        is_classifier=True,
        rows=700,
    ),
    "wine, neighbours": Problem(
        datasets.load_wine,
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
        {
            "kneighborsclassifier__n_neighbors": IntDistribution(1, 40),
            "kneighborsclassifier__p": FloatDistribution(1.0, 4.0),
        },
        is_classifier=True,
    ),
    "diabetes, SVM": Problem(
        datasets.load_diabetes,
        make_pipeline(StandardScaler(), SVR()),
        {
            "svr__C": _log(1e-1, 1e4),
            "svr__gamma": _log(1e-5, 1.0),
            "svr__epsilon": _log(0.1, 50.0),
        },
        is_classifier=False,
    ),
    "diabetes, boosting": Problem(
        datasets.load_diabetes,
        HistGradientBoostingRegressor(max_iter=25, early_stopping=False, random_state=0),
        {
            "learning_rate": _log(0.01, 1.0),
            "max_leaf_nodes": IntDistribution(2, 32, log=True),
            "l2_regularization": _log(1e-3, 1e3),
        },
        is_classifier=False,
    ),
}
ARMS: dict[str, Callable[[], BasePruner]] = {
    "five folds each": NopPruner,
    "wilcoxon": WilcoxonPruner,
    "paired": lambda: PairedPruner(FOLDS),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one study."""

    saved: float
    """Share of the fold evaluations that were left out."""
    test: float
    """Test error of the selected configuration."""
    validation: float
    """Its mean over folds."""
    seconds: float


def run_study(problem: Problem, arm: str, seed: int, trials: int) -> Outcome:
    """Run one study, and test the configuration that it selects."""
    X, y = problem.load(return_X_y=True)  # type: ignore[call-arg]  # noqa: N806
    rows = np.random.default_rng(seed).permutation(len(y))[: problem.rows]
    labels = y[rows] if problem.is_classifier else None
    X, X_test, y, y_test = train_test_split(  # noqa: N806
        X[rows], y[rows], test_size=0.4, random_state=seed, stratify=labels
    )
    splitter = (StratifiedKFold if problem.is_classifier else KFold)(
        FOLDS, shuffle=True, random_state=seed
    )
    splits = list(splitter.split(X, y))
    evaluations, whole = 0, {}
    study = optuna.create_study(
        sampler=AutoSampler(seed=seed, search_space=dict(problem.space)), pruner=ARMS[arm]()
    )
    began_s = time.perf_counter()
    for _ in range(trials):
        trial = study.ask(problem.space)
        losses: list[float] = []
        state = optuna.trial.TrialState.COMPLETE
        for fold, (train, held_out) in enumerate(splits):
            model = clone(problem.model).set_params(**trial.params).fit(X[train], y[train])
            losses.append(problem.losses(model, X[held_out], y[held_out]))
            trial.report(losses[-1], fold)
            evaluations += 1
            if len(losses) < FOLDS and trial.should_prune():
                if arm != "wilcoxon":
                    state = optuna.trial.TrialState.PRUNED
                break
        if len(losses) == FOLDS:
            whole[trial.number] = statistics.fmean(losses), dict(trial.params)
        value = None if state == optuna.trial.TrialState.PRUNED else statistics.fmean(losses)
        study.tell(trial, value, state)
    seconds = time.perf_counter() - began_s
    validation, params = min(whole.values(), key=lambda one: one[0])
    model = clone(problem.model).set_params(**params).fit(X, y)
    test = problem.losses(model, X_test, y_test)
    return Outcome(1 - evaluations / (trials * FOLDS), test, validation, seconds)


def interval(values: list[float]) -> str:
    """Format mean and 95 % interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.4g}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = error * float(student.ppf(0.975, len(values) - 1))
    return f"{mean:.4g} [{mean - reach:.4g}, {mean + reach:.4g}]"


def main() -> None:
    """Run all studies and print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS))
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    seeds = range(given.first, given.first + given.seeds)
    for name in given.problems:
        found = {
            arm: [run_study(PROBLEMS[name], arm, seed, given.trials) for seed in seeds]
            for arm in ARMS
        }
        print(f"\n{name}: {given.seeds} seeds, {given.trials} trials")
        print("| pruner | folds saved | test error | minus that of five folds each | seconds |")
        print("|---|---|---|---|---|")
        base = [one.test for one in found["five folds each"]]
        for arm, results in found.items():
            saved = interval([100 * one.saved for one in results])
            test = [one.test for one in results]
            differences = [mine - theirs for mine, theirs in zip(test, base, strict=True)]
            seconds = statistics.fmean(one.seconds for one in results)
            row = (arm, f"{saved} %", interval(test), interval(differences), f"{seconds:.1f}")
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
