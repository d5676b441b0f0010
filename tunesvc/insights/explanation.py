"""Why a study and its trials are as they are, in sentences; made from what was recorded.

Every sentence rests on stored rows: decisions with their details, attempts, curves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tunesvc.insights.answer import forecast, recommended
from tunesvc.insights.history import decisions
from tunesvc.insights.rows import DecisionRow, StudyView, TrialDetail, TrialRow
from tunesvc.insights.trial_table import trial as trial_detail
from tunesvc.insights.trial_table import trials
from tunesvc.objective import is_better
from tunesvc.space import Space, count_values, place
from tunesvc.store.database import Database

NEAREST = 3
"""Earlier trials that are named as the nearest, at most."""
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


def explain_trial(database: Database, view: StudyView, number: int) -> Explanation | None:
    """Why a trial has its parameters, and what became of it; None when there is no such number."""
    detail = trial_detail(database, view.study_id, number)
    if detail is None:
        return None
    rows = trials(database, view.study_id)
    parts = (
        ("why these parameters", _proposal(view, detail, rows)),
        ("what happened", _attempts(detail)),
        ("at its rungs", _judgement(view, detail)),
        ("what it came to", _outcome(view, detail.row, rows)),
    )
    return Explanation(view.name, number, _said(parts), detail.decisions)


def explain_study(database: Database, view: StudyView) -> Explanation:
    """What the sampler does, how far it is explored, what the pruner saved, and why it stands as it stands."""
    rows = trials(database, view.study_id)
    taken = decisions(database, view.study_id)
    asks = [decision for decision in taken if decision.kind == "ask"]
    parts = (
        ("the search", _search(asks)),
        ("what it knows from others", _carried(taken)),
        ("explored", _explored(view, rows)),
        ("pruning", _pruning(view, rows, taken)),
        ("the best", _best(database, view, rows)),
        ("why it stands so", _standing(database, view)),
    )
    return Explanation(view.name, None, _said(parts), taken[-RECENT:])


def _said(parts: Sequence[tuple[str, Iterator[str]]]) -> tuple[Said, ...]:
    return tuple(Said(topic, text) for topic, sentences in parts for text in sentences)


# --- a trial -------------------------------------------------------------------------------------------


def _proposal(view: StudyView, detail: TrialDetail, rows: Sequence[TrialRow]) -> Iterator[str]:
    ask = next((decision for decision in detail.decisions if decision.kind == "ask"), None)
    if ask is None:
        waiting = detail.row.state == "waiting"
        yield (
            "It is enqueued and waits to be run." if waiting else "It was made through Optuna's API, without a reason."
        )
        return
    details = ask.details
    yield _sentence(ask.reason)
    if details.get("phase") and str(details["phase"]) not in ask.reason:
        yield f"The search was in its phase `{details['phase']}`."
    if _is_number(details.get("mean")):
        spread = f" ± {details['deviation']:.4g}" if _is_number(details.get("deviation")) else ""
        yield f"Its value was predicted as {details['mean']:.6g}{spread}{_surprise(details, detail.row.value)}."
    if _is_number(details.get("acquisition")):
        yield f"Its acquisition value was {details['acquisition']:.4g}, the highest that the sampler found."
    near = list(_recorded_nearest(details, rows)) or list(_found_nearest(view, detail.row, rows))
    if near:
        yield f"The nearest earlier trials: {'; '.join(near)}."
    who = str(details.get("by") or details.get("sampler") or "")
    who += f" ({details['version']})" if details.get("version") else ""
    if who:
        yield f"Drawn by {who}" + (f", seed {details['seed']}." if details.get("seed") is not None else ".")


def _surprise(details: Mapping[str, Any], value: float | None) -> str:
    deviation = details.get("deviation")
    if value is None or not math.isfinite(value) or not isinstance(deviation, (int, float)) or not deviation > 0:
        return ""
    off = abs(value - float(details["mean"])) / deviation
    return f"; it came to {value:.6g}, {off:.1f} deviations off"


def _recorded_nearest(details: Mapping[str, Any], rows: Sequence[TrialRow]) -> Iterator[str]:
    values = {row.number: row.value for row in rows}
    for near in list(details.get("nearest") or [])[:NEAREST]:
        number, study = near.get("number"), near.get("study")
        value = near.get("value") if near.get("value") is not None or study else values.get(number)
        told = f" with {value:.6g}" if isinstance(value, (int, float)) else ""
        apart = f" (distance {near['distance']:.3g})" if _is_number(near.get("distance")) else ""
        yield f"{number}{f' of {study}' if study else ''}{told}{apart}"


def _found_nearest(view: StudyView, row: TrialRow, rows: Sequence[TrialRow]) -> Iterator[str]:
    """For samplers that name none."""
    if view.spec is None or not view.spec.parameters or row.started_at is None:
        return
    space, began = Space(view.spec.parameters), row.started_at
    known = [r for r in rows if r.number != row.number and r.values and r.ended_at and r.ended_at <= began]
    apart = sorted((space.distance(row.params, other.params), other.number, other) for other in known)
    for distance, number, other in apart[:NEAREST]:
        yield f"{number} with {other.value:.6g} (distance {distance:.3g})"


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
            yield _sentence(decision.reason)


_JUDGED = {
    "prune": "Stopped: ",
    "pause": "Paused: ",
    "promote": "Promoted: ",
    "keep": "Kept, to check the pruner: ",
    "stop": "Stopped: ",
}


def _judgement(view: StudyView, detail: TrialDetail) -> Iterator[str]:
    pruner = "none" if view.spec is None else view.spec.pruner.name
    judged = [decision for decision in detail.decisions if decision.kind in _JUDGED]
    for decision in judged:
        yield _JUDGED[decision.kind] + _sentence(decision.reason)
        yield from _rung(decision.details)
    if judged:
        return
    if pruner == "none":
        yield "The study has no pruner, so nothing would have stopped it early."
    elif detail.row.last_step is not None:
        until = "" if detail.row.state == "running" else f" of its curve, up to step {detail.row.last_step}"
        yield f"Pruner {pruner} looked at every report{until} and never found it poor enough to stop."


def _rung(details: Mapping[str, Any]) -> Iterator[str]:
    if _is_number(details.get("threshold")):
        rung = f" of rung {details['rung']}" if details.get("rung") is not None else ""
        yield f"The threshold{rung} at step {details.get('step', '?')} was {details['threshold']:.6g}."
    if _is_number(details.get("forecast")):
        low, high = details.get("low"), details.get("high")
        between = f", between {low:.4g} and {high:.4g}" if _is_number(low) and _is_number(high) else ""
        chance = details.get("chance")
        odds = f"; its chance to end best was {chance:.2%}" if _is_number(chance) else ""
        yield f"Its final value was predicted as {details['forecast']:.6g}{between}{odds}."
    compared = details.get("comparators")
    if isinstance(compared, Sequence) and not isinstance(compared, str) and compared:
        named = [str(one.get("number")) if isinstance(one, Mapping) else str(one) for one in compared]
        yield f"Compared with trials {', '.join(named[:8])}{' and others' if len(named) > 8 else ''}."


def _outcome(view: StudyView, row: TrialRow, rows: Sequence[TrialRow]) -> Iterator[str]:
    if row.state == "fail":
        yield f"It failed{f' ({row.failure})' if row.failure else ''}."
    elif row.state in ("running", "waiting"):
        yield f"It is {row.state}."
    elif row.state == "paused":
        yield f"It is paused after step {row.last_step}, holds nothing, and goes on if it is promoted."
    elif row.value is None:
        yield f"It is {row.state}, without a value."
    elif len(view.objectives) > 1:
        yield f"It is {row.state} with {', '.join(f'{value:.6g}' for value in row.values or ())}."
    elif row.state == "pruned":
        yield f"It was stopped at {view.objectives[0].name} = {row.value:.6g}, after step {row.last_step}."
    else:
        value, goal = row.value, view.objectives[0].goal
        others = [other.value for other in rows if other.state == "complete" and other.value is not None]
        rank = 1 + sum(is_better(other, value, goal) for other in others)
        infeasible = "" if row.feasible else ", and breaks a constraint"
        yield f"{view.objectives[0].name} = {value:.6g}: number {rank} of {len(others)} complete trials{infeasible}."


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
    yield f"The last one, trial {last.trial_number}: {_sentence(last.reason)}"


def _carried(taken: Sequence[DecisionRow]) -> Iterator[str]:
    for decision in taken:
        if decision.trial_number is None and "carried" in decision.details:
            yield _sentence(decision.reason)


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


def _pruning(view: StudyView, rows: Sequence[TrialRow], taken: Sequence[DecisionRow]) -> Iterator[str]:
    pruned = [row for row in rows if row.state in ("pruned", "paused") and row.last_step is not None]
    whole = [row.last_step for row in rows if row.state == "complete" and row.last_step is not None]
    if view.spec is not None and view.spec.pruner.name == "none" and not pruned:
        return
    yield from _paused(rows, taken)
    if not pruned or not whole:
        yield "No trial has been stopped early yet." if not pruned else "No trial has come to its end yet."
        return
    full = median(whole)
    saved = sum(max(0.0, full - (row.last_step or 0)) for row in pruned)
    trained = sum((row.last_step or 0) + 1 for row in rows if row.last_step is not None)
    yield (
        f"{len(pruned)} of {len(pruned) + len(whole)} trials were stopped early. A complete one takes {full:g} steps, "
        f"so about {saved:,.0f} steps were not trained, {saved / (saved + trained):.0%} of what it would have taken."
    )
    kept = {decision.trial_number for decision in taken if decision.kind == "keep"}
    if kept:
        yield f"{len(kept)} that would have been stopped went on, to check the pruner."


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
        yield _sentence(expected)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
