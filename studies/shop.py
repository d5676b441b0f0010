"""Will a visitor buy? A table with gaps and text, and a model on what the study prepared of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import SplineTransformer

from tunesvc import Trial


def visits() -> pd.DataFrame:
    """Return made-up visits to a shop, always the same ones."""
    rng = np.random.default_rng(7)
    count = 2_000
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 80, count).astype(float),
            "minutes": rng.gamma(2.0, 5.0, count),
            "city": rng.choice(["Bonn", "Oslo", "Rome"], count, p=[0.5, 0.3, 0.2]),
            "visitor": rng.integers(0, 400, count),
        }
    )
    liking = np.cos(table.age / 9) + table.minutes / 12 + (table.city == "Oslo") - 1.2
    table["bought"] = (rng.logistic(0, 0.4, count) < liking).astype(int)
    table.loc[rng.random(count) < 0.1, "age"] = np.nan
    return table


def fit(cost: float, knots: int, degree: int, trial: Trial) -> Pipeline:
    """Return the fitted model, which is scored on the validation part."""
    splines = SplineTransformer(n_knots=knots, degree=degree)
    X, y = trial.data.train
    return make_pipeline(splines, LogisticRegression(C=cost, max_iter=1_000)).fit(X, y)
