"""A study's recorded course, run again: what its sampler and pruner decide when they are asked once more, or what
others would have decided.

Pure: the course is handed in, nothing is written. What cannot be redrawn is counted and named, never passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.objective import is_better
from tunesvc.search.curves import forget_model
from tunesvc.search.memory import StudyMemory
from tunesvc.search.optimizer import FIXED, Optimizer, Verdict
from tunesvc.search.pausing import Instead
from tunesvc.search.recommend import is_candidate
from tunesvc.search.warmstart import Teacher
from tunesvc.space import Space
from tunesvc.spec import ParamValue, StudySpec

GOOD_SHARE = 0.1
"""The best so many of the complete trials are the good ones, that a pruner should not have lost."""


@dataclass(slots=True)
class Moment:
    """What one step of the coordinator recorded, in the order in which a step does it."""

    reports: list[tuple[int, int, float]] = field(default_factory=list)
    """Trial, step, value."""
    pruned: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Trial that is to be stopped, for good or for now -> details of the decision."""
    paused: list[tuple[int, int]] = field(default_factory=list)
    """A trial whose attempt ended as paused, and the step after which it would go on."""
    ended: list[int] = field(default_factory=list)
    reopened: list[tuple[int, int]] = field(default_factory=list)
    """A trial, and the step after which its next attempt went on."""
    promoted: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Trial -> details of the decision, in the order of these; each is reopened too."""
    asked: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    """A trial, and details of the decision."""


@dataclass(frozen=True, slots=True)
class Course:
    """A study as it was recorded."""

    spec: StudySpec
    trials: Mapping[int, FrozenTrial]
    moments: Sequence[Moment]
    teach: Callable[[], Teacher | None] = lambda: None
    """What the studies of its `warm_start` teach, anew for each replay."""


@dataclass(frozen=True, slots=True)
class Differing:
    """A decision that came out otherwise."""

    number: int
    recorded: str
    redrawn: str
    why: str
    """Why it may differ."""


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Decisions of one kind, asked for once more."""

    compared: int
    agreeing: int
    skipped: Mapping[str, int]
    """Why some could not be compared -> how many."""
    first: Differing | None


@dataclass(frozen=True, slots=True)
class Proposed:
    """What another sampler would have proposed for a trial, one step ahead on the recorded history."""

    number: int
    params: Mapping[str, ParamValue]
    distance: float
    """From what was run, 0 ... 1: see `Space.distance`."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A trial that another pruner would have stopped."""

    number: int
    step: int
    steps_saved: int
    """Reports that it made after that step."""
    value: float | None
    """What it came to, when it was run to its end."""
    rank: int | None
    """Among the complete trials."""


@dataclass(frozen=True, slots=True)
class OtherPruner:
    """What another pruner would have done on the recorded curves."""

    stopped: tuple[Stopped, ...]
    steps: int
    """Steps that were trained."""
    steps_saved: int
    complete: int
    """Trials that were run to their end."""
    lost: tuple[Stopped, ...]
    """Those of the best tenth that it would have stopped."""
    spared: int
    """Trials that were stopped and that it would have let go on; what they would have come to is not known."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A pruner as a study uses it."""

    pruner: BasePruner
    name: str
    last_step: int | None
    """From this step on it is not asked."""


SamplerMaker = Callable[[int], BaseSampler]
"""Seed -> a new sampler."""


def redraw_asks(course: Course, make: SamplerMaker, name: str, judge: Judge | None = None) -> Redrawn:
    """Ask the study's sampler for every trial once more, with the seed and the history that it had.

    Args:
        course: what was recorded.
        make: the sampler.
        name: of the sampler, as the spec has it.
        judge: the study's pruner, asked along: what it shares with the sampler then learns at the same moments.
    """
    if course.spec.define_by_run:
        return Redrawn(0, 0, {"the objective declares its parameters, which are not drawn at the ask": 1}, None)
    agreeing, compared, first = 0, 0, None
    skipped: Counter[str] = Counter()
    restarted = False
    space = Space(course.spec.parameters)
    for step in _walk(course, make, judge=judge):
        restarted |= bool(step.details.get("fresh")) and step.recorded.number > 0
        why_not = _not_comparable(step, name, space)
        if why_not:
            skipped[why_not] += 1
            continue
        compared += 1
        if step.drawn == step.recorded.params:
            agreeing += 1
        elif first is None:
            why = _why_differing(step, course, restarted)
            first = Differing(step.recorded.number, str(step.recorded.params), str(step.drawn), why)
    return Redrawn(compared, agreeing, skipped, first)


def propose(course: Course, make: SamplerMaker, seed: int | None = None) -> tuple[Proposed, ...]:
    """What another sampler would have proposed for each trial that was not enqueued.

    Args:
        course: what was recorded.
        make: the other sampler.
        seed: of it; the recorded seeds when None.
    """
    space = Space(course.spec.parameters)
    return tuple(
        Proposed(step.recorded.number, step.drawn, space.distance(step.drawn, step.recorded.params))
        for step in _walk(course, make, seed)
        if step.drawn and FIXED not in step.recorded.system_attrs
    )


