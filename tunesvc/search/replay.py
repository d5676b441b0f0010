"""A study's recorded course, run again: what its sampler and pruner decide when they are asked once more, or what
others would have decided.

Pure: the course is handed in, nothing is written. What cannot be redrawn is counted and named, never passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.db.trial_changes import TrialChanges
from tunesvc.search.analysis.recommend import is_candidate
from tunesvc.search.proposals import FIXED
from tunesvc.search.pruners.curve.curve_model import refit
from tunesvc.search.replayed_search import ReplayedOptimizer
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.objectives import orient_each
from tunesvc.search.tracking.pareto import ranked
from tunesvc.search.tracking.pausing import Alternative, PausingPruner
from tunesvc.search.warm_start import WarmStart
from tunesvc.space.search_space import Space
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.spec.model import Goal

GOOD_SHARE = 0.1
"""The best so many of the complete trials are the good ones, that a pruner should not have lost."""


@dataclass(slots=True)
class RecordedStep:
    """What one step of the coordinator recorded, in the order in which a step does it."""

    reports: list[tuple[int, int, tuple[float, *tuple[float | None, ...]]]] = field(default_factory=list)
    """Trial, step, value of each objective; None where the report did not bear it."""
    pruned: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Trial that is to be stopped, for good or for now -> details of the decision."""
    paused: list[tuple[int, int]] = field(default_factory=list)
    """A trial whose attempt ended as paused, and the step after which it would go on."""
    ended: list[int] = field(default_factory=list)
    reopened: list[tuple[int, int]] = field(default_factory=list)
    """A trial, and the step after which its next attempt went on."""
    promoted: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Trial -> details of the decision, in the order of these; each is reopened too."""
    taken: list[int] = field(default_factory=list)
    """New trials."""
    asked: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    """A trial that was drawn here, for now or for later, and details of the decision."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A study as it was recorded."""

    spec: StudySpec
    trials: Mapping[int, FrozenTrial]
    steps: Sequence[RecordedStep]
    teach: Callable[[], WarmStart | None] = lambda: None
    """What the studies of its `warm_start` teach, anew for each replay."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A decision that came out otherwise."""

    number: int
    recorded: str
    redrawn: str
    why: str
    """Why it may differ."""


@dataclass(frozen=True, slots=True)
class ReplayCount:
    """Decisions of one kind, asked for once more."""

    compared: int
    agreeing: int
    skipped: Mapping[str, int]
    """Why some could not be compared -> how many."""
    first: Mismatch | None


@dataclass(frozen=True, slots=True)
class ReplayedProposal:
    """What another sampler would have proposed for a trial, one step ahead on the recorded history."""

    number: int
    params: Mapping[str, ParamValue]
    distance: float
    """From what was run, 0 ... 1: see `Space.distance`."""


@dataclass(frozen=True, slots=True)
class ReplayedStop:
    """A trial that another pruner would have stopped."""

    number: int
    step: int
    steps_saved: int
    """Reports that it made after that step."""
    value: float | None
    """What it came to, when it was run to its end."""
    rank: int | None
    """Among the complete trials; of several objectives by who dominates whom."""


@dataclass(frozen=True, slots=True)
class PrunerComparison:
    """What another pruner would have done on the recorded curves."""

    stopped: tuple[ReplayedStop, ...]
    steps: int
    """Steps that were trained."""
    steps_saved: int
    complete: int
    """Trials that were run to their end."""
    lost: tuple[ReplayedStop, ...]
    """Those of the best tenth that it would have stopped."""
    spared: int
    """Trials that were stopped and that it would have let go on; what they would have come to is not known."""


SamplerMaker = Callable[[int], BaseSampler]
"""Seed -> a new sampler."""


