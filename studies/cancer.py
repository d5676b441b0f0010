"""Is a tumour benign? A support vector machine on folds of data that come with scikit-learn."""

from __future__ import annotations

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.svm import SVC

from tunesvc import Trial


def tumours() -> pd.DataFrame:
    """Return 30 measures of each tumour, and if it is benign."""
    table: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return table.rename(columns={"target": "benign"})


def fit(cost: float, gamma: float, trial: Trial) -> SVC:
    """Return the model that was fitted on a fold's training rows; its other rows score it."""
    X, y = trial.data.train
    return SVC(C=cost, gamma=gamma).fit(X, y)
