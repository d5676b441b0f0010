"""Samplers on twenty searches of real scikit-learn training, against peers.

    python -m benchmarks.training [--seeds 10] [--problems NAME ...] [--half all|tuned|held-out]
        [--samplers auto,random,optuna-tpe,...] [--jobs 2] [--json FILE] [--with FILE ...]
    python -m benchmarks.training --learn 200 [--problems NAME ...] [--with FILE ...]

A study has 60 trials, one after another. The sampler sees the loss on one split of the data, of the
study or of the trial (`benchmarks/learning_tasks.py`), with the trial's number as the model's seed.
The answer is judged by its mean loss on five other splits, after 15, 30 and 60 trials. Regret is
(that - the best known) / (the median of 200 random configurations - the best known).

`--learn` makes `benchmarks/data/training.json`, which holds both. Each random configuration is
judged on one of the five splits, in turn. The best known is the best mean loss of the five best of
them, of so many trials of Optuna's multivariate TPE and as many of our Gaussian process, both on
that mean, and of all answers in the results `--with` which it is called. Results of other runs are
best given again after each run: an answer better than the best known has a negative regret.

Scores are those of `benchmarks/robustness.py`. Besides, tasks are named in which a peer is better
or worse than ours beyond chance (Mann and Whitney's test over seeds, one of twenty by chance).
`--json` holds mean losses. One thread a process, no data from elsewhere, nothing cached on disk.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import sklearn
from scipy.stats import mannwhitneyu

from benchmarks import comparison
from benchmarks.comparison import Results
from benchmarks.learning_tasks import TASKS, Params, Task
from benchmarks.searchers import OURS, answers, draws, start

MARKS = (15, 30, 60)
JUDGES = range(5)
"""Splits of the data that judge an answer; studies have others."""
REFERENCES = 200
REFERENCE_FILE = Path(__file__).parent / "data" / "training.json"
_STUDIES, _TRIALS = 1_000, 100_000


def play(name: str, sampler: str, seed: int) -> list[float]:
    """Run one study; return the mean loss of its answer at each mark, NaN without an answer."""
    task = TASKS[name]
    number = -1

    def observe(params: Params) -> float:
        nonlocal number
        number += 1
        split = _TRIALS + 1_000 * seed + number if task.redrawn else _STUDIES + seed
        return task.train(params, split, number)

    found = answers(start(sampler, task.parameters, seed, MARKS[-1]), observe, MARKS)
    return [math.nan if answer is None else judge(task, answer) for answer in found]


def judge(task: Task, params: Params) -> float:
    """Return the mean loss on the splits that no study sees."""
    return float(np.mean([task.train(params, split, split) for split in JUDGES]))


def regrets(losses: Results, known: Mapping[str, Mapping[str, float]]) -> Results:
    """Return regrets of losses; a study without an answer is as bad as the worst random trial."""

    def regret(task: str, loss: float) -> float:
        best, median, worst = (known[task][name] for name in ("best", "median", "worst"))
        return ((worst if math.isnan(loss) else loss) - best) / (median - best)

    return {
        sampler: {
            task: [[regret(task, loss) for loss in marks] for marks in seeds]
            for task, seeds in tasks.items()
            if task in known
        }
        for sampler, tasks in losses.items()
    }


def beyond_chance(
    found: Results, sampler: str, rival: str, place: int
) -> tuple[list[str], list[str]]:
    """Return the tasks in which a sampler's regrets are lower than a rival's, and higher."""
    lower: list[str] = []
    higher: list[str] = []
    for task, seeds in found[sampler].items():
        own = [marks[place] for marks in seeds]
        other = [marks[place] for marks in found[rival][task]]
        if len({*own, *other}) == 1 or mannwhitneyu(own, other).pvalue >= 0.05:
            continue
        (lower if np.median(own) < np.median(other) else higher).append(task)
    return lower, higher


def learn(task: Task, trials: int, seen: Sequence[float]) -> dict[str, float]:
    """Search long; return the best known loss, and the median and worst of random ones."""
    drawn = list(draws(task.parameters, REFERENCES))
    once = np.array([task.train(params, i % len(JUDGES), i) for i, params in enumerate(drawn)])
    first = [judge(task, drawn[i]) for i in np.argsort(once)[:5]]
    best = min(loss for loss in (*first, *seen) if math.isfinite(loss))
    for sampler in ("optuna-tpe-mv", "gp"):
        searcher = start(sampler, task.parameters, 12_345, trials)
        best = min(best, *_searched(searcher.ask, searcher.tell, task, trials))
    return {"best": best, "median": float(np.nanmedian(once)), "worst": float(np.nanmax(once))}


def _searched(
    ask: Callable[[], Params | None], tell: Callable[[float], None], task: Task, trials: int
) -> list[float]:
    found = []
    for _ in range(trials):
        params = ask()
        if params is None:
            break
        loss = judge(task, params)
        tell(loss)
        found.append(loss if math.isfinite(loss) else math.inf)
    return found


def _learn_all(names: Sequence[str], trials: int, earlier: Sequence[Path]) -> None:
    runs: list[Results] = [json.loads(file.read_text()) for file in earlier]
    for name in names:
        seen = [
            loss
            for run in runs
            for tasks in run.values()
            for marks in tasks.get(name, [])
            for loss in marks
        ]
        stored = json.loads(REFERENCE_FILE.read_text()) if REFERENCE_FILE.exists() else {}
        stored[name] = {**learn(TASKS[name], trials, seen), "sklearn": sklearn.__version__}
        REFERENCE_FILE.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {stored[name]}", flush=True)


def main() -> None:
    parser = comparison.options(str(__doc__).partition("\n")[0], list(TASKS), 10)
    parser.add_argument("--learn", type=int, metavar="TRIALS", help="search for the best known")
    given = parser.parse_args()
    names = given.problems or [
        name
        for name, task in TASKS.items()
        if given.half == "all" or task.held_out == (given.half == "held-out")
    ]
    if given.learn:
        _learn_all(names, given.learn, given.earlier)
        return
    losses = comparison.results(given, names, play)
    known = json.loads(REFERENCE_FILE.read_text())
    for name in [name for name in names if name not in known]:
        print(f"{name}: {REFERENCE_FILE.name} has no best known; left out (see --learn)")
    names = [name for name in names if name in known]
    found = regrets(losses, known)
    comparison.report(found, names, MARKS, {name: TASKS[name].family for name in names})
    for own in (name for name in found if name in OURS):
        for rival in (name for name in found if name not in OURS):
            lower, higher = beyond_chance(found, own, rival, len(MARKS) - 1)
            print(f"\n{own} and {rival} after {MARKS[-1]}, beyond chance:")
            print(f"  better in {len(lower)}: {', '.join(lower) or '-'}")
            print(f"  worse in {len(higher)}: {', '.join(higher) or '-'}")


if __name__ == "__main__":
    main()
