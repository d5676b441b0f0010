"""Forecasts of the curve model, judged in the states that studies go through.

    python -m benchmarks.forecasts [--tasks digits ...] [--takes last best] [--seeds 300 301 ...]

Whole studies differ so much that a tenth fewer epochs shows only after hundreds. Here a model is
judged without them: studies of `auto` run on the tables of `benchmarks.curves`, by the optimizer
alone, four trials at a time. After 350, 500, 700, 1,000, 1,400 and 1,800 epochs their trials are
copied. A curve model learns from the copy and forecasts the next 40 proposals of the study at every
level, by their curves in the table.

Printed: the mean log score of the true final values by level, and for several allowed chances the
mean epochs until a proposal would be stopped (54: never), and the share of improving proposals,
better than the best trial finished by then, that would be. There is no resuming. A better model is
one with a higher score, and fewer losses for the same epochs. To judge another model, change
`tunesvc.search.pruners.curve`: the states barely depend on it.
"""

from __future__ import annotations

import argparse
import copy
import heapq
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import t as student_t

from benchmarks.curve_tables import EPOCHS, GRID, TASKS, Table
from benchmarks.curves import (
    TAKES,
    curves_of,
    epoch_s,
    finals_of,
    make_optimizer,
    row_of,
    spec_of,
)
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.pruners.curve.curve_model import CurveModel
from tunesvc.search.pruners.curve.regression import DOF

MARKS = (350, 500, 700, 1_000, 1_400, 1_800)
"""Epochs after which a state is copied."""
END = 2_400
"""Epochs of a study: as many proposals follow the last state."""
NEXT = 40
CHANCES = (0.01, 0.02, 0.05, 0.1, 0.2)
WORKERS = 4


@dataclass(frozen=True)
class State:
    """Trials of a study, and the table's rows of the proposals that followed."""

    trials: Sequence[FrozenTrial]
    following: Sequence[int]


class Training:
    """A study that trains by a table: `benchmarks.curves` without coordinator and database."""

    def __init__(self, optimizer: Optimizer, table: Table, take: str) -> None:
        self._optimizer = optimizer
        self._table = table
        self._finals = finals_of(table, take)
        self.rows: dict[int, int] = {}
        """Number of a trial -> its row."""
        self._reached: dict[int, int] = {}
        self._due: list[tuple[float, int, int]] = []
        self._order = itertools.count()
        self._now_s = 0.0
        self._lead = math.inf
        self.epochs = 0

    @property
    def is_over(self) -> bool:
        """True if the epochs are spent, the best is found, or nothing is left to do."""
        return self.epochs >= END or self._lead <= self._finals.min() or not self._due

    def start(self) -> None:
        """Fill free workers: with paused trials that resume, or new ones."""
        while len(self._due) < WORKERS:
            promotion = self._optimizer.promotion(asks=not self._optimizer.exhausted)
            if promotion is not None:
                self._optimizer.promote(promotion.number, promotion.details)
                self._schedule(promotion.number)
            elif self._optimizer.exhausted:
                return
            else:
                proposal = self._optimizer.ask()
                self.rows[proposal.number] = row_of(dict(proposal.params), self._table)
                self._reached[proposal.number] = 0
                self._schedule(proposal.number)

    def step(self) -> None:
        """Train the next epoch to end, and act on it."""
        self._now_s, _, number = heapq.heappop(self._due)
        self._reached[number] = epoch = self._reached[number] + 1
        self.epochs += 1
        loss = float(self._table.loss[self.rows[number], epoch - 1])
        self._optimizer.report(number, epoch, loss)
        decision = self._optimizer.verdict(number, [epoch]) if epoch < EPOCHS else None
        if epoch == EPOCHS:
            self._finish(number)
        elif decision is not None and decision.stop:
            self._optimizer.pause(number, epoch)
        else:
            self._schedule(number)
            return
        self._optimizer.on_step_end()
        self.start()

    def _finish(self, number: int) -> None:
        final = float(self._finals[self.rows[number]])
        if math.isfinite(final):
            self._optimizer.tell(number, TrialState.COMPLETE, [final])
        else:
            self._optimizer.tell(number, TrialState.FAIL, failure="nan")
        self._lead = min(self._lead, final)

    def _schedule(self, number: int) -> None:
        due_s = self._now_s + epoch_s(self.rows[number])
        heapq.heappush(self._due, (due_s, next(self._order), number))


def states_of(task: str, take: str, seed: int) -> Iterator[State]:
    """Run a study, and yield its states with the proposals that followed."""
    spec = spec_of(f"{task} {take} {seed}", "auto", take, seed, WORKERS)
    optimizer = make_optimizer(spec, "auto")
    training = Training(optimizer, curves_of(task), take)
    marks, copies = list(MARKS), []
    training.start()
    while not training.is_over:
        training.step()
        if marks and training.epochs >= marks[0]:
            marks.pop(0)
            copies.append([_copied(trial) for trial in optimizer.study.get_trials(deepcopy=False)])
    for trials in copies:
        later = [row for number, row in sorted(training.rows.items()) if number >= len(trials)]
        yield State(trials, later[:NEXT])


