"""`TuneSearchCV` beside scikit-learn's searches: test error at equal time.

    python -m benchmarks.sklearn_search [--seeds 10] [--seconds 3] [--clock process]

Four data sets, one estimator each, 5 folds, in this process (`n_jobs=None`). Each search evaluates
candidates until the time is over: of the processor by default, so that other work on the machine
does not count; `--clock wall` takes the wall's. `RandomizedSearchCV` tries one after the other.
`HalvingRandomSearchCV` runs tournaments, each with twice the candidates of the one before, until
the time is over; the last complete one counts. The best candidate, or the plain estimator if none
is complete, is fitted to all training data, and its error is on a quarter of the data that no
search has seen. Imports and that fit are not timed, nor is Postgres, which is another process.

Seeds are run one after the other, and no more begins after `--minutes`. Results are appended to
`--results`; the table is of all that are there, and what is there is not run again.
"""

from __future__ import annotations

# ruff: noqa: N803, N806  # scikit-learn's names
import argparse
import json
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    make_classification,
    make_friedman1,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import (
    HalvingRandomSearchCV,
    ParameterSampler,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

import tunesvc
from tunesvc.integrations import TuneSearchCV

FOLDS = 5
Task = tuple[Any, dict[str, Any], Any, Any]
Found = tuple[dict[str, Any], int]
"""The best parameters, and the number of candidates."""


def tasks() -> dict[str, Callable[[], Task]]:
    """Estimator, space and data by name."""
    svc = {"svc__C": loguniform(1e-3, 1e4), "svc__gamma": loguniform(1e-6, 1e1)}
    linear = {
        "sgdclassifier__alpha": loguniform(1e-7, 1e1),
        "sgdclassifier__eta0": loguniform(1e-4, 1e1),
        "sgdclassifier__penalty": ["l1", "l2", "elasticnet"],
        "sgdclassifier__learning_rate": ["constant", "adaptive", "invscaling"],
    }
    svr = {
        "svr__C": loguniform(1e-2, 1e3),
        "svr__gamma": loguniform(1e-5, 1e1),
        "svr__epsilon": loguniform(1e-3, 1e1),
    }
    classes = make_pipeline(StandardScaler(), SVC())
    sgd = make_pipeline(StandardScaler(), SGDClassifier(random_state=0, max_iter=200))
    regression = make_pipeline(StandardScaler(), SVR())
    many = {"n_informative": 8, "n_classes": 3, "flip_y": 0.02, "random_state": 0}
    return {
        "digits, SVC": lambda: (classes, svc, *load_digits(return_X_y=True)),
        "breast cancer, SGD": lambda: (sgd, linear, *load_breast_cancer(return_X_y=True)),
        "classification, SVC": lambda: (classes, svc, *make_classification(1500, 20, **many)),
        "friedman, SVR": lambda: (
            regression,
            svr,
            *make_friedman1(1200, noise=1.0, random_state=0),
        ),
    }


class Deadline:
    """Ends a search by Ctrl-C's exception, from within a scorer."""

    clock = staticmethod(time.process_time)

    def __init__(self, seconds: float) -> None:
        self.until = Deadline.clock() + seconds

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        if self.is_over:
            raise KeyboardInterrupt
        return float(estimator.score(X, y))

    @property
    def is_over(self) -> bool:
        return Deadline.clock() > self.until


def random(estimator: Any, space: Any, X: Any, y: Any, seed: int, deadline: Deadline) -> Found:
    best: tuple[float, dict[str, Any]] = (-np.inf, {})
    tried = 0
    for params in ParameterSampler(space, 100_000, random_state=seed):
        model = clone(estimator).set_params(**params)
        with suppress(KeyboardInterrupt):
            score = float(np.mean(cross_val_score(model, X, y, cv=FOLDS, scoring=deadline)))
            best, tried = max(best, (score, params), key=lambda one: one[0]), tried + 1
        if deadline.is_over:
            break
    return best[1], tried


def halving(estimator: Any, space: Any, X: Any, y: Any, seed: int, deadline: Deadline) -> Found:
    """Run tournaments; the last one that was complete counts."""
    candidates = 5
    found: Found = ({}, 0)
    with suppress(KeyboardInterrupt):
        while not deadline.is_over:
            search = HalvingRandomSearchCV(
                clone(estimator),
                space,
                n_candidates=candidates,
                min_resources="exhaust",
                cv=FOLDS,
                random_state=seed,
                scoring=deadline,
                refit=False,
            )
            search.fit(X, y)
            found, candidates = (search.best_params_, candidates), 2 * candidates
    return found


def tuned(estimator: Any, space: Any, X: Any, y: Any, seed: int, deadline: Deadline) -> Found:
    name = f"benchmark-{uuid4().hex[:8]}"
    search = TuneSearchCV(
        clone(estimator),
        space,
        n_trials=100_000,
        cv=FOLDS,
        random_state=seed,
        scoring=deadline,
        refit=False,
        name=name,
    )
    with suppress(KeyboardInterrupt):
        search.fit(X, y)
    trials = tunesvc.load_study(name).trials
    complete = [trial for trial in trials if trial.state == "complete"]
    values = {trial.number: trial.value for trial in complete if trial.value is not None}
    best = max(values, key=values.__getitem__, default=None)
    return ({} if best is None else dict(trials[best].params)), len(trials)


SEARCHES = {
    "RandomizedSearchCV": random,
    "HalvingRandomSearchCV": halving,
    "TuneSearchCV": tuned,
}


def run(name: str, load: Callable[[], Task], seed: int, seconds: float) -> dict[str, Any]:
    """Return the test error, the time and the number of candidates of each search."""
    estimator, space, X, y = load()
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=seed)
    found: dict[str, Any] = {}
    for label, search in SEARCHES.items():
        began_s, wall_s = Deadline.clock(), time.perf_counter()
        params, tried = search(estimator, space, X, y, seed, Deadline(seconds))
        took_s, wall_s = Deadline.clock() - began_s, time.perf_counter() - wall_s
        error = 1 - clone(estimator).set_params(**params).fit(X, y).score(X_test, y_test)
        found[label] = [float(one) for one in (error, took_s, wall_s, tried)]
    return found


def stored(results: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the results by task and seed."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {(name, seed): found for name, seed, found in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clock", choices=["process", "wall"], default="process")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--results", type=Path, default=Path("sklearn_search.jsonl"))
    options = parser.parse_args()
    if options.clock == "wall":
        Deadline.clock = staticmethod(time.perf_counter)
    warnings.simplefilter("ignore")
    until_s = time.perf_counter() + 60 * options.minutes
    tuned(*tasks()["digits, SVC"](), 0, Deadline(2.0))  # starts Postgres, and imports
    for seed in range(options.seeds):
        for name, load in tasks().items():
            if (name, seed) not in stored(options.results) and time.perf_counter() < until_s:
                found = run(name, load, seed, options.seconds)
                with options.results.open("a") as file:
                    file.write(json.dumps([name, seed, found]) + "\n")
    print("\n| | seeds | search | test error | seconds | candidates |\n|---|---|---|---|---|---|")
    for name in tasks():
        for label in SEARCHES:
            results = stored(options.results).items()
            table = np.array([one[label] for (task, _), one in results if task == name])
            error, took_s, _, tried = table.mean(axis=0)
            spread = table[:, 0].std(ddof=1) / len(table) ** 0.5
            cells = f"{error:.4f} ± {spread:.4f} | {took_s:.1f} | {tried:.0f}"
            print(f"| {name} | {len(table)} | `{label}` | {cells} |")


if __name__ == "__main__":
    main()
