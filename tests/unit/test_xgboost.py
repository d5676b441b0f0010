"""XGBoost's callback, in real trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.recording_channel import RecordingChannel, trial_on
from tunesvc import Pruned, Trial
from tunesvc.errors import BadReport, TuneError

xgboost = pytest.importorskip("xgboost")
from tunesvc.integrations import XGBoostReporter  # noqa: E402  # it needs XGBoost

ROUNDS = 12
PARAMS = {"eval_metric": ["rmse", "mae"], "nthread": 1}
X = np.random.default_rng(0).normal(size=(200, 4))
Y = X.sum(axis=1)
TRAIN = xgboost.DMatrix(X[:150], Y[:150])
VALID = xgboost.DMatrix(X[150:], Y[150:])


def train(trial: Trial, metric: Any = "valid-rmse", **options: Any) -> tuple[Any, dict[str, Any]]:
    reporter = XGBoostReporter(trial, metric, **options)
    results: dict[str, Any] = {}
    model = xgboost.train(
        PARAMS,
        TRAIN,
        reporter.rounds_left(ROUNDS),
        evals=[(TRAIN, "train"), (VALID, "valid")],
        evals_result=results,
        verbose_eval=False,
        xgb_model=reporter.restored,
        callbacks=[reporter],
    )
    return model, results


def test_of_several_data_sets_and_metrics_the_named_one_is_reported(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    _, results = train(trial_on(channel), {"loss": "valid-mae", "train": "train-rmse"})
    assert channel.steps == list(range(1, ROUNDS + 1))
    assert [values["loss"] for _, values in channel.reports] == results["valid"]["mae"]
    assert [values["train"] for _, values in channel.reports] == results["train"]["rmse"]
    with pytest.raises(BadReport, match="found: train-rmse, train-mae, valid-rmse, valid-mae"):
        train(trial_on(channel), "eval-rmse")


def test_a_pruned_training_continues_from_its_checkpoint_to_the_same_model(tmp_path: Path) -> None:
    whole, _ = train(trial_on(RecordingChannel(tmp_path / "0")))
    first = RecordingChannel(tmp_path / "1", stop_after=7)
    with pytest.raises(Pruned):
        train(trial_on(first), checkpoint_every=3)
    assert list(first.saved) == [3, 6, 7]
    for step in (6, 7):
        again = RecordingChannel(tmp_path / f"from-{step}")
        model, _ = train(trial_on(again, first.saved[step]), checkpoint_every=3)
        assert again.steps == list(range(step + 1, ROUNDS + 1))
        assert ROUNDS not in again.saved, "nothing would be left to train"
        assert np.array_equal(model.predict(VALID), whole.predict(VALID))


def test_folds_are_reported_as_their_mean_and_cannot_continue(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    reporter = XGBoostReporter(trial_on(channel), "test-rmse")
    results = xgboost.cv(PARAMS, TRAIN, 5, nfold=3, callbacks=[reporter])
    assert [v["loss"] for _, v in channel.reports] == list(results["test-rmse-mean"])
    saving = XGBoostReporter(trial_on(channel), "test-rmse", checkpoint_every=2)
    with pytest.raises(TuneError, match="cannot continue `cv`"):
        xgboost.cv(PARAMS, TRAIN, 5, nfold=3, callbacks=[saving])


def test_scikit_learns_interface_takes_it_too(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    reporter = XGBoostReporter(trial_on(channel))
    model = xgboost.XGBRegressor(n_estimators=4, n_jobs=1, callbacks=[reporter])
    model.fit(X[:150], Y[:150], eval_set=[(X[150:], Y[150:])], verbose=False)
    assert channel.steps == [1, 2, 3, 4]
