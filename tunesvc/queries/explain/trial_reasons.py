"""Reasons for a trial's proposal and for pruning it or not, as numbers and as sentences.

Made from recorded decisions, for `tune explain` and the trial's page. Reads few rows, however large
the study.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import trials as trials_table
from tunesvc.queries.confirmation import get_confirmation
from tunesvc.queries.rows import DecisionRow, StudyView, TrialDetail, TrialRow
from tunesvc.queries.sql import first_value
from tunesvc.queries.trials.trial_table import list_trials, rows_of
from tunesvc.search.analysis.finalists import Finalist
from tunesvc.search.registry.component_options import name_of
from tunesvc.space.search_space import Space
from tunesvc.util import formatting

NEAREST = 3
"""Most earlier trials that are named as the nearest."""
SEARCHED_MAX = 1_000
"""Trials right before one that are searched for its nearest, if the sampler named none."""
_NAMED_MAX = 8
"""Comparators named in a sentence."""


_JUDGEMENTS = {
    "prune": "Stopped: ",
    "pause": "Paused: ",
    "promote": "Promoted: ",
    "exploit": "Ended: ",
    "keep": "Not stopped: ",
    "stop": "Stopped: ",
}
"""Kinds of decisions about continuing a trial, with the words that open their sentence."""


@dataclass(frozen=True, slots=True)
class RelatedTrial:
    """Another trial that a decision rests on."""

    number: int
    study: str | None = None
    """Name of the other study; None for a trial of the same study."""
    value: float | None = None
    distance: float | None = None
    """In the sampler's measure; between 0 and 1 if the sampler named no trials."""


