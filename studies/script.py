"""Objective of script.yaml: softmax regression on handwritten digits, as a program that knows
nothing of tunesvc."""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EPOCHS, BATCH = 30, 64


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--l2", type=float, required=True)
    parser.add_argument("--momentum", type=float, default=0.0)
    return parser.parse_args()


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def main(args: argparse.Namespace) -> None:
    X, y = load_digits(return_X_y=True)
    X = np.c_[X / 16.0, np.ones(len(X))]  # the last column carries the bias
    X, X_val, y, y_val = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    rng = np.random.default_rng(0)
    weights, velocity = np.zeros((X.shape[1], 10)), np.zeros((X.shape[1], 10))

    for epoch in range(1, EPOCHS + 1):
        for batch in np.array_split(rng.permutation(len(X)), len(X) // BATCH):
            error = softmax(X[batch] @ weights) - np.eye(10)[y[batch]]
            gradient = X[batch].T @ error / len(batch) + args.l2 * weights
            velocity = args.momentum * velocity - args.lr * gradient
            weights += velocity
        report(
            {"step": epoch, "val_error": float(np.mean((X_val @ weights).argmax(axis=1) != y_val))}
        )


def report(metrics: dict[str, float]) -> None:
    """Append one JSON line to where tunesvc listens; run by hand, print it."""
    line = json.dumps(metrics) + "\n"
    if path := os.environ.get("TUNE_REPORTS"):
        with Path(path).open("a") as reports:
            reports.write(line)
    else:
        print(line, end="")


if __name__ == "__main__":
    main(arguments())
