"""Samplers on problems of two to four objectives: the hypervolume that their trials dominate.

    python -m benchmarks.pareto [--seeds 5] [--problems NAME ...] [--samplers auto,nsga2,...]
        [--parallel 1] [--cache FILE]

A study has 100 trials. Its score is the share of the largest hypervolume that is missing after 50
and after 100: 0 is the whole front, 1 is nothing. The largest is that of the true front; for the
forest, which has no known front, of all trials of all studies. Only feasible trials count.
`feasible` is the share of the trials after the first ten that kept all constraints.

Peers take part where they are installed: `optuna-gp` needs torch, `ax` needs ax-platform. No sampler
knows the reference point. Studies in the cache are not run again. One thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler

from benchmarks.searchers import suggest
from tunesvc.search.samplers.auto_sampler import AutoSampler

MARKS = (50, 100)
STARTED = 10
"""Trials that are not counted as chosen."""
Params = Mapping[str, Any]
Result = tuple[Sequence[float], Sequence[float]]
"""Losses, and constraints that are violated above 0."""


@dataclass(frozen=True)
class FrontProblem:
    """A function with several losses over a search space."""

    space: Mapping[str, BaseDistribution]
    evaluate: Callable[[Params], Result]
    reference: Sequence[float]
    largest: float | None
    """Hypervolume of the true front; None if it is unknown."""


def _box(bounds: Sequence[tuple[float, float]]) -> dict[str, BaseDistribution]:
    return {f"x{i}": FloatDistribution(low, high) for i, (low, high) in enumerate(bounds)}


def _on_box(
    function: Callable[[np.ndarray], Sequence[float]],
    bounds: Sequence[tuple[float, float]],
    reference: Sequence[float],
    largest: float | None,
    constraints: Callable[[np.ndarray], Sequence[float]] = lambda x: (),
) -> FrontProblem:
    def evaluate(params: Params) -> Result:
        x = np.array([params[f"x{i}"] for i in range(len(bounds))])
        return [float(v) for v in function(x)], [float(v) for v in constraints(x)]

    return FrontProblem(_box(bounds), evaluate, reference, largest)


# --- functions; those of Tanabe and Ishibuchi 2020 as in BoTorch ---------------------------------


def _zdt1(x: np.ndarray) -> Sequence[float]:
    g = 1 + 9 * x[1:].mean()
    return x[0], g * (1 - np.sqrt(x[0] / g))


def _zdt3(x: np.ndarray) -> Sequence[float]:
    g = 1 + 9 * x[1:].mean()
    return x[0], g * (1 - np.sqrt(x[0] / g) - x[0] / g * np.sin(10 * np.pi * x[0]))


def _dtlz2(objectives: int) -> Callable[[np.ndarray], Sequence[float]]:
    def function(x: np.ndarray) -> Sequence[float]:
        angles = x[: objectives - 1] * np.pi / 2
        size = 1 + ((x[objectives - 1 :] - 0.5) ** 2).sum()
        cosines = np.concatenate([[1.0], np.cumprod(np.cos(angles))])
        sines = np.concatenate([[1.0], np.sin(angles[::-1])])
        return np.asarray(size * cosines[::-1] * sines)  # type: ignore[return-value]

    return function


def _circles(x: np.ndarray) -> Sequence[float]:
    """Constraint of C2-DTLZ2 with two objectives: feasible within one of three circles."""
    f = np.asarray(_dtlz2(2)(x))
    ends = ((f - 1) ** 2 + f[::-1] ** 2 - 0.04).min()
    middle = ((f - 1 / np.sqrt(2)) ** 2 - 0.04).sum()
    return (min(ends, middle),)


def _branin_currin(x: np.ndarray) -> Sequence[float]:
    a, b = 15 * x[0] - 5, 15 * x[1]
    bent = b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6
    branin = bent**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10
    fade = 1 - np.exp(-1 / (2 * max(x[1], 1e-12)))
    above = 2300 * x[0] ** 3 + 1900 * x[0] ** 2 + 2092 * x[0] + 60
    return branin, fade * above / (100 * x[0] ** 3 + 500 * x[0] ** 2 + 4 * x[0] + 20)


def _vehicle(x: np.ndarray) -> Sequence[float]:
    a, b, c, d, e = x
    mass = 1640.2823 + float(x @ (2.3573285, 2.3220035, 4.5688768, 7.7213633, 4.4559504))
    acceleration = (
        6.5856 + 1.15 * a - 1.0427 * b + 0.9738 * c + 0.8364 * d - 0.3695 * a * d
        + 0.0861 * a * e + 0.3628 * b * d - 0.1106 * a**2 - 0.3437 * c**2 + 0.1764 * d**2
    )  # fmt: skip
    intrusion = (
        -0.0551 + 0.0181 * a + 0.1024 * b + 0.0421 * c - 0.0073 * a * b + 0.024 * b * c
        - 0.0118 * b * d - 0.0204 * c * d - 0.008 * c * e - 0.0241 * b**2 + 0.0109 * d**2
    )  # fmt: skip
    return mass, acceleration, intrusion


def _side_impact(x: np.ndarray) -> Sequence[float]:
    a, b, c, d, e, f, g = x
    weight = 1.98 + float(x @ (4.9, 6.67, 6.98, 4.01, 1.78, 1e-5, 2.73))
    force = 4.72 - 0.5 * d - 0.19 * b * c
    mbp = 10.58 - 0.674 * a * b - 0.67275 * b
    fd = 16.45 - 0.489 * c * g - 0.843 * e * f
    slacks = np.array(
        [
            1 - 1.16 + 0.3717 * b * d + 0.0092928 * c,
            0.059 + 0.0159 * a * b + 0.06486 * a + 0.019 * b * g - 0.0144 * c * e - 0.0154464 * f,
            0.106 - 0.00817 * e + 0.045195 * a + 0.0135168 * a - 0.03099 * b * f + 0.018 * b * g
            - 0.007176 * c - 0.023232 * c + 0.00364 * e * f + 0.018 * b**2,
            -0.42 + 0.61 * b + 0.031296 * c + 0.031872 * g - 0.227 * b**2,
            3.02 - 3.818 * c + 4.2 * a * b - 1.27296 * f + 2.68065 * g,
            -1.86 - 2.95 * c + 5.057 * a * b + 3.795 * b + 3.4431 * g - 1.45728,
            -14.36 + 9.9 * b + 4.4505 * a,
            4 - force,
            9.9 - mbp,
            15.7 - fd,
        ]
    )  # fmt: skip
    return weight, force, 0.5 * (mbp + fd), float(-slacks[slacks < 0].sum())


def _beam(x: np.ndarray) -> Sequence[float]:
    a, b, c, d = x
    return 1.10471 * a**2 * b + 0.04811 * c * d * (14 + b), 2.1952 / (d * c**3)


def _beam_constraints(x: np.ndarray) -> Sequence[float]:
    a, b, c, d = x
    load = 6000.0
    radius = np.sqrt(0.25 * (b**2 + (a + c) ** 2))
    inertia = np.sqrt(2) * a * b * (b**2 / 12 + 0.25 * (a + c) ** 2)
    direct = load / (np.sqrt(2) * a * b)
    bending = load * (14 + b / 2) * radius / inertia
    shear = np.sqrt(direct**2 + direct * bending * b / radius + bending**2)
    buckling = 64746.022 * (1 - 0.0282346 * c) * c * d**3
    return (
        shear / 13600 - 1,
        6 * load * 14 / (d * c**2) / 30000 - 1,
        (a - d) / (5 - 0.125),
        1 - buckling / load,
    )


# --- a real one ---------------------------------------------------------------------------------

_FOREST: Mapping[str, BaseDistribution] = {
    "trees": IntDistribution(1, 100, log=True),
    "depth": IntDistribution(1, 20),
    "leaf": IntDistribution(1, 30, log=True),
    "features": FloatDistribution(0.02, 1.0, log=True),
    "criterion": CategoricalDistribution(["gini", "entropy"]),
    "bootstrap": CategoricalDistribution([True, False]),
}


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images, labels


def _forest(params: Params) -> Result:
    """Train a forest on handwritten digits: error on those held out, and number of nodes."""
    from sklearn.ensemble import RandomForestClassifier

    images, labels = _digits()
    forest = RandomForestClassifier(
        n_estimators=params["trees"],
        max_depth=params["depth"],
        min_samples_leaf=params["leaf"],
        max_features=params["features"],
        criterion=params["criterion"],
        bootstrap=params["bootstrap"],
        random_state=0,
    ).fit(images[:900], labels[:900])
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return [
        float(np.mean(forest.predict(images[900:]) != labels[900:])),
        float(np.log10(nodes)),
    ], []


def _sphere(objectives: int) -> float:
    """Return the volume between 1.1 and a ball of radius 1 in the positive orthant."""
    balls = {2: np.pi / 4, 3: np.pi / 6, 4: np.pi**2 / 32}
    return float(1.1**objectives - balls[objectives])


PROBLEMS: Mapping[str, FrontProblem] = {
    "zdt1": _on_box(_zdt1, [(0, 1)] * 4, (1.1, 1.1), 1.1**2 - 1 / 3),
    "zdt3": _on_box(_zdt3, [(0, 1)] * 4, (1.1, 1.1), 1.3317507),
    "branin-currin": _on_box(_branin_currin, [(0, 1)] * 2, (18, 6), 59.36011874867746),
    "forest": FrontProblem(_FOREST, _forest, (1.0, 5.0), None),
    "vehicle-3": _on_box(
        _vehicle, [(1, 3)] * 5, (1864.72022, 11.81993945, 0.2903999384), 246.81607081187002
    ),
    "dtlz2-3": _on_box(_dtlz2(3), [(0, 1)] * 6, (1.1,) * 3, _sphere(3)),
    "dtlz2-4": _on_box(_dtlz2(4), [(0, 1)] * 7, (1.1,) * 4, _sphere(4)),
    "side-impact-4": _on_box(
        _side_impact,
        [(0.5, 1.5), (0.45, 1.35), (0.5, 1.5), (0.5, 1.5), (0.875, 2.625), (0.4, 1.2), (0.4, 1.2)],
        (45.4872, 4.5114, 13.3394, 10.3942),
        484.72654347642793,
    ),
    "c2-dtlz2": _on_box(_dtlz2(2), [(0, 1)] * 4, (1.1, 1.1), 0.3996406303723544, _circles),
    "welded-beam": _on_box(
        _beam, [(0.125, 5), (0.1, 10), (0.1, 10), (0.125, 5)], (40, 0.015), None, _beam_constraints
    ),
}
SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "auto": lambda seed: AutoSampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "optuna-tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "optuna-gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
"""Optuna's TPE ranks by domination and weighs by hypervolume, as its MOTPE did."""


