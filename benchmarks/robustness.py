"""Samplers on many small problems: average and worst case, against Optuna's samplers.

    python -m benchmarks.robustness [--seeds 20] [--problems NAME ...] [--half all|tuned|held-out]
        [--samplers auto,random,optuna-tpe,...] [--jobs 2] [--json FILE]

A study has 100 trials, one after another; regret is read after 40 and after 100. Peers answer with
`study.best_trial`, as their users do; ours answers with what `tune best` recommends. Regret is the
answer's true value less the problem's minimum, divided by the same difference for the median of
1,000 random configurations: 1 is as good as one random trial, 0 is the minimum. A study whose space
is exhausted keeps its answer.

    rank       mean over problems and seeds of the sampler's rank, with a 95 % bootstrap interval
               over problems; equal regrets share their ranks
    median     median regret over seeds, averaged over problems
    worst      problems in which its worst seed is worse than the median of random search
    behind     problems in which its median is over 10 % worse than that of the better of Optuna's
               TPE and GPSampler, and by more than 0.001

Optuna's GPSampler takes part where torch is installed. One thread a process.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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
from optuna.study import StudyDirection
from optuna.trial import TrialState
from scipy.stats import rankdata

from benchmarks.problems import PROBLEMS, Params, Problem
from benchmarks.search import present
from tunesvc.search.analysis.recommend import recommend
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.registry.pruner_registry import make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

MARKS = (40, 100)
REFERENCES = 1_000
"""Random configurations of which the median has regret 1."""
TOLERANCE = 1e-3
OURS = ("auto", "gp", "tpe")
PEERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "optuna-tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "optuna-tpe-mv": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True
    ),
    "optuna-gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "optuna-cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}


def spec_of(problem: Problem, sampler: str, seed: int) -> StudySpec:
    """Return the study file of a problem."""
    described = {
        "name": problem.name,
        "command": ["true"],
        "metrics": [{"name": "loss", "goal": "minimize"}],
        "parameters": problem.parameters,
        "sampler": {"name": sampler},
        "pruner": {"name": "none"},
        "seed": seed,
        "budget": {"trials": MARKS[-1]},
    }
    return StudySpec.model_validate_json(json.dumps(described))


def play(name: str, sampler: str, seed: int) -> list[float]:
    """Run one study; return the regret of its answer at each mark."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    problem = PROBLEMS[name]
    run = _run_ours if sampler in OURS else _run_peer
    answers = list(run(problem, sampler, seed))
    answers += [answers[-1]] * (len(MARKS) - len(answers))
    scale, fallback = reference(name)
    truths = [fallback if answer is None else problem.truth(answer) for answer in answers]
    return [max(0.0, truth - problem.best) / scale for truth in truths]


@functools.cache
def reference(name: str) -> tuple[float, float]:
    """Return the difference that has regret 1, and the value of a study without an answer."""
    drawn = random_truths(PROBLEMS[name], REFERENCES)
    return max(float(np.median(drawn)) - PROBLEMS[name].best, 1e-12), float(drawn.max())


def random_truths(problem: Problem, count: int) -> np.ndarray:
    """Return true values of random configurations, shape (count,)."""
    space = Space(spec_of(problem, "random", 0).parameters)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2**31 - 1))
    drawn = (_suggest(study.ask(), space) for _ in range(count))
    return np.array([problem.truth(params) for params in drawn])


def _suggest(trial: optuna.Trial, space: Space) -> dict[str, object]:
    """Draw all parameters as an objective does that suggests them one after another."""
    params: dict[str, object] = {}
    for name in space.parameters:
        if space.active(name, params):  # type: ignore[arg-type]
            params[name] = _suggest_one(trial, name, space.distributions[name])
    return params


def _suggest_one(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> object:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"{name}: {distribution}")


def _run_peer(problem: Problem, sampler: str, seed: int) -> Iterator[Params | None]:
    rng = np.random.default_rng([seed, 11])
    space = Space(spec_of(problem, "random", seed).parameters)
    study = optuna.create_study(sampler=PEERS[sampler](seed))
    for told in range(1, MARKS[-1] + 1):
        trial = study.ask()
        params = _suggest(trial, space)
        value = problem.observe(problem.truth(params), params, rng)
        if np.isfinite(value):
            study.tell(trial, value)
        else:
            study.tell(trial, state=TrialState.FAIL)
        if told in MARKS:
            yield _best_of(study)


def _best_of(study: optuna.Study) -> Params | None:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial.params if finished else None


