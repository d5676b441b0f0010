"""Many trials at a time: regret at equal numbers of trials, and how far proposals lie apart.

    python -m benchmarks.parallel [--parallel 1 8 64 256] [--seeds 0 1 2] [--problems NAME ...]
        [--half tuned|held-out] [--samplers auto,optuna-tpe-liar,random] [--json FILE]
        [--with FILE ...] [--spread]

A study has 256 trials. They end in the order in which they were asked for, and the next one is
asked for when one ends, so an ask knows all but the last 63 results, say. Regret is that of
`benchmarks/robustness.py`: 1 is a median random configuration, 0 the minimum. A table's is of mean
results, and a trial has that of one training seed. The ratio compares mean regret over problems
and seeds at 256 trials with that of the same sampler and one at a time; its 95 % bootstrap
interval resamples seeds. With 256 at a time nothing is known when the last one is asked for.

`--spread` asks for 32 trials at once after 25, and prints the share of them that lies within 0.01
of another, in units of the ranges.

Batches were tuned on the first eight problems; `--half held-out` are eight others.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np

from benchmarks import tables
from benchmarks.functions import hartmann
from benchmarks.problems import PROBLEMS, Params, Problem
from benchmarks.searchers import answers, draws, space_of, start
from tunesvc.search.samplers.gp.model.domain import Domain

MARKS = (64, 128, 192, 256)
REFERENCES = 1_000
TUNED = (
    "branin",
    "hartmann",
    "credit_g",
    "naval_propulsion",
    "camel",
    "rastrigin-4d",
    "kernel-changes-what-matters",
    "bowl-with-noise-0.2",
)
HELD_OUT = (
    "phoneme",
    "slice_localization",
    "ackley-6d",
    "rosenbrock-4d",
    "absolute-5d",
    "mixed",
    "2-of-10-matter",
    "bowl-with-noise-0.05",
)
Regrets = dict[str, dict[str, list[list[float]]]]
"""Regret at each mark for each seed, by sampler with its number at a time, and by problem."""


@functools.cache
def problem_of(name: str) -> Problem:
    """Return a problem of `benchmarks/problems.py`, a table, or Hartmann's function."""
    if name in PROBLEMS:
        return PROBLEMS[name]
    if name == "hartmann":
        unit = {f"x{i}": {"type": "float", "min": 0.0, "max": 1.0} for i in range(6)}
        return Problem(name, unit, lambda p: hartmann(np.array([p[key] for key in unit])), 0.0)
    table = tables.load(name)
    parameters: dict[str, dict[str, Any]] = {}
    for i, (size, is_choice) in enumerate(zip(table.sizes, table.is_choice, strict=True)):
        parameters[f"p{i}"] = (
            {"type": "categorical", "values": [str(k) for k in range(size)]}
            if is_choice
            else {"type": "int", "min": 0, "max": size - 1}
        )
    return Problem(
        name,
        parameters,
        lambda p: float(table.means[table.config(dict(p))]),
        table.best,
        lambda value, p, rng: table.train(table.config(dict(p)), rng),
    )


def play(name: str, sampler: str, parallel: int, seed: int) -> list[float]:
    """Run one study; return the regret of its answer at each mark."""
    problem = problem_of(name)
    rng = np.random.default_rng([seed, 11])

    def observe(params: Params) -> float:
        return problem.observe(problem.truth(params), params, rng)

    searcher = start(sampler, problem.parameters, seed, MARKS[-1])
    found = answers(searcher, observe, MARKS, parallel)
    truths = [problem.truth(answer) for answer in found if answer is not None]
    return [max(0.0, truth - problem.best) / median_regret(name) for truth in truths]


def closeness(name: str, sampler: str, seed: int) -> float:
    """Return the share of 32 proposals after 25 trials that lie within 0.01 of another."""
    problem = problem_of(name)
    searcher = start(sampler, problem.parameters, seed, 25 + 32)
    for _ in range(25):
        params = searcher.ask()
        if params is not None:
            searcher.tell(problem.truth(params))
    domain = Domain(space_of(problem.parameters).distributions)
    points = np.array([domain.encode(searcher.ask() or {}) for _ in range(32)])
    apart = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(32)
    return float((apart.min(axis=1) < 0.01).mean())


@functools.cache
def median_regret(name: str) -> float:
    """Return the difference from the minimum of the median random configuration."""
    problem = problem_of(name)
    drawn = [problem.truth(params) for params in draws(problem.parameters, REFERENCES)]
    return float(np.median(drawn)) - problem.best


def ratio(found: Mapping[str, Sequence[Sequence[float]]], one: Mapping[str, Any]) -> str:
    """Return the ratio of mean regrets at the last mark, with its interval."""
    many, single = (
        np.array([[marks[-1] for marks in of[name]] for name in found]) for of in (found, one)
    )
    rng = np.random.default_rng(0)
    draw = rng.integers(many.shape[1], size=(2_000, *many.shape))
    over = np.take_along_axis(many[None], draw, axis=2).mean(axis=(1, 2))
    draw = rng.integers(single.shape[1], size=(2_000, *single.shape))
    under = np.take_along_axis(single[None], draw, axis=2).mean(axis=(1, 2))
    low, high = np.quantile(over / under, [0.025, 0.975])
    return f"{many.mean() / single.mean():.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problems", nargs="+")
    parser.add_argument("--half", choices=("tuned", "held-out"), default="tuned")
    parser.add_argument("--samplers", default="auto,optuna-tpe-liar,random")
    parser.add_argument("--json", type=Path, help="write all regrets to this file")
    parser.add_argument("--with", type=Path, nargs="+", default=[], dest="earlier")
    parser.add_argument("--spread", action="store_true", help="print only how close proposals are")
    given = parser.parse_args()
    problems = given.problems or (TUNED if given.half == "tuned" else HELD_OUT)
    samplers = [name for name in given.samplers.split(",") if name]
    if given.spread:
        for name in problems:
            for sampler in samplers:
                shares = [closeness(name, sampler, seed) for seed in given.seeds]
                print(f"{sampler:20} {name:28} {np.mean(shares):.2f}", flush=True)
        return
    found: Regrets = {}
    for file in given.earlier:
        found |= json.loads(file.read_text())
    for sampler in samplers:
        for parallel in given.parallel:
            of_one = found.setdefault(f"{sampler}@{parallel}", {})
            for name in problems:
                of_one[name] = [play(name, sampler, parallel, seed) for seed in given.seeds]
                _print(f"{sampler}@{parallel}", name, of_one[name])
            if given.json:
                given.json.write_text(json.dumps(found))
    print("\nmean over problems and seeds after " + ", ".join(map(str, MARKS)) + "; ratio at 256")
    for key, by_problem in found.items():
        regrets = np.array([by_problem[name] for name in problems]).mean(axis=(0, 1))
        one = found.get(key.partition("@")[0] + "@1")
        _print(key, "all", [list(regrets)], ratio(by_problem, one) if one else "")


def _print(key: str, name: str, seeds: Sequence[Sequence[float]], more: str = "") -> None:
    cells = " ".join(f"{regret:9.2e}" for regret in np.mean(seeds, axis=0))
    print(f"{key:20} {name:28} {cells} {more}", flush=True)


if __name__ == "__main__":
    main()