# --- studies ------------------------------------------------------------------------------------


def play(problem: FrontProblem, sampler: str, seed: int, parallel: int) -> dict[str, Any]:
    """Run one study; return losses and constraints of its trials, and the median time of an ask.

    With several in parallel, trials finish in the order in which they were asked.
    """
    if sampler == "ax":
        return _play_ax(problem, seed)
    study = optuna.create_study(
        sampler=SAMPLERS[sampler](seed), directions=["minimize"] * len(problem.reference)
    )
    running: deque[tuple[optuna.Trial, Params]] = deque()
    results: list[Result] = []
    asks_s = []
    while len(results) < MARKS[-1]:
        while len(running) < parallel:
            began_s = time.perf_counter()
            trial = study.ask()
            params = suggest_all(trial, problem)
            asks_s.append(time.perf_counter() - began_s)
            running.append((trial, params))
        trial, params = running.popleft()
        losses, constraints = problem.evaluate(params)
        for k, excess in enumerate(constraints):
            trial.set_constraint(f"c{k}", excess)
        study.tell(trial, losses)
        results.append((losses, constraints))
    return {"results": results, "ask_s": float(np.median(asks_s[-20:]))}


def suggest_all(trial: optuna.Trial, problem: FrontProblem) -> Params:
    return {name: suggest(trial, name, kind) for name, kind in problem.space.items()}


