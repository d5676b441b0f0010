"""CatBoost, in real trainings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.recording_channel import RecordingChannel, trial_on
from tunesvc import Pruned, Trial
from tunesvc.errors import BadReport

catboost = pytest.importorskip("catboost")
from tunesvc.integrations import CatBoostReporter  # noqa: E402  # it needs CatBoost

ROUNDS = 12
X = np.random.default_rng(0).normal(size=(200, 4))
Y = X.sum(axis=1)


def fit(trial: Trial, metric: str = "validation-RMSE", **options: Any) -> Any:
    model = catboost.CatBoostRegressor(iterations=ROUNDS, verbose=False, thread_count=1)
    reporter = CatBoostReporter(trial, metric)
    return reporter.fit(model, X[:150], Y[:150], eval_set=(X[150:], Y[150:]), **options)


def test_each_round_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    channel = RecordingChannel(tmp_path)
    model = fit(trial_on(channel))
    assert channel.steps == list(range(1, ROUNDS + 1))
    assert channel.reports[-1][1]["loss"] == model.get_evals_result()["validation"]["RMSE"][-1]
    assert channel.saved == {}
    assert not Path("catboost_info").exists(), "trials would share it"


def test_a_pruned_training_continues_from_its_snapshot_to_the_same_model(tmp_path: Path) -> None:
    whole = fit(trial_on(RecordingChannel(tmp_path / "0")))
    first = RecordingChannel(tmp_path / "1", stop_after=7)
    with pytest.raises(Pruned):
        fit(trial_on(first), snapshot_interval=0)
    assert first.steps == list(range(1, 8))
    assert list(first.saved) == [1, 2, 3, 4, 5, 7], "the last one was written when it stopped"
    for step in (4, 7):
        again = RecordingChannel(tmp_path / f"from-{step}")
        model = fit(trial_on(again, first.saved[step]), snapshot_interval=0)
        assert again.steps == list(range(step + 1, ROUNDS + 1))
        assert np.array_equal(model.predict(X), whole.predict(X))


def test_an_error_of_the_report_is_raised_and_other_callbacks_are_called(tmp_path: Path) -> None:
    seen: list[int] = []
    other = SimpleNamespace(after_iteration=lambda info: seen.append(info.iteration) or True)
    with pytest.raises(BadReport, match="found: learn-RMSE, validation-RMSE"):
        fit(trial_on(RecordingChannel(tmp_path)), "valid-RMSE", callbacks=[other])
    assert seen == [1]
