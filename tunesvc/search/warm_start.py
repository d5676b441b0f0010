"""Warm start: trials of earlier studies with a similar space, shown to a new study's sampler.

Their finished trials look to the sampler like this study's own, and count for nothing else: not for
the budget, the pruner or any reader. Two studies rarely agree on the value of a configuration
(another data set, longer training). So the new study begins with the best earlier configurations,
and their results here map earlier values to this study's (`ValueMapping`). The mapping is fixed
once those trials have finished, because a sampler may cache what it was shown. How far the mapped
values agree with this study's is for the sampler to learn: the Gaussian process does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.tracking.objectives import is_candidate
from tunesvc.search.tracking.pausing import PAUSED
from tunesvc.search.tracking.transferred import SOURCE
from tunesvc.search.value_mapping import ValueMapping
from tunesvc.space.directions import direction_of
from tunesvc.space.search_space import Space
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.spec.conditions import contains
from tunesvc.spec.goals import Goal, orient
from tunesvc.util.optuna_internals import renumber

BEST = 3
"""Number of the best earlier configurations that run first."""
TRANSFERRED_MAX = 200
"""Most trials of one earlier study that are shown: the best, and an even sample of the others."""
ENQUEUED_FROM = "tunesvc:carried"
"""System attribute of a trial that was enqueued from an earlier study:
its name and number there."""


@dataclass(frozen=True, slots=True)
class SourceStudy:
    """An earlier study."""

    name: str
    spec: StudySpec | None
    """None for a study made through Optuna's API, mostly without names of metrics."""
    trials: Sequence[FrozenTrial]
    goals: Sequence[Goal] = ()
    """One per objective, also without a spec."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """An earlier trial that fits."""

    study: str
    number: int
    params: Mapping[str, ParamValue]
    value: float


class WarmStart:
    """Transferred trials, and how a sampler sees them."""

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        earlier: Sequence[SourceStudy],
    ) -> None:
        self._space = space
        self._direction = direction_of(spec.directions[0])
        self._orientation = orient(spec.directions[0])
        self.transferred: list[TransferResult] = []
        self._summaries: list[str] = []
        self._without_trials: list[str] = []
        self._shown: list[FrozenTrial] | None = None
        self._waiting: list[FrozenTrial] = []
        for study in earlier:
            found, left_out = fitting(study, spec, space)
            self.transferred += self._select(found)
            self._summaries.append(_summary(study.name, len(found), left_out))
            if not found:
                self._without_trials.append(self._summaries[-1])

    @property
    def reason(self) -> str:
        """Sentence on the trials that are transferred, and on those that are not."""
        return "warm start: " + "; ".join(self._summaries)

    @property
    def warning(self) -> str:
        """Studies without a trial to transfer, and why; empty if there are none."""
        if not self._without_trials:
            return ""
        return f"warm start: nothing is transferred: {'; '.join(self._without_trials)}"

    @property
    def counts(self) -> dict[str, int]:
        """Number of transferred trials by study."""
        return dict(Counter(one.study for one in self.transferred))

    def first(self) -> list[TransferResult]:
        """Return the trials to run first: the best of each study in turn."""
        ranked = [
            [one for one in self.transferred if one.study == name]  # best first
            for name in self.counts
        ]
        rounds = []
        for turn in range(BEST):
            for ones in ranked:
                rounds += ones[turn : turn + 1]
        distinct: dict[str, TransferResult] = {}
        for one in rounds:
            distinct.setdefault(repr(sorted(one.params.items())), one)
        return list(distinct.values())[:BEST]

    def shown(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Return the transferred trials as the sampler sees them.

        They wait until the trials that run first have finished, and are complete then. While none
        of those has a result, a paused one counts as unfinished: it may be promoted and complete.
        The trials are always as many in the same order, since a sampler may cache their indices.

        Args:
            trials: of this study.
        """
        if self._shown is not None:
            return self._shown
        run = [trial for trial in trials if ENQUEUED_FROM in trial.system_attrs]
        is_paused = any(PAUSED in trial.system_attrs for trial in run)
        may_complete = is_paused and not any(map(is_candidate, run))
        if may_complete or not all(trial.state.is_finished() for trial in run):
            self._waiting = self._waiting or self._frozen(None)
            return self._waiting
        self._shown = self._frozen(self._mappings(run))
        return self._shown

    def origin(self, number: int) -> tuple[str, int] | None:
        """Return study and number of the trial that is shown under a negative number."""
        index = -1 - number
        if not 0 <= index < len(self.transferred):
            return None
        return self.transferred[index].study, self.transferred[index].number

    def _mappings(self, run: Sequence[FrozenTrial]) -> dict[str, ValueMapping]:
        """Fit a mapping of values for each earlier study."""
        mappings = {}
        for study, found in self._pairs(run).items():
            earlier = [one.value for one in self.transferred if one.study == study]
            mappings[study] = ValueMapping.of(found, earlier, self._direction)
        return mappings

    def _pairs(self, run: Sequence[FrozenTrial]) -> dict[str, list[tuple[float, float]]]:
        """Return (value there, value here) of configurations that both have run, by study."""
        known = {(one.study, one.number): one.value for one in self.transferred}
        pairs: dict[str, list[tuple[float, float]]] = {study: [] for study in self.counts}
        for trial in run:
            study, number = trial.system_attrs[ENQUEUED_FROM]
            if is_candidate(trial) and (study, number) in known:
                pairs[study].append((known[study, number], trial.values[0]))
        return pairs

    def _frozen(
        self,
        mappings: Mapping[str, ValueMapping] | None,
    ) -> list[FrozenTrial]:
        made = []
        for index, one in reversed(list(enumerate(self.transferred))):
            distributions = {name: self._space.distributions[name] for name in one.params}
            value = None if mappings is None else mappings[one.study](one.value)
            state = TrialState.WAITING if value is None else TrialState.COMPLETE
            trial = create_trial(
                state=state,
                params=dict(one.params),
                distributions=distributions,
                value=value,
                system_attrs={SOURCE: one.study},
            )
            renumber(trial, -1 - index, -1 - index)
            made.append(trial)
        return made

    def _select(self, found: Sequence[TransferResult]) -> list[TransferResult]:
        """Return the best trials first, then every n-th of the others if there are too many."""
        ranked = sorted(
            found,
            key=lambda one: (self._orientation * one.value, one.number),
        )
        best = ranked[: TRANSFERRED_MAX // 2]
        rest = ranked[TRANSFERRED_MAX // 2 :]
        stride = math.ceil(len(rest) / (TRANSFERRED_MAX // 2)) or 1
        return best + rest[::stride]


def fitting(
    earlier: SourceStudy,
    spec: StudySpec,
    space: Space,
) -> tuple[list[TransferResult], Counter[str]]:
    """Return finished trials that fit this space, and counts of the reasons why others do not.

    A parameter that the earlier study lacked is taken from its constants. One that only the earlier
    study had must equal this study's constant of that name, if there is one.
    """
    left_out: Counter[str] = Counter()
    if other := _other_metrics(earlier, spec):
        left_out[other] = len(earlier.trials)
        return [], left_out
    found = []
    constants = {} if earlier.spec is None else _scalars(earlier.spec.constants)
    for trial in earlier.trials:
        if not is_candidate(trial) or not math.isfinite(trial.values[0]):
            continue
        given = {**constants, **trial.params}
        why_not = _misfit(given, spec, space)
        if why_not:
            left_out[why_not] += 1
        else:
            params = space.select(given)
            found.append(
                TransferResult(
                    earlier.name,
                    trial.number,
                    params,
                    trial.values[0],
                )
            )
    return found, left_out


def _other_metrics(earlier: SourceStudy, spec: StudySpec) -> str:
    """Return why the earlier study's values are not comparable; empty if they are."""
    if earlier.spec is None:
        return "" if list(earlier.goals) == list(spec.directions) else "another goal"
    names = [[(metric.name, metric.goal) for metric in one.metrics] for one in (earlier.spec, spec)]
    return "" if names[0] == names[1] else "another metric"


def _misfit(
    given: Mapping[str, ParamValue],
    spec: StudySpec,
    space: Space,
) -> str:
    for name in space.parameters:
        if not space.active(name, given):
            continue
        if name not in given:
            return f"no {name}"
        if not contains(space.parameters[name], given[name]):
            return f"{name} out of range"
    for name, value in _scalars(spec.constants).items():
        if name in given and given[name] != value:
            return f"another {name}"
    return ""


def _scalars(constants: Mapping[str, object]) -> dict[str, ParamValue]:
    scalars = (bool, int, float, str)
    return {name: value for name, value in constants.items() if isinstance(value, scalars)}


def _summary(name: str, found: int, left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
    suffix = f" (left out: {reasons})" if reasons else ""
    return f"{found} trials from {name}{suffix}"
