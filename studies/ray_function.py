"""Objective of ray_function.yaml: a function for Ray Tune that knows nothing of tunesvc."""

import tempfile
from pathlib import Path

import joblib
from ray import tune
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split


def train(config: dict) -> None:
    X, y = load_digits(return_X_y=True)
    X_train, X_val, y_train, y_val = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=0
    )
    model = SGDClassifier(
        loss="log_loss", alpha=config["alpha"], penalty=config["penalty"], random_state=0
    )
    start = 0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            model, start = joblib.load(Path(folder) / "state.joblib")
    for epoch in range(start, 20):
        model.partial_fit(X_train, y_train, classes=range(10))
        metrics = {"val_error": 1.0 - model.score(X_val, y_val)}
        with tempfile.TemporaryDirectory() as folder:
            joblib.dump((model, epoch + 1), Path(folder) / "state.joblib")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


if __name__ == "__main__":  # what it was written for
    space = {
        "alpha": tune.loguniform(1e-5, 1e-1),
        "penalty": tune.choice(["l1", "l2", "elasticnet"]),
    }
    tune.Tuner(train, param_space=space).fit()
