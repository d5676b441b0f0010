"""Private names of scikit-learn that a search needs, each with its reason.

`BaseSearchCV` offers `_run_search` to subclasses, but that evaluates a candidate with all folds at
once, in joblib's workers. So `TuneSearchCV` has a `fit` of its own, made of the parts of the
original one. `tests/integration/test_sklearn_search.py` fails if an upgrade changes one of them.
"""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.base import _fit_context as fit_context
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _fit_and_score as fit_and_score
from sklearn.model_selection._validation import _insert_error_scores as insert_error_scores
from sklearn.model_selection._validation import (
    _warn_or_raise_about_fit_failures as warn_or_raise_about_fit_failures,
)
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_method_params as check_method_params

__all__ = [
    "BaseSearchCV",  # predict, score, tags, metadata routing, cv_results_
    "Integral",
    "Interval",  # states what a parameter may be, as in scikit-learn's own estimators
    "Real",
    "check_method_params",  # sample weights and the like, checked against X
    "fit_and_score",  # one fold, with scikit-learn's times, messages and error scores
    "fit_context",  # validates the parameters of the estimator
    "insert_error_scores",  # error scores for scorers that return a dict
    "warn_or_raise_about_fit_failures",  # FitFailedWarning, and ValueError if all fits failed
]