def redraw(
    recording: Recording,
    make: SamplerMaker,
    name: str,
    pruner: BasePruner,
    pruner_name: str,
    last_step: int | None,
) -> tuple[ReplayCount, ReplayCount, ReplayCount]:
    """Ask the study's sampler for every trial, and its pruner about every report and every free worker, once more:
    asks, verdicts, and promotions, which are compared where one was made and where a new trial was asked instead; of a
    pruner that never promotes there are none.

    With the seeds and the history that they had, in the order in which they were asked: what they learn, they share.
    """
    asks, verdicts, promotions = _Tally(), _Tally(), _Tally()
    restarted = False
    promotes = isinstance(pruner, PausingPruner) and pruner.pauses
    space = Space(recording.spec.parameters)
    drawn = make(recording.spec.seed or 0) if not recording.spec.define_by_run else None
    optimizer = _optimizer(recording, drawn, pruner, pruner_name, last_step)
    if drawn is None:
        asks.skipped["the objective declares its parameters, which are not drawn at the ask"] = 1
    stopping: set[int] = set()
    for entry in recording.steps:
        _judge_again(entry, optimizer, stopping, verdicts)
        stopping |= entry.pruned.keys()
        stopping -= {number for number, _ in entry.paused}
        for recorded, redrawn in _end(recording, entry, optimizer):
            if promotes and not promotions.agrees(recorded == redrawn):
                number = next(
                    (number for number in (recorded, redrawn) if number is not None),
                    -1,
                )
                promotions.differs(number, _who(recorded), _who(redrawn), _WHY_PRUNE)
        for step in _ask_again(recording, entry, optimizer, make) if drawn is not None else ():
            restarted |= bool(step.details.get("fresh")) and step.recorded.number > 0
            why_not = _not_comparable(step, name, space)
            if why_not:
                asks.skipped[why_not] += 1
            elif not asks.agrees(step.drawn == step.recorded.params):
                why = _why_differing(step, recording, restarted)
                asks.differs(
                    step.recorded.number,
                    str(step.recorded.params),
                    str(step.drawn),
                    why,
                )
    return asks.counted(), verdicts.counted(), promotions.counted()


def _who(number: int | None) -> str:
    return "none goes on" if number is None else f"trial {number} goes on"


def propose(
    recording: Recording,
    make: SamplerMaker,
    seed: int | None = None,
) -> tuple[ReplayedProposal, ...]:
    """What another sampler would have proposed for each trial that was not enqueued.

    Args:
        course: what was recorded.
        make: the other sampler.
        seed: of it; the recorded seeds when None.
    """
    space = Space(recording.spec.parameters)
    return tuple(
        ReplayedProposal(
            step.recorded.number,
            step.drawn,
            space.distance(step.drawn, step.recorded.params),
        )
        for step in _walk(recording, make, seed)
        if step.drawn and FIXED not in step.recorded.system_attrs
    )


def judge(
    recording: Recording,
    pruner: BasePruner,
    name: str,
    last_step: int | None,
) -> PrunerComparison:
    """What another pruner would have done: a trial that it stops is stopped for all that it sees from there on.

    Reports that arrived together with their trial's end are judged too, as they would be in a longer training.
    """
    optimizer = _optimizer(recording, None, pruner, name, last_step)
    stops: dict[int, int] = {}
    for entry in recording.steps:
        for number, steps in _report(entry, optimizer, without=stops).items():
            verdict = optimizer.verdict(number, steps)
            if verdict is not None and verdict.stop:
                stops[number] = step = int(verdict.details["step"])
                optimizer.memory.truncate_curve(number, step)
                last = optimizer.trial(number).intermediate_values[step]
                optimizer.tell(
                    number,
                    TrialState.PRUNED,
                    [last] if len(recording.spec.metrics) == 1 else None,
                )
        _end(recording, entry, optimizer, without=stops)
    return _account(recording, stops)


def _account(recording: Recording, stops: Mapping[int, int]) -> PrunerComparison:
    finished = [trial for trial in recording.trials.values() if is_candidate(trial)]
    places = _places(finished, recording.spec.directions)
    few = {number for number, place in places.items() if place < max(1, round(GOOD_SHARE * len(finished)))}
    stopped = []
    for number, step in sorted(stops.items()):
        trial = recording.trials[number]
        value = trial.values[0] if trial.state == TrialState.COMPLETE else None
        rank = places[number] + 1 if number in places else None
        later = sum(reported > step for reported in trial.intermediate_values)
        stopped.append(ReplayedStop(number, step, later, value, rank))
    pruned = [trial.number for trial in recording.trials.values() if trial.state == TrialState.PRUNED]
    return PrunerComparison(
        stopped=tuple(stopped),
        steps=sum(len(trial.intermediate_values) for trial in recording.trials.values()),
        steps_saved=sum(one.steps_saved for one in stopped),
        complete=len(finished),
        lost=tuple(one for one in stopped if one.number in few),
        spared=sum(number not in stops for number in pruned),
    )


