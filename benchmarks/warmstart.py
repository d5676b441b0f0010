"""Benefit of an earlier study for a new one on another table with another scale of values.

    python -m benchmarks.warmstart [--seeds 8] [--sampler auto] [--methods cold shift scale]
    [--processes 2]

Each pair is two tables of one space (see `benchmarks.tables`). The earlier study has 60 trials of
TPE on the first; the new one, on the second, starts from nothing (`cold`), or with the earlier
one's trials shown at its own values plus a shift (`shift`), or as tunesvc maps them (`scale`).
Regret of the best trial so far by its mean over all seeds of the table, after 3, 5, 10 and 20
trials; 90 % bootstrap intervals over runs of the difference from `shift`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from benchmarks import tables
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.value_mapping import ValueMapping
from tunesvc.search.warm_start import SourceStudy, WarmStart
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

MARKS = (3, 5, 10, 20)
SEED = 100
"""The first seed: smaller ones were used to design the scale."""
EARLIER_TRIALS = 60
PAIRS = (
    ("slice_localization", "protein_structure"),
    ("naval_propulsion", "parkinsons_telemonitoring"),
    ("protein_structure", "naval_propulsion"),
    ("cifar10", "imagenet"),
    ("cifar100", "cifar10"),
    ("car", "segment"),
    ("vehicle", "phoneme"),
    ("credit_g", "australian"),
)
STRETCHES = (1.0, 20.0, 0.05)
"""Factors for the new study's values, about their median."""
METHODS = ("cold", "shift", "scale")


class Shifting(WarmStart):
    """A mapping without a scale."""

    def _mappings(self, run: Sequence[FrozenTrial]) -> dict[str, ValueMapping]:
        shifts = {
            study: np.mean([here - there for there, here in pairs]) if pairs else 0.0
            for study, pairs in self._pairs(run).items()
        }
        return {study: ValueMapping(float(shift)) for study, shift in shifts.items()}


def spec_of(table: tables.Table, sampler: str, seed: int) -> StudySpec:
    """Return the table's space as a study's."""
    parameters = {
        f"p{i}": {"type": "categorical", "values": [str(k) for k in range(size)]}
        if is_choice
        else {"type": "int", "min": 0, "max": size - 1}
        for i, (size, is_choice) in enumerate(zip(table.sizes, table.is_choice, strict=True))
    }
    described = {
        "name": "s",
        "entrypoint": "m:f",
        "metrics": [{"name": "cost"}],
        "parameters": parameters,
        "seed": seed,
    }
    return StudySpec.model_validate_json(
        json.dumps({**described, "sampler": {"name": sampler}, "budget": {"trials": 1000}})
    )


def play(
    table: tables.Table,
    sampler: str,
    seed: int,
    trials: int,
    warm_start: WarmStart | None = None,
    stretch: float = 1.0,
) -> tuple[Sequence[FrozenTrial], list[float]]:
    """Return a study's trials, and the regret of the best one after each."""
    spec = spec_of(table, sampler, seed)
    space = Space(spec.parameters)
    memory = RecordingStorage("s", [StudyDirection.MINIMIZE])
    pruner = optuna.pruners.NopPruner()
    strategy = Strategy(make_sampler(spec, space), pruner, sampler, "", seed)
    optimizer = Optimizer(memory, space, strategy, warm_start=warm_start)
    optimizer.warm_up()
    rng = np.random.default_rng([seed, 3])
    regrets: list[float] = []
    least = np.inf
    for _ in range(trials):
        proposal = optimizer.ask()
        config = table.config(dict(proposal.params))
        cost = table.train(config, rng)
        optimizer.tell(
            proposal.number, TrialState.COMPLETE, [table.median + stretch * (cost - table.median)]
        )
        if cost < least:
            least, regret = cost, table.regret(config)
        regrets.append(regret)
    return optimizer.trials, regrets


@cache
def earlier(name: str, seed: int) -> SourceStudy:
    """Run the study to learn from."""
    table = tables.load(name)
    trials, _ = play(table, "tpe", seed + 1000, EARLIER_TRIALS)
    return SourceStudy(name, spec_of(table, "tpe", seed), trials)


def run(
    job: tuple[int, float, str, str, int],
) -> tuple[tuple[int, float, str, str, int], list[float]]:
    """Return the regret at the marks."""
    pair, stretch, method, sampler, seed = job
    before, after = PAIRS[pair]
    table = tables.load(after)
    spec = spec_of(table, sampler, seed)
    kind = {"cold": None, "shift": Shifting, "scale": WarmStart}[method]
    warm_start = (
        None if kind is None else kind(spec, Space(spec.parameters), [earlier(before, seed)])
    )
    _, regrets = play(table, sampler, seed, MARKS[-1], warm_start, stretch)
    return job, [regrets[mark - 1] for mark in MARKS]


def report(found: Mapping[tuple[int, float, str], np.ndarray], methods: Sequence[str]) -> str:
    """Markdown; each result has shape (seeds, marks)."""
    lines = [
        f"| stretched by | method | {' | '.join(f'after {mark}' for mark in MARKS)} |",
        "|---|---|" + "---|" * 4,
    ]
    rng = np.random.default_rng(0)
    for stretch in STRETCHES:
        runs = {
            m: np.concatenate([found[p, stretch, m] for p in range(len(PAIRS))]) for m in methods
        }
        for method, rows in runs.items():
            cells = []
            for mark in range(len(MARKS)):
                apart = rows[:, mark] - runs.get("shift", rows)[:, mark]
                low, high = np.quantile(
                    rng.choice(apart, (2000, len(apart))).mean(axis=1), [0.05, 0.95]
                )
                told = "" if method == "shift" else f" ({low:+.3f} to {high:+.3f})"
                cells.append(f"{rows[:, mark].mean():.3f}{told}")
            lines.append(f"| {stretch:g} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    seeds = range(SEED, SEED + given.seeds)
    jobs = [
        (pair, stretch, method, given.sampler, seed)
        for seed in seeds
        for pair in range(len(PAIRS))
        for stretch in STRETCHES
        for method in given.methods
    ]
    with multiprocessing.get_context("spawn").Pool(given.processes, initializer=_quiet) as pool:
        results = dict(
            pool.imap_unordered(run, jobs, chunksize=len(STRETCHES) * len(given.methods))
        )
    found = {
        (pair, stretch, method): np.array(
            [results[pair, stretch, method, given.sampler, seed] for seed in seeds]
        )
        for pair in range(len(PAIRS))
        for stretch in STRETCHES
        for method in given.methods
    }
    print(report(found, given.methods))


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main()
