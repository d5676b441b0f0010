"""Models are judged by scikit-learn's scorers, with a summary of their predictions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.svm import LinearSVC

from tests.support.prepared_data import prepared_data
from tunesvc.charts.predictions_chart import predictions
from tunesvc.data.trial_data import TrialData
from tunesvc.errors import BadReport, DataError, SpecError
from tunesvc.evaluation.model_scores import score_model
from tunesvc.evaluation.prediction_summary import (
    CLASSES_MAX,
    PREDICTIONS,
    confusion_of,
    residuals_of,
    summary_in,
)
from tunesvc.evaluation.predictions import Predictions
from tunesvc.evaluation.scoring import require_fitting_scorers, score, standard_errors
from tunesvc.spec.scorers import SCORERS
from tunesvc.spec.yaml.document import spec_from_dict
from tunesvc.trial import AssignedResources, Trial

OBJECTIVES = Path(__file__).parent.parent / "objectives"
Read = Callable[..., TrialData]


def study(**keys: Any) -> dict[str, Any]:
    return {
        "name": "flowers",
        "entrypoint": "on_models:classify",
        "parameters": {"x": {"min": -2.0, "max": 2.0}},
        "budget": 2,
        "data": {"source": "on_models:flowers", "target": "kind"},
        "evaluation": {"scoring": ["roc_auc", "accuracy"]},
    } | keys


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Prepare a source of `on_models`."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(OBJECTIVES), *sys.path])

    def read(source: str, target: str) -> TrialData:
        data = {"source": f"on_models:{source}", "target": target, "split": {"test": 0.2}}
        return prepared_data(spec_from_dict(study(data=data)), OBJECTIVES)

    return read


# --- the study file ------------------------------------------------------------------------------


def test_the_names_are_those_of_scikit_learn() -> None:
    assert set(get_scorer_names()) == SCORERS


@pytest.mark.parametrize(
    ("metric", "named"),
    [(None, "roc_auc"), ("accuracy", "accuracy"), ({"name": "accuracy"}, "accuracy")],
)
def test_of_a_scorer_more_is_better_and_the_first_is_the_metric(metric: Any, named: str) -> None:
    spec = spec_from_dict(study(**({} if metric is None else {"metric": metric})))
    assert [(one.name, one.goal) for one in spec.metrics] == [(named, "maximize")]
    assert spec.scoring == ("roc_auc", "accuracy")


def test_one_scorer_needs_no_list() -> None:
    assert spec_from_dict(study(evaluation={"scoring": "r2"})).scoring == ("r2",)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"evaluation": {"scoring": ["roc_acu"]}},
            "has no scorer `roc_acu`, did you mean `roc_auc`",
        ),
        ({"evaluation": {"scoring": "log_loss"}}, "its negative `neg_log_loss` is one"),
        ({"evaluation": {"scoring": "rmse"}}, "did you mean `neg_root_mean_squared_error`?"),
        ({"evaluation": {"scoring": ["r2", "r2"]}}, "`r2` is there twice"),
        ({"metric": "log_loss"}, "the metric is one of its scorers (roc_auc, accuracy), not"),
        ({"metric": "acuracy"}, "did you mean `accuracy`?"),
        ({"metric": {"name": "roc_auc", "goal": "minimize"}}, "more is better: leave `goal` out"),
        ({"data": None}, "needs `data` with a `target`"),
        ({"entrypoint": None, "command": "python a.py ${x}"}, "a command returns no model"),
        ({"evaluation": {"scorer": "r2"}}, "did you mean `scoring`?"),
        ({"evaluation": {"scoring": 5}}, "scoring"),
    ],
)
def test_a_wrong_scorer_is_refused_before_anything_starts(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_from_dict({name: key for name, key in study(**keys).items() if key is not None})
    assert text in str(caught.value)


def test_scorers_that_do_not_fit_the_target_are_refused(read: Read) -> None:
    flowers, houses = read("flowers", "kind"), read("houses", "price")
    require_fitting_scorers(flowers.train, flowers.validation, ["roc_auc", "neg_log_loss"])
    require_fitting_scorers(houses.train, houses.validation, ["r2", "neg_mean_absolute_error"])
    for data, name in ((flowers, "r2"), (houses, "accuracy"), (flowers, "f1"), (houses, "roc_auc")):
        with pytest.raises(DataError, match=f"the scorer `{name}` does not fit the target"):
            require_fitting_scorers(data.train, data.validation, [name])


# --- scores --------------------------------------------------------------------------------------


def trial_of(data: TrialData) -> Trial:
    return Trial(resources=AssignedResources(open_data=lambda: data))


def test_scores_and_confusion_are_those_of_scikit_learn(read: Read) -> None:
    data = read("flowers", "kind")
    rows, y = data.train
    model = LogisticRegression().fit(rows, y)
    attrs: dict[str, str] = {}
    names = ("roc_auc", "accuracy", "neg_log_loss", "f1_macro")
    found = score_model(model, trial_of(data), names, attrs.__setitem__)
    rows, y = data.validation
    assert found == {name: get_scorer(name)(model, rows, y) for name in names}
    (summary,) = map(json.loads, attrs.values())
    assert summary["labels"] == ["rose", "tulip"]
    counts = np.array(summary["counts"])
    assert counts.sum() == summary["rows"] == len(y)
    assert np.trace(counts) / len(y) == found["accuracy"]
    roses = y == "rose"
    assert counts[0, 1] == (model.predict(rows)[roses] == "tulip").sum()


def test_a_model_trained_with_names_is_scored_with_names(read: Read) -> None:
    from tests.objectives.on_models import with_names

    data = read("flowers", "kind")
    trial = trial_of(data)
    model = with_names(0.0, trial)
    (value,) = score_model(model, trial, ("accuracy",), lambda name, value: None).values()
    frame = data.validation.pandas()
    assert value == model.score(frame[["c", "a", "b"]], frame["kind"])


def test_each_method_of_a_model_is_called_once(read: Read) -> None:
    data = read("flowers", "kind")
    model = Counting().fit(*data.train)
    predicted = Predictions(model, data.validation)
    score(predicted, ["accuracy", "roc_auc", "neg_log_loss"])
    standard_errors(predicted, ["accuracy"], 0)
    assert sorted(model.calls) == [
        "decision_function",
        "predict",
        "predict_proba",
    ]


class Counting(LogisticRegression):
    """Counts calls from outside."""

    def fit(self, rows: Any, y: Any) -> Counting:
        self.calls: list[str] = []
        self.inner = LogisticRegression().fit(rows, y)
        self.classes_ = self.inner.classes_
        return self

    def predict(self, rows: Any) -> Any:
        self.calls.append("predict")
        return self.inner.predict(rows)

    def predict_proba(self, rows: Any) -> Any:
        self.calls.append("predict_proba")
        return self.inner.predict_proba(rows)

    def decision_function(self, rows: Any) -> Any:
        self.calls.append("decision_function")
        return self.inner.decision_function(rows)


class Plain:
    """Has `predict`, and nothing of scikit-learn."""

    def predict(self, rows: Any) -> Any:
        return np.where(np.asarray(rows)[:, 0] > 0, "rose", "tulip")


def test_anything_with_predict_is_a_model(read: Read) -> None:
    data = read("flowers", "kind")
    (value,) = score_model(Plain(), trial_of(data), ("accuracy",), lambda *_: None).values()
    rows, y = data.validation
    assert value == (Plain().predict(rows) == y).mean()


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (0.3, "returned a float"),
        (None, "returned nothing"),
        ({"accuracy": 0.3}, "returned a dict"),
        (LogisticRegression, "returned the class LogisticRegression"),
    ],
)
def test_what_is_no_model_is_refused(read: Read, returned: Any, text: str) -> None:
    with pytest.raises(BadReport, match=text):
        score_model(returned, trial_of(read("flowers", "kind")), ("accuracy",), lambda *_: None)


def test_a_model_without_probabilities_is_refused_with_a_remedy(read: Read) -> None:
    data = read("flowers", "kind")
    model = LinearSVC().fit(*data.train)
    with pytest.raises(BadReport, match=r"`neg_log_loss` cannot score .*LinearSVC.*Calibrated"):
        score_model(model, trial_of(data), ("neg_log_loss",), lambda *_: None)
    assert score_model(model, trial_of(data), ("roc_auc",), lambda *_: None)["roc_auc"] > 0.5


def test_the_standard_error_of_accuracy_is_the_binomial_one(read: Read) -> None:
    data = read("flowers", "kind")
    predicted = Predictions(LogisticRegression().fit(*data.train), data.validation)
    (accuracy,) = score(predicted, ["accuracy"]).values()
    found = standard_errors(predicted, ["accuracy", "roc_auc"], seed=0)
    expected = np.sqrt(accuracy * (1 - accuracy) / len(predicted))
    assert found["accuracy"] == pytest.approx(expected, rel=0.2)
    assert 0 < found["roc_auc"] < 0.1


# --- charts --------------


def test_a_confusion_matrix_is_drawn_with_its_numbers(read: Read) -> None:
    data = read("flowers", "kind")
    attrs: dict[str, str] = {}
    model = LogisticRegression().fit(*data.train)
    (accuracy,) = score_model(model, trial_of(data), ("accuracy",), attrs.__setitem__).values()
    (summary,) = map(json.loads, attrs.values())
    chart = predictions(summary)
    assert chart.title == "Confusion matrix"
    right = round(accuracy * summary["rows"])
    assert chart.note.startswith(f"{right} of {summary['rows']} rows of the validation part")
    assert sum(row[2] for row in chart.rows()) == summary["rows"]
    (trace,) = chart.figure.data
    assert trace.texttemplate == "%{text}"
    many = confusion_of(np.arange(20), np.arange(20))
    assert predictions({**many, "part": "x"}).figure.data[0].texttemplate is None


def test_residuals_are_drawn_around_zero(read: Read) -> None:
    data = read("houses", "price")
    attrs: dict[str, str] = {}
    score_model(Ridge().fit(*data.train), trial_of(data), ("r2",), attrs.__setitem__)
    (summary,) = map(json.loads, attrs.values())
    chart = predictions(summary)
    assert chart.title == "Residuals"
    assert sum(row[2] for row in chart.rows()) == summary["rows"]
    assert [trace.type for trace in chart.figure.data] == ["heatmap", "scatter"]
    assert predictions(residuals_of(np.array([np.nan]), np.ones(1))).figure is None


# --- summaries -----------------------------------------------------------------------------------


def test_rare_classes_count_together() -> None:
    y = np.repeat(np.arange(50), np.arange(1, 51))
    summary = confusion_of(y, y)
    assert len(summary["labels"]) == CLASSES_MAX
    assert summary["labels"][0] == "21"
    assert summary["labels"][-1] == "other"
    assert summary["counts"][-1][-1] == sum(range(1, 22))
    assert len(json.dumps(summary)) < 6_000


def test_residuals_are_binned_and_outliers_stay_at_the_edge(read: Read) -> None:
    data = read("houses", "price")
    model = Ridge().fit(*data.train)
    attrs: dict[str, str] = {}
    score_model(model, trial_of(data), ("r2",), attrs.__setitem__)
    (summary,) = map(json.loads, attrs.values())
    rows, y = data.validation
    residual = y - model.predict(rows)
    assert summary["mean"] == pytest.approx(residual.mean())
    assert np.sum(summary["counts"]) == len(y)
    far = residuals_of(np.append(y, 1e9), np.append(model.predict(rows), 0.0))
    assert far["residual"][1] < 10
    assert np.sum(far["counts"]) == len(y) + 1
    assert residuals_of(np.ones(3), np.ones(3))["rows"] == 3
    assert residuals_of(np.array([np.nan]), np.ones(1))["rows"] == 0


def test_a_column_of_text_goes_to_models_with_names_only(read: Read) -> None:
    data = read("houses", "price")
    assert isinstance(data.train.pandas(), pd.DataFrame)
    model = Ridge().fit(data.train.pandas()[list("abcd")], data.train.y)
    (value,) = score_model(model, trial_of(data), ("r2",), lambda *_: None).values()
    assert 0.5 < value < 1


def test_the_confusion_of_folds_is_that_of_all_their_rows() -> None:
    rng = np.random.default_rng(0)
    y, predicted = rng.choice(["a", "b", "c"], 90), rng.choice(["a", "b", "c"], 90)
    y[:30] = predicted[:30] = "b"  # a fold without the other classes
    whole = confusion_of(y, predicted)
    folds = [slice(0, 30), slice(30, 60), slice(60, 90)]
    attrs = {
        f"{PREDICTIONS}:{k}": {**confusion_of(y[fold], predicted[fold]), "part": "validation part"}
        for k, fold in enumerate(folds)
    }
    assert summary_in(attrs, "fold") == {**whole, "part": "validation part of 3 folds"}
    assert summary_in({}, "fold") is None


def test_the_residuals_of_folds_have_their_common_mean_and_deviation() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    predicted = y + rng.normal(0.3, 0.1, size=100)
    attrs = {
        f"{PREDICTIONS}:{k}": {**residuals_of(y[k::2], predicted[k::2]), "part": "validation part"}
        for k in range(2)
    }
    merged = summary_in(attrs, "repeat")
    assert merged is not None
    whole = residuals_of(y, predicted)
    assert merged["mean"] == pytest.approx(whole["mean"])
    assert merged["deviation"] == pytest.approx(whole["deviation"])
    assert (merged["rows"], np.sum(merged["counts"])) == (100, 100)
    assert merged["part"] == "validation part of 2 repeats"
