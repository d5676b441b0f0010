"""Why a trial was proposed, and why it was stopped or kept: the numbers of the recorded decisions, and sentences.

The one source for `tune explain` and the trial's page. Reads few rows, however large the study.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import trials as trials_table
from tunesvc.queries.confirmation import get_confirmation
from tunesvc.queries.rows import DecisionRow, StudyView, TrialDetail, TrialRow
from tunesvc.queries.sql import first_value
from tunesvc.queries.trials.trial_table import list_trials, rows_of
from tunesvc.search.registry.component_options import name_of
from tunesvc.space.search_space import Space
from tunesvc.util import formatting

if TYPE_CHECKING:
    from tunesvc.search.analysis.finalists import Finalist

NEAREST = 3
"""Earlier trials that are named as the nearest, at most."""
LOOKED_AT = 1_000
"""Trials right before one, among which its nearest are looked for where the sampler named none."""
_NAMED = 8
"""Comparators that a sentence names."""


_JUDGED = {
    "prune": "Stopped: ",
    "pause": "Paused: ",
    "promote": "Promoted: ",
    "keep": "Not stopped: ",
    "stop": "Stopped: ",
}
"""Kinds of decisions about whether a trial goes on, and how they begin in words."""


@dataclass(frozen=True, slots=True)
class RelatedTrial:
    """Another trial that a decision rests on."""

    number: int
    study: str | None = None
    """Of a trial of another study."""
    value: float | None = None
    distance: float | None = None
    """As the sampler measures it; 0 ... 1 where it named none."""


@dataclass(frozen=True, slots=True)
class ProposalReasons:
    """Why a trial has its parameters."""

    reason: str
    phase: str | None
    drawn_by: str
    """The sampler with its version; empty when it is not known."""
    seed: int | None
    mean: float | None
    """What its value was predicted to be."""
    deviation: float | None
    surprise: float | None
    """By how many deviations the value that a complete trial came to is another one."""
    acquisition: float | None
    nearest: tuple[RelatedTrial, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Why a trial was stopped, or kept although its pruner would have stopped it."""

    kind: str
    """`prune`, `keep` or `stop`."""
    reason: str
    decided_at: datetime
    step: int | None
    value: float | None
    """At that step."""
    rung: int | None
    rank: int | None
    of: int | None
    threshold: float | None
    predicted: float | None
    """The final value that was to be expected; `low` and `high` bound its 90 % interval."""
    low: float | None
    high: float | None
    chance: float | None
    """To end better than `best`."""
    best: float | None
    comparators: tuple[RelatedTrial, ...]


@dataclass(frozen=True, slots=True)
class TrialReasons:
    """What is recorded about a trial."""

    proposal: ProposalReasons | None
    """None for a trial that nobody proposed: made through Optuna's API, or enqueued and not run yet."""
    judgements: tuple[Judgement, ...]
    rank: int | None
    """Among the complete trials, by the first objective; None for one that is not, and with several objectives."""
    ranked: int
    """Complete trials with a value."""
    repeats: Finalist | None
    """Its repeats with other seeds; None while it was not confirmed."""

    @property
    def others(self) -> tuple[int, ...]:
        """Numbers of the trials of this study that decisions rest on."""
        near = self.proposal.nearest if self.proposal else ()
        compared = (one for judgement in self.judgements for one in judgement.comparators)
        return tuple(dict.fromkeys(one.number for one in (*near, *compared) if one.study is None))


def get_trial_reasons(database: Database, view: StudyView, detail: TrialDetail) -> TrialReasons:
    """Why a trial was proposed, judged as it was, and where it stands."""
    ask = next((decision for decision in detail.decisions if decision.kind == "ask"), None)
    judged = [decision for decision in detail.decisions if decision.kind in _JUDGED]
    rank, ranked = _rank(database, view, detail.row)
    return TrialReasons(
        None if ask is None else _proposal(database, view, detail.row, ask),
        tuple(_judgement(decision) for decision in judged),
        rank,
        ranked,
        _repeats(database, view, detail.row),
    )


def _proposal(database: Database, view: StudyView, row: TrialRow, ask: DecisionRow) -> ProposalReasons:
    details = ask.details
    mean, deviation = _number(details, "mean"), _number(details, "deviation")
    known = row.state == "complete" and mean is not None and row.value is not None and math.isfinite(row.value)
    version = f" ({details['version']})" if details.get("version") else ""
    by = str(details.get("by") or details.get("sampler") or "")
    return ProposalReasons(
        reason=ask.reason,
        phase=str(details["phase"]) if details.get("phase") else None,
        drawn_by=by + version,
        seed=_whole(details, "seed"),
        mean=mean,
        deviation=deviation,
        surprise=abs((row.value or 0.0) - (mean or 0.0)) / deviation if known and deviation else None,
        acquisition=_number(details, "acquisition"),
        nearest=_recorded(database, view, details) or _found(database, view, row),
    )


