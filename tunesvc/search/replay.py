"""Replay of a recorded study: decisions of its sampler and pruner made again, or those of others.

Pure: the recording is an argument and nothing is written. Decisions that cannot be repeated are
counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tunesvc.db.trial_changes import TrialChanges
from tunesvc.search.pruners.curve.study_forecasts import refit
from tunesvc.search.replayed_search import ReplayedOptimizer
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.objectives import is_candidate
from tunesvc.search.tracking.pareto import ranked
from tunesvc.search.tracking.pausing import Alternative, PausingPruner
from tunesvc.search.warm_start import WarmStart
from tunesvc.space.directions import direction_of, orient_each
from tunesvc.space.search_space import Space
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.spec.goals import Goal
from tunesvc.util.optuna_keys import FIXED_PARAMS

GOOD_SHARE = 0.1
"""Share of the complete trials that count as good: a pruner should not lose those."""


Report = tuple[float, *tuple[float | None, ...]]
"""Values of the objectives; None if the report lacks one. The first one is always there."""


@dataclass(slots=True)
class RecordedStep:
    """Records of one step of the coordinator, in the order in which a step makes them."""

    reports: list[tuple[int, int, Report]] = field(default_factory=list)
    """Trial, step, and values of the report."""
    pruned: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Trial to be stopped or paused -> details of the decision."""
    paused: list[tuple[int, int]] = field(default_factory=list)
    """Trial that was paused, and the step after which it would resume."""
    ended: list[int] = field(default_factory=list)
    reopened: list[tuple[int, int]] = field(default_factory=list)
    """Trial, and the step after which its next attempt resumed."""
    promoted: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Trial -> details of the decision, in order; each is reopened too."""
    taken: list[int] = field(default_factory=list)
    """New trials."""
    drawn: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    """Trial that was drawn here, for now or for later, and details of the decision."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded study."""

    spec: StudySpec
    trials: Mapping[int, FrozenTrial]
    steps: Sequence[RecordedStep]
    make_warm_start: Callable[[], WarmStart | None] = lambda: None
    """Makes the study's warm start, a new one for each replay."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A decision with another result."""

    number: int
    recorded: str
    redrawn: str
    why: str
    """Possible cause."""


@dataclass(frozen=True, slots=True)
class ReplayCount:
    """Comparison of repeated decisions of one kind."""

    compared: int
    agreeing: int
    skipped: Mapping[str, int]
    """Reason why decisions could not be compared -> how many."""
    first: Mismatch | None


@dataclass(frozen=True, slots=True)
class ReplayedProposal:
    """Another sampler's proposal for a trial, given the recorded history before it."""

    number: int
    params: Mapping[str, ParamValue]
    distance: float
    """Distance from the recorded trial, 0 to 1: see `Space.distance`."""


@dataclass(frozen=True, slots=True)
class ReplayedStop:
    """A trial that another pruner would have stopped."""

    number: int
    step: int
    steps_saved: int
    """Reports after that step."""
    value: float | None
    """Final value, if it was complete."""
    rank: int | None
    """Rank among the complete trials; of several objectives by dominance."""


@dataclass(frozen=True, slots=True)
class PrunerComparison:
    """Result of another pruner on the recorded curves."""

    stopped: tuple[ReplayedStop, ...]
    steps: int
    """Trained steps."""
    steps_saved: int
    complete: int
    """Trials that finished."""
    lost: tuple[ReplayedStop, ...]
    """Trials of the best tenth that it would have stopped."""
    spared: int
    """Trials that were stopped and that it would have continued, with unknown result."""


SamplerMaker = Callable[[int], BaseSampler]
"""Seed -> a new sampler."""