def _copied(trial: FrozenTrial) -> FrozenTrial:
    out = copy.copy(trial)
    out.intermediate_values = dict(trial.intermediate_values)
    out.system_attrs = dict(trial.system_attrs)
    return out


@dataclass(frozen=True)
class Judged:
    """Forecasts of a state's following proposals; arrays of shape (proposals, levels)."""

    levels: np.ndarray
    chances: np.ndarray
    scores: np.ndarray
    """Log densities of the final values; NaN without a density."""
    improves: np.ndarray
    """True for proposals that end better than the best so far; shape (proposals,)."""

    def stopped_at(self, chance: float) -> np.ndarray:
        """Return the epoch at which each proposal would be stopped; `EPOCHS` for never."""
        stops = self.chances < chance
        return np.where(stops.any(axis=1), self.levels[stops.argmax(axis=1)], EPOCHS)


def judge(state: State, task: str, take: str) -> Judged | None:
    """Forecast the proposals that followed; None before there is a model."""
    table = curves_of(task)
    finals = finals_of(table, take)[list(state.following)]
    model = CurveModel(StudyDirection.MINIMIZE)
    model.update(state.trials)
    complete = [trial.values[0] for trial in state.trials if trial.state == TrialState.COMPLETE]
    if not model.levels or not state.following:
        return None
    best, shape = min(complete), (len(state.following), len(model.levels))
    partial = list(_partial(state, table, model.levels))
    chances, scores = np.ones(shape).ravel(), np.full(shape, np.nan).ravel()
    for i, forecast in enumerate(model.forecasts(partial)):
        if forecast is not None:
            chances[i] = forecast.chance_of_better(best)
            if math.isinf(forecast.reached_z):
                z = forecast.scale.of_losses(finals[[i // shape[1]]])
                scores[i] = student_t.logpdf(z[0], DOF, forecast.z, forecast.deviation_z)
    return Judged(
        np.array(model.levels), chances.reshape(shape), scores.reshape(shape), finals < best
    )


def _partial(state: State, table: Table, levels: Sequence[int]) -> Iterator[FrozenTrial]:
    """Yield each following proposal with its curve up to each level."""
    distributions = state.trials[0].distributions
    number = itertools.count(len(state.trials))
    for row in state.following:
        places = np.unravel_index(row, [len(values) for values in GRID.values()])
        params = {
            name: values[int(place)] if isinstance(values[0], str) else int(place)
            for (name, values), place in zip(GRID.items(), places, strict=True)
        }
        for level in levels:
            trial = create_trial(
                state=TrialState.PRUNED,
                params=params,
                distributions=distributions,
                intermediate_values=dict(enumerate(table.loss[row, :level].tolist(), start=1)),
            )
            trial.number = next(number)
            yield trial


def report(judged: Sequence[Judged]) -> str:
    """Markdown tables of scores by level, and of epochs and losses by allowed chance."""
    by_level: dict[int, list[np.ndarray]] = {}
    for one in judged:
        for level, scores in zip(one.levels.tolist(), one.scores.T, strict=True):
            by_level.setdefault(level, []).append(scores)
    lines = ["| level | log score |", "|---|---|"]
    for level, found in sorted(by_level.items()):
        lines.append(f"| {level} | {np.nanmean(np.concatenate(found)):.2f} |")
    every = np.concatenate([scores for found in by_level.values() for scores in found])
    lines.append(f"| all | {np.nanmean(every):.3f} |")
    improves = np.concatenate([one.improves for one in judged])
    lines += [f"\n{len(improves)} proposals, {improves.sum()} of them improving\n"]
    lines += ["| allowed chance | epochs | lost |", "|---|---|---|"]
    for chance in CHANCES:
        at = np.concatenate([one.stopped_at(chance) for one in judged])
        lost = (at < EPOCHS)[improves].mean() if improves.any() else math.nan
        lines.append(f"| {chance} | {at.mean():.1f} | {lost:.3f} |")
    return "\n".join(lines)


def judge_all(tasks: Iterable[str], takes: Iterable[str], seeds: Iterable[int]) -> Iterator[Judged]:
    """Run the studies, and judge the forecasts in their states."""
    for task, take, seed in itertools.product(tasks, takes, seeds):
        for state in states_of(task, take, seed):
            judged = judge(state, task, take)
            if judged is not None:
                yield judged


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--takes", nargs="+", default=TAKES, choices=TAKES)
    parser.add_argument("--seeds", nargs="+", type=int, default=(300, 301, 302, 303))
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print(report(list(judge_all(given.tasks, given.takes, given.seeds))))


if __name__ == "__main__":
    main()
