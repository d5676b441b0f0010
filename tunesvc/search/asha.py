"""Asynchronous successive halving, the stopping form: at each rung only the best 1/eta of who came there goes on.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (section 3; the form that stops, as in their
appendix on Ray Tune, rather than the one that pauses and promotes).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from tunesvc.search.reasons import Reason

_REASONS_MAX = 10_000
"""Trials whose last verdict is remembered."""
_SHOWN = 5
"""Comparators that a reason names."""


class AshaPruner(BasePruner):
    """Stops at rungs min, min · eta, min · eta² ... what is not among the best 1/eta there.

    A trial's value at a rung is its first report at or after the rung's step, and with that report it is judged, once.
    So nothing has to be remembered but the reports: a restart decides alike, and reports that come late or in another
    order count at the rung to which they belong.

    Args:
        min: the first rung's step, at least 1.
        max: from this step on nothing is stopped.
        eta: how many times fewer trials go on at each rung.

    Raises:
        ValueError: the options do not make a ladder.
    """

    def __init__(self, min: int = 1, max: int | None = None, eta: int = 4) -> None:
        check_ladder(min, max, eta)
        self._min = min
        self._max = max
        self._eta = eta
        self._reasons: dict[int, Reason] = {}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial, as Optuna asks."""
        step = trial.last_step
        rung = None if step is None or (self._max is not None and step >= self._max) else self._rung(step)
        if step is None or rung is None or any(rung <= other < step for other in trial.intermediate_values):
            return False
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        rivals = sorted((cost, t.number) for t in others if (cost := _cost_at(t, rung, sign)) is not None)
        own = _cost_at(trial, rung, sign)
        cost = math.inf if own is None else own
        costs = sorted([cost, *(rival for rival, _ in rivals)])
        goes_on = len(costs) // self._eta or 1
        threshold = costs[goes_on - 1]
        stopped = math.isinf(cost) or cost > threshold
        rank = 1 + sum(rival < cost for rival, _ in rivals)
        self._remember(trial, rung, rank, goes_on, sign * threshold, rivals, sign, stopped)
        return stopped

    def explain(self, number: int) -> Reason | None:
        """What the last judgement of the trial of this number rested on."""
        return self._reasons.get(number)

    def _rung(self, step: int) -> int | None:
        """The last rung at or before a step."""
        rungs = itertools.takewhile(lambda rung: rung <= step, (self._min * self._eta**k for k in itertools.count()))
        return max(rungs, default=None)

    def _remember(
        self,
        trial: FrozenTrial,
        rung: int,
        rank: int,
        goes_on: int,
        threshold: float,
        rivals: Sequence[tuple[float, int]],
        sign: float,
        stopped: bool,
    ) -> None:
        step = trial.last_step or 0
        value = trial.intermediate_values[step]
        text = (
            f"number {rank} of {len(rivals) + 1} at rung {rung} with {value:.6g}; the best {goes_on} go on, "
            f"up to {threshold:.6g}"
        )
        best = [{"number": number, "value": sign * cost} for cost, number in rivals[:_SHOWN]]
        details = {
            "step": step,
            "value": value,
            "rung": rung,
            "rank": rank,
            "of": len(rivals) + 1,
            "goes_on": goes_on,
            "threshold": threshold,
            "comparators": best,
            "stopped": stopped,
        }
        self._reasons[trial.number] = Reason(text, details)
        if len(self._reasons) > _REASONS_MAX:
            del self._reasons[next(iter(self._reasons))]


def check_ladder(min: int, max: int | None, eta: int) -> None:
    """Whether the options of successive halving make sense.

    Raises:
        ValueError: they do not, and why.
    """
    if min < 1:
        raise ValueError(f"min ({min}) is the first step at which a trial may be stopped: at least 1")
    if eta < 2:
        raise ValueError(f"eta ({eta}) is how many times fewer trials go on at each rung: at least 2")
    if max is not None and max < min:
        raise ValueError(f"max ({max}) is below min ({min})")


def _cost_at(trial: FrozenTrial, rung: int, sign: float) -> float | None:
    """The first report at or after a rung, small being good; infinite for NaN, None if the trial did not get there."""
    steps: Iterable[int] = (step for step in trial.intermediate_values if step >= rung)
    step = min(steps, default=None)
    if step is None:
        return None
    value = sign * trial.intermediate_values[step]
    return math.inf if math.isnan(value) else value
