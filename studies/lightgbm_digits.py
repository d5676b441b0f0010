"""Objective of lightgbm_digits.yaml: LightGBM's own training with one callback more."""

import lightgbm
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tunesvc import Trial
from tunesvc.integrations import LightGBMReporter

X, y = load_digits(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)


def train(
    learning_rate: float,
    num_leaves: int,
    min_child_samples: int,
    feature_fraction: float,
    lambda_l2: float,
    *,
    rounds: int,
    trial: Trial,
) -> float:
    """Boost for some rounds, reporting the validation loss after each; return the last one."""
    params = {
        "objective": "multiclass",
        "num_class": 10,
        "learning_rate": learning_rate,
        "num_leaves": num_leaves,
        "min_child_samples": min_child_samples,
        "feature_fraction": feature_fraction,
        "lambda_l2": lambda_l2,
        "num_threads": 1,
        "seed": trial.seed % 2**31,
        "verbose": -1,
    }
    data = lightgbm.Dataset(X_train, y_train)
    reporter = LightGBMReporter(trial, "valid_0-multi_logloss", checkpoint_every=10)
    model = lightgbm.train(
        params,
        data,
        reporter.rounds_left(rounds),  # an interrupted trial continues from its checkpoint
        valid_sets=[data.create_valid(X_val, y_val)],
        init_model=reporter.restored,
        callbacks=[reporter],
    )
    return model.best_score["valid_0"]["multi_logloss"]
