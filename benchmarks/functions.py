"""Samplers on smooth functions without noise, as in textbooks: distance of each from the minimum.

    python -m benchmarks.functions [--seeds 10] [--samplers gp,auto,optuna-tpe,optuna-gp]
        [--functions hartmann levy ...] [--marks 30 50 100]

Such functions are a common first test of a sampler. All are defined on the unit cube and have their
minimum inside it. Samplers get the value minus 5, so that the minimum is not 0, which no real loss
reaches. Regret is the best value found, less the minimum; the mean of its decimal logarithm is
shown, so -2 is a hundredth. One thread; Optuna's GPSampler takes part when torch is there.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Sequence

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna

from benchmarks.search import SAMPLERS, present

MARKS = (30, 50, 100)
"""Numbers of trials after which regret is measured, unless others are given."""
OFFSET = 5.0
SMALLEST = 1e-9

_HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_SCALES = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_PLACES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(u: np.ndarray) -> float:
    """Six parameters, with a second valley that ends 0.12 above the minimum."""
    peaks = _HARTMANN_WEIGHTS * np.exp(
        -(_HARTMANN_SCALES * (u - _HARTMANN_PLACES) ** 2).sum(axis=1)
    )
    return 3.32237 - float(peaks.sum())


def hidden(u: np.ndarray) -> float:
    """The same in eighteen parameters, of which twelve have no effect."""
    return hartmann(u[1::3])


def levy(u: np.ndarray) -> float:
    """Ripples on a bowl."""
    w = 1 + (20 * u - 11) / 4
    inner = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)
    ends = np.sin(np.pi * w[0]) ** 2 + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return float(inner.sum() + ends)


def ackley(u: np.ndarray) -> float:
    """Nearly flat, with ripples and a narrow hole."""
    x = 30 * (u - 0.37)
    return float(
        20
        + np.e
        - 20 * np.exp(-0.2 * np.sqrt((x**2).mean()))
        - np.exp(np.cos(2 * np.pi * x).mean())
    )


def rosenbrock(u: np.ndarray) -> float:
    """A curved valley."""
    x = 15 * u - 5
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[:-1] - 1) ** 2).sum())


def bowl(u: np.ndarray) -> float:
    """Some parameters matter a hundred times as much as others."""
    return float(((u - 0.63) ** 2 * np.geomspace(1, 0.01, len(u))).sum())


FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], float], int]] = {
    "hartmann": (hartmann, 6),
    "hidden": (hidden, 18),
    "levy": (levy, 8),
    "ackley": (ackley, 10),
    "rosenbrock": (rosenbrock, 6),
    "bowl": (bowl, 12),
}
"""Functions by name, with the number of parameters."""


def play(name: str, sampler: str, seed: int, marks: Sequence[int]) -> list[float]:
    """Run one study: the decimal logarithm of the regret at each mark."""
    function, parameters = FUNCTIONS[name]
    study = optuna.create_study(sampler=SAMPLERS[sampler](seed, None))
    regrets = []
    for told in range(1, marks[-1] + 1):
        trial = study.ask()
        u = np.array([trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(parameters)])
        study.tell(trial, function(u) - OFFSET)
        if told in marks:
            regrets.append(float(np.log10(max(study.best_value + OFFSET, SMALLEST))))
    return regrets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samplers", default="gp,optuna-tpe,optuna-gp")
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    parser.add_argument("--marks", type=int, nargs="+", default=MARKS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = present(given.samplers)
    print(
        "mean decimal logarithm of regret after "
        + ", ".join(map(str, given.marks))
        + " trials, and its standard error"
    )
    for function in given.functions:
        for sampler in samplers:
            seeds = range(given.seeds)
            found = np.array([play(function, sampler, seed, given.marks) for seed in seeds])
            errors = found.std(axis=0, ddof=1) / np.sqrt(given.seeds)
            cells = [
                f"{mean:6.2f} ± {error:.2f}"
                for mean, error in zip(found.mean(axis=0), errors, strict=True)
            ]
            print(f"{function:11} {sampler:11} " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
