"""Asynchronous successive halving, the stopping form: at each rung only the best 1/eta of who came there goes on.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (section 3; the form that stops, as in their
appendix on Ray Tune, rather than the one that pauses and promotes). Who is best by several objectives, `pareto.ranked`
says, as in Schmucker et al. 2021, "Multi-objective Asynchronous Successive Halving".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.objectives import point_at, points_of, signs_of
from tunesvc.search.pareto import ranked
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
        points, signs = points_of(trial, len(study.directions)), signs_of(study)
        step = max(points, default=None)
        rung = None if step is None or (self._max is not None and step >= self._max) else self._rung(step)
        if step is None or rung is None or any(rung <= other < step for other in points):
            return False
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        rivals = [(t.number, costs) for t in others if (costs := _costs_at(t, rung, signs)) is not None]
        own = _costs_at(trial, rung, signs) or (math.inf,) * len(signs)
        place, *places = ranked(np.array([own, *(costs for _, costs in rivals)])).tolist()
        goes_on = (1 + len(places)) // self._eta or 1
        stopped = place >= goes_on or math.inf in own
        order = sorted(range(len(rivals)), key=lambda i: (places[i], rivals[i][0]))
        self._remember(rung, step, trial.number, signs, own, place, goes_on, [rivals[i] for i in order], stopped)
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
        rung: int,
        step: int,
        number: int,
        signs: np.ndarray,
        own: Sequence[float],
        place: int,
        goes_on: int,
        rivals: Sequence[tuple[int, Sequence[float]]],
        stopped: bool,
    ) -> None:
        """`rivals`: the best first."""

        def value(costs: Sequence[float]) -> Any:
            values = (signs * np.array(costs)).tolist()
            return values if len(values) > 1 else values[0]

        shown = ", ".join(f"{one:.6g}" for one in signs * np.array(own))
        text = f"number {place + 1} of {len(rivals) + 1} at rung {rung} with {shown}; the best {goes_on} go on"
        details: dict[str, Any] = {
            "step": step,
            "value": value(own),
            "rung": rung,
            "rank": place + 1,
            "of": len(rivals) + 1,
            "goes_on": goes_on,
            "comparators": [{"number": rival, "value": value(costs)} for rival, costs in rivals[:_SHOWN]],
            "stopped": stopped,
        }
        if len(signs) == 1:
            threshold = value(sorted([tuple(own), *(tuple(costs) for _, costs in rivals)])[goes_on - 1])
            text, details = f"{text}, up to {threshold:.6g}", {**details, "threshold": threshold}
        self._reasons[number] = Reason(text, details)
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


def _costs_at(trial: FrozenTrial, rung: int, signs: np.ndarray) -> tuple[float, ...] | None:
    """The first point at or after a rung, small being good; infinite for NaN, None if the trial did not get there."""
    steps = trial.intermediate_values if len(signs) == 1 else points_of(trial, len(signs))
    step = min((step for step in steps if step >= rung), default=None)
    point = None if step is None else point_at(trial, step, len(signs))
    if point is None:
        return None
    costs = (signs * np.array(point)).tolist()
    return tuple(math.inf if math.isnan(cost) else cost for cost in costs)