def redraw_prunes(course: Course, judge: Judge) -> Redrawn:
    """Ask the study's pruner about every report once more."""
    optimizer = _optimizer(course, None, judge)
    agreeing, compared, first = 0, 0, None
    stopping: set[int] = set()
    for moment in course.moments:
        for number, step, verdict in _verdicts(moment, optimizer, stopping):
            compared += 1
            stops = verdict is not None and verdict.stop
            recorded = moment.pruned.get(number)
            if stops == (recorded is not None):
                agreeing += 1
            elif first is None:
                reason = verdict.reason if verdict is not None and stops else f"goes on at step {step}"
                was = f"stopped at step {recorded.get('step', '?')}" if recorded is not None else "went on"
                first = Differing(number, was, reason, _WHY_PRUNE)
        _end(course, moment, optimizer)
    return Redrawn(compared, agreeing, {}, first)


def redraw_promotions(course: Course, judge: Judge) -> Redrawn:
    """Ask the study's pruner once more who goes on: at each promotion, and before the first new trial of a step."""
    optimizer = _optimizer(course, None, judge)
    compared, agreeing, first = 0, 0, None
    stopping: set[int] = set()
    for moment in course.moments:
        _verdicts(moment, optimizer, stopping)
        for recorded, redrawn in _end(course, moment, optimizer):
            compared += 1
            if recorded == redrawn:
                agreeing += 1
            elif first is None:
                number = recorded if recorded is not None else redrawn if redrawn is not None else -1
                first = Differing(number, _who(recorded), _who(redrawn), _WHY_PRUNE)
    return Redrawn(compared, agreeing, {}, first)


def _who(number: int | None) -> str:
    return "none goes on" if number is None else f"trial {number} goes on"


def judge(course: Course, other: Judge) -> OtherPruner:
    """What another pruner would have done: a trial that it stops is stopped for all that it sees from there on.

    Reports that arrived together with their trial's end are judged too, as they would be in a longer training.
    """
    optimizer = _optimizer(course, None, other)
    stops: dict[int, int] = {}
    for moment in course.moments:
        for number, steps in _report(moment, optimizer, without=stops).items():
            verdict = optimizer.verdict(number, steps)
            if verdict is not None and verdict.stop:
                stops[number] = step = int(verdict.details["step"])
                optimizer.memory.forget_after(number, step)
                optimizer.tell(number, TrialState.PRUNED, [optimizer.trial(number).intermediate_values[step]])
        _end(course, moment, optimizer, without=stops)
    return _account(course, stops)


def _account(course: Course, stops: Mapping[int, int]) -> OtherPruner:
    goal = course.spec.directions[0]
    finished = [trial for trial in course.trials.values() if is_candidate(trial)]
    good = sorted(finished, key=lambda t: (t.values[0] if goal == "minimize" else -t.values[0], t.number))
    few = {trial.number for trial in good[: max(1, round(GOOD_SHARE * len(good)))]}
    stopped = []
    for number, step in sorted(stops.items()):
        trial = course.trials[number]
        value = trial.values[0] if trial.state == TrialState.COMPLETE else None
        rank = None if value is None else 1 + sum(is_better(other.values[0], value, goal) for other in finished)
        later = sum(reported > step for reported in trial.intermediate_values)
        stopped.append(Stopped(number, step, later, value, rank))
    pruned = [trial.number for trial in course.trials.values() if trial.state == TrialState.PRUNED]
    return OtherPruner(
        stopped=tuple(stopped),
        steps=sum(len(trial.intermediate_values) for trial in course.trials.values()),
        steps_saved=sum(one.steps_saved for one in stopped),
        complete=len(finished),
        lost=tuple(one for one in stopped if one.number in few),
        spared=sum(number not in stops for number in pruned),
    )


# --- walking along -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    recorded: FrozenTrial
    details: Mapping[str, Any]
    drawn: Mapping[str, ParamValue]
    error: str
    version: str


def _walk(
    course: Course, make: SamplerMaker, given: int | None = None, *, judge: Judge | None = None
) -> Iterator[_Asked]:
    """Every recorded ask with what the sampler draws there."""
    optimizer = _optimizer(course, make(course.spec.seed or 0), judge)
    stopping: set[int] = set()
    for moment in course.moments:
        _verdicts(moment, optimizer, stopping)
        _end(course, moment, optimizer)
        for number, details in moment.asked:
            seed = int(details.get("seed") or 0) if given is None else given
            if details.get("fresh"):
                optimizer.study.sampler = make(seed)
                forget_model(optimizer.study)
            yield _redraw(optimizer, course.trials[number], details, seed)


def _redraw(optimizer: Optimizer, recorded: FrozenTrial, details: Mapping[str, Any], seed: int) -> _Asked:
    try:
        drawn, error = optimizer.redraw(recorded, seed), ""
    except Exception as raised:  # noqa: BLE001  # a sampler is anybody's code, and this one may be of another version
        drawn, error = {}, f"{type(raised).__name__}: {raised}"
    return _Asked(recorded, details, drawn, error, optimizer.version(recorded.number))


