"""Scores the model that an objective returned, and makes a summary of its predictions.

Imports scikit-learn when it is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tunesvc.data.part import Part
from tunesvc.data.trial_data import open_test
from tunesvc.errors import BadReport
from tunesvc.trial import Trial

FINAL_SCORES = "tunesvc:final-scores"
"""System attribute of a final run: scores on the validation part, and standard errors."""
SetAttr = Callable[[str, str], None]
"""Sets a system attribute of the trial; its value is JSON."""


def score_model(
    returned: object,
    trial: Trial,
    scoring: tuple[str, ...],
    set_attr: SetAttr,
) -> dict[str, float]:
    """Return the scores of a model on the validation part, and store a summary of its predictions.

    Raises:
        BadReport: the objective returned no model, or a scorer cannot score it.
        DataError: the study has no data.
    """
    require_model(returned, scoring)

    def set_for_fold(name: str, value: str) -> None:
        set_attr(name if trial.fold is None else f"{name}:{trial.fold}", value)

    return _scores(returned, trial.data.validation, scoring, set_for_fold, "validation part")


def score_final(
    model: object,
    trial: Trial,
    scoring: tuple[str, ...],
    set_attr: SetAttr,
) -> dict[str, float]:
    """Return the scores on the test part, and store how exact they are; see `FINAL_SCORES`.

    Without a test part these are scores on the validation part.

    Raises:
        BadReport, DataError: see `score_model`.
    """
    require_model(model, scoring)
    part = open_test(trial.data)
    if part is None:
        return _scores(model, trial.data.validation, scoring, set_attr, "validation part")
    from tunesvc.evaluation.predictions import Predictions
    from tunesvc.evaluation.scoring import score, standard_errors

    scores = _scores(model, part, scoring, set_attr, "test part")
    test = Predictions(model, part)
    validation = Predictions(model, trial.data.validation)
    stored = {
        "validation": score(validation, scoring),
        "validation_error": standard_errors(validation, scoring, trial.seed),
        "test_error": standard_errors(test, scoring, trial.seed),
    }
    set_attr(FINAL_SCORES, json.dumps(stored))
    return scores


def store_model(model: object, trial: Trial) -> None:
    """Save a model as the trial's checkpoint.

    Raises:
        BadReport: it cannot be pickled.
    """
    from tunesvc.evaluation.predictions import inputs_of
    from tunesvc.models.model_file import write_model

    inputs = inputs_of(model, open_test(trial.data) or trial.data.validation)
    trial.checkpoint(write_model(model, inputs, trial.directory))


def require_model(returned: object, scoring: tuple[str, ...]) -> None:
    """Refuse what is no fitted model.

    Raises:
        BadReport: it has no `predict`.
    """
    if isinstance(returned, type):
        raise BadReport(f"the objective returned the class {returned.__name__}, not a fitted model")
    if not callable(getattr(returned, "predict", None)):
        kind = "nothing" if returned is None else f"a {type(returned).__name__}"
        raise BadReport(
            f"the objective returned {kind}, and `evaluation: {{scoring: [{', '.join(scoring)}]}}` "
            "scores the fitted model: `return model`, anything with `predict`; or leave `scoring` "
            "out, and return a number"
        )


def _scores(
    model: object,
    part: Part,
    scoring: tuple[str, ...],
    set_attr: SetAttr,
    name: str,
) -> dict[str, float]:
    from tunesvc.evaluation.prediction_summary import PREDICTIONS
    from tunesvc.evaluation.predictions import Predictions
    from tunesvc.evaluation.scoring import score

    predictions = Predictions(model, part)
    scores = score(predictions, scoring)
    if (summary := summarize(predictions)) is not None:
        set_attr(PREDICTIONS, json.dumps({**summary, "part": name}))
    return scores


def summarize(predictions: Any) -> dict[str, Any] | None:
    """Return the summary of a model's predictions; None if they are not one value per row."""
    import numpy as np

    from tunesvc.evaluation.prediction_summary import confusion_of, residuals_of

    predicted = np.asarray(predictions.predict(np.arange(len(predictions))))
    if predicted.size != len(predictions):
        return None
    summary = confusion_of if predictions.is_classification else residuals_of
    return summary(predictions.y, predicted)
