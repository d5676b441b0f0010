"""Samplers on tables of real, noisy training results: regret of each recommendation, and the time
of an ask.

    python -m benchmarks.search [--seeds 10] [--tables seven|others] [--parallel 8] [--samplers
    random,optuna-tpe,...]
                                [--draws random|fixed|shared|ignored|all]

Peers recommend `study.best_trial`, as their users do; ours recommend by the posterior, as `tune
best` does. Regret by the best observation is printed beside it. Optuna's GPSampler takes part when
torch is there. One thread.

Every configuration of a table was trained with a few seeds. By `--draws` a trial is trained with
one drawn at `random`; with the same one in all trials of a study (`fixed`); with each in turns
(`shared`), and ours know that, as with `seeds` in a study file; or with `all`, and its value is the
mean. With `ignored` one is drawn, and ours are told that seeds are shared although they are not.
Regret uses the mean over all seeds, and trainings are counted: with `all`, a study of 100 has 20
trials of five.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from benchmarks import tables
from tunesvc.search.analysis.recommend import recommend
from tunesvc.search.samplers.auto_sampler import AutoSampler
from tunesvc.search.samplers.gp.gp_sampler import GPSampler

MARKS = (25, 50, 100)
"""Numbers of trials after which regret is measured."""

SAMPLERS: dict[str, Callable[[int, int | None], BaseSampler]] = {
    "random": lambda seed, shared: optuna.samplers.RandomSampler(seed=seed),
    "optuna-tpe": lambda seed, shared: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "optuna-gp": lambda seed, shared: optuna.samplers.GPSampler(seed=seed),
    "gp": lambda seed, shared: GPSampler(seed=seed, shared_blocks=shared),
    "auto": lambda seed, shared: AutoSampler(seed=seed, shared_blocks=shared),
}
"""Samplers by name, from a seed and the number of shared seeds."""
OURS = ("gp", "auto")
DRAWS = ("random", "fixed", "shared", "ignored", "all")


def play(
    table: tables.Table, name: str, seed: int, parallel: int, draws: str
) -> tuple[np.ndarray, float]:
    """Run one study: regret at each mark of (the recommended, the luckiest), and the median time of
    the last ten asks in s.

    With several in parallel, all finish in the order in which they were asked, so each ask lacks
    the latest results.
    """
    rng = np.random.default_rng([seed, 7])
    shared = table.seeds if draws in ("shared", "ignored") else None
    study = optuna.create_study(sampler=SAMPLERS[name](seed, shared))
    running: deque[tuple[optuna.Trial, tuple[int, ...]]] = deque()
    regrets, asks = [], []
    marks = [mark // (table.seeds if draws == "all" else 1) for mark in MARKS]
    for told in range(1, marks[-1] + 1):
        while len(running) < parallel:
            began_s = time.perf_counter()
            trial = study.ask()
            config = table.ask(trial)
            asks.append(time.perf_counter() - began_s)
            running.append((trial, config))
        trial, config = running.popleft()
        study.tell(trial, train(table, config, draws, rng, seed, trial.number))
        if told in marks:
            luckiest = table.regret(table.config(study.best_trial.params))
            best = (
                recommend(study.get_trials(deepcopy=False), "minimize", shared)
                if name in OURS
                else None
            )
            advised = (
                table.regret(table.config(study.trials[best.number].params)) if best else luckiest
            )
            regrets.append((advised, luckiest))
    return np.array(regrets), float(np.median(asks[-10:]))


def train(
    table: tables.Table,
    config: tuple[int, ...],
    draws: str,
    rng: np.random.Generator,
    study_seed: int,
    number: int,
) -> float:
    """Return the value of a trial."""
    if draws in ("random", "ignored"):
        return table.train(config, rng)
    if draws == "all":
        return float(table.means[config])
    return table.train_with(config, study_seed + (number if draws == "shared" else 0))


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over seeds; `values` has shape (seeds,)."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (2_000, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tables", choices=["seven", "others"], default="seven")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--draws", choices=DRAWS, default="random")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = tables.SEVEN if given.tables == "seven" else tables.OTHERS
    samplers = present(given.samplers)
    results = {}
    for sampler in samplers:
        found = np.empty((len(names), given.seeds, len(MARKS), 2))
        asks = []
        for i, name in enumerate(names):
            for seed in range(given.seeds):
                found[i, seed], ask_s = play(
                    tables.load(name), sampler, seed, given.parallel, given.draws
                )
                asks.append(ask_s)
            told = " ".join(f"{regret:.3f}" for regret in found[i, :, :, 0].mean(axis=0))
            print(f"  {sampler:12} {name:28} {told}", flush=True)
        results[sampler] = found
        print(f"{sampler}: ask {1000 * np.median(asks):.1f} ms at {MARKS[-1]} trials", flush=True)
    report(results)


def present(samplers: str) -> list[str]:
    """Parse a comma-separated list; Optuna's GPSampler only if torch is installed."""
    return [name for name in samplers.split(",") if name != "optuna-gp" or find_spec("torch")]


def report(results: dict[str, np.ndarray]) -> None:
    """Print tables of mean regret with intervals, and mean ranks; each result has shape (tables,
    seeds, marks, 2)."""
    for which, title in enumerate(("recommended", "luckiest observation")):
        print(f"\nmean normalised regret, {title}")
        print("sampler      " + "".join(f"  after {mark:<18}" for mark in MARKS))
        for sampler, found in results.items():
            cells = []
            for mark in range(len(MARKS)):
                of_seeds = found[:, :, mark, which].mean(axis=0)
                low, high = interval(of_seeds)
                cells.append(f"  {of_seeds.mean():.4f} [{low:.4f}, {high:.4f}]")
            print(f"{sampler:13}" + "".join(cells))
    stacked = np.stack([found[:, :, -1, 0] for found in results.values()])
    ranks = (stacked[:, None] > stacked[None]).sum(axis=1) + 0.5 * (
        (stacked[:, None] == stacked[None]).sum(axis=1) + 1
    )
    print(f"\nmean rank after {MARKS[-1]} trials, 1 is best")
    for sampler, rank in zip(results, ranks, strict=True):
        low, high = interval(rank.mean(axis=0))
        print(f"{sampler:13} {rank.mean():.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
