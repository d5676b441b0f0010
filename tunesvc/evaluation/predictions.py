"""A model's predictions for the rows of a part, in the place of the model.

Each method of the model is called once, however many scorers and resamples use its predictions.
Imports scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.utils import Tags, TargetTags
from sklearn.utils.multiclass import type_of_target

from tunesvc.data.part import Part

_SCORE_METHODS = ("predict_proba", "decision_function")


class Predictions:
    """Answers scikit-learn's scorers; in place of rows they give numbers of rows."""

    def __init__(self, model: Any, part: Part) -> None:
        """Predict nothing yet."""
        self.model = model
        self.y = part.y
        self._inputs = inputs_of(model, part)
        self._found: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return the predictions for some rows."""
        found: np.ndarray = self._of("predict")[rows]
        return found

    @property
    def classes_(self) -> np.ndarray:
        """The classes, in the order of the columns of `predict_proba`."""
        return np.asarray(getattr(self.model, "classes_", np.unique(self.y)))

    @cached_property
    def is_classification(self) -> bool:
        """True if the model predicts classes. Without scikit-learn's tags the target decides."""
        if _has_tags(self.model) and (is_classifier(self.model) or is_regressor(self.model)):
            return bool(is_classifier(self.model))
        return not str(type_of_target(self.y)).startswith("continuous")

    def __sklearn_tags__(self) -> Tags:
        """Return what scorers want to know of an estimator."""
        kind = "classifier" if self.is_classification else "regressor"
        return Tags(estimator_type=kind, target_tags=TargetTags(required=True))

    def __getattr__(self, name: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return a method for probabilities or scores, if the model has it."""
        if name not in _SCORE_METHODS or not hasattr(self.model, name):
            raise AttributeError(f"{type(self.model).__name__} has no `{name}`")

        def method(rows: np.ndarray) -> np.ndarray:
            found: np.ndarray = self._of(name)[rows]
            return found

        method.__name__ = name
        return method

    def _of(self, method: str) -> np.ndarray:
        if method not in self._found:
            self._found[method] = np.asarray(getattr(self.model, method)(self._inputs))
        return self._found[method]


def inputs_of(model: Any, part: Part) -> Any:
    """Return the features of a part as the model was trained on them: with names or as a matrix.

    Raises:
        DataError: a matrix is needed, and a feature is not a number.
    """
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    if names and set(names) <= set(part.features):
        return part.pandas()[names]
    return part.X


def _has_tags(model: Any) -> bool:
    return hasattr(model, "__sklearn_tags__")