def _places(
    finished: Sequence[FrozenTrial],
    directions: Sequence[Goal],
) -> dict[int, int]:
    """Each trial's place among them, 0 for the best; of several objectives by who dominates whom."""
    orientations = orient_each(directions)
    losses = (
        np.array([trial.values for trial in finished], dtype=float).reshape(
            len(finished),
            len(orientations),
        )
        * orientations
    )
    return {trial.number: int(place) for trial, place in zip(finished, ranked(losses), strict=True)}


# --- walking along -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _RecordedAsk:
    recorded: FrozenTrial
    details: Mapping[str, Any]
    drawn: Mapping[str, ParamValue]
    error: str
    version: str


@dataclass(slots=True)
class _Tally:
    """Decisions of one kind, as they are compared."""

    compared: int = 0
    agreeing: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: Mismatch | None = None

    def agrees(self, is_alike: bool) -> bool:
        self.compared += 1
        self.agreeing += is_alike
        return is_alike

    def differs(self, number: int, recorded: str, redrawn: str, why: str) -> None:
        self.first = self.first or Mismatch(number, recorded, redrawn, why)

    def counted(self) -> ReplayCount:
        return ReplayCount(self.compared, self.agreeing, self.skipped, self.first)


def _walk(
    recording: Recording,
    make: SamplerMaker,
    given: int | None = None,
) -> Iterator[_RecordedAsk]:
    """Every recorded ask with what the sampler draws there."""
    optimizer = _optimizer(recording, make(recording.spec.seed or 0), None, "", None)
    for entry in recording.steps:
        _report(entry, optimizer)
        _end(recording, entry, optimizer)
        yield from _ask_again(recording, entry, optimizer, make, given)


def _ask_again(
    recording: Recording,
    entry: RecordedStep,
    optimizer: ReplayedOptimizer,
    make: SamplerMaker,
    given: int | None = None,
) -> Iterator[_RecordedAsk]:
    for number, details in entry.asked:
        seed = int(details.get("seed") or 0) if given is None else given
        if details.get("fresh"):
            optimizer.study.sampler = make(seed)
            refit(optimizer.study)
        yield _redraw(optimizer, recording.trials[number], details, seed)


def _judge_again(
    entry: RecordedStep,
    optimizer: ReplayedOptimizer,
    stopping: Container[int],
    tally: _Tally,
) -> None:
    """Take a moment's reports in, and ask the pruner about them."""
    for number, steps in _report(entry, optimizer).items():
        if number in stopping:
            continue
        verdict = optimizer.verdict(number, steps)
        if number in entry.ended:  # it had ended before a verdict could have counted
            continue
        recorded, stops = (
            entry.pruned.get(number),
            verdict is not None and verdict.stop,
        )
        if not tally.agrees(stops == (recorded is not None)):
            reason = verdict.reason if verdict is not None and stops else f"goes on at step {max(steps)}"
            was = f"stopped at step {recorded.get('step', '?')}" if recorded is not None else "went on"
            tally.differs(number, was, reason, _WHY_PRUNE)


def _redraw(
    optimizer: ReplayedOptimizer,
    recorded: FrozenTrial,
    details: Mapping[str, Any],
    seed: int,
) -> _RecordedAsk:
    try:
        drawn, error = (
            optimizer.redraw(recorded, seed, untried=bool(details.get("untried"))),
            "",
        )
    except Exception as raised:  # noqa: BLE001  # a sampler is anybody's code, and this one may be of another version
        drawn, error = {}, f"{type(raised).__name__}: {raised}"
    return _RecordedAsk(
        recorded,
        details,
        drawn,
        error,
        optimizer.version(recorded.number),
    )


def _report(
    entry: RecordedStep,
    optimizer: ReplayedOptimizer,
    without: Mapping[int, int] | None = None,
) -> dict[int, list[int]]:
    """Take a moment's reports in; returns the new steps by trial."""
    steps: dict[int, list[int]] = {}
    for number, step, values in entry.reports:
        if number < optimizer.count and number not in (without or {}):
            optimizer.report(number, step, *values)
            if None not in values:
                steps.setdefault(number, []).append(step)
    return steps