def _play_ax(problem: FrontProblem, seed: int) -> dict[str, Any]:
    from ax.api.client import Client

    logging.disable(logging.CRITICAL)
    count = len(problem.evaluate(_first(problem))[1])
    client = Client(random_seed=seed)
    client.configure_experiment(
        parameters=[_ax_parameter(name, kind) for name, kind in problem.space.items()]
    )
    client.configure_optimization(
        objective=", ".join(f"-f{k}" for k in range(len(problem.reference))),
        outcome_constraints=[f"c{k} <= 0" for k in range(count)] or None,
    )
    results: list[Result] = []
    asks_s = []
    for _ in range(MARKS[-1]):
        began_s = time.perf_counter()
        ((index, params),) = client.get_next_trials(max_trials=1).items()
        asks_s.append(time.perf_counter() - began_s)
        losses, constraints = problem.evaluate(params)
        told = {f"f{k}": loss for k, loss in enumerate(losses)}
        told |= {f"c{k}": excess for k, excess in enumerate(constraints)}
        client.complete_trial(index, raw_data=told)
        results.append((losses, constraints))
    return {"results": results, "ask_s": float(np.median(asks_s[-20:]))}


def _first(problem: FrontProblem) -> Params:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    return suggest_all(trial, problem)


def _ax_parameter(name: str, kind: BaseDistribution) -> Any:
    from ax.api.configs import (
        ChoiceParameterConfig,
        RangeParameterConfig,
    )

    if isinstance(kind, CategoricalDistribution):
        is_bool = isinstance(kind.choices[0], bool)
        return ChoiceParameterConfig(
            name=name, values=list(kind.choices), parameter_type="bool" if is_bool else "str"
        )
    return RangeParameterConfig(
        name=name,
        bounds=(kind.low, kind.high),  # type: ignore[attr-defined]
        parameter_type="int" if isinstance(kind, IntDistribution) else "float",
        scaling="log" if kind.log else "linear",  # type: ignore[attr-defined]
    )