def _run_ours(problem: Problem, sampler: str, seed: int) -> Iterator[Params | None]:
    rng = np.random.default_rng([seed, 11])
    optimizer = _optimizer(spec_of(problem, sampler, seed))
    for told in range(1, MARKS[-1] + 1):
        if optimizer.exhausted:
            yield _recommended(optimizer)
            return
        proposal = optimizer.ask()
        if proposal.sampler_error is not None:
            sys.exit(f"{problem.name}, seed {seed}: {proposal.sampler_error}")
        value = problem.observe(problem.truth(proposal.params), proposal.params, rng)
        if np.isfinite(value):
            optimizer.tell(proposal.number, TrialState.COMPLETE, [float(value)])
        else:
            optimizer.tell(proposal.number, TrialState.FAIL, failure="nan")
        optimizer.on_step_end()
        if told in MARKS:
            yield _recommended(optimizer)


def _optimizer(spec: StudySpec) -> Optimizer:
    space = Space(spec.parameters)
    strategy = Strategy(
        make_sampler(spec, space), make_pruner(spec), spec.sampler.name, "none", spec.seed
    )
    memory = RecordingStorage(spec.name, [StudyDirection.MINIMIZE])
    return Optimizer(memory, space, strategy, trials_max=space.size)


def _recommended(optimizer: Optimizer) -> Params | None:
    answer = recommend(optimizer.trials, "minimize")
    return None if answer is None else optimizer.trial(answer.number).params


# --- scores -------------------------------------------------------------------------------------

Regrets = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
"""By sampler and problem: for each seed, the regret at each mark."""


def report(regrets: Regrets, problems: Sequence[str]) -> None:
    """Print all scores at each mark."""
    samplers = list(regrets)
    for place, mark in enumerate(MARKS):
        found = np.array(
            [[[seed[place] for seed in regrets[s][p]] for p in problems] for s in samplers]
        )
        ranks = rankdata(np.round(found, 9), axis=0).mean(axis=2)
        medians = np.median(found, axis=2)
        print(f"\nafter {mark} trials     rank                median   worst  behind")
        for i, sampler in enumerate(samplers):
            low, high = _interval(ranks[i])
            scores = worse_cases(sampler, samplers, found)
            print(
                f"  {sampler:15} {ranks[i].mean():5.2f} [{low:.2f}, {high:.2f}] "
                f"{np.minimum(medians[i], 10).mean():10.4f} {len(scores[0]):7} {len(scores[1]):7}"
            )
        for sampler in (s for s in samplers if s in OURS):
            _name_cases(sampler, samplers, found, problems)


def _interval(values: np.ndarray) -> tuple[float, float]:
    means = np.random.default_rng(0).choice(values, (2_000, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def worse_cases(
    sampler: str, samplers: Sequence[str], found: np.ndarray
) -> tuple[list[int], list[int]]:
    """Return where the worst seed is worse than random's median, and where the median is behind."""
    own = found[samplers.index(sampler)]
    medians = np.median(found, axis=2)
    worst: list[int] = []
    if "random" in samplers:
        limit = medians[samplers.index("random")]
        worst = list(np.flatnonzero(own.max(axis=1) > limit + TOLERANCE))
    rivals = [s for s in ("optuna-tpe", "optuna-tpe-mv", "optuna-gp") if s in samplers]
    behind: list[int] = []
    if rivals:
        best = medians[[samplers.index(s) for s in rivals]].min(axis=0)
        behind = list(np.flatnonzero(np.median(own, axis=1) > 1.1 * best + TOLERANCE))
    return worst, behind


def _name_cases(
    sampler: str, samplers: Sequence[str], found: np.ndarray, problems: Sequence[str]
) -> None:
    worst, behind = worse_cases(sampler, samplers, found)
    medians = np.median(found, axis=2)
    for title, cases in (("worst seed", worst), ("behind", behind)):
        for i in cases:
            cells = [f"{s} {medians[k, i]:.4f}" for k, s in enumerate(samplers)]
            own_worst = found[samplers.index(sampler), i].max()
            print(
                f"    {sampler}, {title}: {problems[i]:28} worst {own_worst:.4f}; medians "
                + ", ".join(cells)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS))
    parser.add_argument("--half", choices=("all", "tuned", "held-out"), default="all")
    parser.add_argument("--samplers", default=",".join(("auto", *PEERS)))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all regrets to this file")
    options = parser.parse_args()
    problems = options.problems or [
        name
        for name, problem in PROBLEMS.items()
        if options.half == "all" or problem.held_out == (options.half == "held-out")
    ]
    regrets: dict[str, dict[str, list[list[float]]]] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for sampler in present(options.samplers):
            pending = {
                name: [pool.submit(play, name, sampler, seed) for seed in range(options.seeds)]
                for name in problems
            }
            regrets[sampler] = {
                name: [future.result() for future in futures] for name, futures in pending.items()
            }
            print(f"{sampler}: done", flush=True)
    if options.json:
        options.json.write_text(json.dumps(regrets))
    report(regrets, problems)


if __name__ == "__main__":
    main()
