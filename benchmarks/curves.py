"""Pruning on tables of real learning curves: how much less training finds as good a trial, and what pruners cost.

    python -m benchmarks.curves [--seeds 6] [--workers 4] [--processes 2]

Every run is a study of the real `Optimizer` with a real sampler and pruner; training is looked up (see
`benchmarks.curve_tables`), on workers with a clock of their own. A run ends after 5,400 epochs, which are 100 full
trials. The regret is that of the best finished trial: (its final loss - best of the table) / (median - best). The
final loss is that of the last epoch (`last`), or that of the best one (`best`).

Peers run Optuna's TPE (multivariate, constant liar) with no pruner, Optuna's Hyperband and Median, and as Ray Tune's
OptunaSearch with its ASHA does: what is stopped is told as if its value were final. `auto` is made
from the names in a spec; `tpe+forecasts` is Optuna's TPE, shown the forecasts of pruned trials, with our pruner;
`asha-promote` is our TPE with ASHA that pauses and promotes. A paused trial goes on from its last epoch, or with
`--restart` from its first one. A study that has found the table's best ends there, and so does one that has tried all
of it and takes nothing up again.

Printed per task: the final regret; the share of the budget after which the mean regret is what unpruned TPE's is in the
end (`to TPE's`), and what the best peer's is; the median epochs and simulated time to a regret of 1 %; the share of
stopped trials that would have been the new best, as the table knows, and of audited ones that were. Intervals are 90 %
bootstrap intervals over seeds. Runs are kept in the file that `--keep` names, and not repeated.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from benchmarks.curve_tables import EPOCHS, GRID, TASKS, Table, load
from tunesvc.search.audit import false_prunes
from tunesvc.search.foresight import ForesightSampler
from tunesvc.search.memory import StudyMemory
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.pruners import make_pruner
from tunesvc.search.samplers import make_sampler
from tunesvc.space import Space
from tunesvc.spec import StudySpec

BUDGET = 100 * EPOCHS
TAKES = ("last", "best")
PEERS: dict[str, tuple[Callable[[], BasePruner], bool]] = {
    "tpe": (optuna.pruners.NopPruner, False),
    "tpe+hyperband": (lambda: optuna.pruners.HyperbandPruner(1, EPOCHS, 3), False),
    "tpe+median": (optuna.pruners.MedianPruner, False),
    "ray-asha": (lambda: optuna.pruners.SuccessiveHalvingPruner(1, 4), True),
}
"""Name -> its pruner, and whether what was stopped is told as complete."""
OURS: dict[str, dict[str, Any]] = {
    "auto": {"sampler": "auto", "pruner": "auto"},
    "auto-stop": {"sampler": "auto", "pruner": {"name": "auto", "resume": False}},
    "tpe+forecasts": {"sampler": "tpe", "pruner": "auto"},
    "asha-promote": {
        "sampler": "tpe",
        "pruner": {"name": "asha", "min": 1, "max": EPOCHS, "eta": 3, "form": "promote"},
    },
}
"""Name -> what a spec says. `auto-stop` is `auto` that takes nothing up again; with `+forecasts`, Optuna's TPE behind
our `ForesightSampler` takes the sampler's place."""


@dataclass
class Run:
    """What one study did."""

    task: str
    take: str
    method: str
    seed: int
    incumbents: list[tuple[int, float, float]] = field(default_factory=list)
    """(epochs so far, simulated seconds, regret) at each new best finished trial."""
    trials: int = 0
    stopped: int = 0
    stopped_wrongly: int = 0
    promoted: int = 0
    audited: int = 0
    audited_wrong: int = 0
    wall_s: float = 0.0

    def regret(self, epochs: float) -> float:
        """Of the best trial that had finished by then; of a bad one before any has."""
        return min((regret for at, _, regret in self.incumbents if at <= epochs), default=3.0)


@cache
def curves_of(task: str) -> Table:
    """The task's table, read once per process."""
    return load(task)


def finals_of(table: Table, take: str) -> np.ndarray:
    """Final loss by configuration; infinite where training diverged."""
    loss = np.where(np.isfinite(table.loss), table.loss, np.inf)
    return loss[:, -1] if take == "last" else loss.min(axis=1)


def parameters() -> dict[str, Any]:
    """The grid as a space: numbers as levels on their (logarithmic) axes, words as choices."""
    return {
        name: {"type": "categorical", "values": list(values)}
        if isinstance(values[0], str)
        else {"type": "int", "min": 0, "max": len(values) - 1}
        for name, values in GRID.items()
    }