# --- scores -------------------------------------------------------------------------------------


def dominated(results: Sequence[Result], reference: Sequence[float]) -> float:
    """Return the hypervolume of the feasible results."""
    from tunesvc.search.samplers.gp.acquisitions.hypervolume import non_dominated, volume

    kept = [losses for losses, constraints in results if all(c <= 0 for c in constraints)]
    if not kept:
        return 0.0
    values = np.array(kept)
    return volume(values[non_dominated(values)], np.array(reference, dtype=float))


def report(played: Mapping[tuple[str, str], Sequence[dict[str, Any]]]) -> None:
    """Print the missing share of the hypervolume by problem and sampler, and mean ranks."""
    problems = list(dict.fromkeys(problem for problem, _ in played))
    samplers = list(dict.fromkeys(sampler for _, sampler in played))
    for name in problems:
        problem = PROBLEMS[name]
        every = [r for s in samplers for p in played.get((name, s), ()) for r in p["results"]]
        largest = problem.largest or dominated(every, problem.reference)
        print(f"\n{name}: " + ", ".join(f"after {mark}" for mark in MARKS))
        for sampler in samplers:
            studies = played.get((name, sampler), ())
            if studies:
                print(f"  {sampler:12} {_row(studies, problem, largest)}")


def _row(studies: Sequence[dict[str, Any]], problem: FrontProblem, largest: float) -> str:
    cells = []
    for mark in MARKS:
        found = [dominated(s["results"][:mark], problem.reference) for s in studies]
        missing = 1 - np.array(found) / largest
        means = np.random.default_rng(0).choice(missing, (2_000, len(missing))).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        cells.append(f"{missing.mean():.4f} [{low:.4f}, {high:.4f}]")
    later = [r for s in studies for r in s["results"][STARTED:]]
    feasible = np.mean([all(c <= 0 for c in constraints) for _, constraints in later])
    ask_ms = 1000 * np.median([s["ask_s"] for s in studies])
    return f"{'  '.join(cells)}  feasible {feasible:.2f}  ask {ask_ms:.0f} ms  n {len(studies)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--samplers", default=",".join([*SAMPLERS, "ax"]))
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="file of studies that were run before")
    parser.add_argument("--label", default="", help="appended to the samplers' names")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    needs = {"optuna-gp": "torch", "ax": "ax"}
    kept = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    for name in options.problems:
        for sampler in options.samplers.split(","):
            if sampler in needs and not find_spec(needs[sampler]):
                continue
            for seed in range(options.seeds):
                key = f"{name} {sampler}{options.label} {seed}"
                if key not in kept:
                    kept[key] = play(PROBLEMS[name], sampler, seed, options.parallel)
                    if options.cache:
                        options.cache.write_text(json.dumps(kept))
        print(f"{name}: done", flush=True)
    played: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, study in kept.items():
        name, sampler, _ = key.split(" ")
        if name in options.problems:
            played.setdefault((name, sampler), []).append(study)
    report(played)


if __name__ == "__main__":
    main()
