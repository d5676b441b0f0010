"""Why a study and its trials are as they are, in sentences; made from what was recorded.

Every sentence rests on stored rows: decisions with their details, attempts, curves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tunesvc.insights.answer import forecast, recommended
from tunesvc.insights.audit import Audit, audit
from tunesvc.insights.beliefs import surface
from tunesvc.insights.history import decisions
from tunesvc.insights.locally import attribution, attribution_told
from tunesvc.insights.results import results, saved_by_pruning
from tunesvc.insights.rows import DecisionRow, StudyView, TrialDetail, TrialRow
from tunesvc.insights.trial_reasons import (
    TrialReasons,
    judgements_told,
    outcome_told,
    proposal_told,
    sentence,
    trial_reasons,
)
from tunesvc.insights.trial_table import trial as trial_detail
from tunesvc.insights.trial_table import trials
from tunesvc.search.attribution import Attribution
from tunesvc.space import Space, count_values, place
from tunesvc.store.database import Database

RECENT = 20
"""Asks that say what the sampler does now."""
BINS = 10
"""Parts of a range that count as explored or not."""


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence, and what it is about."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say about a study or a trial."""

    study: str
    number: int | None
    """The trial; None for the study."""
    said: tuple[Said, ...]
    decisions: tuple[DecisionRow, ...]
    """What it rests on; of a study, the last few."""
    audit: Audit | None = None
    """Of a study: how often its pruner errs, where it is audited."""
    reasons: TrialReasons | None = None
    """Of a trial: what the sentences say, in numbers."""
    local: Attribution | None = None
    """Of a trial: what each of its parameters did to the first objective."""


def explain_trial(database: Database, view: StudyView, number: int) -> Explanation | None:
    """Why a trial has its parameters, and what became of it; None when there is no such number."""
    detail = trial_detail(database, view.study_id, number)
    if detail is None:
        return None
    reasons = trial_reasons(database, view, detail)
    found = attribution(surface(database, view, results(database, view.study_id)), detail.row)
    local = () if found is None else _said([("what its parameters did", attribution_told(view.objectives[0], found))])
    said = (*trial_told(view, detail, reasons), *local)
    return Explanation(view.name, number, said, detail.decisions, reasons=reasons, local=found)


def trial_told(view: StudyView, detail: TrialDetail, reasons: TrialReasons) -> tuple[Said, ...]:
    """What there is to say about a trial, by topic."""
    parts = (
        ("why these parameters", proposal_told(detail, reasons.proposal)),
        ("what happened", _attempts(detail)),
        ("at its rungs", judgements_told(view, detail, reasons.judgements)),
        ("what it came to", outcome_told(view, detail.row, reasons)),
    )
    return _said(parts)


def explain_study(database: Database, view: StudyView) -> Explanation:
    """What the sampler does, how far it is explored, what the pruner saved, and why it stands as it stands."""
    rows = trials(database, view.study_id)
    taken = decisions(database, view.study_id)
    asks = [decision for decision in taken if decision.kind == "ask"]
    wider = [decision for decision in taken if "widened" in decision.details]
    audited = audit(database, view)
    parts = (
        ("the search", chain(_search(asks), (sentence(decision.reason) for decision in wider))),
        ("what it knows from others", _carried(taken)),
        ("explored", _explored(view, rows)),
        ("pruning", _pruning(view, rows, taken, audited)),
        ("the best", _best(database, view, rows)),
        ("why it stands so", _standing(database, view)),
    )
    return Explanation(view.name, None, _said(parts), taken[-RECENT:], audited)


def _said(parts: Sequence[tuple[str, Iterator[str]]]) -> tuple[Said, ...]:
    return tuple(Said(topic, text) for topic, sentences in parts for text in sentences)


# --- a trial -------------------------------------------------------------------------------------------


def _attempts(detail: TrialDetail) -> Iterator[str]:
    if len(detail.attempts) == 1 and detail.attempts[0].failure is None:
        (one,) = detail.attempts
        yield f"It ran in one attempt{f' on {one.node}' if one.node else ''}."
    elif detail.attempts:
        yield f"It had {len(detail.attempts)} attempts:"
    if len(detail.attempts) > 1 or any(attempt.failure for attempt in detail.attempts):
        for attempt in detail.attempts:
            end = f"{attempt.state}" + (f" ({attempt.failure}: {attempt.message})" if attempt.failure else "")
            yield f"Attempt {attempt.number}{f' on {attempt.node}' if attempt.node else ''}: {end}."
    for decision in detail.decisions:
        if decision.kind in ("retry", "fail", "sampler", "code"):
            yield sentence(decision.reason)


# --- a study -------------------------------------------------------------------------------------------


