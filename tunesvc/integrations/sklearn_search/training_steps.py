"""Trains an estimator in steps: epochs of `partial_fit`, or a growing ensemble by `warm_start`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

_SIZES = ("n_estimators", "max_iter")
"""Parameters that a warm start can raise."""

TrainStep = Callable[[Any, int, Any, Any, dict[str, Any]], None]


def train_in_steps(model: Any, steps: int, X: Any, y: Any, fit_params: dict[str, Any]) -> None:  # noqa: N803
    """Train a model with all steps."""
    for step in range(steps):
        train_step(model, step, steps, X, y, fit_params)


def train_step(
    model: Any,
    step: int,
    steps: int,
    X: Any,  # noqa: N803  # scikit-learn's name
    y: Any,
    fit_params: dict[str, Any],
) -> None:
    """Train a model by one step: step 0 of a new model, then 1, and so on.

    Raises:
        ValueError: the estimator cannot be trained in steps.
    """
    last = _last_of(model)
    if hasattr(last, "partial_fit"):
        _epoch(model, step, X, y, fit_params)
    else:
        _grow(model, last, step, steps, X, y, fit_params)


def check_steps(estimator: Any) -> None:
    """Refuse an estimator that cannot be trained in steps.

    Raises:
        ValueError: it has neither `partial_fit` nor a size that a warm start can raise.
    """
    last = _last_of(estimator)
    if not hasattr(last, "partial_fit") and _size_of(last) is None:
        raise ValueError(
            f"early_stopping needs an estimator with `partial_fit`, or an ensemble with "
            f"`warm_start`: {type(last).__name__} has neither. Leave early_stopping out: folds are "
            "then the steps after which poor trials stop"
        )


def _last_of(model: Any) -> Any:
    return model[-1] if isinstance(model, Pipeline) else model


def _size_of(last: Any) -> str | None:
    params = last.get_params(deep=False)
    is_boosting = type(last).__name__.startswith("HistGradientBoosting")
    for name in _SIZES if is_boosting else _SIZES[:1]:
        if "warm_start" in params and name in params:
            return name
    return None


def _epoch(model: Any, step: int, X: Any, y: Any, fit_params: dict[str, Any]) -> None:  # noqa: N803
    """Train by one pass over the data; transformers before are fitted in the first one."""
    if isinstance(model, Pipeline) and len(model.steps) > 1:
        before = model[:-1]
        X = before.fit_transform(X, y) if step == 0 else before.transform(X)  # noqa: N806
        fit_params = {name.partition("__")[2]: value for name, value in fit_params.items()}
    last = _last_of(model)
    classes = {"classes": np.unique(y)} if step == 0 and is_classifier(last) else {}
    last.partial_fit(X, y, **classes, **fit_params)


def _grow(
    model: Any,
    last: Any,
    step: int,
    steps: int,
    X: Any,  # noqa: N803
    y: Any,
    fit_params: dict[str, Any],
) -> None:
    """Train an ensemble up to its share of its full size."""
    check_steps(model)
    name = str(_size_of(last))
    full = last.get_params(deep=False)[name]
    size = math.ceil(full * (step + 1) / steps)
    last.set_params(warm_start=True, **{name: size})
    try:
        type(model).fit(model, X, y, **fit_params)
    finally:
        last.set_params(**{name: full})