def make_optimizer(method: str, seed: int) -> Optimizer:
    """A study in memory with the method's sampler and pruner."""
    ours = OURS.get(method, {"sampler": "tpe", "pruner": "none"})
    described = {
        "name": method,
        "entrypoint": "m:f",
        "metrics": [{"name": "loss"}],
        "parameters": parameters(),
        "budget": {"trials": 100_000},
        "seed": seed,
        **{key: {"name": value} if isinstance(value, str) else value for key, value in ours.items()},
    }
    spec = StudySpec.model_validate_json(json.dumps(described))
    space = Space(spec.parameters)
    sampler: BaseSampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
    if method in OURS and "forecasts" not in method:
        sampler = make_sampler(spec, space)
    elif method in OURS:
        sampler = ForesightSampler(sampler, seed=seed)
    pruner = make_pruner(spec) if method in OURS else PEERS[method][0]()
    memory = StudyMemory(method, [StudyDirection.MINIMIZE])
    return Optimizer(memory, space, sampler, pruner, sampler_name=method, pruner_name=method, seed=seed)


def row_of(params: dict[str, Any], table: Table) -> int:
    """The table's row of proposed parameters."""
    return table.row({n: v if isinstance(v, str) else GRID[n][v] for n, v in params.items()})


def epoch_s(row: int) -> float:
    """Simulated seconds of an epoch: wide and deep networks, and small batches, take longer."""
    place = dict(zip(GRID, np.unravel_index(row, [len(v) for v in GRID.values()]), strict=True))
    width, depth, batch = (GRID[name][place[name]] for name in ("width", "depth", "batch"))
    return float((0.5 + width * depth / 100) * (1 + 8 / batch))


def replay(task: str, take: str, method: str, seed: int, workers: int, restart: bool = False) -> Run:
    """One study, on so many workers; with `restart`, there are no checkpoints."""
    started_s = time.perf_counter()
    table = curves_of(task)
    finals = finals_of(table, take)
    best, median = finals.min(), np.median(finals)
    told_as_final = method in PEERS and PEERS[method][1]
    optimizer, run = make_optimizer(method, seed), Run(task, take, method, seed)
    lead, epochs, tried = math.inf, 0, set[int]()
    rows: dict[int, int] = {}
    due: list[tuple[float, int, int, int]] = []  # when, trial, row, epoch that is over then

    def launch(now_s: float) -> None:
        proposal = optimizer.ask()
        row = rows[proposal.number] = row_of(dict(proposal.params), table)
        run.trials += 1
        tried.add(row)
        heapq.heappush(due, (now_s + epoch_s(row), proposal.number, row, 1))

    def promote(now_s: float) -> bool:
        promotion = optimizer.promotion(asks=True)
        if promotion is None:
            return False
        number, after = promotion.number, promotion.details["after_step"]
        optimizer.promote(number, promotion.details)
        optimizer.memory.forget_after(number, after)
        run.promoted += 1
        row = rows[number]
        heapq.heappush(due, (now_s + epoch_s(row), number, row, max(after, 0) + 1))
        return True

    for _ in range(workers):
        launch(0.0)
    while due and epochs < BUDGET and lead > best:
        now_s, number, row, epoch = heapq.heappop(due)
        epochs += 1
        loss = float(table.loss[row, epoch - 1])
        optimizer.report(number, epoch, loss)
        if epoch == EPOCHS:
            if math.isfinite(finals[row]):
                optimizer.tell(number, TrialState.COMPLETE, [float(finals[row])])
            else:
                optimizer.tell(number, TrialState.FAIL, failure="nan")
            if finals[row] < lead:
                lead = finals[row]
                run.incumbents.append((epochs, now_s, float((lead - best) / (median - best))))
        elif (verdict := optimizer.verdict(number)) is not None and verdict.stop and verdict.pause:
            optimizer.pause(number, -1 if restart else epoch)
            run.stopped += 1
            run.stopped_wrongly += bool(finals[row] < lead)
        elif verdict is not None and verdict.stop:
            state = TrialState.COMPLETE if told_as_final and math.isfinite(loss) else TrialState.PRUNED
            optimizer.tell(number, state, [loss] if math.isfinite(loss) else None)
            run.stopped += 1
            run.stopped_wrongly += bool(finals[row] < lead)
        else:
            heapq.heappush(due, (now_s + epoch_s(row), number, row, epoch + 1))
            continue
        if not promote(now_s) and len(tried) < len(finals):
            launch(now_s)
    audit = false_prunes(optimizer.trials, StudyDirection.MINIMIZE)
    run.audited, run.audited_wrong = audit.audited, audit.wrong
    run.wall_s = time.perf_counter() - started_s
    return run