def redraw(
    recording: Recording,
    make: SamplerMaker | None,
    name: str,
    pruner: BasePruner | None,
    pruner_name: str,
    last_step: int | None,
) -> tuple[ReplayCount, ReplayCount, ReplayCount]:
    """Repeat the study's decisions, and compare: asks, pruning decisions, promotions.

    The sampler is asked for every trial, and the pruner about every report and every free worker,
    in the recorded order, with the recorded seeds and history. Promotions are compared where one
    was made and where a new trial was asked for instead; without a pausing pruner there are none.
    A sampler or pruner that is None is not compared: its code is the user's.
    """
    asks, verdicts, promotions = _Tally(), _Tally(), _Tally()
    restarted = False
    promotes = isinstance(pruner, PausingPruner) and pruner.pauses
    space = Space(recording.spec.parameters)
    if recording.spec.define_by_run:
        make = None
        asks.skipped["the objective declares its parameters, which are not drawn at the ask"] = 1
    elif make is None:
        asks.skipped[_NOT_IMPORTED.format(name)] = sum(len(one.drawn) for one in recording.steps)
    if pruner is None:
        reports = sum(len(one.reports) for one in recording.steps)
        verdicts.skipped[_NOT_IMPORTED.format(pruner_name)] = reports
    drawn = None if make is None else make(recording.spec.seed or 0)
    optimizer = _optimizer(recording, drawn, pruner, pruner_name, last_step)
    stopping: set[int] = set()
    for entry in recording.steps:
        if pruner is None:
            _report(entry, optimizer)
        else:
            _judge_again(entry, optimizer, stopping, verdicts)
        stopping |= entry.pruned.keys()
        stopping -= {number for number, _ in entry.paused}
        for recorded, redrawn in _end(recording, entry, optimizer):
            if promotes and not promotions.agrees(recorded == redrawn):
                number = recorded if recorded is not None else redrawn
                promotions.differs(
                    -1 if number is None else number,
                    _promotion_text(recorded),
                    _promotion_text(redrawn),
                    _WHY_PRUNE,
                )
        if make is None:
            continue
        for ask in _ask_again(recording, entry, optimizer, make):
            restarted |= bool(ask.details.get("fresh")) and ask.recorded.number > 0
            why_not = _not_comparable(ask, name, space)
            if why_not:
                asks.skipped[why_not] += 1
            else:
                _compare_ask(ask, recording, restarted, asks)
    return asks.counted(), verdicts.counted(), promotions.counted()


def _compare_ask(
    ask: _RecordedAsk,
    recording: Recording,
    restarted: bool,
    tally: _Tally,
) -> None:
    if not tally.agrees(ask.drawn == ask.recorded.params):
        why = _why_differing(ask, recording, restarted)
        texts = str(ask.recorded.params), str(ask.drawn)
        tally.differs(ask.recorded.number, *texts, why)


def _promotion_text(number: int | None) -> str:
    return "none goes on" if number is None else f"trial {number} goes on"


def propose(
    recording: Recording,
    make: SamplerMaker,
    seed: int | None = None,
) -> tuple[ReplayedProposal, ...]:
    """Return another sampler's proposal for each trial that was not enqueued.

    Args:
        recording: of the study.
        make: makes the other sampler.
        seed: of that sampler; the recorded seeds when None.
    """
    space = Space(recording.spec.parameters)
    proposals = []
    for ask in _walk(recording, make, seed):
        recorded = ask.recorded
        if ask.drawn and FIXED_PARAMS not in recorded.system_attrs:
            distance = space.distance(ask.drawn, recorded.params)
            proposals.append(ReplayedProposal(recorded.number, ask.drawn, distance))
    return tuple(proposals)


