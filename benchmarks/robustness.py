"""Samplers on many small problems: average and worst case, against peers.

    python -m benchmarks.robustness [--seeds 20] [--problems NAME ...] [--half all|tuned|held-out]
        [--samplers auto,random,optuna-tpe,...] [--jobs 2] [--json FILE] [--with FILE ...]

A study has 100 trials, one after another; regret is read after 40 and after 100. Regret is the
answer's true value less the problem's minimum, divided by the same difference for the median of
1,000 random configurations: 1 is as good as one random trial, 0 is the minimum.

    rank       mean over problems of the sampler's expected rank among one study of each, with a
               95 % bootstrap interval over problems; equal regrets share their ranks
    median     median regret over seeds, averaged over problems
    worst      problems in which its worst seed is worse than the median of random search
    behind     problems in which its median is over 10 % worse than that of the better of Optuna's
               TPE and GPSampler, and by more than 0.001

Peers take part where their packages are installed (`benchmarks/searchers.py`). One thread a
process.
"""

from __future__ import annotations

import functools
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np

from benchmarks import comparison
from benchmarks.problems import PROBLEMS, Params, Problem
from benchmarks.searchers import answers, draws, start

MARKS = (40, 100)
REFERENCES = 1_000
"""Random configurations of which the median has regret 1."""


def play(name: str, sampler: str, seed: int) -> list[float]:
    """Run one study; return the regret of its answer at each mark."""
    problem = PROBLEMS[name]
    rng = np.random.default_rng([seed, 11])

    def observe(params: Params) -> float:
        return problem.observe(problem.truth(params), params, rng)

    searcher = start(sampler, problem.parameters, seed, MARKS[-1])
    scale, worst = reference(name)
    found = answers(searcher, observe, MARKS)
    truths = [worst if answer is None else problem.truth(answer) for answer in found]
    return [max(0.0, truth - problem.best) / scale for truth in truths]


@functools.cache
def reference(name: str) -> tuple[float, float]:
    """Return the difference that has regret 1, and the value of a study without an answer."""
    drawn = random_truths(PROBLEMS[name], REFERENCES)
    return max(float(np.median(drawn)) - PROBLEMS[name].best, 1e-12), float(drawn.max())


def random_truths(problem: Problem, count: int) -> np.ndarray:
    """Return true values of random configurations, shape (count,)."""
    return np.array([problem.truth(params) for params in draws(problem.parameters, count)])


def main() -> None:
    given = comparison.options(str(__doc__).partition("\n")[0], list(PROBLEMS), 20).parse_args()
    problems = given.problems or [
        name
        for name, problem in PROBLEMS.items()
        if given.half == "all" or problem.held_out == (given.half == "held-out")
    ]
    comparison.report(comparison.results(given, problems, play), problems, MARKS, {})


if __name__ == "__main__":
    main()
