"""Asynchronous successive halving: at each rung the best 1/eta of who came there goes on.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning": the form that pauses and promotes is their
algorithm 2; the form that stops is in their appendix on Ray Tune.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from tunesvc.search.pausing import Instead
from tunesvc.search.reasons import Reason

_REASONS_MAX = 10_000
"""Trials whose last verdict is remembered."""
_SHOWN = 5
"""Comparators that a reason names."""

Place = tuple[float, int]
"""Cost (small is good) and number of a trial."""


class AshaPruner(BasePruner):
    """Lets go on, at rungs min, min · eta, min · eta² ..., what is among the best 1/eta there.

    A trial's value at a rung is its first report at or after the rung's step, and with that report it is judged, once.
    So nothing has to be remembered but the reports: a restart decides alike, and reports that come late or in another
    order count at the rung to which they belong.

    In the form `stop`, whatever is not among the best when it comes to a rung is pruned, and the first to come always
    goes on. In the form `promote` it is paused, and goes on as soon as so many others have come that it is among the
    best 1/eta of them; for that, somebody has to ask `promotion`, as tunesvc does and plain Optuna does not.

    Args:
        min: the first rung's step, at least 1.
        max: from this step on nothing is stopped.
        eta: how many times fewer trials go on at each rung.
        form: `stop` or `promote`.

    Raises:
        ValueError: the options do not make a ladder, or there is no such form.
    """

    def __init__(
        self, min: int = 1, max: int | None = None, eta: int = 4, form: Literal["stop", "promote"] = "stop"
    ) -> None:
        check_ladder(min, max, eta)
        if form not in ("stop", "promote"):
            raise ValueError(f"form ({form!r}) is `stop` or `promote`")
        self._min = min
        self._max = max
        self._eta = eta
        self._form = form
        self._reasons: dict[int, Reason] = {}

    @property
    def pauses(self) -> bool:
        """Whether what it stops is paused."""
        return self._form == "promote"

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial, as Optuna asks."""
        step = trial.last_step
        rung = None if step is None or (self._max is not None and step >= self._max) else self._rung(step)
        if step is None or rung is None or any(rung <= other < step for other in trial.intermediate_values):
            return False
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        sign = _sign(study)
        rivals = _ranked(others, rung, sign)
        own = _cost_at(trial, rung, sign)
        place = (math.inf if own is None else own, trial.number)
        ranked = sorted([*rivals, place])
        goes_on = self._quota(len(ranked), at_least=0 if self.pauses else 1)
        last = ranked[goes_on - 1] if goes_on else (-math.inf, -1)
        # who stops for good goes on with a tie; who waits is promoted later if the others turn out no better
        stopped = math.isinf(place[0]) or (place > last if self.pauses else place[0] > last[0])
        self._remember(trial, rung, ranked, goes_on, sign, stopped=stopped)
        return stopped

    def promotion(self, study: Study, paused: Mapping[int, int], instead: Instead) -> int | None:
        """The best of the paused ones that are among the best 1/eta of a rung, the highest rung first.

        When no new trial comes any more, the best one of each rung may go on however few came there: else a short
        study would end with nothing but paused trials.
        """
        trials, sign = study.get_trials(deepcopy=False), _sign(study)
        waiting = [(self._rung(trial.last_step or 0), trial) for trial in trials if trial.number in paused]
        for rung in sorted({rung for rung, _ in waiting if rung is not None}, reverse=True):
            here = {trial.number: trial for at, trial in waiting if at == rung}
            ranked = _ranked(trials, rung, sign)
            goes_on = self._quota(len(ranked), at_least=int(instead is Instead.NOTHING))
            for cost, number in ranked[:goes_on]:
                if number in here and math.isfinite(cost):
                    self._remember(here[number], rung, ranked, goes_on, sign, stopped=False)
                    return number
        return None

    def explain(self, number: int) -> Reason | None:
        """What the last judgement of the trial of this number rested on."""
        return self._reasons.get(number)

    def _quota(self, arrived: int, at_least: int) -> int:
        """How many of those that came to a rung go on."""
        return arrived // self._eta or min(at_least, arrived)

    def _rung(self, step: int) -> int | None:
        """The last rung at or before a step, and below the max."""
        rungs = itertools.takewhile(lambda rung: rung <= step, (self._min * self._eta**k for k in itertools.count()))
        return max((rung for rung in rungs if self._max is None or rung < self._max), default=None)

    def _remember(
        self, trial: FrozenTrial, rung: int, ranked: Sequence[Place], goes_on: int, sign: float, *, stopped: bool
    ) -> None:
        costs = {number: cost for cost, number in ranked}
        value = sign * costs[trial.number]
        rank = 1 + sum(cost < costs[trial.number] for cost, _ in ranked)
        threshold = sign * ranked[goes_on - 1][0] if goes_on else None
        text = f"number {rank} of {len(ranked)} at rung {rung} with {value:.6g}; "
        text += (
            f"none goes on before {self._eta} came there"
            if threshold is None
            else (f"the best {goes_on} go on, up to {threshold:.6g}")
        )
        rivals = [place for place in ranked if place[1] != trial.number]
        details = {
            "step": trial.last_step,
            "value": value,
            "rung": rung,
            "rank": rank,
            "of": len(ranked),
            "goes_on": goes_on,
            "threshold": threshold,
            "comparators": [{"number": number, "value": sign * cost} for cost, number in rivals[:_SHOWN]],
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


def _sign(study: Study) -> float:
    return -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0


def _ranked(trials: Iterable[FrozenTrial], rung: int, sign: float) -> list[Place]:
    """The trials that came to a rung, the best first."""
    return sorted((cost, t.number) for t in trials if (cost := _cost_at(t, rung, sign)) is not None)


def _cost_at(trial: FrozenTrial, rung: int, sign: float) -> float | None:
    """The first report at or after a rung, small being good; infinite for NaN, None if the trial did not get there."""
    steps: Iterable[int] = (step for step in trial.intermediate_values if step >= rung)
    step = min(steps, default=None)
    if step is None:
        return None
    value = sign * trial.intermediate_values[step]
    return math.inf if math.isnan(value) else value