def judge(
    recording: Recording,
    pruner: BasePruner,
    name: str,
    last_step: int | None,
) -> PrunerComparison:
    """Run another pruner on the recorded curves; a trial that it stops has no later reports.

    Reports that arrived together with their trial's end are judged too, as in a longer training.
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
                values = [last] if len(recording.spec.metrics) == 1 else None
                optimizer.tell(number, TrialState.PRUNED, values)
        _end(recording, entry, optimizer, without=stops)
    return _compare(recording, stops)


def _compare(
    recording: Recording,
    stops: Mapping[int, int],
) -> PrunerComparison:
    finished = [trial for trial in recording.trials.values() if is_candidate(trial)]
    ranks = _ranks(finished, recording.spec.directions)
    good_count = max(1, round(GOOD_SHARE * len(finished)))
    good = {number for number, rank in ranks.items() if rank < good_count}
    stopped = []
    for number, step in sorted(stops.items()):
        trial = recording.trials[number]
        value = trial.values[0] if trial.state == TrialState.COMPLETE else None
        rank = ranks[number] + 1 if number in ranks else None
        later = sum(reported > step for reported in trial.intermediate_values)
        stopped.append(ReplayedStop(number, step, later, value, rank))
    trials = recording.trials.values()
    pruned = [trial.number for trial in trials if trial.state == TrialState.PRUNED]
    return PrunerComparison(
        stopped=tuple(stopped),
        steps=sum(len(trial.intermediate_values) for trial in trials),
        steps_saved=sum(one.steps_saved for one in stopped),
        complete=len(finished),
        lost=tuple(one for one in stopped if one.number in good),
        spared=sum(number not in stops for number in pruned),
    )


def _ranks(
    finished: Sequence[FrozenTrial],
    directions: Sequence[Goal],
) -> dict[int, int]:
    """Return each trial's rank, 0 for the best; of several objectives by dominance."""
    orientations = orient_each(directions)
    values = np.array([trial.values for trial in finished], dtype=float)
    losses = values.reshape(len(finished), len(orientations)) * orientations
    pairs = zip(finished, ranked(losses), strict=True)
    return {trial.number: int(rank) for trial, rank in pairs}


# --- the recorded steps ---


@dataclass(frozen=True, slots=True)
class _RecordedAsk:
    recorded: FrozenTrial
    details: Mapping[str, Any]
    drawn: Mapping[str, ParamValue]
    error: str
    version: str


@dataclass(slots=True)
class _Tally:
    """Counts of compared decisions of one kind."""

    compared: int = 0
    agreeing: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: Mismatch | None = None

    def agrees(self, is_alike: bool) -> bool:
        self.compared += 1
        self.agreeing += is_alike
        return is_alike

    def differs(
        self,
        number: int,
        recorded: str,
        redrawn: str,
        why: str,
    ) -> None:
        self.first = self.first or Mismatch(number, recorded, redrawn, why)

    def counted(self) -> ReplayCount:
        return ReplayCount(
            self.compared,
            self.agreeing,
            self.skipped,
            self.first,
        )


def _walk(
    recording: Recording,
    make: SamplerMaker,
    given: int | None = None,
) -> Iterator[_RecordedAsk]:
    """Yield every recorded ask with the sampler's present proposal."""
    optimizer = _optimizer(
        recording,
        make(recording.spec.seed or 0),
        None,
        "",
        None,
    )
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
    for number, details in entry.drawn:
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
    """Apply a step's reports, and ask the pruner about them."""
    for number, steps in _report(entry, optimizer).items():
        if number in stopping:
            continue
        verdict = optimizer.verdict(number, steps)
        if number in entry.ended:  # it ended before the decision could have an effect
            continue
        recorded = entry.pruned.get(number)
        stops = verdict is not None and verdict.stop
        if not tally.agrees(stops == (recorded is not None)):
            reason = f"goes on at step {max(steps)}"
            if verdict is not None and verdict.stop:
                reason = verdict.reason
            was = "went on"
            if recorded is not None:
                was = f"stopped at step {recorded.get('step', '?')}"
            tally.differs(number, was, reason, _WHY_PRUNE)


def _redraw(
    optimizer: ReplayedOptimizer,
    recorded: FrozenTrial,
    details: Mapping[str, Any],
    seed: int,
) -> _RecordedAsk:
    error = ""
    drawn: Mapping[str, ParamValue] = {}
    try:
        drawn = optimizer.redraw(
            recorded,
            seed,
            untried=bool(details.get("untried")),
        )
    except Exception as raised:  # noqa: BLE001  # a user's sampler, perhaps of another version
        error = f"{type(raised).__name__}: {raised}"
    version = optimizer.version(recorded.number)
    return _RecordedAsk(recorded, details, drawn, error, version)


