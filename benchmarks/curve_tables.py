"""Tables of learning curves from real training, made once: every configuration of a grid, 54
epochs, four tasks.

    python -m benchmarks.curve_tables            # about three minutes of one core; writes benchmarks/data/curves.npz

The tasks use data that ships with scikit-learn: `digits` (500 training images of ten classes),
`noisy_digits` (the same with 30 % of the training labels replaced at random, so that long training
overfits), `breast_cancer` (two classes) and `diabetes` (regression, squared error of the
standardised target). Training sets are small on purpose. The networks are perceptrons with tanh
units, written in NumPy; all configurations of one shape are trained at once.

The grid has 864 configurations (`GRID`): learning rate, width, depth, batch size, weight decay,
optimizer, schedule. Under the cosine schedule poor starts end well and curves cross; large rates
diverge, and their NaN are kept.

`load` gives a table back: per configuration and epoch the validation loss and the validation error
(of `diabetes` the absolute error). Losses are stored as float16, which resolves 0.05 %.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

EPOCHS = 54
GRID: dict[str, Sequence[Any]] = {
    "lr": (0.001, 0.004, 0.016, 0.064, 0.256, 1.024),
    "width": (4, 16, 64),
    "depth": (1, 3),
    "batch": (8, 64),
    "decay": (0.0, 0.001, 0.03),
    "optimizer": ("momentum", "adam"),
    "schedule": ("constant", "cosine"),
}
"""Parameter -> values, in the order of a table's rows (the last parameter varies fastest)."""
TASKS = ("digits", "noisy_digits", "breast_cancer", "diabetes")
HOME = Path(__file__).parent / "data" / "curves.npz"

_ADAM_SHARE = 0.1
"""Adam's steps have about the size of its rate, so its rates are a tenth of the grid's."""


@dataclass(frozen=True)
class Table:
    """Learning curves of one task, of shape (configurations, epochs)."""

    loss: np.ndarray
    error: np.ndarray

    def row(self, params: dict[str, Any]) -> int:
        """Return the row of a configuration."""
        return int(
            np.ravel_multi_index(
                [GRID[n].index(params[n]) for n in GRID], [len(v) for v in GRID.values()]
            )
        )


def load(task: str, path: Path = HOME) -> Table:
    """Load the stored table of a task."""
    with np.load(path) as stored:
        return Table(stored[f"{task}.loss"].astype(float), stored[f"{task}.error"].astype(float))


@dataclass(frozen=True)
class Task:
    """Training and validation data, standardised. Targets of a classification are class numbers."""

    name: str
    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    classes: int
    """0 for a regression."""
    rng: np.random.Generator = field(repr=False)


def make_task(name: str) -> Task:
    """Build a task from scikit-learn's data, always with the same split."""
    from sklearn import datasets  # needed only to make the tables

    rng = np.random.default_rng(20)
    source = {"breast_cancer": datasets.load_breast_cancer, "diabetes": datasets.load_diabetes}
    data = source.get(name, datasets.load_digits)()
    order = rng.permutation(len(data.target))
    train, val = np.split(order, [{"breast_cancer": 150, "diabetes": 180}.get(name, 500)])
    val = val[:800]
    mean, deviation = data.data[train].mean(axis=0), data.data[train].std(axis=0) + 1e-3
    x = ((data.data - mean) / deviation).clip(-5, 5).astype(np.float32)
    if name == "diabetes":
        y = ((data.target - data.target[train].mean()) / data.target[train].std()).astype(
            np.float32
        )
        return Task(name, x[train], y[train], x[val], y[val], 0, rng)
    y = data.target.copy()
    classes = int(y.max()) + 1
    if name == "noisy_digits":
        wrong = train[rng.random(len(train)) < 0.3]
        y[wrong] = rng.integers(classes, size=len(wrong))
    return Task(name, x[train], y[train], x[val], y[val], classes, rng)


