"""scikit-learn's way to search: `TuneSearchCV`, in place of `RandomizedSearchCV`."""

from tunesvc.integrations.sklearn_search.tune_search import TuneSearchCV

__all__ = ["TuneSearchCV"]