def _verdicts(moment: Moment, optimizer: Optimizer, stopping: set[int]) -> list[tuple[int, int, Verdict | None]]:
    """Take a moment's reports in and judge them, as a step does: trial, last step, verdict.

    Args:
        moment: what was recorded.
        optimizer: whose pruner is asked.
        stopping: trials that were asked to stop and have not done so; changed here.
    """
    reported = _report(moment, optimizer)
    judged = [
        (number, max(steps), optimizer.verdict(number, steps))
        for number, steps in reported.items()
        if number not in stopping and number not in moment.ended
    ]
    stopping.update(moment.pruned)
    stopping.difference_update(number for number, _ in moment.paused)
    return judged


def _report(moment: Moment, optimizer: Optimizer, without: Mapping[int, int] | None = None) -> dict[int, list[int]]:
    """Take a moment's reports in; returns the new steps by trial."""
    steps: dict[int, list[int]] = {}
    for number, step, value in moment.reports:
        if number < len(optimizer.trials) and number not in (without or {}):
            optimizer.report(number, step, value)
            steps.setdefault(number, []).append(step)
    return steps


def _end(
    course: Course, moment: Moment, optimizer: Optimizer, without: Mapping[int, int] | None = None
) -> list[tuple[int | None, int | None]]:
    """Bring a moment's trials to their ends or pauses, let go on what did, and with no sampler to ask, bring its new
    ones into being; returns who was promoted, and who would be now."""
    gone = without or {}
    for number, after_step in moment.paused:
        if number not in gone:
            optimizer.pause(number, after_step)
    for number in moment.ended:
        if number not in gone and not optimizer.trial(number).state.is_finished():
            optimizer.retell(course.trials[number])
    for number, after_step in moment.reopened:
        if number not in gone and number not in moment.promoted:
            optimizer.memory.forget_after(number, after_step)
    chosen: list[tuple[int | None, int | None]] = []
    reopened = dict(moment.reopened)
    for number, details in moment.promoted.items():
        if number in gone:
            continue
        chosen.append((number, _chosen(optimizer, asks=details.get("instead") != Instead.NOTHING)))
        optimizer.promote(number, details)
        optimizer.memory.forget_after(number, reopened[number])
    if moment.asked:
        chosen.append((None, _chosen(optimizer, asks=True)))
    if isinstance(optimizer.study.sampler, _Recorded):
        for number, _ in moment.asked:
            optimizer.redraw(course.trials[number], 0)
    optimizer.memory.take_batch()
    return chosen


def _chosen(optimizer: Optimizer, *, asks: bool) -> int | None:
    promotion = optimizer.promotion(asks=asks)
    return None if promotion is None else promotion.number


class _Recorded(BaseSampler):
    """Stands for the sampler where only the pruner is asked: whatever it draws is replaced by what was recorded."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return param_distribution.to_external_repr(getattr(param_distribution, "low", 0))


def _optimizer(course: Course, sampler: BaseSampler | None, judge: Judge | None) -> Optimizer:
    directions = [StudyDirection[goal.upper()] for goal in course.spec.directions]
    memory = StudyMemory(course.spec.name, directions)
    return Optimizer(
        memory,
        Space(course.spec.parameters),
        sampler or _Recorded(),
        NopPruner() if judge is None else judge.pruner,
        sampler_name="replay",
        pruner_name="" if judge is None else judge.name,
        prune_before_step=None if judge is None else judge.last_step,
        seed=0,
        teacher=course.teach(),
    )


# --- why not -------------------------------------------------------------------------------------------


def _not_comparable(step: _Asked, name: str, space: Space) -> str:
    if FIXED in step.recorded.system_attrs:
        return "enqueued, so the sampler was not asked" if step.drawn == step.recorded.params else ""
    if any(space.distributions.get(name) != kind for name, kind in step.recorded.distributions.items()):
        return "drawn before the ranges were widened"
    if step.details.get("seed") is None:
        return "their seed is not recorded"
    if step.details.get("sampler") != name:
        return f"drawn by {step.details.get('sampler')}, not {name}"
    return f"the sampler raised {step.error}" if step.error else ""


def _why_differing(step: _Asked, course: Course, restarted: bool) -> str:
    recorded, now = step.details.get("version"), step.version
    if recorded and now and recorded != now:
        return f"recorded with {recorded}, redrawn with {now}"
    if course.spec.warm_start:
        return "the studies of its warm start may have gone on since"
    if restarted:
        return "the sampler keeps something between asks, and the study was restarted in between"
    if (course.spec.parallelism or 2) > 1:
        return "trials ran in parallel: what an enqueued or retried trial showed at that instant is not recorded"
    return "the sampler draws from something else than its seed and the history"


_WHY_PRUNE = (
    "the pruner draws at random, was configured otherwise then, or was asked about several trials of one step in "
    "another order"
)
