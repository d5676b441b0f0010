"""scikit-learn: fits an estimator in steps, by `partial_fit` or `warm_start`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import joblib
import numpy as np
from sklearn.base import is_classifier

from tunesvc.errors import TuneError
from tunesvc.integrations.step_reporter import StepReporter
from tunesvc.trial import Trial

Estimator = TypeVar("Estimator")

_SIZES = ("n_estimators", "max_iter")
"""Parameters that an estimator with `warm_start` continues to when they grow."""


def fit_in_steps(
    estimator: Estimator,
    X: Any,  # noqa: N803  # scikit-learn's name
    y: Any,
    measure: Callable[[Estimator], float | Mapping[str, float]],
    *,
    trial: Trial,
    steps: int,
    step_size: int = 1,
    checkpoint_every: int = 0,
) -> Estimator:
    """Fit an estimator in steps, and report to `trial` after each.

    A step is one `partial_fit`, a pass over the data. Forests and boosted trees have none: for them
    a step adds `step_size` trees or iterations with `warm_start`.

    Args:
        estimator: what to fit.
        X: the data.
        y: what to predict.
        measure: returns the study's first metric of the estimator, or a mapping of several.
        trial: the objective's trial.
        steps: how many.
        step_size: trees or iterations of a step.
        checkpoint_every: steps from one checkpoint to the next, from which an interrupted trial
            continues; 0 saves none.

    Returns:
        The estimator; after an interruption the one that was saved, which is another object.

    Raises:
        Pruned: the trial has been asked to stop.
    """
    reporter = StepReporter(trial, checkpoint_every=checkpoint_every)
    done = 0
    if (restored := reporter.restored) is not None and reporter.saves:
        done, estimator = joblib.load(restored)
    fit = _step_function(estimator, step_size)
    for step in range(done + 1, steps + 1):
        fit(step, X, y)
        save = partial(joblib.dump, (step, estimator))
        reporter.report(step, measure(estimator), save, "estimator.joblib")
    return estimator


def _step_function(estimator: Any, step_size: int) -> Callable[..., object]:
    """Return what fits a step: `fit(step, X, y)`."""
    if hasattr(estimator, "partial_fit"):
        return partial(_fit_partially, estimator)
    params = estimator.get_params()
    size = next((name for name in _SIZES if name in params), None)
    if size is None or "warm_start" not in params:
        raise TuneError(f"{type(estimator).__name__} has neither `partial_fit` nor `warm_start`")
    estimator.set_params(warm_start=True)
    return lambda step, *data: estimator.set_params(**{size: step * step_size}).fit(*data)


def _fit_partially(estimator: Any, step: int, X: Any, y: Any) -> None:  # noqa: N803
    classes = {"classes": np.unique(y)} if is_classifier(estimator) else {}
    estimator.partial_fit(X, y, **classes)
