"""Scores a model by scikit-learn's scorers, and says how exact the scores are.

Imports scikit-learn.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import get_scorer
from sklearn.utils.multiclass import type_of_target

from tunesvc.data.part import Part
from tunesvc.errors import BadReport, DataError
from tunesvc.evaluation.predictions import Predictions

RESAMPLES = 200
ROWS_RESAMPLED = 10_000
"""Most rows of a resample. Of more rows, the standard error follows from their number."""
_SAMPLES_NEEDED = RESAMPLES // 2


def score(predictions: Predictions, scoring: Iterable[str]) -> dict[str, float]:
    """Return the score of each scorer.

    Raises:
        BadReport: a scorer cannot score this model.
    """
    rows = np.arange(len(predictions))
    return {name: _score(predictions, name, rows) for name in scoring}


def standard_errors(
    predictions: Predictions,
    scoring: Iterable[str],
    seed: int,
) -> dict[str, float]:
    """Return the standard error of each score, by the bootstrap over rows.

    Scores that most resamples do not have, as for a class of one row, are left out.

    Efron, "Bootstrap methods: another look at the jackknife", 1979; with fewer rows than there are
    (m out of n), errors shrink by the root of their ratio.
    """
    rng = np.random.default_rng(seed)
    count = len(predictions)
    size = min(count, ROWS_RESAMPLED)
    resamples = [rng.integers(0, count, size) for _ in range(RESAMPLES)]
    errors = {}
    for name in scoring:
        values = [
            value for rows in resamples if (value := _try(predictions, name, rows)) is not None
        ]
        if len(values) >= _SAMPLES_NEEDED:
            errors[name] = float(np.std(values, ddof=1) * math.sqrt(size / count))
    return errors


def require_fitting_scorers(train: Part, validation: Part, scoring: Iterable[str]) -> None:
    """Refuse scorers that do not fit the target, such as `f1` for three classes.

    Tried with a model that ignores the features, so that no trial has to run for it.

    Raises:
        DataError: one does not fit, or there is no target.
    """
    y = train.y
    is_continuous = str(type_of_target(y)).startswith("continuous")
    dummy = DummyRegressor() if is_continuous else DummyClassifier()
    predictions = Predictions(dummy.fit(np.zeros((len(y), 1)), y), validation)
    for name in scoring:
        try:
            _score(predictions, name, np.arange(len(predictions)))
        except BadReport as error:
            raise DataError(
                f"the scorer `{name}` does not fit the target {train.target!r}: {error.__cause__}. "
                "See `evaluation: {scoring: ...}`; for several classes there are scorers such as "
                "`f1_macro` and `roc_auc_ovr`"
            ) from error


def _try(predictions: Predictions, name: str, rows: np.ndarray) -> float | None:
    try:
        value = _score(predictions, name, rows)
    except BadReport:  # a class that the resample lacks
        return None
    return value if math.isfinite(value) else None


def _score(predictions: Predictions, name: str, rows: np.ndarray) -> float:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(get_scorer(name)(predictions, rows, predictions.y[rows]))
    except Exception as error:  # models and scorers may raise anything
        kind = type(predictions.model).__name__
        text = " ".join(str(error).split())[:500]
        raise BadReport(
            f"the scorer `{name}` cannot score this model ({kind}): {text}{_remedy(text)}"
        ) from error


def _remedy(text: str) -> str:
    if "predict_proba" in text or "decision_function" in text:
        return (
            ". Return a model with that method, such as `CalibratedClassifierCV(model)`, or choose "
            "another scorer"
        )
    return ""