@dataclass(frozen=True, slots=True)
class ProposalReasons:
    """Reasons for a trial's parameters."""

    reason: str
    phase: str | None
    drawn_by: str
    """The sampler with its version; empty if unknown."""
    seed: int | None
    mean: float | None
    """Predicted value."""
    deviation: float | None
    """Standard deviation of the prediction."""
    surprise: float | None
    """Distance of a complete trial's value from its prediction, in deviations."""
    acquisition: float | None
    nearest: tuple[RelatedTrial, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Decision to stop, pause, promote or keep a trial, with its numbers."""

    kind: str
    """`prune`, `pause`, `promote`, `exploit`, `keep` or `stop`."""
    reason: str
    decided_at: datetime
    step: int | None
    value: float | None
    """Value at `step`."""
    rung: int | None
    rank: int | None
    of: int | None
    threshold: float | None
    predicted: float | None
    """Forecast of the final value; `low` and `high` bound its 90 % interval."""
    low: float | None
    high: float | None
    chance: float | None
    """Probability of ending better than `best`."""
    best: float | None
    comparators: tuple[RelatedTrial, ...]


@dataclass(frozen=True, slots=True)
class TrialReasons:
    """Recorded reasons for a trial's course, and its rank."""

    proposal: ProposalReasons | None
    """None for a trial that no sampler proposed: made through Optuna's API, or enqueued and not
    run yet."""
    judgements: tuple[Judgement, ...]
    rank: int | None
    """Rank among the complete trials; None for an incomplete one, and with several objectives."""
    ranked: int
    """Number of complete trials with a value."""
    repeats: Finalist | None
    """Repeats with other seeds; None for a trial that was not confirmed."""

    @property
    def others(self) -> tuple[int, ...]:
        """Numbers of the trials of this study that decisions rest on."""
        related = list(self.proposal.nearest) if self.proposal else []
        for judgement in self.judgements:
            related += judgement.comparators
        return tuple(dict.fromkeys(one.number for one in related if one.study is None))


def get_trial_reasons(
    database: Database,
    view: StudyView,
    detail: TrialDetail,
) -> TrialReasons:
    """Return the reasons for a trial's proposal and judgements, and its rank."""
    proposal = None
    asks = [decision for decision in detail.decisions if decision.kind == "ask"]
    if asks:
        proposal = _proposal(database, view, detail.row, asks[0])
    judged = [decision for decision in detail.decisions if decision.kind in _JUDGEMENTS]
    judgements = tuple(_judgement(decision) for decision in judged)
    rank, ranked = _rank(database, view, detail.row)
    repeats = _repeats(database, view, detail.row)
    return TrialReasons(proposal, judgements, rank, ranked, repeats)


def _proposal(
    database: Database,
    view: StudyView,
    row: TrialRow,
    ask: DecisionRow,
) -> ProposalReasons:
    details = ask.details
    mean = _number(details, "mean")
    deviation = _number(details, "deviation")
    version = f" ({details['version']})" if details.get("version") else ""
    by = str(details.get("by") or details.get("sampler") or "")
    return ProposalReasons(
        reason=ask.reason,
        phase=str(details["phase"]) if details.get("phase") else None,
        drawn_by=by + version,
        seed=_whole(details, "seed"),
        mean=mean,
        deviation=deviation,
        surprise=_surprise(row, mean, deviation),
        acquisition=_number(details, "acquisition"),
        nearest=_recorded_nearest(database, view, details) or _find_nearest(database, view, row),
    )


def _surprise(
    row: TrialRow,
    mean: float | None,
    deviation: float | None,
) -> float | None:
    if row.state != "complete" or row.value is None or not math.isfinite(row.value):
        return None
    return abs(row.value - mean) / deviation if mean is not None and deviation else None


def _recorded_nearest(
    database: Database,
    view: StudyView,
    details: Mapping[str, Any],
) -> tuple[RelatedTrial, ...]:
    """Return the nearest trials that the sampler named, with the values that they have now."""
    near = _related(details.get("nearest"))[:NEAREST]
    own = [one.number for one in near if one.study is None]
    values = {row.number: row.value for row in rows_of(database, view.study_id, own)}
    found = []
    for one in near:
        if one.value is None and not one.study:
            one = replace(one, value=values.get(one.number))
        found.append(one)
    return tuple(found)


def _find_nearest(
    database: Database,
    view: StudyView,
    row: TrialRow,
) -> tuple[RelatedTrial, ...]:
    """Return the nearest trials whose values were known at the start, if the sampler named none."""
    if view.spec is None or not view.spec.parameters or row.started_at is None:
        return ()
    space = Space(view.spec.parameters)
    began = row.started_at
    earlier = list_trials(
        database,
        view.study_id,
        order="newest",
        after=row.number,
        limit=SEARCHED_MAX,
    )
    known = [one for one in earlier if one.values and one.ended_at and one.ended_at <= began]
    distances = [(space.distance(row.params, one.params), one.number, one.value) for one in known]
    nearest = sorted(distances)[:NEAREST]
    return tuple(RelatedTrial(number, None, value, distance) for distance, number, value in nearest)


def _judgement(decision: DecisionRow) -> Judgement:
    details = decision.details
    predicted = _number(details, "predicted")
    has_forecast = predicted is not None
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
        low=_number(details, "low") if has_forecast else None,
        high=_number(details, "high") if has_forecast else None,
        chance=_number(details, "chance"),
        best=_number(details, "best"),
        comparators=_related(details.get("comparators")),
    )


def _related(listed: object) -> tuple[RelatedTrial, ...]:
    """Read trials from a decision's details: numbers, or mappings with a number."""
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return ()
    found = []
    for one in listed:
        fields = one if isinstance(one, Mapping) else {"number": one}
        number = _whole(fields, "number")
        if number is not None:
            value = _number(fields, "value")
            distance = _number(fields, "distance")
            found.append(RelatedTrial(number, fields.get("study"), value, distance))
    return tuple(found)


