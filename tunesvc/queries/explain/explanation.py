"""Why a study and its trials are as they are, in sentences; made from what was recorded.

Every sentence rests on stored rows: decisions with their details, attempts, curves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution

from tunesvc.db.engine.database import Database
from tunesvc.queries.explain.explored_ranges import parts_tried
from tunesvc.queries.explain.pruning_audit import Audit, get_audit
from tunesvc.queries.explain.stored_trials import about_study, last_asks, trials_with
from tunesvc.queries.explain.trial_attribution import describe_attribution, get_attribution
from tunesvc.queries.explain.trial_reasons import (
    TrialReasons,
    describe_repeats,
    get_trial_reasons,
    judgements_told,
    outcome_told,
    proposal_told,
    sentence,
    with_full_stop,
)
from tunesvc.queries.fitted_model import get_surface
from tunesvc.queries.recommendation import recommended_trials
from tunesvc.queries.rows import DecisionRow, StudyStatus, StudyView, TrialDetail
from tunesvc.queries.study_summary import expected, list_recent_decisions
from tunesvc.queries.trials.trial_results import Results, get_results, saved_by_pruning
from tunesvc.queries.trials.trial_table import get_trial as trial_detail
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.space.cardinality import count_values
from tunesvc.space.search_space import Space, place

if TYPE_CHECKING:
    from tunesvc.search.analysis.attribution import Attribution

RECENT = 20
"""Asks that say what the sampler does now."""
NEWEST = 200
"""Trials that tell where it searches now."""
BINS = 10
"""Parts of a range that count as explored or not."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, and what it is about."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say about a study or a trial."""

    study: str
    number: int | None
    """The trial; None for the study."""
    said: tuple[Statement, ...]
    decisions: tuple[DecisionRow, ...]
    """What it rests on; of a study, the last few."""
    audit: Audit | None = None
    """Of a study: how often its pruner errs, where it is audited."""
    reasons: TrialReasons | None = None
    """Of a trial: what the sentences say, in numbers."""
    local: Attribution | None = None
    """Of a trial: what each of its parameters did to the first objective."""

    @property
    def title(self) -> str:
        """Name of the study, or of the trial."""
        return self.study if self.number is None else f"{self.study} · trial {self.number}"

    @property
    def topics(self) -> dict[str, list[str]]:
        """The sentences by what they are about."""
        found: dict[str, list[str]] = {}
        for one in self.said:
            found.setdefault(one.topic[:1].upper() + one.topic[1:], []).append(one.text)
        return found

    def __str__(self) -> str:
        """Write it as `tune explain` does."""
        paragraphs = [self.title]
        for topic, sentences in self.topics.items():
            paragraphs.append("\n  ".join([topic, *sentences]))
        return "\n\n".join(paragraphs)


def explain_trial(database: Database, view: StudyView, number: int) -> Explanation | None:
    """Why a trial has its parameters, and what became of it; None when there is no such number."""
    detail = trial_detail(database, view.study_id, number)
    if detail is None:
        return None
    reasons = get_trial_reasons(database, view, detail)
    found = get_attribution(get_surface(database, view, get_results(database, view.study_id)), detail.row)
    local = (
        () if found is None else _said([("effect of its parameters", describe_attribution(view.objectives[0], found))])
    )
    said = (*describe_trial(view, detail, reasons), *local)
    return Explanation(view.name, number, said, detail.decisions, reasons=reasons, local=found)


def describe_trial(view: StudyView, detail: TrialDetail, reasons: TrialReasons) -> tuple[Statement, ...]:
    """What there is to say about a trial, by topic."""
    parts = (
        ("why these parameters", proposal_told(detail, reasons.proposal)),
        ("attempts", _attempts(detail)),
        ("pruning", judgements_told(view, detail, reasons.judgements)),
        ("result", outcome_told(view, detail.row, reasons)),
        ("confirmation", describe_repeats(view, reasons.repeats)),
    )
    return _said(parts)


def explain_study(database: Database, view: StudyView) -> Explanation:
    """What the sampler does, how far it is explored, what the pruner saved, and why it stands as it stands."""
    found = get_results(database, view.study_id)
    about = about_study(database, view.study_id)
    audited = get_audit(database, view)
    wider = (sentence(decision.reason) for decision in about if "widened" in decision.details)
    parts = (
        ("the search", chain(_search(last_asks(database, view.study_id, RECENT)), wider)),
        ("what it knows from others", (sentence(one.reason) for one in about if "carried" in one.details)),
        ("explored", _explored(database, view)),
        ("pruning", _pruning(database, view, found, audited)),
        ("the best", _best(database, view, found)),
        ("state", _standing(view, found)),
    )
    newest = list_recent_decisions(database, view.study_id, view.counts.total, RECENT)[::-1]
    return Explanation(view.name, None, _said(parts), newest, audited)


def _said(parts: Sequence[tuple[str, Iterator[str]]]) -> tuple[Statement, ...]:
    return tuple(Statement(topic, text) for topic, sentences in parts for text in sentences)


# --- a trial -------------------------------------------------------------------------------------------


def _attempts(detail: TrialDetail) -> Iterator[str]:
    if len(detail.attempts) == 1 and detail.attempts[0].failure is None:
        (one,) = detail.attempts
        yield f"It ran in one attempt{f' on {one.node}' if one.node else ''}."
    elif detail.attempts:
        yield "It had 1 attempt:" if len(detail.attempts) == 1 else f"It had {len(detail.attempts)} attempts:"
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
    phases = Counter(str(ask.details["phase"]) for ask in asks if ask.details.get("phase"))
    if phases:
        listed = ", ".join(f"{phase} {count}" for phase, count in phases.most_common())
        yield f"Phases of the last {len(asks)} proposals: {listed}."
    last = asks[-1]
    yield f"The last proposal, trial {last.trial_number}: {with_full_stop(last.reason)}"


def _explored(database: Database, view: StudyView) -> Iterator[str]:
    if view.spec is None or not view.spec.parameters:
        return
    space = Space(view.spec.parameters)
    newest = list_trials(database, view.study_id, order="newest", limit=NEWEST)[::-1]
    for name, distribution in space.distributions.items():
        there = min(BINS, count_values(space.parameters[name]) or BINS)
        tried = parts_tried(database, view.study_id, name, distribution, there)
        values = [row.params[name] for row in newest if name in row.params]
        places = [at for value in values if (at := place(distribution, value)) is not None]
        if not tried:
            yield f"{name}: not tried yet."
        elif isinstance(distribution, CategoricalDistribution):
            common = Counter(str(value) for value in values[-RECENT:]).most_common(3)
            shown = ", ".join(f"{value} in {count}" for value, count in common)
            lately = f"of the last {len(values[-RECENT:])} trials, {shown}" if shown else "not tried lately"
            yield f"{name}: {lately}."
        else:
            yield f"{name}: tried in {tried} of {there} equal parts of its range{_focus(places)}."


def _focus(places: Sequence[float]) -> str:
    recent = sorted(places[-RECENT:])
    if len(places) < 2 * RECENT:
        return ""
    width = recent[-2] - recent[1]  # without the outermost on both sides
    return f"; the last {RECENT} trials lie within {width:.0%} of it"


def _pruning(database: Database, view: StudyView, found: Results, audited: Audit | None) -> Iterator[str]:
    stopped = found.of_state("pruned") | found.of_state("paused")
    steps = found.steps
    if view.spec is not None and view.spec.pruner.name == "none" and not stopped.any():
        return
    yield from _paused(found, trials_with(database, view.study_id, "promote"))
    saved = saved_by_pruning(steps[stopped], steps[found.of_state("complete")], steps)
    if saved is None:
        yield "No trial has finished yet." if stopped.any() else "No trial has been stopped early yet."
        return
    yield (
        f"{saved.pruned} of {saved.pruned + saved.whole} trials were stopped early. A complete trial takes "
        f"{saved.full_steps:g} steps, so that saved about {saved.steps:,.0f} steps, {saved.share:.0%} of the total."
    )
    if kept := trials_with(database, view.study_id, "keep"):
        yield f"To audit the pruner, {len(kept)} trials that it would have stopped ran on."
    if audited is not None and audited.audited:
        yield sentence(audited.text)


def _paused(found: Results, promoted: Sequence[int]) -> Iterator[str]:
    if waiting := int(found.of_state("paused").sum()):
        verb, they = ("is", "it uses") if waiting == 1 else ("are", "they use")
        yield f"{_trials(waiting)} {verb} paused: {they} no resources and may continue."
    if promoted:
        finished = int(np.isin(found.numbers[found.of_state("complete")], promoted).sum())
        yield f"{len(promoted)} were paused and promoted; {finished} of them have finished."


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _best(database: Database, view: StudyView, found: Results) -> Iterator[str]:
    answer = recommended_trials(database, view, found)
    if answer is None:
        return
    resulted = found.of_state("complete") | found.of_state("pruned")
    later = int((resulted & (found.numbers > answer.number)).sum())
    evidence = answer.describe(view.shared_seeds) or f"observed {answer.mean:.6g}"
    yield f"Trial {answer.number} is recommended: {evidence}; {_trials(later)} finished after it."
    if view.shared_seeds is not None and answer.deviation is not None:
        yield f"The effect of each of {view.shared_seeds} training seeds on all trials alike is removed from that."
    if answer.luckiest != answer.number:
        yield f"Trial {answer.luckiest} has the best observed value, {answer.luck}."


def _standing(view: StudyView, found: Results) -> Iterator[str]:
    is_failed = view.state is StudyStatus.FAILED
    stands = "It failed" if is_failed else f"It is {view.state}"
    yield f"{stands}: {view.reason}." if view.reason else f"{stands}."
    if view.unattended:
        yield f"No process runs it; `{view.resume_command}` continues it."
    if view.budget is not None:
        yield f"{view.fraction:.0%} of its budget is spent."
    forecast = expected(view, found)
    if forecast is not None and forecast.text not in view.reason:
        yield sentence(forecast.text)
