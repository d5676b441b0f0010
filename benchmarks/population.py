"""Population-based training on a network whose best learning rate falls over time.

    python -m benchmarks.population [--seeds 0 1 2] [--systems pbt pb2 ray fixed]

A network of one hidden layer on scikit-learn's digits sees three of ten pixels at a time, in batches
of two: a high learning rate learns fast, and a low one averages that noise out. With a falling rate
it reaches 0.40, with a fixed one and no weight decay 0.46. Eight members train 40 epochs, two at a time, and are
compared every 4 epochs. The score is the validation
loss of the best member, and that member's loss on data that nothing chose by. Every system trains
equally long, in a process of its own.

    pbt, pb2   a study with `search: {method: ...}`
    ray        Ray Tune's PopulationBasedTraining, with the same options, actors reused
    fixed      eight trials with fixed parameters, by `sampler: auto`
    replay     the schedule of `pbt`'s best member, trained alone with three new seeds

The time is that of the study, without the start of Ray.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tunesvc import Float, Trial, tunable

EPOCHS, INTERVAL, MEMBERS, SLOTS = 40, 4, 8, 2
HIDDEN, BATCH, KEPT = 32, 2, 0.3
LR, L2 = (1e-3, 1.0), (1e-6, 1e-1)


@cache
def data() -> Mapping[str, np.ndarray]:
    """Return the digits: data to train, to validate and to test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.target))
    x, y = digits.data[order] / 16.0, digits.target[order]
    parts = {"train": slice(0, 800), "valid": slice(800, 1300), "test": slice(1300, None)}
    found = {f"x_{name}": x[part] for name, part in parts.items()}
    return found | {f"y_{name}": y[part] for name, part in parts.items()}


class Network:
    """A network that trains one epoch at a time, and can be saved between epochs."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.epoch = 0
        self.weights = [rng.normal(0, 0.15, (64, HIDDEN)), rng.normal(0, 0.15, (HIDDEN, 10))]

    def train(self, lr: float, l2: float) -> None:
        """Train one epoch by stochastic gradient descent."""
        found = data()
        self.epoch += 1
        rng = np.random.default_rng([self.seed, self.epoch])
        first, second = self.weights
        for rows in rng.permutation(len(found["x_train"])).reshape(-1, BATCH):
            x, y = found["x_train"][rows], found["y_train"][rows]
            x = x * (rng.random(x.shape) < KEPT) / KEPT
            hidden = np.tanh(x @ first)
            error = _softmax(hidden @ second)
            error[np.arange(BATCH), y] -= 1.0
            error /= BATCH
            back = (error @ second.T) * (1 - hidden**2)
            second -= lr * (hidden.T @ error + l2 * second)
            first -= lr * (x.T @ back + l2 * first)

    def loss(self, part: str) -> float:
        """Return the cross-entropy on a part of the data."""
        found = data()
        with np.errstate(all="ignore"):
            odds = _softmax(np.tanh(found[f"x_{part}"] @ self.weights[0]) @ self.weights[1])
            y = found[f"y_{part}"]
            loss = float(-np.log(np.maximum(odds[np.arange(len(y)), y], 1e-12)).mean())
        return loss if math.isfinite(loss) else 99.0

    def save(self, path: Path) -> None:
        """Write it to a file."""
        np.savez(path, epoch=self.epoch, first=self.weights[0], second=self.weights[1])

    def load(self, path: Path) -> None:
        """Continue from a file."""
        with np.load(path) as saved:
            self.epoch = int(saved["epoch"])
            self.weights = [saved["first"].copy(), saved["second"].copy()]


def _softmax(scores: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


@tunable(metric="valid", goal="minimize")
def train(
    lr: Annotated[float, Float(*LR, log=True)],
    l2: Annotated[float, Float(*L2, log=True)],
    *,
    trial: Trial,
) -> None:
    """Train a network, and save it after each epoch."""
    network = Network(trial.seed)
    if (saved := trial.restored()) is not None:
        network.load(saved)
    while network.epoch < EPOCHS:
        network.train(lr, l2)
        trial.report(network.epoch, valid=network.loss("valid"), test=network.loss("test"))
        if network.epoch % INTERVAL == 0:
            path = trial.directory / "network.npz"
            network.save(path)
            trial.checkpoint(path)


# --- systems: each returns the validation loss, the test loss and the seconds of one study ---


def population(method: str, seed: int) -> dict[str, Any]:
    """Run a population."""
    study = train.tune(
        name=f"{method}-{seed}",
        search={"method": method, "population": MEMBERS, "interval": INTERVAL, "steps": EPOCHS},
        parallelism=SLOTS,
        seed=seed,
        progress=False,
    )
    best = study.best_trial
    stages = study.schedule()["stages"]
    rates = [(stage["until"], round(stage["parameters"]["lr"], 4)) for stage in stages]
    replays = []
    if method == "pbt":
        again = train.tune(
            name=f"{method}-{seed}-replay",
            search={**study.schedule(), "population": 3},
            parallelism=SLOTS,
            seed=seed + 1000,
            progress=False,
        )
        replays = [row.value for row in again.trials if row.state == "complete"]
    return {**_result(study, best), "schedule": rates, "replays": replays}


def fixed(seed: int) -> dict[str, Any]:
    """Run trials with fixed parameters."""
    study = train.tune(
        name=f"fixed-{seed}",
        trials=MEMBERS,
        pruner="none",
        parallelism=SLOTS,
        seed=seed,
        progress=False,
    )
    values = {row.number: row.value for row in study.trials if row.value is not None}
    best = min(values, key=values.__getitem__)
    return _result(study, study.trials[best])


def _result(study: Any, best: Any) -> dict[str, Any]:
    test = float(study.curves("test")[best.number].dropna().iloc[-1])
    return {"valid": best.value, "test": test, "seconds": study.view.active_s}


def ray_population(seed: int) -> dict[str, Any]:
    """Run Ray Tune's scheduler."""
    import ray
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    class Member(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            number = int(self.trial_id.rpartition("_")[2])
            self.network = Network(seed * 1000 + number)

        def step(self) -> dict[str, float]:
            self.network.train(self.config["lr"], self.config["l2"])
            return {"valid": self.network.loss("valid"), "test": self.network.loss("test")}

        def save_checkpoint(self, folder: str) -> None:
            self.network.save(Path(folder) / "network.npz")

        def load_checkpoint(self, folder: Any) -> None:
            self.network.load(Path(folder) / "network.npz")

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.setup(config)
            return True

    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    np.random.seed(seed)  # which is what Ray's scheduler draws from
    import random

    random.seed(seed)
    ray.init(address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False)
    space = {"lr": tune.loguniform(*LR), "l2": tune.loguniform(*L2)}
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=INTERVAL,
        quantile_fraction=0.25,
        resample_probability=0.25,
        hyperparam_mutations=dict(space),
    )
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(Member, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="valid",
                mode="min",
                num_samples=MEMBERS,
                scheduler=scheduler,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder, stop={"training_iteration": EPOCHS}, verbose=0
            ),
        )
        began = time.monotonic()
        results = tuner.fit()
        seconds = time.monotonic() - began
        metrics = results.get_best_result().metrics or {}
    return {"valid": metrics["valid"], "test": metrics["test"], "seconds": seconds}


SYSTEMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "pbt": lambda seed: population("pbt", seed),
    "pb2": lambda seed: population("pb2", seed),
    "ray": ray_population,
    "fixed": fixed,
}


def measure(system: str, seed: int) -> dict[str, Any]:
    """Run one system once, in a process of its own."""
    # Imported, not run: workers find a function of a module, not one of `__main__`.
    call = f"from benchmarks import population; population.run_one({system!r}, {seed})"
    command = [sys.executable, "-c", call]
    with tempfile.TemporaryDirectory(prefix="tunesvc-population-") as home:
        Path(home).chmod(0o755)
        environment = {**os.environ, "TUNE_HOME": home, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_one(system: str, seed: int) -> None:
    """Run one system, and print its result."""
    print(json.dumps(SYSTEMS[system](seed)))


def main() -> None:
    """Run all systems by turns, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {system: [] for system in given.systems}
    for seed in given.seeds:
        for system in given.systems:
            found[system].append(measure(system, seed))
            print(seed, system, found[system][-1], flush=True)
    print("| system | validation loss | worst | test loss | seconds |\n|---|---|---|---|---|")
    for system, runs in found.items():
        valid = [run["valid"] for run in runs]
        test, seconds = ([run[key] for run in runs] for key in ("test", "seconds"))
        deviation = statistics.stdev(valid) if len(valid) > 1 else 0.0
        print(
            f"| {system} | {statistics.mean(valid):.4f} ± {deviation:.4f} | {max(valid):.4f} "
            f"| {statistics.mean(test):.4f} | {statistics.median(seconds):.1f} |"
        )
    for run in found.get("pbt", ()):
        print(f"member {run['valid']:.4f}, replays {[round(one, 4) for one in run['replays']]}")


if __name__ == "__main__":
    main()
