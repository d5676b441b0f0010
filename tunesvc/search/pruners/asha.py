"""Asynchronous successive halving: at each rung the best 1/eta of who came there goes on.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning": the form that pauses and promotes is their
algorithm 2; the form that stops is in their appendix on Ray Tune. Who is best by several objectives, `pareto.ranked`
says, as in Schmucker et al. 2021, "Multi-objective Asynchronous Successive Halving".
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

from tunesvc.search.explanations import LRUDict, Reason
from tunesvc.search.pruners.rungs import RungEntry, RungRanking, RungRegistry
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.objectives import orientations_of, points_of
from tunesvc.search.tracking.pausing import Alternative

_SHOWN = 5
"""Comparators that a reason names."""


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
        self._reasons: LRUDict[Reason] = LRUDict()

    @property
    def pauses(self) -> bool:
        """Whether what it stops is paused."""
        return self._form == "promote"

    @locked
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial, as Optuna asks."""
        points, orientations = points_of(trial, len(study.directions)), orientations_of(study)
        step = max(points, default=None)
        rung = None if step is None or (self._max is not None and step >= self._max) else self._rung(step)
        if step is None or rung is None or any(rung <= other < step for other in points):
            return False
        arrived, own = self._rungs.of(study).ranking_at(
            study.get_trials(deepcopy=False),
            rung,
            trial,
        )
        if own is None:
            return False
        goes_on = self._quota(len(arrived), at_least=0 if self.pauses else 1)
        # who stops for good goes on with a tie; who waits is promoted later if the others turn out no better
        place = arrived.index_of(own) if self.pauses else arrived.rank_of(own)
        stopped = math.inf in own.losses or place >= goes_on
        self._remember(rung, step, orientations, own, arrived, goes_on, stopped=stopped)
        return stopped

    @locked
    def promotion(
        self,
        study: Study,
        paused: Mapping[int, int],
        alternative: Alternative,
    ) -> int | None:
        """The best of the paused ones that are among the best 1/eta of a rung, the highest rung first.

        When no new trial comes any more, the best one of each rung may go on however few came there: else a short
        study would end with nothing but paused trials.
        """
        trials, orientations = study.get_trials(deepcopy=False), orientations_of(study)
        steps = {t.number: max(points_of(t, len(orientations)), default=0) for t in trials if t.number in paused}
        standing = {number: self._rung(step) for number, step in steps.items()}
        for rung in sorted(
            {rung for rung in standing.values() if rung is not None},
            reverse=True,
        ):
            arrived, _ = self._rungs.of(study).ranking_at(trials, rung)
            goes_on = self._quota(
                len(arrived),
                at_least=int(alternative is Alternative.NOTHING),
            )
            for one in itertools.islice(arrived, goes_on):
                if standing.get(one.number) == rung and math.inf not in one.losses:
                    self._remember(
                        rung,
                        steps[one.number],
                        orientations,
                        one,
                        arrived,
                        goes_on,
                        stopped=False,
                    )
                    return one.number
        return None

    def explain(self, number: int) -> Reason | None:
        """What the last judgement of the trial of this number rested on."""
        return self._reasons.get(number)

    def _quota(self, arrived: int, at_least: int) -> int:
        """How many of those that came to a rung go on."""
        return arrived // self._eta or min(at_least, arrived)

    def _rung(self, step: int) -> int | None:
        """The last rung at or before a step, and below the max."""
        rungs = itertools.takewhile(
            lambda rung: rung <= step,
            (self._min * self._eta**k for k in itertools.count()),
        )
        return max(
            (rung for rung in rungs if self._max is None or rung < self._max),
            default=None,
        )

    def _remember(
        self,
        rung: int,
        step: int,
        orientations: np.ndarray,
        own: RungEntry,
        arrived: RungRanking,
        goes_on: int,
        *,
        stopped: bool,
    ) -> None:
        def value(losses: Sequence[float]) -> Any:
            values = (orientations * np.array(losses)).tolist()
            return values if len(values) > 1 else values[0]

        place = arrived.rank_of(own)
        shown = ", ".join(f"{one:.6g}" for one in orientations * np.array(own.losses))
        text = f"rank {place + 1} of {len(arrived)} at the rung of step {rung}, with {shown}; "
        text += _continue(goes_on) if goes_on else f"none continues until {self._eta} trials have reached it"
        rivals = [one for one in itertools.islice(arrived, _SHOWN + 1) if one.number != own.number]
        details: dict[str, Any] = {
            "step": step,
            "value": value(own.losses),
            "rung": rung,
            "rank": place + 1,
            "of": len(arrived),
            "goes_on": goes_on,
            "comparators": [{"number": one.number, "value": value(one.losses)} for one in rivals[:_SHOWN]],
            "stopped": stopped,
        }
        if len(orientations) == 1:
            threshold = value(arrived[goes_on - 1].losses) if goes_on else None
            text += f" ({threshold:.6g}{' or better' * (goes_on > 1)})" if goes_on else ""
            details["threshold"] = threshold
        self._reasons[own.number] = Reason(text, details)


def _continue(count: int) -> str:
    return "only the best one continues" if count == 1 else f"the best {count} continue"


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