def _search(asks: Sequence[DecisionRow]) -> Iterator[str]:
    if not asks:
        yield "Nothing has been proposed yet."
        return
    recent = asks[-RECENT:]
    phases = Counter(str(ask.details["phase"]) for ask in recent if ask.details.get("phase"))
    if phases:
        listed = ", ".join(f"{count} {phase}" for phase, count in phases.most_common())
        yield f"Of the last {len(recent)} proposals: {listed}."
    last = asks[-1]
    yield f"The last one, trial {last.trial_number}: {sentence(last.reason)}"


def _carried(taken: Sequence[DecisionRow]) -> Iterator[str]:
    for decision in taken:
        if decision.trial_number is None and "carried" in decision.details:
            yield sentence(decision.reason)


def _explored(view: StudyView, rows: Sequence[TrialRow]) -> Iterator[str]:
    if view.spec is None or not view.spec.parameters:
        return
    space = Space(view.spec.parameters)
    for name, distribution in space.distributions.items():
        values = [row.params[name] for row in rows if name in row.params]
        places = [at for value in values if (at := place(distribution, value)) is not None]
        if not values:
            yield f"{name}: not tried yet."
        elif places:
            there = min(BINS, count_values(space.parameters[name]) or BINS)
            parts = len({min(there - 1, int(at * there)) for at in places})
            yield f"{name}: {parts} of {there} parts of its range tried{_focus(places)}."
        else:
            common = Counter(str(value) for value in values[-RECENT:]).most_common(3)
            yield f"{name}: lately {', '.join(f'{value} ({count})' for value, count in common)}."


def _focus(places: Sequence[float]) -> str:
    recent = sorted(places[-RECENT:])
    if len(places) < 2 * RECENT:
        return ""
    width = recent[-2] - recent[1]  # without the outermost on both sides
    return f"; the last {RECENT} lie within {width:.0%} of it"


def _pruning(
    view: StudyView, rows: Sequence[TrialRow], taken: Sequence[DecisionRow], audited: Audit | None
) -> Iterator[str]:
    steps = {row.number: float("nan") if row.last_step is None else float(row.last_step) for row in rows}
    pruned = [steps[row.number] for row in rows if row.state in ("pruned", "paused")]
    whole = [steps[row.number] for row in rows if row.state == "complete"]
    if view.spec is not None and view.spec.pruner.name == "none" and not pruned:
        return
    yield from _paused(rows, taken)
    saved = saved_by_pruning(np.array(pruned), np.array(whole), np.array(list(steps.values())))
    if saved is None:
        yield "No trial has been stopped early yet." if not pruned else "No trial has come to its end yet."
        return
    yield (
        f"{saved.pruned} of {saved.pruned + saved.whole} trials were stopped early. A complete one takes "
        f"{saved.full_steps:g} steps, so about {saved.steps:,.0f} steps were not trained, "
        f"{saved.share:.0%} of what it would have taken."
    )
    kept = {decision.trial_number for decision in taken if decision.kind == "keep"}
    if kept:
        yield f"{len(kept)} that would have been stopped went on, to check the pruner."
    if audited is not None and audited.audited:
        yield sentence(audited.text)


def _paused(rows: Sequence[TrialRow], taken: Sequence[DecisionRow]) -> Iterator[str]:
    states = {row.number: row.state for row in rows}
    promoted = {decision.trial_number for decision in taken if decision.kind == "promote"}
    if waiting := sum(state == "paused" for state in states.values()):
        yield f"{waiting} trials are paused: they hold nothing, and may go on."
    if promoted:
        finished = sum(states.get(number or 0) == "complete" for number in promoted)
        yield f"{len(promoted)} were paused and promoted; {finished} of those have come to their end."


def _best(database: Database, view: StudyView, rows: Sequence[TrialRow]) -> Iterator[str]:
    answer = recommended(database, view)
    if answer is None:
        return
    later = sum(row.number > answer.number and row.state in ("complete", "pruned") for row in rows)
    spread = "" if answer.deviation is None else f" ± {answer.deviation:.2g}"
    since = f"{later} trials have come to a result since"
    yield f"Trial {answer.number} is recommended: {answer.mean:.6g}{spread}; {since}."
    if answer.luckiest != answer.number:
        yield f"Trial {answer.luckiest} has the best observed value, which is probably a lucky draw."


def _standing(database: Database, view: StudyView) -> Iterator[str]:
    yield f"It is {view.state}{f': {view.reason}' if view.reason else ''}."
    if view.unattended:
        yield f"Nobody runs it: `tune resume {view.name}` goes on."
    if view.budget is not None:
        yield f"{view.fraction:.0%} of its budget is spent."
    expected = forecast(database, view)
    if expected is not None and expected not in view.reason:
        yield sentence(expected)
