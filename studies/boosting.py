"""Objective of boosting.yaml: two families of trees, each with parameters of its own, grown a few
trees at a time."""

from sklearn.base import ClassifierMixin
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from tunesvc import Trial

X, y = load_breast_cancer(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)


def train(
    family: str,
    learning_rate: float = 0.1,
    l2: float = 0.0,
    growth: str = "leaves",
    max_leaf_nodes: int | None = None,
    max_depth: int | None = None,
    max_features: float = 1.0,
    min_samples_leaf: int = 1,
    *,
    trees: int,
    trees_per_step: int,
    trial: Trial,
) -> None:
    """Grow `trees` trees and report the validation loss after every few; `take: best` in the study
    picks the result.

    `growth` itself is not used: it only decides which of `max_leaf_nodes` and `max_depth` is there.
    """
    if family == "boosting":
        size = "max_iter"
        model = HistGradientBoostingClassifier(
            learning_rate=learning_rate,
            l2_regularization=l2,
            max_leaf_nodes=max_leaf_nodes,
            max_depth=max_depth,
            early_stopping=False,
            warm_start=True,
            random_state=trial.seed,
        )
    else:
        size = "n_estimators"
        model = ExtraTreesClassifier(
            max_features=max_features,
            min_samples_leaf=min_samples_leaf,
            warm_start=True,
            random_state=trial.seed,
        )
    for step in range(1, trees // trees_per_step + 1):
        model.set_params(**{size: step * trees_per_step})
        trial.report(step, log_loss=grow(model))


def grow(model: ClassifierMixin) -> float:
    """Fit the trees that are still missing (warm start), and measure."""
    model.fit(X_train, y_train)
    return log_loss(y_val, model.predict_proba(X_val))
