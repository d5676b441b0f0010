"""Objective of folds.yaml: support vector regression, cross-validated by one fold a trial instead
of all of them."""

from sklearn.datasets import load_diabetes
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from tunesvc import Trial

FOLDS = 5
X, y = load_diabetes(return_X_y=True)
SPLITS = list(KFold(FOLDS, shuffle=True, random_state=0).split(X))


def fit(cost: float, gamma: float, epsilon: float, *, trial: Trial) -> float:
    """Train on all folds but one; which one is held out goes by the trial's seed.

    Return the error there.
    """
    train, held_out = SPLITS[trial.seed % FOLDS]
    model = make_pipeline(StandardScaler(), SVR(C=cost, gamma=gamma, epsilon=epsilon))
    model.fit(X[train], y[train])
    return float(mean_absolute_error(y[held_out], model.predict(X[held_out])))