def _recorded(database: Database, view: StudyView, details: Mapping[str, Any]) -> tuple[RelatedTrial, ...]:
    """The nearest trials that the sampler named, with the values that they have by now."""
    near = _others(details.get("nearest"))[:NEAREST]
    own = [one.number for one in near if one.study is None]
    values = {row.number: row.value for row in rows_of(database, view.study_id, own)}
    return tuple(
        one
        if one.value is not None or one.study
        else RelatedTrial(one.number, None, values.get(one.number), one.distance)
        for one in near
    )


def _found(database: Database, view: StudyView, row: TrialRow) -> tuple[RelatedTrial, ...]:
    """For samplers that name none: those with a value before it began, among the trials right before it."""
    if view.spec is None or not view.spec.parameters or row.started_at is None:
        return ()
    space, began = Space(view.spec.parameters), row.started_at
    earlier = list_trials(database, view.study_id, order="newest", after=row.number, limit=LOOKED_AT)
    known = [one for one in earlier if one.values and one.ended_at and one.ended_at <= began]
    apart = sorted((space.distance(row.params, one.params), one.number, one.value) for one in known)
    return tuple(RelatedTrial(number, None, value, distance) for distance, number, value in apart[:NEAREST])


def _judgement(decision: DecisionRow) -> Judgement:
    details = decision.details
    predicted = _number(details, "predicted")
    return Judgement(
        kind=decision.kind,
        reason=decision.reason,
        decided_at=decision.decided_at,
        step=_whole(details, "step"),
        value=_number(details, "value"),
        rung=_whole(details, "rung"),
        rank=_whole(details, "rank"),
        of=_whole(details, "of"),
        threshold=_number(details, "threshold"),
        predicted=predicted,
        low=_number(details, "low") if predicted is not None else None,
        high=_number(details, "high") if predicted is not None else None,
        chance=_number(details, "chance"),
        best=_number(details, "best"),
        comparators=_others(details.get("comparators")),
    )


def _others(listed: object) -> tuple[RelatedTrial, ...]:
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return ()
    found = [one if isinstance(one, Mapping) else {"number": one} for one in listed]
    return tuple(
        RelatedTrial(number, one.get("study"), _number(one, "value"), _number(one, "distance"))
        for one in found
        if (number := _whole(one, "number")) is not None
    )


def _rank(database: Database, view: StudyView, row: TrialRow) -> tuple[int | None, int]:
    """A trial's place among the complete ones, counted in an index."""
    value, of_study = first_value(), trials_table.c.study_id == view.study_id
    is_complete = trials_table.c.state == "complete"
    ranks = len(view.objectives) == 1 and row.state == "complete" and row.value is not None
    own = row.value if ranks and row.value is not None and not math.isnan(row.value) else None
    better = sa.false() if own is None else value > own if view.objectives[0].maximize else value < own
    query = sa.select(sa.func.count().filter(better), sa.func.count()).where(of_study, is_complete, value.is_not(None))
    with database.engine.connect() as connection:
        ahead, ranked = connection.execute(query).one()
    return (None if own is None else 1 + int(ahead)), int(ranked)


def _repeats(database: Database, view: StudyView, row: TrialRow) -> Finalist | None:
    confirmed = None if row.state != "complete" else get_confirmation(database, view.name)
    finalists = () if confirmed is None else confirmed.finalists
    return next((finalist for finalist in finalists if finalist.number == row.number), None)


