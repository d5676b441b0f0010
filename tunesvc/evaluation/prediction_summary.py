"""Summaries of predictions that are small enough to store: a confusion matrix, or residuals.

Both are plain values that JSON holds. Needs NumPy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PREDICTIONS = "tunesvc:predictions"
"""System attribute of a trial: the summary; with `:3` after it that of fold or repeat 3."""
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


def summary_in(attrs: Mapping[str, Any], step: str) -> dict[str, Any] | None:
    """Return the summary in a trial's attributes, over all its folds; None if there is none.

    Args:
        attrs: system attributes.
        step: a fold or repeat, as pages name it.
    """
    own = attrs.get(PREDICTIONS)
    if isinstance(own, Mapping):
        return dict(own)
    names = (name for name in attrs if name.startswith(f"{PREDICTIONS}:"))
    found = [attrs[name] for name in names if isinstance(attrs[name], Mapping)]
    if not found:
        return None
    merge = _merged_confusion if found[0]["kind"] == "classes" else _merged_residuals
    part = found[0]["part"]
    return {**merge(found), "part": part if len(found) == 1 else f"{part} of {len(found)} {step}s"}


def _merged_confusion(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = sorted({name for one in found for name in one["labels"]}, key=_natural)
    places = {name: place for place, name in enumerate(names)}
    total = np.zeros((len(names), len(names)), dtype=int)
    for one in found:
        own = [places[name] for name in one["labels"]]
        total[np.ix_(own, own)] += np.asarray(one["counts"], dtype=int)
    rows = sum(one["rows"] for one in found)
    return {"kind": "classes", "rows": rows, "labels": names, "counts": total.tolist()}


def _merged_residuals(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put each bin's rows at its middle into bins that span all; mean and deviation are exact."""
    found = [one for one in found if one["rows"]]
    if not found:
        return {"kind": "residuals", "rows": 0, "counts": []}
    ranges = {
        key: (min(one[key][0] for one in found), max(one[key][1] for one in found))
        for key in ("predicted", "residual")
    }
    counts = np.zeros((X_BINS, Y_BINS))
    for one in found:
        x, y = np.meshgrid(
            _middles(one["predicted"], X_BINS), _middles(one["residual"], Y_BINS), indexing="ij"
        )
        spans, weights = (ranges["predicted"], ranges["residual"]), np.ravel(one["counts"])
        bins = (X_BINS, Y_BINS)
        counts += np.histogram2d(x.ravel(), y.ravel(), bins, spans, weights=weights)[0]
    sizes = np.array([one["rows"] for one in found], dtype=float)
    means = np.array([one["mean"] for one in found])
    squares = np.array([one["deviation"] for one in found]) ** 2 + means**2
    mean = float(np.average(means, weights=sizes))
    variance = float(np.average(squares, weights=sizes)) - mean**2
    return {
        "kind": "residuals",
        "rows": int(sizes.sum()),
        "predicted": list(ranges["predicted"]),
        "residual": list(ranges["residual"]),
        "counts": counts.astype(int).tolist(),
        "mean": mean,
        "deviation": math.sqrt(max(0.0, variance)),
    }


def _middles(span: Sequence[float], bins: int) -> np.ndarray:
    edges = np.linspace(span[0], span[1], bins + 1)
    middles: np.ndarray = (edges[:-1] + edges[1:]) / 2
    return middles


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
