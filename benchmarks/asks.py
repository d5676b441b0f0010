"""Time of a proposal: our Gaussian process against Optuna's, which needs torch, on the same
history.

    python -m benchmarks.asks [--rounds 15]

Both take turns in one process of one thread. Each ask is followed by a result, so that
hyperparameters are fitted as often as in a study.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import create_trial

from benchmarks import tables
from tunesvc.search.samplers.auto_sampler import AutoSampler
from tunesvc.search.samplers.gp.gp_sampler import GPSampler

TABLE = "credit_g"
SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "optuna-gp": lambda: optuna.samplers.GPSampler(seed=1),
    "gp": lambda: GPSampler(seed=1),
    "auto": lambda: AutoSampler(seed=1),
}


def filled(sampler: BaseSampler, table: tables.Table, trials: int) -> optuna.Study:
    """Return a study with so many finished random trials."""
    source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    source.optimize(lambda trial: table.train(table.ask(trial), rng), n_trials=trials)
    study = optuna.create_study(sampler=sampler)
    for trial in source.trials:
        study.add_trial(
            create_trial(params=trial.params, distributions=trial.distributions, value=trial.value)
        )
    return study


def ask_s(study: optuna.Study, table: tables.Table, rng: np.random.Generator) -> float:
    """Return the seconds of one ask; its trial is then told."""
    began_s = time.perf_counter()
    trial = study.ask()
    config = table.ask(trial)
    took_s = time.perf_counter() - began_s
    study.tell(trial, table.train(config, rng))
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table, rng = tables.load(TABLE), np.random.default_rng(1)
    names = [name for name in SAMPLERS if name != "optuna-gp" or find_spec("torch")]
    for trials in (100, 500):
        studies = {name: filled(SAMPLERS[name](), table, trials) for name in names}
        took = {name: [] for name in names}  # type: dict[str, list[float]]
        for _ in range(rounds):
            for name, study in studies.items():
                took[name].append(1000 * ask_s(study, table, rng))
        told = ", ".join(
            f"{name} {np.median(t):.1f} (mean {np.mean(t):.1f})" for name, t in took.items()
        )
        print(f"{trials} trials: median ms of {rounds} asks: {told}", flush=True)


if __name__ == "__main__":
    main()
