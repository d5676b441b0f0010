"""Summaries of predictions that are small enough to store: a confusion matrix, or residuals.

Both are plain values that JSON holds. Needs NumPy only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

PREDICTIONS = "tunesvc:predictions"
"""System attribute of a trial: the summary."""
CLASSES_MAX = 30
"""Most classes; the rarest others count together."""
OTHER = "other"
X_BINS, Y_BINS = 24, 16
_INNER = 0.99
"""Share of residuals that the bins span; those outside count in the outermost bins."""
_LABEL_CHARS = 40


def confusion_of(y: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return how often each class was predicted as which: rows are true, columns predicted."""
    actual, guessed = _labels(y), _labels(predicted)
    counts = Counter(actual) + Counter(guessed)
    names = sorted(set(actual) | set(guessed), key=_natural)
    if len(names) > CLASSES_MAX:
        common = {name for name, _ in counts.most_common(CLASSES_MAX - 1)}
        names = [*(name for name in names if name in common), OTHER]
    places = {name: place for place, name in enumerate(names)}
    last = len(names) - 1
    matrix = np.zeros((len(names), len(names)), dtype=int)
    for (true, guess), count in Counter(zip(actual, guessed, strict=True)).items():
        matrix[places.get(true, last), places.get(guess, last)] += count
    return {
        "kind": "classes",
        "rows": len(actual),
        "labels": names,
        "counts": matrix.tolist(),
    }


def residuals_of(y: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return counts of rows by prediction and residual, true minus predicted, in equal bins."""
    y, predicted = np.asarray(y, dtype=float), np.asarray(predicted, dtype=float).reshape(-1)
    finite = np.isfinite(y) & np.isfinite(predicted)
    x, residual = predicted[finite], (y - predicted)[finite]
    if not len(x):
        return {"kind": "residuals", "rows": 0, "counts": []}
    x_range = _widened(float(x.min()), float(x.max()))
    reach = float(np.quantile(np.abs(residual), _INNER, method="lower"))
    y_range = _widened(-reach, reach)
    shown = np.clip(residual, *y_range)
    counts, _, _ = np.histogram2d(x, shown, (X_BINS, Y_BINS), (x_range, y_range))
    return {
        "kind": "residuals",
        "rows": len(x),
        "predicted": list(x_range),
        "residual": list(y_range),
        "counts": counts.astype(int).tolist(),
        "mean": float(residual.mean()),
        "deviation": float(residual.std()),
    }


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return a range that has a width."""
    if high > low:
        return low, high
    width = max(abs(low), 1.0) * 0.5
    return low - width, high + width


def _labels(values: np.ndarray) -> list[str]:
    return [str(value)[:_LABEL_CHARS] for value in np.asarray(values).reshape(-1).tolist()]


def _natural(name: str) -> tuple[int, float, str]:
    """Order numbers by value, before text."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
