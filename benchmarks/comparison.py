"""Studies of several samplers on several problems: run them, keep their results, score them.

Results are losses or regrets by sampler, problem, seed and mark, in JSON. Those of an earlier run
can stand beside those of this one (`--with`), so that only the sampler that changed has to run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.searchers import OURS, PEERS, present

Results = dict[str, dict[str, list[list[float]]]]
"""Result at each mark for each seed, by sampler and problem."""
Play = Callable[[str, str, int], list[float]]
"""Runs the study of a problem, a sampler and a seed; returns its result at each mark."""
TOLERANCE = 1e-3
RIVALS = ("optuna-tpe", "optuna-tpe-mv", "optuna-gp")


def options(title: str, problems: Sequence[str], seeds: int) -> argparse.ArgumentParser:
    """Return a parser with what all comparisons take."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--problems", nargs="+", choices=problems)
    parser.add_argument("--half", choices=("all", "tuned", "held-out"), default="all")
    parser.add_argument("--samplers", default=",".join(("auto", *PEERS)), help="'' runs none")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all results to this file")
    parser.add_argument(
        "--with", type=Path, nargs="+", default=[], dest="earlier", help="results of other runs"
    )
    return parser


def results(given: argparse.Namespace, problems: Sequence[str], play: Play) -> Results:
    """Run what was asked for, and add what earlier runs found on the same problems."""
    found: Results = {}
    with ProcessPoolExecutor(given.jobs) as pool:
        for sampler in present([name for name in given.samplers.split(",") if name]):
            pending = {
                name: [pool.submit(play, name, sampler, seed) for seed in range(given.seeds)]
                for name in problems
            }
            found[sampler] = {
                name: [future.result() for future in futures] for name, futures in pending.items()
            }
            print(f"{sampler}: done", flush=True)
            if given.json:
                given.json.write_text(json.dumps(found))
    for file in given.earlier:
        for sampler, known in json.loads(file.read_text()).items():
            missing = [name for name in problems if name not in known]
            if sampler not in found and not missing:
                found[sampler] = {name: known[name] for name in problems}
                print(f"{sampler}: {len(known[problems[0]])} seeds of an earlier run, {file.name}")
            elif missing:
                print(f"{sampler}: {file.name} lacks {', '.join(missing)}; left out")
    return found


def report(
    regrets: Results, problems: Sequence[str], marks: Sequence[int], groups: Mapping[str, str]
) -> None:
    """Print all scores at each mark, and by group of problems."""
    samplers = list(regrets)
    for place, mark in enumerate(marks):
        found = [[_at(regrets[s][p], place) for p in problems] for s in samplers]
        ranks = expected_ranks(found)
        medians = np.array([[np.median(seeds) for seeds in of_one] for of_one in found])
        print(f"\nafter {mark} trials     rank                median   worst  behind")
        for i, sampler in enumerate(samplers):
            low, high = interval(ranks[i])
            scores = worse_cases(sampler, samplers, found)
            print(
                f"  {sampler:15} {ranks[i].mean():5.2f} [{low:.2f}, {high:.2f}] "
                f"{np.minimum(medians[i], 10).mean():10.4f} {len(scores[0]):7} {len(scores[1]):7}"
            )
        _by_group(samplers, problems, medians, groups)
        for sampler in (s for s in samplers if s in OURS):
            _name_cases(sampler, samplers, found, problems)


def _at(seeds: Sequence[Sequence[float]], place: int) -> np.ndarray:
    return np.array([marks[place] for marks in seeds])


def expected_ranks(found: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Return the mean rank of one study among one of each other sampler; (samplers, problems).

    Studies with different seeds are compared, so samplers may have different numbers of them.
    Equal results share their ranks.
    """
    ranks = np.ones((len(found), len(found[0])))
    for i, own in enumerate(found):
        for k, other in enumerate(found):
            if k != i:
                ranks[i] += [
                    _share_better(theirs, ours) for ours, theirs in zip(own, other, strict=True)
                ]
    return ranks


def _share_better(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of pairs in which `a` is lower; equal ones count half."""
    apart = np.round(a, 9)[:, None] - np.round(b, 9)
    return float((apart < 0).mean() + 0.5 * (apart == 0).mean())


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    means = np.random.default_rng(0).choice(values, (2_000, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def worse_cases(
    sampler: str, samplers: Sequence[str], found: Sequence[Sequence[np.ndarray]]
) -> tuple[list[int], list[int]]:
    """Return where the worst seed is worse than random's median, and where the median is behind."""
    own = found[samplers.index(sampler)]
    medians = np.array([[np.median(seeds) for seeds in of_one] for of_one in found])
    worst: list[int] = []
    if "random" in samplers:
        limits = medians[samplers.index("random")]
        worst = [i for i, limit in enumerate(limits) if own[i].max() > limit + TOLERANCE]
    rivals = [samplers.index(s) for s in RIVALS if s in samplers]
    behind: list[int] = []
    if rivals:
        limits = 1.1 * medians[rivals].min(axis=0) + TOLERANCE
        behind = [i for i, limit in enumerate(limits) if np.median(own[i]) > limit]
    return worst, behind


def _by_group(
    samplers: Sequence[str], problems: Sequence[str], medians: np.ndarray, groups: Mapping[str, str]
) -> None:
    for group in dict.fromkeys(groups[p] for p in problems if p in groups):
        rows = [i for i, problem in enumerate(problems) if groups[problem] == group]
        cells = [
            f"{s} {np.minimum(medians[k, rows], 10).mean():.4f}" for k, s in enumerate(samplers)
        ]
        print(f"    {group} ({len(rows)}): " + ", ".join(cells))


def _name_cases(
    sampler: str,
    samplers: Sequence[str],
    found: Sequence[Sequence[np.ndarray]],
    problems: Sequence[str],
) -> None:
    for title, cases in zip(
        ("worst seed", "behind"), worse_cases(sampler, samplers, found), strict=True
    ):
        for i in cases:
            own = found[samplers.index(sampler)][i]
            cells = [f"{s} {np.median(found[k][i]):.4f}" for k, s in enumerate(samplers)]
            print(
                f"    {sampler}, {title}: {problems[i]:28} worst {own.max():.4f} "
                f"(seed {int(own.argmax())}); medians " + ", ".join(cells)
            )
