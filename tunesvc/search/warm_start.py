"""What earlier studies with a like space teach a new one.

Their finished trials are shown to the sampler as if they were this study's, and count as nothing else: no budget, no
pruner and no reader sees them. Two studies rarely agree on the value of a configuration (another data set, a longer
training), so the new study begins with the best of the earlier ones, and what it measures there says how its values
follow from theirs (`ValueMapping`). That is fixed once those trials are over: a sampler may keep what it was shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.analysis.recommend import is_candidate
from tunesvc.search.tracking.objectives import orient
from tunesvc.search.tracking.pausing import PAUSED
from tunesvc.search.value_mapping import ValueMapping
from tunesvc.space.search_space import Space
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.spec.conditions import contains
from tunesvc.spec.model import Goal

BEST = 3
"""So many of the best earlier configurations are run first."""
TRANSFERRED_MAX = 200
"""Trials of one earlier study that are shown, the best of them and evenly chosen others."""
TRANSFERRED = "tunesvc:carried"
"""System attribute of a trial that was enqueued from an earlier study: its name and the trial's number there."""


@dataclass(frozen=True, slots=True)
class SourceStudy:
    """An earlier study."""

    name: str
    spec: StudySpec | None
    """None for a study that was made through Optuna's API, whose metrics mostly have no names."""
    trials: Sequence[FrozenTrial]
    goals: Sequence[Goal] = ()
    """By objective; of a study with a spec that says so too."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """An earlier trial that fits."""

    study: str
    number: int
    params: Mapping[str, ParamValue]
    value: float


class WarmStart:
    """What is carried over, and how it is shown."""

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        earlier: Sequence[SourceStudy],
    ) -> None:
        self._space = space
        self._direction = StudyDirection[spec.directions[0].upper()]
        self._orientation = orient(self._direction)
        self.transferred: list[TransferResult] = []
        self._told: list[str] = []
        self._silent: list[str] = []
        self._shown: list[FrozenTrial] | None = None
        self._waiting: list[FrozenTrial] = []
        for study in earlier:
            found, left_out = fitting(study, spec, space)
            self.transferred += self._chosen(found)
            self._told.append(_tell(study.name, len(found), left_out))
            if not found:
                self._silent.append(self._told[-1])

    @property
    def reason(self) -> str:
        """What was carried and what not, in a sentence."""
        return "warm start: " + "; ".join(self._told)

    @property
    def warning(self) -> str:
        """Which studies teach nothing, and why; empty when all teach something."""
        return f"warm start: nothing is carried: {'; '.join(self._silent)}" if self._silent else ""

    @property
    def counts(self) -> dict[str, int]:
        """Trials that are shown, by study."""
        return dict(Counter(one.study for one in self.transferred))

    def first(self) -> list[TransferResult]:
        """What to run first: the best of each study in turn, no configuration twice."""
        ranked = {name: [one for one in self.transferred if one.study == name] for name in self.counts}
        rounds = [one for turn in range(BEST) for ones in ranked.values() for one in ones[turn : turn + 1]]
        distinct = {repr(sorted(one.params.items())): one for one in reversed(rounds)}
        return [one for one in rounds if distinct[repr(sorted(one.params.items()))] is one][:BEST]

    def shown(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """The carried trials as the sampler sees them: waiting until those that are run first are over, then complete.

        As long as none of these has a result, one that is paused is not over: it may be promoted, and tell then.
        Always as many in the same order, since a sampler may remember places in the list of trials.

        Args:
            trials: of this study.
        """
        if self._shown is not None:
            return self._shown
        run = [trial for trial in trials if TRANSFERRED in trial.system_attrs]
        may_tell = any(PAUSED in trial.system_attrs for trial in run) and not any(map(is_candidate, run))
        if may_tell or not all(trial.state.is_finished() for trial in run):
            self._waiting = self._waiting or self._frozen(None)
            return self._waiting
        self._shown = self._frozen(self._relations(run))
        return self._shown

    def origin(self, number: int) -> tuple[str, int] | None:
        """Study and number of a trial that the sampler was shown under a negative number."""
        index = -1 - number
        if not 0 <= index < len(self.transferred):
            return None
        return self.transferred[index].study, self.transferred[index].number

    def _relations(self, run: Sequence[FrozenTrial]) -> dict[str, ValueMapping]:
        """How this study's values follow from each earlier one's, by the configurations that both have run."""
        known = {(one.study, one.number): one.value for one in self.transferred}
        pairs: dict[str, list[tuple[float, float]]] = {study: [] for study in self.counts}
        for trial in run:
            study, number = trial.system_attrs[TRANSFERRED]
            if is_candidate(trial) and (study, number) in known:
                pairs[study].append((known[study, number], trial.values[0]))
        return {study: self._relation(found, self._values_of(study)) for study, found in pairs.items()}

    def _relation(
        self,
        pairs: Sequence[tuple[float, float]],
        earlier: Sequence[float],
    ) -> ValueMapping:
        return ValueMapping.of(pairs, earlier, self._direction)

    def _values_of(self, study: str) -> list[float]:
        return [one.value for one in self.transferred if one.study == study]

    def _frozen(
        self,
        relations: Mapping[str, ValueMapping] | None,
    ) -> list[FrozenTrial]:
        made = []
        for index, one in reversed(list(enumerate(self.transferred))):
            distributions = {name: self._space.distributions[name] for name in one.params}
            value = None if relations is None else relations[one.study](one.value)
            state = TrialState.WAITING if value is None else TrialState.COMPLETE
            trial = create_trial(
                state=state,
                params=dict(one.params),
                distributions=distributions,
                value=value,
            )
            trial.number = trial._trial_id = -1 - index
            made.append(trial)
        return made

    def _chosen(self, found: Sequence[TransferResult]) -> list[TransferResult]:
        """The best first; of many, every second, third ... of those that are not among the best."""
        ranked = sorted(found, key=lambda one: (self._orientation * one.value, one.number))
        best, rest = ranked[: TRANSFERRED_MAX // 2], ranked[TRANSFERRED_MAX // 2 :]
        stride = math.ceil(len(rest) / (TRANSFERRED_MAX // 2)) or 1
        return best + rest[::stride]


def fitting(
    earlier: SourceStudy,
    spec: StudySpec,
    space: Space,
) -> tuple[list[TransferResult], Counter[str]]:
    """The earlier study's finished trials that are configurations of this space, and why others are not.

    A parameter that the earlier study did not have is taken from its constants; one that only it had has to agree with
    this study's constant of that name, if there is one.
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
            found.append(
                TransferResult(
                    earlier.name,
                    trial.number,
                    space.select(given),
                    trial.values[0],
                )
            )
    return found, left_out


def _other_metrics(earlier: SourceStudy, spec: StudySpec) -> str:
    """Why values of an earlier study are not this one's; empty when they are. Names count where both have them."""
    if earlier.spec is None:
        return "" if list(earlier.goals) == list(spec.directions) else "another goal"
    names = [[(metric.name, metric.goal) for metric in one.metrics] for one in (earlier.spec, spec)]
    return "" if names[0] == names[1] else "another metric"


def _misfit(given: Mapping[str, ParamValue], spec: StudySpec, space: Space) -> str:
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
    return {name: value for name, value in constants.items() if isinstance(value, (bool, int, float, str))}


def _tell(name: str, found: int, left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
    return f"{found} trials from {name}" + (f" (left out: {reasons})" if reasons else "")