def _report(
    entry: RecordedStep,
    optimizer: ReplayedOptimizer,
    without: Mapping[int, int] | None = None,
) -> dict[int, list[int]]:
    """Apply a step's reports, and return the new steps by trial."""
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
    """Apply a step's ends, pauses and promotions; return recorded and present promotions in pairs.

    Without a sampler to ask, new trials are added as they were recorded.
    """
    skipped = without or {}
    for number, after_step in entry.paused:
        if number not in skipped:
            optimizer.pause(number, after_step)
    for number in entry.ended:
        if number not in skipped and not optimizer.trial(number).state.is_finished():
            optimizer.retell(recording.trials[number])
    optimizer.on_step_end()
    for number, after_step in entry.reopened:
        if number not in skipped and number not in entry.promoted:
            optimizer.memory.truncate_curve(number, after_step)
    promotions: list[tuple[int | None, int | None]] = []
    reopened = dict(entry.reopened)
    for number, details in entry.promoted.items():
        if number in skipped:
            continue
        asks = details.get("instead") != Alternative.NOTHING
        promotions.append((number, _promoted_now(optimizer, asks=asks)))
        optimizer.promote(number, details)
        optimizer.memory.truncate_curve(number, reopened[number])
    if entry.taken:
        promotions.append((None, _promoted_now(optimizer, asks=True)))
    if isinstance(optimizer.study.sampler, _Recorded):
        for number, _ in entry.drawn:
            optimizer.redraw(recording.trials[number], 0)
    optimizer.memory.record_into(TrialChanges())
    return promotions


def _promoted_now(optimizer: ReplayedOptimizer, *, asks: bool) -> int | None:
    promotion = optimizer.promotion(asks=asks)
    return None if promotion is None else promotion.number


class _Recorded(BaseSampler):
    """Replaces the sampler if only the pruner is asked.

    Its proposals are overwritten by recorded ones.
    """

    def infer_relative_search_space(
        self,
        study: Any,
        trial: Any,
    ) -> dict[str, Any]:
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
    directions = [direction_of(goal) for goal in recording.spec.directions]
    memory = RecordingStorage(
        recording.spec.name,
        directions,
        metrics=[metric.name for metric in recording.spec.metrics],
    )
    return ReplayedOptimizer(
        memory,
        Space(recording.spec.parameters),
        Strategy(
            sampler or _Recorded(),
            pruner or NopPruner(),
            "replay",
            pruner_name,
            seed=0,
        ),
        prune_before_step=last_step,
        warm_start=recording.make_warm_start(),
        evaluation=recording.spec.evaluation,
    )


# --- reasons of differences ---


def _not_comparable(ask: _RecordedAsk, name: str, space: Space) -> str:
    recorded = ask.recorded
    if FIXED_PARAMS in recorded.system_attrs:
        is_same = ask.drawn == recorded.params
        return "enqueued, so the sampler was not asked" if is_same else ""
    kinds = recorded.distributions.items()
    if any(space.distributions.get(parameter) != kind for parameter, kind in kinds):
        return "drawn before the ranges were widened"
    if ask.details.get("seed") is None:
        return "their seed is not recorded"
    if ask.details.get("sampler") != name:
        return f"drawn by {ask.details.get('sampler')}, not {name}"
    return f"the sampler raised {ask.error}" if ask.error else ""


def _why_differing(
    ask: _RecordedAsk,
    recording: Recording,
    restarted: bool,
) -> str:
    recorded, now = ask.details.get("version"), ask.version
    if recorded and now and recorded != now:
        return f"recorded with {recorded}, redrawn with {now}"
    if recording.spec.warm_start:
        return "the studies of its warm start may have gone on since"
    if restarted:
        return "the sampler keeps something between asks, and the study was restarted in between"
    if (recording.spec.parallelism or 2) > 1:
        text = "trials ran in parallel: what an enqueued or retried trial showed at that instant"
        return f"{text} is not recorded"
    return "the sampler draws from something else than its seed and the history"


_NOT_IMPORTED = "{} is code of the study's own, which a replay does not import"

_WHY_PRUNE = (
    "the pruner draws at random, was configured otherwise then, or was asked about several trials "
    "of one step in another order"
)
