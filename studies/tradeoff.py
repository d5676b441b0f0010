"""Objective of tradeoff.yaml: how wrong a forest is, and how long it takes to answer."""

from statistics import median
from time import perf_counter

from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split

from tunesvc import Trial

X, y = load_digits(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)


def measure(
    trees: int, max_depth: int, max_features: float, bootstrap: bool, *, trial: Trial
) -> dict[str, float]:
    """Train once; return both metrics by name."""
    model = ExtraTreesClassifier(
        trees,
        max_depth=max_depth,
        max_features=max_features,
        bootstrap=bootstrap,
        random_state=trial.seed,
    ).fit(X_train, y_train)
    return {"val_error": 1.0 - model.score(X_val, y_val), "latency_ms": latency_ms(model)}


def latency_ms(model: ExtraTreesClassifier, repeats: int = 15) -> float:
    """Median time to read a single image; the median, because a busy machine delays some
    answers."""
    times_s = []
    for image in X_val[:repeats]:
        start_s = perf_counter()
        model.predict(image.reshape(1, -1))
        times_s.append(perf_counter() - start_s)
    return median(times_s) * 1000
