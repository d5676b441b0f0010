"""Asynchronous successive halving: at each rung the best 1/eta of the trials there continue.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning": the form that pauses and
promotes is their algorithm 2, the form that stops is in their appendix on Ray Tune. Trials of
several objectives are ranked by `pareto.ranked`, as in Schmucker et al. 2021, "Multi-objective
Asynchronous Successive Halving".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason, RecentEntries
from tunesvc.search.pruners.rungs import RungEntry, RungRanking, RungRegistry
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.objectives import orientations_of, points_of
from tunesvc.search.tracking.pausing import Alternative

_SHOWN = 5
"""Most comparators that a reason names."""


class AshaPruner(BasePruner):
    """Continues the best 1/eta of the trials at rungs min, min · eta, min · eta² ...

    A trial's value at a rung is its first report at or after the rung's step, and that report is
    judged once. The pruner needs no state but the reports: after a restart it decides the same, and
    late or reordered reports count at the rung to which they belong.

    In the form `stop`, a trial that is not among the best on arrival at a rung is pruned; the
    first arrival always continues. In the form `promote` such a trial is paused, and resumes as
    soon as it is among the best 1/eta of later arrivals. That needs calls of `promotion`, which
    tunesvc makes and plain Optuna does not.

    Args:
        min: step of the first rung, at least 1.
        max: from this step on nothing is stopped.
        eta: factor by which fewer trials continue at each rung.
        form: `stop` or `promote`.

    Raises:
        ValueError: the options do not make a ladder of rungs, or there is no such form.
    """

    def __init__(
        self,
        min: int = 1,
        max: int | None = None,
        eta: int = 4,
        form: Literal["stop", "promote"] = "stop",
    ) -> None:
        check_ladder(min, max, eta)
        if form not in ("stop", "promote"):
            raise ValueError(f"form ({form!r}) is `stop` or `promote`")
        self._min = min
        self._max = max
        self._eta = eta
        self._form = form
        self._rungs = RungRegistry()
        self._reasons: RecentEntries[Reason] = RecentEntries()

    @property
    def pauses(self) -> bool:
        """True if trials are paused instead of stopped."""
        return self._form == "promote"

    @locked
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return True if the trial should stop."""
        points = points_of(trial, len(study.directions))
        orientations = orientations_of(study)
        step = max(points, default=None)
        if step is None or (self._max is not None and step >= self._max):
            return False
        rung = self._rung(step)
        if rung is None or any(rung <= other < step for other in points):
            return False
        trials = study.get_trials(deepcopy=False)
        ranking, own = self._rungs.of(study).ranking_at(trials, rung, trial)
        if own is None:
            return False
        quota = self._quota(len(ranking), at_least=0 if self.pauses else 1)
        # Of equal trials none is stopped for good, but as many are paused as the quota says: the
        # paused ones are promoted later if the others turn out no better.
        rank = ranking.index_of(own) if self.pauses else ranking.rank_of(own)
        stopped = math.inf in own.losses or rank >= quota
        self._remember(
            rung,
            step,
            orientations,
            own,
            ranking,
            quota,
            stopped=stopped,
        )
        return stopped

    @locked
    def promotion(
        self,
        study: Study,
        paused: Mapping[int, int],
        alternative: Alternative,
    ) -> int | None:
        """Return the best paused trial within the quota of its rung, the highest rung first.

        If no new trials follow, the best of each rung may resume however few there are. A short
        study would end with paused trials only otherwise.
        """
        trials = study.get_trials(deepcopy=False)
        orientations = orientations_of(study)
        at_least = int(alternative is Alternative.NOTHING)
        steps = {}
        for trial in trials:
            if trial.number in paused:
                steps[trial.number] = max(
                    points_of(trial, len(orientations)),
                    default=0,
                )
        rung_of = {number: self._rung(step) for number, step in steps.items()}
        reached = {rung for rung in rung_of.values() if rung is not None}
        for rung in sorted(reached, reverse=True):
            ranking, _ = self._rungs.of(study).ranking_at(trials, rung)
            quota = self._quota(len(ranking), at_least)
            for one in itertools.islice(ranking, quota):
                if rung_of.get(one.number) == rung and math.inf not in one.losses:
                    self._remember(
                        rung,
                        steps[one.number],
                        orientations,
                        one,
                        ranking,
                        quota,
                        stopped=False,
                    )
                    return one.number
        return None

    def explain(self, number: int) -> Reason | None:
        """Return the reason of the last decision on this trial."""
        return self._reasons.get(number)

    def _quota(self, ranking: int, at_least: int) -> int:
        """Return how many of the trials at a rung continue."""
        return ranking // self._eta or min(at_least, ranking)

    def _rung(self, step: int) -> int | None:
        """Return the last rung at or before a step and below the max."""
        end = step if self._max is None else min(step, self._max - 1)
        if end < self._min:
            return None
        rung = self._min
        while rung * self._eta <= end:
            rung *= self._eta
        return rung

    def _remember(
        self,
        rung: int,
        step: int,
        orientations: np.ndarray,
        own: RungEntry,
        ranking: RungRanking,
        quota: int,
        *,
        stopped: bool,
    ) -> None:
        def value(losses: Sequence[float]) -> Any:
            values = (orientations * np.array(losses)).tolist()
            return values if len(values) > 1 else values[0]

        rank = ranking.rank_of(own)
        shown = ", ".join(f"{one:.6g}" for one in orientations * np.array(own.losses))
        text = f"rank {rank + 1} of {len(ranking)} at the rung of step {rung}, with {shown}; "
        if quota:
            text += _continue(quota)
        else:
            text += f"none continues until {self._eta} trials have reached it"
        rivals = itertools.islice(ranking, _SHOWN + 1)
        others = [one for one in rivals if one.number != own.number][:_SHOWN]
        details: dict[str, Any] = {
            "step": step,
            "value": value(own.losses),
            "rung": rung,
            "rank": rank + 1,
            "of": len(ranking),
            "goes_on": quota,
            "comparators": [{"number": one.number, "value": value(one.losses)} for one in others],
            "stopped": stopped,
        }
        if len(orientations) == 1:
            details["threshold"] = None
            if quota:
                threshold = details["threshold"] = value(ranking[quota - 1].losses)
                text += f" ({threshold:.6g}{' or better' * (quota > 1)})"
        self._reasons[own.number] = Reason(text, details)


def _continue(count: int) -> str:
    return "only the best one continues" if count == 1 else f"the best {count} continue"


def check_ladder(min: int, max: int | None, eta: int) -> None:
    """Check the options of successive halving.

    Raises:
        ValueError: they make no sense; the text tells why.
    """
    if min < 1:
        text = f"min ({min}) is the first step at which a trial may be stopped: at least 1"
        raise ValueError(text)
    if eta < 2:
        text = f"eta ({eta}) is how many times fewer trials go on at each rung: at least 2"
        raise ValueError(text)
    if max is not None and max < min:
        raise ValueError(f"max ({max}) is below min ({min})")