def _number(details: Mapping[str, Any], key: str) -> float | None:
    value = details.get(key)
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):  # as `json_numbers` writes them
        return float(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _whole(details: Mapping[str, Any], key: str) -> int | None:
    value = details.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# --- as sentences --------------------------------------------------------------------------------------


def proposal_told(detail: TrialDetail, proposal: ProposalReasons | None) -> Iterator[str]:
    """Why it has its parameters."""
    if proposal is None:
        waiting = detail.row.state == "waiting"
        yield (
            "It is enqueued and waits to be run." if waiting else "It was made through Optuna's API, without a reason."
        )
        return
    yield sentence(proposal.reason)
    if proposal.phase and proposal.phase not in proposal.reason:
        yield f"Phase of the search: {proposal.phase}."
    if proposal.mean is not None:
        spread = "" if proposal.deviation is None else f" ± {proposal.deviation:.4g}"
        yield f"Predicted value: {proposal.mean:.6g}{spread}{_came_to(detail.row, proposal.surprise)}."
    if proposal.acquisition is not None:
        yield f"Acquisition value: {proposal.acquisition:.4g}, the highest of the candidates."
    if proposal.nearest:
        yield f"Nearest earlier trials: {'; '.join(map(_near_told, proposal.nearest))}."
    if proposal.drawn_by:
        seed = "" if proposal.seed is None else f", seed {proposal.seed}"
        yield f"Drawn by {proposal.drawn_by}{seed}."


def _came_to(row: TrialRow, surprise: float | None) -> str:
    """What became of a prediction."""
    if surprise is not None:
        return f"; the result was {row.value:.6g}, {surprise:.1f} standard deviations away"
    return "; it was stopped before its result" if row.state == "pruned" else ""


def judgements_told(view: StudyView, detail: TrialDetail, judgements: Sequence[Judgement]) -> Iterator[str]:
    """Why it was stopped, or kept."""
    pruner = "none" if view.spec is None else name_of(view.spec.pruner)
    for one in judgements:
        begun = _JUDGED[one.kind]
        yield begun + with_full_stop(one.reason)
        yield from _numbers_told(one)
    if judgements:
        return
    if pruner == "none":
        yield "The study has no pruner."
    elif detail.row.last_step is not None:
        until = "" if not detail.row.is_finished else f" up to step {detail.row.last_step}"
        yield f"Pruner {pruner} judged every report{until} and found none poor enough to stop the trial."


def _numbers_told(one: Judgement) -> Iterator[str]:
    """Return the numbers that the reason does not name."""
    if one.threshold is not None and f"{one.threshold:.6g}" not in one.reason:
        yield f"Threshold at step {'?' if one.step is None else one.step}: {one.threshold:.6g}."
    if one.predicted is not None and f"{one.predicted:.4g}" not in one.reason:
        between = "" if one.low is None or one.high is None else f" ({one.low:.4g} to {one.high:.4g})"
        odds = "" if one.chance is None else f"; chance to end best: {one.chance:.1%}"
        yield f"Predicted final value: {one.predicted:.4g}{between}{odds}."
    if one.comparators:
        named = ", ".join(str(other.number) for other in one.comparators[:_NAMED])
        yield f"Compared with trials {named}{' and others' if len(one.comparators) > _NAMED else ''}."


def outcome_told(view: StudyView, row: TrialRow, reasons: TrialReasons) -> Iterator[str]:
    """What it came to."""
    if row.state == "failed":
        yield f"It failed{f' ({row.failure})' if row.failure else ''}."
    elif row.state == "stopped":
        yield "It was stopped before it reported anything, so the sampler learns nothing of it."
    elif row.state == "paused":
        yield f"It is paused after step {row.last_step}: it uses no resources, and continues if it is promoted."
    elif row.state == "interrupted":
        yield f"It was interrupted. `{view.resume_command}` runs it again, from its last checkpoint if it has one."
    elif not row.is_finished:
        yield f"It is {row.state}."
    elif row.value is None:
        yield f"It is {row.state}, without a value."
    elif len(view.objectives) > 1:
        yield f"It is {row.state} with {', '.join(f'{value:.6g}' for value in row.values or ())}."
    elif row.state == "pruned":
        yield f"It was stopped at {view.objectives[0].name} = {row.value:.6g}, after step {row.last_step}."
    else:
        place = "" if reasons.rank is None else f", rank {reasons.rank} of {reasons.ranked} complete trials"
        broken = formatting.violations(row.violations) or "it breaks a constraint"
        infeasible = "" if row.feasible else f", and infeasible: {broken}"
        yield f"{view.objectives[0].name} = {row.value:.6g}{place}{infeasible}."


def describe_repeats(view: StudyView, repeats: Finalist | None) -> Iterator[str]:
    """Yield what the repeats of `tune confirm` show of the trial."""
    if repeats is None:
        return
    failed = f", {repeats.failed} more failed" if repeats.failed else ""
    count = f"{len(repeats.values)} repeat{'' if len(repeats.values) == 1 else 's'} with other seeds{failed}"
    if repeats.mean is None:
        yield f"Confirmed by {count}, without a value yet."
        return
    low, high = formatting.number(repeats.low), formatting.number(repeats.high)
    interval = "" if repeats.low is None else f" (95 % interval {low} to {high})"
    yield f"Confirmed by {count}: mean {view.objectives[0].name} = {formatting.number(repeats.mean)}{interval}."
    if repeats.chance is not None:
        yield f"The chance that its true mean is the best of all finalists is {repeats.chance:.0%}."


def _near_told(one: RelatedTrial) -> str:
    told = [] if one.value is None else [f"value {one.value:.6g}"]
    told += [] if one.distance is None else [f"distance {one.distance:.3g}"]
    return f"{one.number}{f' of {one.study}' if one.study else ''}" + (f" ({', '.join(told)})" if told else "")


def sentence(text: str) -> str:
    """Text with a capital and a full stop."""
    text = with_full_stop(text)
    return text[:1].upper() + text[1:]


def with_full_stop(text: str) -> str:
    """Text with a full stop."""
    text = text.strip()
    return text + ("" if text.endswith((".", "!", "?", ":")) else ".")