def _end(
    recording: Recording,
    entry: RecordedStep,
    optimizer: ReplayedOptimizer,
    without: Mapping[int, int] | None = None,
) -> list[tuple[int | None, int | None]]:
    """Bring a moment's trials to their ends or pauses, let go on what did, and with no sampler to ask, bring its new
    ones into being; returns who was promoted, and who would be now."""
    gone = without or {}
    for number, after_step in entry.paused:
        if number not in gone:
            optimizer.pause(number, after_step)
    for number in entry.ended:
        if number not in gone and not optimizer.trial(number).state.is_finished():
            optimizer.retell(recording.trials[number])
    optimizer.on_step_end()
    for number, after_step in entry.reopened:
        if number not in gone and number not in entry.promoted:
            optimizer.memory.truncate_curve(number, after_step)
    chosen: list[tuple[int | None, int | None]] = []
    reopened = dict(entry.reopened)
    for number, details in entry.promoted.items():
        if number in gone:
            continue
        chosen.append(
            (
                number,
                _chosen(optimizer, asks=details.get("instead") != Alternative.NOTHING),
            )
        )
        optimizer.promote(number, details)
        optimizer.memory.truncate_curve(number, reopened[number])
    if entry.taken:
        chosen.append((None, _chosen(optimizer, asks=True)))
    if isinstance(optimizer.study.sampler, _Recorded):
        for number, _ in entry.asked:
            optimizer.redraw(recording.trials[number], 0)
    optimizer.memory.record_into(TrialChanges())
    return chosen


def _chosen(optimizer: ReplayedOptimizer, *, asks: bool) -> int | None:
    promotion = optimizer.promotion(asks=asks)
    return None if promotion is None else promotion.number


class _Recorded(BaseSampler):
    """Stands for the sampler where only the pruner is asked: whatever it draws is replaced by what was recorded."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(
        self,
        study: Any,
        trial: Any,
        search_space: Any,
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Any,
        trial: Any,
        param_name: str,
        param_distribution: Any,
    ) -> Any:
        return param_distribution.to_external_repr(getattr(param_distribution, "low", 0))


def _optimizer(
    recording: Recording,
    sampler: BaseSampler | None,
    pruner: BasePruner | None,
    pruner_name: str,
    last_step: int | None,
) -> ReplayedOptimizer:
    directions = [StudyDirection[goal.upper()] for goal in recording.spec.directions]
    memory = RecordingStorage(
        recording.spec.name,
        directions,
        metrics=[metric.name for metric in recording.spec.metrics],
    )
    return ReplayedOptimizer(
        memory,
        Space(recording.spec.parameters),
        sampler or _Recorded(),
        pruner or NopPruner(),
        sampler_name="replay",
        pruner_name=pruner_name,
        prune_before_step=last_step,
        seed=0,
        warm_start=recording.teach(),
    )


# --- why not -------------------------------------------------------------------------------------------


def _not_comparable(step: _RecordedAsk, name: str, space: Space) -> str:
    if FIXED in step.recorded.system_attrs:
        return "enqueued, so the sampler was not asked" if step.drawn == step.recorded.params else ""
    if any(space.distributions.get(name) != kind for name, kind in step.recorded.distributions.items()):
        return "drawn before the ranges were widened"
    if step.details.get("seed") is None:
        return "their seed is not recorded"
    if step.details.get("sampler") != name:
        return f"drawn by {step.details.get('sampler')}, not {name}"
    return f"the sampler raised {step.error}" if step.error else ""


def _why_differing(step: _RecordedAsk, recording: Recording, restarted: bool) -> str:
    recorded, now = step.details.get("version"), step.version
    if recorded and now and recorded != now:
        return f"recorded with {recorded}, redrawn with {now}"
    if recording.spec.warm_start:
        return "the studies of its warm start may have gone on since"
    if restarted:
        return "the sampler keeps something between asks, and the study was restarted in between"
    if (recording.spec.parallelism or 2) > 1:
        return "trials ran in parallel: what an enqueued or retried trial showed at that instant is not recorded"
    return "the sampler draws from something else than its seed and the history"


_WHY_PRUNE = (
    "the pruner draws at random, was configured otherwise then, or was asked about several trials of one step in "
    "another order"
)
