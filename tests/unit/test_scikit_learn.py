"""scikit-learn's estimators fitted in steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from tests.support.recording_channel import RecordingChannel, trial_on
from tunesvc import Pruned, Trial
from tunesvc.errors import TuneError
from tunesvc.integrations import fit_in_steps

X = np.random.default_rng(0).normal(size=(60, 3))
VALUES = X.sum(axis=1)
LABELS = np.where(VALUES > 0, "up", "down")
STEPS = 6


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of small estimators only wait for each other."""
    with threadpool_limits(1):
        yield


def fit(estimator: Any, trial: Trial, **options: Any) -> Any:
    y = LABELS if hasattr(estimator, "predict_proba") or "SGD" in str(estimator) else VALUES
    return fit_in_steps(
        estimator,
        X,
        y,
        lambda model: {"loss": 1 - model.score(X, y)},
        trial=trial,
        steps=STEPS,
        step_size=2,
        **options,
    )


ESTIMATORS = [
    SGDClassifier(random_state=0),
    GaussianNB(),
    MLPRegressor(hidden_layer_sizes=(4,), random_state=0),
    HistGradientBoostingClassifier(random_state=0, min_samples_leaf=5),
    GradientBoostingRegressor(random_state=0),
    RandomForestRegressor(random_state=0),
    ExtraTreesClassifier(random_state=0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_an_estimator_is_pruned_and_continues_to_the_same_predictions(
    estimator: Any, tmp_path: Path
) -> None:
    from sklearn.base import clone

    whole = fit(clone(estimator), trial_on(RecordingChannel(tmp_path / "0")))
    first = RecordingChannel(tmp_path / "1", stop_after=4)
    with pytest.raises(Pruned):
        fit(clone(estimator), trial_on(first), checkpoint_every=3)
    assert first.steps == [1, 2, 3, 4]
    assert list(first.saved) == [3, 4]
    again = RecordingChannel(tmp_path / "2")
    fitted = fit(clone(estimator), trial_on(again, first.saved[3]), checkpoint_every=3)
    assert again.steps == [4, 5, 6]
    assert np.array_equal(fitted.predict(X), whole.predict(X))


def test_a_step_adds_trees(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    forest = fit(RandomForestRegressor(random_state=0), trial_on(channel))
    assert len(forest.estimators_) == STEPS * 2
    assert channel.steps == list(range(1, STEPS + 1))
    assert channel.reports[-1][1] == {"loss": 1 - forest.score(X, VALUES)}


def test_an_estimator_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="LinearRegression has neither"):
        fit(LinearRegression(), trial_on(RecordingChannel(tmp_path)))