def run_all(
    methods: Sequence[str],
    seeds: int,
    workers: int,
    processes: int,
    keep: Path | None,
    *,
    tasks: Sequence[str] = tuple(TASKS),
    takes: Sequence[str] = TAKES,
    restart: bool = False,
) -> list[Run]:
    """Every study that is not in the file already."""
    known = [Run(**json.loads(line)) for line in keep.read_text().splitlines()] if keep and keep.exists() else []
    done = {(run.task, run.take, run.method, run.seed) for run in known}
    wanted = [
        (task, take, method, seed, workers, restart)
        for seed in range(seeds)
        for task in tasks
        for take in takes
        for method in methods
        if (task, take, method, seed) not in done
    ]
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_quiet) as pool:
        for run in pool.imap_unordered(_replay, wanted):
            known.append(run)
            if keep:
                with keep.open("a") as file:
                    file.write(json.dumps(asdict(run)) + "\n")
    return known


def _replay(job: tuple[str, str, str, int, int, bool]) -> Run:
    return replay(*job)


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def report(runs: Sequence[Run]) -> str:
    """Markdown tables, one per way of taking the final loss."""
    lines = []
    for take in TAKES:
        head = (
            "| task | method | studies | final regret | to TPE's | to best peer's | to 1 % | simulated | false prunes "
        )
        head += "| audited | promoted |"
        lines += [f"\nFinal loss: that of the {take} epoch.\n", head, "|---|---|---|---|---|---|---|---|---|---|---|"]
        for task in TASKS:
            studies = {m: [r for r in runs if (r.task, r.take, r.method) == (task, take, m)] for m in [*PEERS, *OURS]}
            lines += _rows(task, {method: found for method, found in studies.items() if found})
    return "\n".join(lines)


def _rows(task: str, studies: dict[str, list[Run]]) -> Iterator[str]:
    finals = {m: float(np.mean([run.regret(BUDGET) for run in runs])) for m, runs in studies.items()}
    best_peer = min((finals[m] for m in PEERS if m in finals), default=math.nan)
    for method, runs in studies.items():
        low, high = _interval([run.regret(BUDGET) for run in runs])
        goals = [f"{_share(runs, goal)}" for goal in (finals.get("tpe", math.nan), best_peer)]
        reached = [next(((at, when) for at, when, regret in run.incumbents if regret <= 0.01), None) for run in runs]
        epochs, seconds = (np.median([r[i] if r else math.inf for r in reached]) for i in (0, 1))
        cells = [
            task,
            method,
            str(len(runs)),
            f"{finals[method]:.3f} ({low:.3f} to {high:.3f})",
            *goals,
            f"{epochs:,.0f}" if epochs < math.inf else "more",
            f"{seconds:,.0f} s" if seconds < math.inf else "more",
            _percentage(sum(r.stopped_wrongly for r in runs), sum(r.stopped for r in runs)),
            f"{sum(r.audited_wrong for r in runs)} of {sum(r.audited for r in runs)}" if method in OURS else "",
            f"{np.mean([r.promoted for r in runs]):.0f} a study" if method in OURS else "",
        ]
        yield "| " + " | ".join(cells) + " |"


def _share(runs: Sequence[Run], goal: float) -> str:
    """Epochs until the mean regret is no more than the goal, as a share of the budget, with its interval."""
    grid = np.arange(0, BUDGET + 1, EPOCHS // 2)
    regrets = np.array([[run.regret(at) for at in grid] for run in runs])

    def reached(rows: np.ndarray) -> float:
        there = rows.mean(axis=0) <= goal + 1e-9
        return float(grid[there.argmax()] / BUDGET) if there.any() else math.inf

    rng = np.random.default_rng(0)
    drawn = [reached(regrets[rng.integers(len(runs), size=len(runs))]) for _ in range(500)]
    low, high = np.quantile(drawn, [0.05, 0.95], method="nearest")
    shown = ["never" if share == math.inf else f"{share:.2f}" for share in (reached(regrets), low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """90 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = np.mean(rng.choice(np.asarray(values), size=(2000, len(values))), axis=1)
    return float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))


def _percentage(part: int, of: int) -> str:
    return f"{100 * part / of:.1f} %" if of else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--workers", type=int, default=4, help="simulated ones, of each study")
    parser.add_argument("--processes", type=int, default=2, help="real ones")
    parser.add_argument("--methods", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    parser.add_argument("--tasks", nargs="+", default=[*TASKS], choices=[*TASKS])
    parser.add_argument("--takes", nargs="+", default=[*TAKES], choices=[*TAKES])
    parser.add_argument("--restart", action="store_true", help="paused trials have no checkpoint and begin anew")
    parser.add_argument("--keep", type=Path, help="file of runs, one JSON document per line; read first, then added to")
    given = parser.parse_args()
    runs = run_all(
        given.methods,
        given.seeds,
        given.workers,
        given.processes,
        given.keep,
        tasks=given.tasks,
        takes=given.takes,
        restart=given.restart,
    )
    print(report(runs))


if __name__ == "__main__":
    main()
