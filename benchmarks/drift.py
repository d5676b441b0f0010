"""False alarms of a watch, drift that it finds, and what a warm re-tune saves, on real data sets.

    python -m benchmarks.drift [--versions 200] [--seeds 20] [--only alarms | retune | promotions]

Data sets of scikit-learn: breast cancer, wine, digits (the first 600 rows), diabetes (above the
median or not).

*Undrifted versions* are random halves of a data set: one is the champion's version, the other the
new one. An alarm is a column that has drifted, or a support vector machine that is worse on five
folds, as `tune watch` tests them at level 0.05.

*Drifted versions* have a third of the columns moved by one standard deviation in the new half.

*Re-tune*: on a drifted copy of the whole data set, trials until the error of five folds is among the
best 10 % or 2 % of a grid of 15 x 15. A third of the columns is `moved` by one standard deviation,
with noise of half of one, or `replaced` by noise. `cold` starts from nothing, `warm` from a study of
40 trials on the data set before. At most 25 trials; 26 stands for none. Mean and median over
seeds, and 90 % bootstrap intervals of the mean difference.

*Promotions* are of a challenger that is as good as the champion: the best of 20 trials on five folds.
Each is wrong on a fifth of 400 simulated rows; a share of these errors is the same whatever the
training rows are. It is compared on the folds that chose it, on other folds of the same rows, and,
as if it had not been chosen, on other folds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import optuna
import pyarrow as pa
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sklearn import datasets
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tunesvc.drift.drift_report import compare_tables
from tunesvc.search.analysis.resampled_tests import (
    corrected_error,
    degradation_p_value,
    improvement_p_value,
)
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.warm_start import SourceStudy, WarmStart
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

NAMES = ("wine", "breast cancer", "diabetes", "digits")
LEVEL, FOLDS = 0.05, 5
EARLIER_TRIALS, TRIALS_MAX = 40, 25
SHARES = (0.1, 0.02)
GRID = 15
PROCESSES = 2
LOG_C, LOG_GAMMA = (-2.0, 3.0), (-5.0, 1.0)

Rows = tuple[np.ndarray, np.ndarray]


@cache
def load(name: str) -> Rows:
    """Return the features and classes of a data set."""
    if name == "diabetes":
        features, y = datasets.load_diabetes(return_X_y=True)
        return features, (y > np.median(y)).astype(int)
    loaders = {
        "breast cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "digits": datasets.load_digits,
    }
    features, y = loaders[name](return_X_y=True)
    return features[:600], y[:600]


def folds_of(
    rows: Rows, cost: float = 1.0, gamma: float | str = "scale", seed: int = 0
) -> np.ndarray:
    """Return the error of a support vector machine on each fold."""
    model = make_pipeline(StandardScaler(), SVC(C=cost, gamma=gamma))
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return np.asarray(1 - cross_val_score(model, *rows, cv=splits))


def table_of(rows: Rows) -> pa.Table:
    """Return rows as a table with a target."""
    features, y = rows
    columns = {f"x{index}": features[:, index] for index in range(features.shape[1])}
    return pa.table({**columns, "y": y})


def halves(name: str, count: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield random halves of a data set."""
    features, y = load(name)
    rng = np.random.default_rng(7)
    for _ in range(count):
        order = rng.permutation(len(y))
        one, other = order[: len(y) // 2], order[len(y) // 2 :]
        yield (features[one], y[one]), (features[other], y[other])


def has_drifted(before: Rows, after: Rows, distance: float) -> bool:
    """Return True if a watch finds drift of the inputs."""
    old, new = table_of(before), table_of(after)
    return compare_tables(
        old, new, columns=old.column_names, target="y", level=LEVEL / 2, distance=distance
    ).is_alarm


def is_worse(before: Rows, after: Rows) -> bool:
    """Return True if a watch finds the champion worse."""
    old, new = (tuple(folds_of(rows, seed=1)) for rows in (before, after))
    ratio = 1 / (FOLDS - 1)
    errors = (corrected_error(old, ratio), corrected_error(new, ratio))
    found = degradation_p_value(old, new, "minimize", errors)
    return found is not None and found <= LEVEL / 2


def moved(rows: Rows, by: float) -> Rows:
    """Return rows with a third of the columns moved, by standard deviations."""
    features, y = rows
    features = features.copy()
    third = slice(0, max(1, features.shape[1] // 3))
    features[:, third] += by * features[:, third].std(axis=0)
    return features, y


def drifted(rows: Rows, drift: str) -> Rows:
    """Return rows of which a third of the columns is moved, or replaced by noise."""
    features, y = rows
    rng = np.random.default_rng(3)
    features = features.copy()
    third = rng.permutation(features.shape[1])[: max(1, features.shape[1] // 3)]
    deviation = features[:, third].std(axis=0)
    noise = rng.normal(0.0, deviation, (len(y), len(third)))
    if drift == "moved":
        features[:, third] += deviation + noise / 2
    else:
        features[:, third] = features[:, third].mean(axis=0) + noise
    return features, y


@cache
def errors(name: str, drift: str | None) -> np.ndarray:
    """Return the mean error on folds at each point of the grid; shape (GRID, GRID)."""
    rows = load(name) if drift is None else drifted(load(name), drift)
    axes = [np.logspace(*ends, GRID) for ends in (LOG_C, LOG_GAMMA)]
    return np.array([[folds_of(rows, cost, gamma).mean() for gamma in axes[1]] for cost in axes[0]])


def spec_of(seed: int) -> StudySpec:
    """Return the space of C and gamma, on the grid's logarithmic scales."""
    keys = {
        "name": "s",
        "entrypoint": "m:f",
        "metrics": [{"name": "error"}],
        "parameters": {
            "log_c": {"type": "float", "min": LOG_C[0], "max": LOG_C[1]},
            "log_gamma": {"type": "float", "min": LOG_GAMMA[0], "max": LOG_GAMMA[1]},
        },
        "seed": seed,
        "sampler": {"name": "auto"},
        "budget": {"trials": 1000},
    }
    return StudySpec.model_validate_json(json.dumps(keys))


def tune(
    table: np.ndarray, seed: int, trials: int, warm_start: WarmStart | None = None
) -> Sequence[FrozenTrial]:
    """Return a study's trials."""
    spec = spec_of(seed)
    space = Space(spec.parameters)
    memory = RecordingStorage("s", [StudyDirection.MINIMIZE])
    sampler = make_sampler(spec, space)
    strategy = Strategy(sampler, optuna.pruners.NopPruner(), "auto", "", seed)
    optimizer = Optimizer(memory, space, strategy, warm_start=warm_start)
    optimizer.warm_up()
    for _ in range(trials):
        proposal = optimizer.ask()
        point = [
            round((float(proposal.params[key]) - low) / (high - low) * (GRID - 1))  # type: ignore[arg-type]
            for key, (low, high) in (("log_c", LOG_C), ("log_gamma", LOG_GAMMA))
        ]
        optimizer.tell(proposal.number, TrialState.COMPLETE, [float(table[tuple(point)])])
    return optimizer.trials


def trials_to(trials: Sequence[FrozenTrial], level: float) -> int:
    """Return the number of trials until a value is at most a level; one more than all if none."""
    reached = (number for number, trial in enumerate(trials, 1) if trial.values[0] <= level)
    return next(reached, len(trials) + 1)


def compare_starts(name: str, drift: str, seeds: int) -> np.ndarray:
    """Return the trials that re-tunes need; shape (cold and warm, levels, seeds)."""
    before, after = errors(name, None), errors(name, drift)
    levels = [float(np.quantile(after, share)) for share in SHARES]
    needed = []
    for seed in range(seeds):
        earlier = tune(before, 1000 + seed, EARLIER_TRIALS)
        spec = spec_of(seed)
        source = SourceStudy("earlier", spec_of(1000 + seed), earlier)
        lent = WarmStart(spec, Space(spec.parameters), [source])
        starts = (tune(after, seed, TRIALS_MAX, one) for one in (None, lent))
        needed.append([[trials_to(trials, level) for level in levels] for trials in starts])
    return np.moveaxis(np.array(needed), 0, -1)


def report_alarms(versions: int) -> Iterator[str]:
    """Yield the table of alarms."""
    yield (
        f"| {versions} versions each | inputs, p-values alone | inputs | metric | watch | "
        "of the first 20 | drifted, found |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name in NAMES:
        pairs = list(halves(name, versions))
        alone = [has_drifted(*pair, 0.0) for pair in pairs]
        inputs = [has_drifted(*pair, 0.1) for pair in pairs]
        metric = [is_worse(*pair) for pair in pairs]
        watch = [one or other for one, other in zip(inputs, metric, strict=True)]
        found = [has_drifted(before, moved(after, 1.0), 0.1) for before, after in pairs]
        rates = [f"{np.mean(one):.1%}" for one in (alone, inputs, metric, watch)]
        yield f"| {name} | {' | '.join(rates)} | {sum(watch[:20])} | {np.mean(found):.1%} |"


def report_retunes(seeds: int) -> Iterator[str]:
    """Yield the table of re-tunes."""
    heads = [f"best {share:.0%}: cold | warm | difference (90 %)" for share in SHARES]
    yield f"| {seeds} seeds | drift | {' | '.join(heads)} |"
    yield "|---|---|" + "---|---|---|" * len(SHARES)
    rng = np.random.default_rng(0)
    cases = [(name, drift, seeds) for name in NAMES for drift in ("moved", "replaced")]
    with multiprocessing.get_context("spawn").Pool(PROCESSES, initializer=_quiet) as pool:
        for (name, drift, _), needed in zip(cases, pool.imap(_compare_starts, cases), strict=True):
            cells = []
            for cold, warm in np.moveaxis(needed, 1, 0):
                apart = warm - cold
                draws = rng.choice(apart, (2_000, len(apart))).mean(axis=1)
                low, high = np.quantile(draws, [0.05, 0.95])
                cells.append(
                    f"{cold.mean():.1f}, {np.median(cold):g} | "
                    f"{warm.mean():.1f}, {np.median(warm):g} | "
                    f"{apart.mean():+.1f} ({low:+.1f} to {high:+.1f})"
                )
            yield f"| {name} | {drift} | {' | '.join(cells)} |"


def _compare_starts(case: tuple[str, str, int]) -> np.ndarray:
    return compare_starts(*case)


def report_promotions(runs: int = 600) -> Iterator[str]:
    """Yield the table of promotions of challengers that are not better."""
    yield f"| {runs} runs, share of fixed errors | same folds | other folds | not chosen |"
    yield "|---|---|---|---|"
    rng = np.random.default_rng(1)
    for fixed in (0.0, 0.5, 0.8, 1.0):
        promoted = np.zeros(3)
        for _ in range(runs):
            wrong = rng.random((21, 400)) < 0.2
            tuned, fresh = (errors_on_folds(wrong, fixed, rng) for _ in range(2))
            best = 1 + int(tuned[1:].mean(axis=1).argmin())
            for index, (new, old) in enumerate(
                [(tuned[best], tuned[0]), (fresh[best], fresh[0]), (fresh[1], fresh[0])]
            ):
                found = improvement_p_value(tuple(new), tuple(old), "minimize", 1 / (FOLDS - 1))
                promoted[index] += found is not None and found <= LEVEL
        yield f"| {fixed:.0%} | {' | '.join(f'{share:.1%}' for share in promoted / runs)} |"


def errors_on_folds(wrong: np.ndarray, fixed: float, rng: np.random.Generator) -> np.ndarray:
    """Return errors on a random division into folds, shape (configurations, folds).

    Args:
        wrong: whether a configuration errs on a row, shape (configurations, rows).
        fixed: share of the errors that do not depend on the training rows.
        rng: draws the others, and the division.
    """
    other = rng.random(wrong.shape) < 0.2
    seen = np.where(rng.random(wrong.shape) < fixed, wrong, other)
    folds = np.array_split(rng.permutation(wrong.shape[1]), FOLDS)
    return np.stack([seen[:, rows].mean(axis=1) for rows in folds], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=["alarms", "retune", "promotions"])
    given = parser.parse_args()
    _quiet()
    reports: dict[str, Callable[[], Iterator[str]]] = {
        "alarms": lambda: report_alarms(given.versions),
        "retune": lambda: report_retunes(given.seeds),
        "promotions": report_promotions,
    }
    for name in (given.only,) if given.only else reports:
        for line in reports[name]():
            print(line, flush=True)


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)


if __name__ == "__main__":
    main()
