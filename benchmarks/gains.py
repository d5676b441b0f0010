"""Forecasts of the gain of further trials, compared with what the trials brought.

    python -m benchmarks.gains [--seeds 3] [--samplers auto,tpe] [--problems held-out|tuned]

Studies of 90 trials run on `benchmarks.problems` and on tables of real, noisy training results.
After 20, 30, 45 and 60 trials the improvement of the best observed value by the next 10 and 30
trials is forecast, and compared with the improvement that followed. The number of values behind a
forecast was chosen on the other half of the problems and tables (`tuned`).

Printed for each sampler: the share of studies that improved by more than the upper bound of the
90 % interval (5 % if it is right), by less than the lower bound, the mean forecast and the mean
gain, and the continuous ranked probability score (CRPS; small is good) with the 95 % interval of
its mean over studies. Gains are in units of the difference between the median and the best result
so far. The peer, `model`, takes the best of 400 joint draws of the Gaussian process at as many
candidates as there are further trials, those with the largest expected improvement, with noise.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna
from scipy.stats import norm

from benchmarks import tables
from benchmarks.problems import PROBLEMS
from benchmarks.search import interval
from benchmarks.searchers import Params, space_of, start
from tunesvc.search.analysis.gain_forecast import BEST, forecast_gain, gain_quantiles
from tunesvc.search.samplers.gp.model.fitted import PosteriorSummary, fit_posterior

TRIALS = 90
STATES = (20, 30, 45, 60)
FURTHER = (10, 30)
DRAWS = 400
_CAPPED = 10.0
"""Largest score of one forecast, so that a model that diverges does not decide a mean alone."""


@dataclass(frozen=True)
class Case:
    """A problem with a way to observe a configuration."""

    name: str
    parameters: Mapping[str, Mapping[str, Any]]
    observe: Callable[[Params, np.random.Generator], float]


def cases(held_out: bool) -> Iterator[Case]:
    """Yield problems that can improve, and tables."""
    for problem in PROBLEMS.values():
        if problem.held_out == held_out and len(problem.parameters) <= 10:

            def observe(params: Params, rng: np.random.Generator, one: Any = problem) -> float:
                return float(one.observe(one.truth(params), params, rng))

            yield Case(problem.name, problem.parameters, observe)
    for name in tables.OTHERS if held_out else tables.SEVEN:
        table = tables.load(name)
        parameters: dict[str, dict[str, Any]] = {}
        for i, (size, is_choice) in enumerate(zip(table.sizes, table.is_choice, strict=True)):
            choices = {"type": "categorical", "values": [str(k) for k in range(size)]}
            parameters[f"p{i}"] = (
                choices if is_choice else {"type": "int", "min": 0, "max": size - 1}
            )

        def train(params: Params, rng: np.random.Generator, one: Any = table) -> float:
            return float(one.train(one.config(dict(params)), rng))

        yield Case(name, parameters, train)


def play(case: Case, sampler: str, seed: int) -> tuple[list[Params], np.ndarray]:
    """Run a study; returns its configurations and values."""
    searcher, rng = start(sampler, case.parameters, seed, TRIALS), np.random.default_rng([seed, 5])
    configurations: list[Params] = []
    values: list[float] = []
    for _ in range(TRIALS):
        params = searcher.ask()
        if params is None:
            break
        values.append(case.observe(params, rng))
        configurations.append(params)
        searcher.tell(values[-1])
    return configurations, np.array(values)


def by_records(values: np.ndarray, more: int) -> np.ndarray | None:
    """Return equally likely gains by our forecast."""
    if forecast_gain(values, len(values), more) is None:
        return None
    return gain_quantiles(values, len(values), more)


def by_model(case: Case, configurations: list[Params], values: np.ndarray, more: int) -> np.ndarray:
    """Return draws of the gain by the Gaussian process."""
    space = space_of(case.parameters)
    trials: list[optuna.trial.FrozenTrial] = []
    for params, value in zip(configurations, values, strict=True):
        if np.isfinite(value):
            kinds = {name: space.distributions[name] for name in params}
            trial = optuna.trial.create_trial(value=value, params=dict(params), distributions=kinds)
            trial.number = len(trials)
            trials.append(trial)
    summary = fit_posterior(trials, "minimize", None)
    if summary is None:
        return np.zeros(DRAWS)
    rng = np.random.default_rng(0)
    points = _candidates(summary, rng)
    mean, covariance = summary.posterior.joint(points)
    deviation, best = np.sqrt(np.diag(covariance)), summary.seen.values.min()
    z = (best - mean) / deviation
    expected = deviation * (z * norm.cdf(z) + norm.pdf(z))
    selected = np.argsort(-expected)[:more]
    noise = summary.posterior.known.noise + summary.posterior.known.own
    chosen = covariance[np.ix_(selected, selected)] + noise * np.eye(len(selected))
    drawn = rng.multivariate_normal(mean[selected], chosen, DRAWS, check_valid="ignore")
    found = np.minimum(drawn.min(axis=1), best)
    gains: np.ndarray = summary.in_units(np.array([best])) - summary.in_units(found)
    return gains.clip(min=0.0)


def _candidates(summary: PosteriorSummary, rng: np.random.Generator) -> np.ndarray:
    domain = summary.domain
    points = [domain.from_unit(rng.random((300, len(domain))))]
    for best in summary.seen.points[np.argsort(summary.seen.values)[:5]]:
        for width in (0.02, 0.1):
            steps = rng.normal(0.0, width, (20, len(best))) * ~domain.is_choice
            points.append(np.clip(best + steps, 0.0, 1.0))
    snapped: np.ndarray = domain.snap(np.vstack(points))
    return snapped


def judge(gains: np.ndarray, gain: float, scale: float) -> tuple[float, ...]:
    """Return whether the gain was above or below the interval, forecast, gain and CRPS."""
    low, high = np.quantile(gains, [0.05, 0.95])
    ordered = np.sort(gains)
    ranks = 2 * np.arange(1, len(ordered) + 1) - len(ordered) - 1
    spread = float((ranks * ordered).sum()) / len(ordered) ** 2
    score = float(np.abs(gains - gain).mean()) - spread
    scaled = [min(value / scale, _CAPPED) for value in (float(gains.mean()), gain, score)]
    return float(gain > high), float(gain < low - 1e-12), *scaled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samplers", default="auto,tpe")
    parser.add_argument("--problems", choices=["held-out", "tuned"], default="held-out")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    for sampler in given.samplers.split(","):
        judged: dict[str, list[tuple[float, ...]]] = {"ours": [], "model": []}
        studies = refused = 0
        for case in cases(given.problems == "held-out"):
            for seed in range(given.seeds):
                studies += 1
                configurations, values = play(case, sampler, seed)
                refused += _judge_study(case, configurations, values, judged)
        _print(sampler, studies, refused, judged)


def _judge_study(
    case: Case,
    configurations: list[Params],
    values: np.ndarray,
    judged: dict[str, list[tuple[float, ...]]],
) -> int:
    """Judge a study's forecasts; returns the number of states without one."""
    refused = 0
    for done in STATES:
        for more in FURTHER:
            seen, following = values[:done], values[done : done + more]
            finite = seen[np.isfinite(seen)]
            if len(following) < more or len(finite) < BEST or np.median(finite) <= finite.min():
                continue
            scale = float(np.median(finite) - finite.min())
            best_after = min(following[np.isfinite(following)], default=np.inf)
            gain = max(0.0, float(finite.min() - best_after))
            ours = by_records(seen, more)
            if ours is None:
                refused += 1
                continue
            judged["ours"].append(judge(ours, gain, scale))
            model = by_model(case, configurations[:done], seen, more)
            judged["model"].append(judge(model, gain, scale))
    return refused


def _print(
    sampler: str, studies: int, refused: int, judged: dict[str, list[tuple[float, ...]]]
) -> None:
    print(f"{sampler}: {studies} studies, {len(judged['ours'])} forecasts, {refused} refused")
    for name, rows in judged.items():
        table = np.array(rows)
        above, below, forecast, gain, score = table.mean(axis=0)
        low, high = interval(table[:, 4])
        print(
            f"  {name:6} above {above:6.1%}  below {below:6.1%}  forecast {forecast:.3f}  "
            f"gain {gain:.3f}  CRPS {score:.4f} ({low:.4f} to {high:.4f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
