"""Objectives that return fitted models, and their data."""

from contextlib import suppress

import numpy as np
import pandas as pd
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tunesvc.errors import DataError


def flowers():
    """Return rows of two classes that two of three features tell apart, most of the time."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame(rng.normal(size=(900, 3)), columns=["a", "b", "c"])
    noise = rng.normal(size=900)
    table["kind"] = np.where(table.a + 0.5 * table.b + noise > 0, "rose", "tulip")
    return table


def houses():
    """Return rows with a target that is a number."""
    rng = np.random.default_rng(6)
    table = pd.DataFrame(rng.normal(size=(600, 4)), columns=list("abcd"))
    table["price"] = table.a - 2 * table.b + rng.normal(size=600)
    return table


def classify(x, trial):
    X, y = trial.data.train
    return LogisticRegression(C=10**x).fit(X, y)


def regress(x, trial):
    X, y = trial.data.train
    return Ridge(10**x).fit(X, y)


def with_names(x, trial):
    frame = trial.data.train.pandas()
    return LogisticRegression(C=10**x).fit(frame[["c", "a", "b"]], frame["kind"])


def number(x, trial):
    return x


def undecided(x, trial):
    X, y = trial.data.train
    return LinearSVC().fit(X, y)


def mean(x, trial):
    X, y = trial.data.train
    return DummyRegressor().fit(X, y)


def judged(x, trial):
    X, y = trial.data.train
    model = LogisticRegression(C=10**x).fit(X, y)
    X, y = trial.data.validation
    path = trial.directory / "sizes.txt"
    path.write_text(f"{len(trial.data.train)} {len(y)}")
    trial.checkpoint(path)
    return 1 - model.score(X, y)


def curious(x, trial):
    """Look for the test part where an objective may look."""
    found = 0
    for attempt in (lambda: trial.data.test, lambda: trial.data.train.test):
        with suppress(DataError, AttributeError):
            attempt()
            found += 1
    return float(found)


class Halves(StandardScaler):
    """A transformer of the study's own."""
