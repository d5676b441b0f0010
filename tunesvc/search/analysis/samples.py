"""The uncertainty of a mean. Imports nothing of tunesvc."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def standard_error(samples: Sequence[float], ratio: float = 0.0) -> float | None:
    """Return the standard error of a mean; None with fewer than two values, or one not finite.

    Args:
        samples: values of folds, repeats or splits.
        ratio: validation rows per training row, to correct for training rows that folds share
            (Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning
            52). Without it, it is the deviation by the root of the number.
    """
    if len(samples) < 2 or not all(map(math.isfinite, samples)):
        return None
    return statistics.stdev(samples) * math.sqrt(1 / len(samples) + ratio)
