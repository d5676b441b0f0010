"""The objective of study.yaml. Needs scikit-learn: `pip install scikit-learn`."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from tunesvc import Trial

X, y = load_digits(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(
    X / 16.0,
    y,
    test_size=0.3,
    stratify=y,
    random_state=0,
)


def train(
    lr: float,
    hidden: int,
    solver: str,
    momentum: float = 0.9,
    *,
    epochs: int,
    trial: Trial,
) -> float:
    """Train for some epochs and report the validation error after each."""
    model = MLPClassifier(
        (hidden,),
        solver=solver,
        learning_rate_init=lr,
        momentum=momentum,
        random_state=trial.seed,
    )
    error = 1.0
    for epoch in range(1, epochs + 1):
        model.partial_fit(X_train, y_train, classes=range(10))
        error = 1.0 - float(model.score(X_val, y_val))
        trial.report(epoch, val_error=error)  # raises Pruned if this trial should stop
    return error
