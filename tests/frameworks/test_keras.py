"""Keras's callback, in real trainings on its PyTorch backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.recording_channel import RecordingChannel, trial_on
from tunesvc import Pruned, Trial

keras = pytest.importorskip("keras")
from tunesvc.integrations import KerasReporter  # noqa: E402  # it needs Keras

EPOCHS = 5
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = X.sum(axis=1)


def build() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    return model


def fit(trial: Trial, *others: Any, epochs: int = EPOCHS, **options: Any) -> Any:
    model = build()
    reporter = KerasReporter(trial, "val_loss", **options)
    validation = (X[48:], Y[48:])
    data = {"x": X[:48], "y": Y[:48], "validation_data": validation, "shuffle": False}
    model.fit(**data, epochs=epochs, verbose=0, callbacks=[*others, reporter])
    return model


def test_each_epoch_is_reported(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    model = fit(trial_on(channel))
    assert channel.steps == list(range(1, EPOCHS + 1))
    assert channel.reports[-1][1]["loss"] == model.history.history["val_loss"][-1]
    assert channel.saved == {}


def test_a_pruned_training_ends_in_order_and_continues_to_the_same_weights(tmp_path: Path) -> None:
    ended: list[str] = []
    other = keras.callbacks.LambdaCallback(on_train_end=lambda logs: ended.append("other"))
    whole = fit(trial_on(RecordingChannel(tmp_path / "0")))
    first = RecordingChannel(tmp_path / "1", stop_after=3)
    with pytest.raises(Pruned):
        fit(trial_on(first), other, checkpoint_every=2)
    assert first.steps == [1, 2, 3]
    assert list(first.saved) == [2, 3]
    assert ended == ["other"]
    for step in (2, 3):
        again = RecordingChannel(tmp_path / f"from-{step}")
        model = fit(trial_on(again, first.saved[step]), checkpoint_every=2)
        assert again.steps == list(range(step + 1, EPOCHS + 1))
        for mine, theirs in zip(model.get_weights(), whole.get_weights(), strict=True):
            assert np.allclose(mine, theirs, atol=1e-6), "the optimizer's state was lost"