class Networks:
    """Perceptrons of one shape, trained side by side; arrays have the network as their first
    axis."""

    def __init__(
        self, inputs: int, outputs: int, configs: Sequence[dict[str, Any]], rng: np.random.Generator
    ) -> None:
        shape = [inputs, *[configs[0]["width"]] * configs[0]["depth"], outputs]
        n = len(configs)
        self.weights = [
            (rng.standard_normal((n, i + 1, o)) / np.sqrt(i)).astype(
                np.float32
            )  # the last row is the bias
            for i, o in itertools.pairwise(shape)
        ]
        for weights in self.weights:
            weights[:, -1] = 0
        self._moment = [np.zeros_like(w) for w in self.weights]
        self._square = [np.zeros_like(w) for w in self.weights]
        self._adam = _column([c["optimizer"] == "adam" for c in configs]) > 0
        self._lr = _column([c["lr"] for c in configs]) * np.where(
            self._adam, np.float32(_ADAM_SHARE), np.float32(1)
        )
        self._cosine = _column([c["schedule"] == "cosine" for c in configs]) > 0
        self._decay = _column([c["decay"] for c in configs])
        self._steps = 0

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        """Return activations by layer; the last are the outputs."""
        layers = [x]
        for depth, weights in enumerate(self.weights):
            z = layers[-1] @ weights[:, :-1] + weights[:, -1:]
            layers.append(z if depth == len(self.weights) - 1 else np.tanh(z))
        return layers

    def step(self, x: np.ndarray, y: np.ndarray, classes: int, progress: float) -> None:
        """Make one step of the optimizer on a batch; `progress` is the completed fraction of the
        training."""
        layers = self.forward(x)
        delta = _loss_gradient(layers[-1], y, classes) / np.float32(len(x))
        self._steps += 1
        share = np.where(
            self._cosine, np.float32(0.5 * (1 + np.cos(np.pi * progress))), np.float32(1)
        )
        for depth in reversed(range(len(self.weights))):
            weights, below = self.weights[depth], layers[depth]
            gradient = np.empty_like(weights)
            gradient[:, :-1] = (
                np.swapaxes(np.broadcast_to(below, (len(weights), *below.shape[-2:])), 1, 2) @ delta
            )
            gradient[:, -1] = delta.sum(axis=1)
            if depth:
                delta = (delta @ np.swapaxes(weights[:, :-1], 1, 2)) * (1 - below**2)
            self._update(depth, gradient, self._lr * share)

    def _update(self, depth: int, gradient: np.ndarray, rate: np.ndarray) -> None:
        """Momentum 0.9, or Adam; weight decay is decoupled in both."""
        weights, moment, square = self.weights[depth], self._moment[depth], self._square[depth]
        adam = self._adam
        moment *= np.float32(0.9)
        moment += gradient * np.where(adam, np.float32(0.1), np.float32(1))
        square *= np.float32(0.99)
        square += np.float32(0.01) * gradient**2
        scale = np.sqrt(square / np.float32(1 - 0.99**self._steps)) + np.float32(1e-8)
        unbiased = moment / np.float32(1 - 0.9**self._steps)
        weights -= rate * (np.where(adam, unbiased / scale, moment) + self._decay * weights)


def train(task: Task, configs: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return validation loss and error, each of shape (networks, epochs), of configurations of
    one shape and batch size."""
    networks = Networks(task.x.shape[1], max(task.classes, 1), configs, task.rng)
    losses, errors = [], []
    batch = configs[0]["batch"]
    for epoch in range(EPOCHS):
        order = task.rng.permutation(len(task.x))
        batches = [order[start : start + batch] for start in range(0, len(order), batch)]
        for k, chosen in enumerate(batches):
            networks.step(
                task.x[chosen], task.y[chosen], task.classes, (epoch + k / len(batches)) / EPOCHS
            )
        loss, error = _judge(networks.forward(task.x_val)[-1], task.y_val, task.classes)
        losses.append(loss)
        errors.append(error)
    return np.stack(losses, axis=1), np.stack(errors, axis=1)


def make_table(name: str) -> Table:
    """Train every configuration of the grid on a task."""
    task = make_task(name)
    configs = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    loss = np.empty((len(configs), EPOCHS))
    error = np.empty_like(loss)
    shapes = sorted({(c["width"], c["depth"], c["batch"]) for c in configs})
    for shape in shapes:
        rows = [i for i, c in enumerate(configs) if (c["width"], c["depth"], c["batch"]) == shape]
        with np.errstate(all="ignore"):  # a divergence is a result too
            loss[rows], error[rows] = train(task, [configs[i] for i in rows])
    return Table(loss, error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HOME)
    given = parser.parse_args()
    stored: dict[str, np.ndarray] = {}
    for name in TASKS:
        started_s = time.perf_counter()
        table = make_table(name)
        stored[f"{name}.loss"] = _small(table.loss)
        stored[f"{name}.error"] = _small(table.error)
        print(
            f"{name}: {time.perf_counter() - started_s:.0f} s, best final loss {np.nanmin(table.loss[:, -1]):.4f}"
        )
    given.out.parent.mkdir(exist_ok=True)
    np.savez_compressed(given.out, allow_pickle=False, **stored)


def _small(values: np.ndarray) -> np.ndarray:
    """Convert to float16; values beyond its range have diverged."""
    small: np.ndarray = np.where(np.abs(values) < np.finfo(np.float16).max, values, np.nan)
    return small.astype(np.float16)


def _column(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def _loss_gradient(out: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    if not classes:
        residual: np.ndarray = out - y[:, None]
        return residual
    p: np.ndarray = np.exp(out - out.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    p[:, np.arange(len(y)), y] -= 1
    return p


def _judge(out: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean loss and mean error by network."""
    diverged = np.where(np.isfinite(out).all(axis=(1, 2)), 0.0, np.nan)
    if not classes:
        miss = out[..., 0].astype(float) - y
        return (miss**2).mean(axis=1) + diverged, np.abs(miss).mean(axis=1) + diverged
    out = out.astype(float)
    top = out.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(out - top).sum(axis=-1)) + top[..., 0]
    loss = (log_sum - out[:, np.arange(len(y)), y]).mean(axis=1)
    return loss + diverged, (out.argmax(axis=-1) != y).mean(axis=1) + diverged


if __name__ == "__main__":
    main()