def _rank(
    database: Database,
    view: StudyView,
    row: TrialRow,
) -> tuple[int | None, int]:
    """Return a trial's rank among the complete ones, and their number. Reads an index only."""
    value = first_value()
    own = None
    better: sa.ColumnElement[bool] = sa.false()
    if len(view.objectives) == 1 and row.state == "complete":
        own = row.value
    if own is not None and math.isnan(own):
        own = None
    if own is not None:
        better = value > own if view.objectives[0].maximize else value < own
    query = sa.select(sa.func.count().filter(better), sa.func.count()).where(
        trials_table.c.study_id == view.study_id,
        trials_table.c.state == "complete",
        value.is_not(None),
    )
    ((better_count, ranked),) = database.rows(query)
    return (None if own is None else 1 + int(better_count)), int(ranked)


def _repeats(database: Database, view: StudyView, row: TrialRow) -> Finalist | None:
    if row.state != "complete":
        return None
    confirmation = get_confirmation(database, view.name)
    if confirmation is None:
        return None
    by_number = {finalist.number: finalist for finalist in confirmation.finalists}
    return by_number.get(row.number)


def _number(details: Mapping[str, Any], key: str) -> float | None:
    value = details.get(key)
    # `json_numbers` stores values that JSON cannot hold as these texts.
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _whole(details: Mapping[str, Any], key: str) -> int | None:
    value = details.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# --- sentences -----------------------------------------------------------------------------------


def describe_proposal(detail: TrialDetail, proposal: ProposalReasons | None) -> Iterator[str]:
    """Yield sentences about the reasons for a trial's parameters."""
    if proposal is None:
        if detail.row.state == "waiting":
            yield "It is enqueued and waits to be run."
        else:
            yield "It was made through Optuna's API, without a reason."
        return
    yield sentence(proposal.reason)
    if proposal.phase and proposal.phase not in proposal.reason:
        yield f"Phase of the search: {proposal.phase}."
    if proposal.mean is not None:
        deviation = "" if proposal.deviation is None else f" ± {proposal.deviation:.4g}"
        result = _compare_with_result(detail.row, proposal.surprise)
        yield f"Predicted value: {proposal.mean:.6g}{deviation}{result}."
    if proposal.acquisition is not None:
        yield f"Acquisition value: {proposal.acquisition:.4g}, the highest of the candidates."
    if proposal.nearest:
        nearest = "; ".join(map(_describe_related, proposal.nearest))
        yield f"Nearest earlier trials: {nearest}."
    if proposal.drawn_by:
        seed = "" if proposal.seed is None else f", seed {proposal.seed}"
        yield f"Drawn by {proposal.drawn_by}{seed}."


def _compare_with_result(row: TrialRow, surprise: float | None) -> str:
    if surprise is not None:
        return f"; the result was {row.value:.6g}, {surprise:.1f} standard deviations away"
    return "; it was stopped before its result" if row.state == "pruned" else ""


def describe_judgements(
    view: StudyView,
    detail: TrialDetail,
    judgements: Sequence[Judgement],
) -> Iterator[str]:
    """Yield sentences about the decisions to stop, pause, promote or keep a trial."""
    for judgement in judgements:
        yield _JUDGEMENTS[judgement.kind] + with_full_stop(judgement.reason)
        yield from _describe_numbers(judgement)
    if judgements:
        return
    pruner = "none" if view.spec is None else name_of(view.spec.pruner)
    if pruner == "none":
        yield "The study has no pruner."
    elif detail.row.last_step is not None:
        step = view.objectives[0].step
        until = f" up to {step} {detail.row.last_step}" if detail.row.is_finished else ""
        judged = f"Pruner {pruner} judged every report{until}"
        yield f"{judged} and found none poor enough to stop the trial."


