"""Objective of digits.yaml: a small neural network on handwritten digits, epoch by epoch."""

from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from tunesvc import Trial

X, y = load_digits(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(
    X / 16.0, y, test_size=0.3, stratify=y, random_state=0
)


def train(
    lr: float, hidden: int, batch: int, alpha: float, activation: str, *, epochs: int, trial: Trial
) -> float:
    """Train for some epochs, reporting the validation error after each; return the last one."""
    model = MLPClassifier(
        hidden_layer_sizes=(hidden,),
        activation=activation,
        batch_size=batch,
        learning_rate_init=lr,
        alpha=alpha,
        random_state=trial.seed,
    )
    epoch, error = 0, 1.0
    if (
        saved := trial.restored()
    ):  # an earlier attempt of this trial was interrupted: go on from there
        model, epoch, error = joblib.load(saved)
    while epoch < epochs:
        model.partial_fit(X_train, y_train, classes=range(10))
        epoch += 1
        error = 1.0 - model.score(X_val, y_val)
        print(f"epoch {epoch}: error {error:.4f}")
        trial.report(epoch, val_error=error)  # raises Pruned when this trial is not worth going on
        if epoch % 9 == 0:
            save(trial, model, epoch, error)
    return error


def save(trial: Trial, model: MLPClassifier, epoch: int, error: float) -> None:
    """Hand a checkpoint over; tunesvc keeps its own copy, so the temporary file may go."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump((model, epoch, error), path)
        trial.checkpoint(path)
