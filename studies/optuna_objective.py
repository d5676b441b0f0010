"""Objective of optuna_objective.yaml: an objective for Optuna that knows nothing of tunesvc."""

import optuna
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

X, y = load_breast_cancer(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(
    StandardScaler().fit_transform(X), y, test_size=0.5, stratify=y, random_state=0
)


def objective(trial: optuna.Trial) -> float:
    schedule = trial.suggest_categorical("schedule", ["optimal", "constant"])
    eta0 = trial.suggest_float("eta0", 1e-4, 1.0, log=True) if schedule == "constant" else 0.01
    alpha = trial.suggest_float("alpha", 1e-6, 1.0, log=True)
    model = SGDClassifier(alpha=alpha, learning_rate=schedule, eta0=eta0, random_state=trial.number)
    error = 1.0
    for epoch in range(10):
        model.partial_fit(X_train, y_train, classes=[0, 1])
        error = 1.0 - model.score(X_val, y_val)
        trial.report(error, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return error


if __name__ == "__main__":  # what it was written for
    optuna.create_study(pruner=optuna.pruners.MedianPruner()).optimize(objective, n_trials=24)