def _describe_numbers(judgement: Judgement) -> Iterator[str]:
    """Yield the numbers that the reason does not contain."""
    threshold = judgement.threshold
    predicted = judgement.predicted
    if threshold is not None and f"{threshold:.6g}" not in judgement.reason:
        step = "?" if judgement.step is None else judgement.step
        yield f"Threshold at step {step}: {threshold:.6g}."
    if predicted is not None and f"{predicted:.4g}" not in judgement.reason:
        interval, chance = "", ""
        if judgement.low is not None and judgement.high is not None:
            interval = f" ({judgement.low:.4g} to {judgement.high:.4g})"
        if judgement.chance is not None:
            chance = f"; chance to end best: {judgement.chance:.1%}"
        yield f"Predicted final value: {predicted:.4g}{interval}{chance}."
    if judgement.comparators:
        named = ", ".join(str(other.number) for other in judgement.comparators[:_NAMED_MAX])
        more = " and others" if len(judgement.comparators) > _NAMED_MAX else ""
        yield f"Compared with trials {named}{more}."


def describe_outcome(
    view: StudyView,
    row: TrialRow,
    reasons: TrialReasons,
) -> Iterator[str]:
    """Yield a sentence about a trial's state and result."""
    if row.state == "failed":
        yield f"It failed{f' ({row.failure})' if row.failure else ''}."
    elif row.state == "stopped":
        yield "It was stopped before it reported anything, so the sampler learns nothing of it."
    elif row.state == "paused":
        paused = f"It is paused after {view.objectives[0].step} {row.last_step}"
        yield f"{paused}: it uses no resources, and continues if it is promoted."
    elif row.state == "interrupted":
        resume = f"`{view.resume_command}`" if view.queued is None else "A server"
        yield f"It was interrupted. {resume} runs it again, from its last checkpoint if it has one."
    elif not row.is_finished:
        yield f"It is {row.state}."
    else:
        yield _describe_result(view, row, reasons)


def _describe_result(view: StudyView, row: TrialRow, reasons: TrialReasons) -> str:
    if row.value is None:
        return f"It is {row.state}, without a value."
    if len(view.objectives) > 1:
        values = ", ".join(f"{value:.6g}" for value in row.values or ())
        return f"It is {row.state} with {values}."
    result = f"{view.objectives[0].name} = {row.value:.6g}"
    if row.state == "pruned":
        if view.spec is not None and view.spec.is_stepwise:
            step = view.objectives[0].step
            return f"It was stopped after {step} {row.last_step}, and counts with {result}."
        return f"It was stopped at {result}, after step {row.last_step}."
    if reasons.rank is not None:
        result += f", rank {reasons.rank} of {reasons.ranked} complete trials"
    if not row.feasible:
        violations = formatting.violations(row.violations) or "it breaks a constraint"
        result += f", and infeasible: {violations}"
    return f"{result}."


def describe_repeats(view: StudyView, repeats: Finalist | None) -> Iterator[str]:
    """Yield sentences about the repeats of `tune confirm`."""
    if repeats is None:
        return
    failed = f", {repeats.failed} more failed" if repeats.failed else ""
    plural = "" if len(repeats.values) == 1 else "s"
    count = f"{len(repeats.values)} repeat{plural} with other seeds{failed}"
    if repeats.mean is None:
        yield f"Confirmed by {count}, without a value yet."
        return
    interval = ""
    if repeats.low is not None:
        low = formatting.number(repeats.low)
        high = formatting.number(repeats.high)
        interval = f" (95 % interval {low} to {high})"
    mean = f"{view.objectives[0].name} = {formatting.number(repeats.mean)}"
    yield f"Confirmed by {count}: mean {mean}{interval}."
    if repeats.chance is not None:
        yield f"The chance that its true mean is the best of all finalists is {repeats.chance:.0%}."


def _describe_related(trial: RelatedTrial) -> str:
    name = f"{trial.number} of {trial.study}" if trial.study else str(trial.number)
    details = []
    if trial.value is not None:
        details.append(f"value {trial.value:.6g}")
    if trial.distance is not None:
        details.append(f"distance {trial.distance:.3g}")
    return f"{name} ({', '.join(details)})" if details else name


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    text = with_full_stop(text)
    return text[:1].upper() + text[1:]


def with_full_stop(text: str) -> str:
    """Return a text with a full stop, unless it ends with another mark."""
    text = text.strip()
    return text + ("" if text.endswith((".", "!", "?", ":")) else ".")
