"""The decorator: ranges stand where the arguments are, and no study file is needed: `python
studies/decorated.py`.

The function stays a plain function: `python -c "from decorated import train; print(train(lr=0.1))"`
trains once.
"""

from typing import Annotated

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

from tunesvc import Choice, Float, Trial, tunable


@tunable(
    name="decorated",
    metric="val_error",
    goal="minimize",
    pruner={"name": "median", "n_startup_trials": 4, "n_warmup_steps": 2},
    environment={"env": {"OMP_NUM_THREADS": "1"}},
    seed=1,
)
def train(
    lr: Annotated[float, Float(0.0001, 1.0, log=True)],
    alpha: Annotated[float, Float(0.000001, 0.1, log=True)] = 0.0001,
    schedule: Annotated[str, Choice("constant", "invscaling")] = "constant",
    *,
    trial: Trial,
) -> float:
    """Train a linear classifier for fifteen epochs; return its last validation error."""
    X, y = load_digits(return_X_y=True)
    X_train, X_val, y_train, y_val = train_test_split(
        X / 16.0, y, test_size=0.3, stratify=y, random_state=0
    )
    model = SGDClassifier(
        loss="log_loss", alpha=alpha, learning_rate=schedule, eta0=lr, random_state=trial.seed
    )
    error = 1.0
    for epoch in range(1, 16):
        model.partial_fit(X_train, y_train, classes=range(10))
        error = 1.0 - model.score(X_val, y_val)
        trial.report(epoch, val_error=error)
    return error


if __name__ == "__main__":
    # Run a second time, it goes on where it was: finished trials are not run again.
    study = train.tune(trials=20, resume=True)
    print(f"best of {len(study.trials)} trials: {study.best_value} with {study.best_params}")
