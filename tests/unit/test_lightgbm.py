"""LightGBM's callback, in real trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.recording_channel import RecordingChannel, trial_on
from tunesvc import Pruned, Trial
from tunesvc.errors import BadReport, TuneError

lightgbm = pytest.importorskip("lightgbm")
from tunesvc.integrations import LightGBMReporter  # noqa: E402  # it needs LightGBM

ROUNDS = 12
PARAMS = {"objective": "regression", "metric": ["l2", "l1"], "verbose": -1, "num_threads": 1}
X = np.random.default_rng(0).normal(size=(200, 4))
Y = X.sum(axis=1)


def train(trial: Trial, **options: Any) -> Any:
    reporter = LightGBMReporter(trial, "valid_0-l2", **options)
    data = lightgbm.Dataset(X[:150], Y[:150])
    return lightgbm.train(
        PARAMS,
        data,
        reporter.rounds_left(ROUNDS),
        valid_sets=[data.create_valid(X[150:], Y[150:])],
        init_model=reporter.restored,
        callbacks=[lightgbm.early_stopping(3, verbose=False), reporter],
    )


def test_each_round_is_reported_under_the_studys_metric(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    model = train(trial_on(channel))
    assert channel.steps == list(range(1, ROUNDS + 1))
    assert channel.reports[-1][1] == {"loss": model.best_score["valid_0"]["l2"]}
    assert channel.saved == {}


def test_the_round_at_which_training_stops_early_is_reported(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    data = lightgbm.Dataset(X[:150], Y[:150])
    noise = data.create_valid(X[150:], np.random.default_rng(1).normal(size=50))
    callbacks = [
        lightgbm.early_stopping(2, verbose=False),
        LightGBMReporter(trial_on(channel), "valid_0-l1"),
    ]
    model = lightgbm.train(PARAMS, data, 500, valid_sets=[noise], callbacks=callbacks)
    assert channel.steps == list(range(1, model.best_iteration + 3))


def test_a_pruned_training_continues_from_its_checkpoint_to_the_same_model(tmp_path: Path) -> None:
    whole = train(trial_on(RecordingChannel(tmp_path / "0")))
    first = RecordingChannel(tmp_path / "1", stop_after=7)
    with pytest.raises(Pruned):
        train(trial_on(first), checkpoint_every=3)
    assert list(first.saved) == [3, 6, 7]
    for step in (6, 7):
        again = RecordingChannel(tmp_path / f"from-{step}")
        model = train(trial_on(again, first.saved[step]), checkpoint_every=3)
        assert again.steps == list(range(step + 1, ROUNDS + 1))
        assert ROUNDS not in again.saved, "nothing would be left to train"
        assert np.allclose(model.predict(X), whole.predict(X), rtol=1e-6)


def test_folds_are_reported_as_their_mean_and_cannot_continue(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    reporter = LightGBMReporter(trial_on(channel), {"loss": "valid-l2", "l1": "valid-l1"})
    folds = {"num_boost_round": 5, "nfold": 3, "stratified": False}
    results = lightgbm.cv(PARAMS, lightgbm.Dataset(X, Y), callbacks=[reporter], **folds)
    assert [values["loss"] for _, values in channel.reports] == results["valid l2-mean"]
    saving = LightGBMReporter(trial_on(channel), "valid-l2", checkpoint_every=2)
    with pytest.raises(TuneError, match="cannot continue `cv`"):
        lightgbm.cv(PARAMS, lightgbm.Dataset(X, Y), callbacks=[saving], **folds)


def test_scikit_learns_interface_takes_it_too(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    model = lightgbm.LGBMRegressor(n_estimators=4, verbose=-1, n_jobs=1)
    reporter = LightGBMReporter(trial_on(channel))
    model.fit(X[:150], Y[:150], eval_X=X[150:], eval_y=Y[150:], callbacks=[reporter])
    assert channel.steps == [1, 2, 3, 4]


def test_a_name_that_does_not_exist_lists_those_that_do(tmp_path: Path) -> None:
    reporter = LightGBMReporter(trial_on(RecordingChannel(tmp_path)), "valid-l2")
    data = lightgbm.Dataset(X, Y)
    with pytest.raises(BadReport, match="found: valid_0-l2, valid_0-l1"):
        lightgbm.train(PARAMS, data, 3, valid_sets=[data.create_valid(X, Y)], callbacks=[reporter])
