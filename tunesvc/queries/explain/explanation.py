"""Explanations of a study and of its trials, in sentences.

Every sentence rests on stored rows: decisions with their details, attempts, curves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from tunesvc.db.engine.database import Database
from tunesvc.queries.explain.explored_ranges import count_tried_parts
from tunesvc.queries.explain.parameter_effects import describe_effects
from tunesvc.queries.explain.pruning_audit import Audit, get_audit
from tunesvc.queries.explain.stored_trials import about_study, last_asks, trials_with
from tunesvc.queries.explain.trial_attribution import (
    best_other,
    describe_attribution,
    get_attribution,
)
from tunesvc.queries.explain.trial_reasons import (
    TrialReasons,
    describe_judgements,
    describe_outcome,
    describe_proposal,
    describe_repeats,
    get_trial_reasons,
    sentence,
    with_full_stop,
)
from tunesvc.queries.fitted_model import get_surface
from tunesvc.queries.recommendation import get_recommendation
from tunesvc.queries.rows import AttemptRow, DecisionRow, StudyStatus, StudyView, TrialDetail
from tunesvc.queries.study_summary import expected, list_recent_decisions
from tunesvc.queries.trials.trial_results import Results, get_results, saved_by_pruning
from tunesvc.queries.trials.trial_table import get_trial as trial_detail
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.search.analysis.attribution import Attribution
from tunesvc.space.cardinality import count_values
from tunesvc.space.search_space import Space, place
from tunesvc.spec import ParamValue

RECENT = 20
"""Latest proposals that describe the sampler's current behaviour."""
NEWEST = 200
"""Newest trials that show the region of the current search."""
BINS = 10
"""Equal parts of a range that count as explored or not."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence with its topic."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of a study or of a trial."""

    study: str
    number: int | None
    """The trial; None for the study."""
    statements: tuple[Statement, ...]
    decisions: tuple[DecisionRow, ...]
    """Decisions of the trial; of a study, the newest ones."""
    audit: Audit | None = None
    """Error rate of a study's pruner, if audited."""
    reasons: TrialReasons | None = None
    """The statements about a trial in numbers."""
    local: Attribution | None = None
    """Effect of each parameter of a trial on the first objective, against the average."""
    against_best: Attribution | None = None
    """The same against the best observed trial. None with several objectives."""

    @property
    def title(self) -> str:
        """Name of the study, or of the trial."""
        return self.study if self.number is None else f"{self.study} · trial {self.number}"

    @property
    def topics(self) -> dict[str, list[str]]:
        """Sentences by topic."""
        sentences: dict[str, list[str]] = {}
        for one in self.statements:
            topic = one.topic[:1].upper() + one.topic[1:]
            sentences.setdefault(topic, []).append(one.text)
        return sentences

    def __str__(self) -> str:
        """Return the text that `tune explain` prints."""
        paragraphs = [self.title]
        for topic, sentences in self.topics.items():
            paragraphs.append("\n  ".join([topic, *sentences]))
        return "\n\n".join(paragraphs)


def explain_trial(
    database: Database,
    view: StudyView,
    number: int,
) -> Explanation | None:
    """Explain a trial's parameters and outcome; None if there is no trial of that number."""
    detail = trial_detail(database, view.study_id, number)
    if detail is None:
        return None
    reasons = get_trial_reasons(database, view, detail)
    statements = describe_trial(view, detail, reasons)
    surface = get_surface(database, view, get_results(database, view.study_id))
    local = get_attribution(surface, detail.row)
    best = best_other(database, view, number)
    against_best = None if best is None else get_attribution(surface, detail.row, best)
    for topic, found in (("effect of its parameters", local), ("against the best", against_best)):
        if found is not None:
            effects = describe_attribution(view.objectives[0], found)
            statements += _statements([(topic, effects)])
    return Explanation(
        view.name,
        number,
        statements,
        detail.decisions,
        reasons=reasons,
        local=local,
        against_best=against_best,
    )


def describe_trial(
    view: StudyView,
    detail: TrialDetail,
    reasons: TrialReasons,
) -> tuple[Statement, ...]:
    """Describe a trial by topic."""
    parts = (
        ("why these parameters", describe_proposal(detail, reasons.proposal)),
        ("attempts", _describe_attempts(detail)),
        ("pruning", describe_judgements(view, detail, reasons.judgements)),
        ("result", describe_outcome(view, detail.row, reasons)),
        ("confirmation", describe_repeats(view, reasons.repeats)),
    )
    return _statements(parts)


def explain_study(database: Database, view: StudyView) -> Explanation:
    """Explain a study: its search, explored ranges, pruning, best trial and state."""
    results = get_results(database, view.study_id)
    decisions = about_study(database, view.study_id)
    audit = get_audit(database, view)
    asks = last_asks(database, view.study_id, RECENT)
    parts = (
        ("the search", chain(_describe_search(asks), _reasons_with("widened", decisions))),
        ("what it knows from others", _reasons_with("carried", decisions)),
        ("explored", _describe_exploration(database, view)),
        ("the parameters", _describe_parameters(database, view, results)),
        ("pruning", _describe_pruning(database, view, results, audit)),
        ("the best", _describe_best(database, view, results)),
        ("state", _describe_state(view, results)),
    )
    newest = list_recent_decisions(database, view.study_id, view.counts.total, RECENT)[::-1]
    return Explanation(view.name, None, _statements(parts), newest, audit)


def _statements(parts: Sequence[tuple[str, Iterator[str]]]) -> tuple[Statement, ...]:
    statements = []
    for topic, sentences in parts:
        statements += [Statement(topic, text) for text in sentences]
    return tuple(statements)


def _reasons_with(key: str, decisions: Sequence[DecisionRow]) -> Iterator[str]:
    """Yield the reasons of the decisions whose details have a key."""
    for decision in decisions:
        if key in decision.details:
            yield sentence(decision.reason)


# --- a trial -------------------------------------------------------------------------------------


def _describe_attempts(detail: TrialDetail) -> Iterator[str]:
    attempts = detail.attempts
    if len(attempts) == 1 and attempts[0].failure is None:
        yield f"It ran in one attempt{_on_node(attempts[0])}."
    elif len(attempts) == 1:
        yield "It had 1 attempt:"
    elif attempts:
        yield f"It had {len(attempts)} attempts:"
    if len(attempts) > 1 or any(attempt.failure for attempt in attempts):
        for attempt in attempts:
            failure = f" ({attempt.failure}: {attempt.message})" if attempt.failure else ""
            yield f"Attempt {attempt.number}{_on_node(attempt)}: {attempt.state}{failure}."
    for decision in detail.decisions:
        if decision.kind in ("retry", "fail", "sampler", "code"):
            yield sentence(decision.reason)


def _on_node(attempt: AttemptRow) -> str:
    return f" on {attempt.node}" if attempt.node else ""


# --- a study -------------------------------------------------------------------------------------


def _describe_search(asks: Sequence[DecisionRow]) -> Iterator[str]:
    if not asks:
        yield "Nothing has been proposed yet."
        return
    phases = Counter(str(ask.details["phase"]) for ask in asks if ask.details.get("phase"))
    if phases:
        listed = ", ".join(f"{phase} {count}" for phase, count in phases.most_common())
        yield f"Phases of the last {len(asks)} proposals: {listed}."
    last = asks[-1]
    yield f"The last proposal, trial {last.trial_number}: {with_full_stop(last.reason)}"


def _describe_exploration(database: Database, view: StudyView) -> Iterator[str]:
    if view.spec is None or not view.spec.parameters:
        return
    space = Space(view.spec.parameters)
    newest = list_trials(database, view.study_id, order="newest", limit=NEWEST)[::-1]
    for name, distribution in space.distributions.items():
        parts = min(BINS, count_values(space.parameters[name]) or BINS)
        tried = count_tried_parts(database, view.study_id, name, distribution, parts)
        values = [row.params[name] for row in newest if name in row.params]
        if not tried:
            yield f"{name}: not tried yet."
        elif isinstance(distribution, CategoricalDistribution):
            yield f"{name}: {_describe_recent_choices(values[-RECENT:])}."
        else:
            focus = _describe_focus(distribution, values)
            yield f"{name}: tried in {tried} of {parts} equal parts of its range{focus}."


def _describe_recent_choices(values: Sequence[ParamValue]) -> str:
    if not values:
        return "not tried lately"
    common = Counter(str(value) for value in values).most_common(3)
    counts = ", ".join(f"{value} in {count}" for value, count in common)
    return f"of the last {len(values)} trials, {counts}"


def _describe_focus(distribution: BaseDistribution, values: Sequence[ParamValue]) -> str:
    """Return the share of a range that the newest trials use; empty with too few trials."""
    normalized = (place(distribution, value) for value in values)
    places = [at for at in normalized if at is not None]
    if len(places) < 2 * RECENT:
        return ""
    recent = sorted(places[-RECENT:])
    width = recent[-2] - recent[1]  # without the outermost on both sides
    return f"; the last {RECENT} trials lie within {width:.0%} of it"


def _describe_parameters(
    database: Database,
    view: StudyView,
    results: Results,
) -> Iterator[str]:
    from tunesvc.search.analysis.interaction_effects import interaction_effects

    surface = get_surface(database, view, results)
    if surface is not None:
        yield from describe_effects(view.objectives[0], interaction_effects(surface))


def _describe_pruning(
    database: Database,
    view: StudyView,
    results: Results,
    audit: Audit | None,
) -> Iterator[str]:
    if view.has_population:
        copied = len(trials_with(database, view.study_id, "exploit"))
        yield f"{_trials(copied)} ended in favour of a copy of a better one, or of the next stage."
        return
    stopped = results.of_state("pruned") | results.of_state("paused")
    steps = results.steps
    if view.spec is not None and view.spec.pruner.name == "none" and not stopped.any():
        return
    yield from _describe_pauses(results, trials_with(database, view.study_id, "promote"))
    saved = saved_by_pruning(
        steps[stopped],
        steps[results.of_state("complete")],
        steps,
    )
    if saved is None:
        what = "finished" if stopped.any() else "been stopped early"
        yield f"No trial has {what} yet."
        return
    yield (
        f"{saved.pruned} of {saved.pruned + saved.whole} trials were stopped early. A complete "
        f"trial takes {saved.full_steps:g} steps, so that saved about {saved.steps:,.0f} steps, "
        f"{saved.share:.0%} of the total."
    )
    if kept := trials_with(database, view.study_id, "keep"):
        yield f"To audit the pruner, {len(kept)} trials that it would have stopped ran on."
    if audit is not None and audit.audited:
        yield sentence(audit.text)


def _describe_pauses(results: Results, promoted: Sequence[int]) -> Iterator[str]:
    if paused := int(results.of_state("paused").sum()):
        verb, they = ("is", "it uses") if paused == 1 else ("are", "they use")
        yield f"{_trials(paused)} {verb} paused: {they} no resources and may continue."
    if promoted:
        complete = results.numbers[results.of_state("complete")]
        finished = int(np.isin(complete, promoted).sum())
        yield f"{len(promoted)} were paused and promoted; {finished} of them have finished."


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _describe_best(
    database: Database,
    view: StudyView,
    results: Results,
) -> Iterator[str]:
    answer = get_recommendation(database, view, results)
    if answer is None:
        return
    has_result = results.of_state("complete") | results.of_state("pruned")
    later = int((has_result & (results.numbers > answer.number)).sum())
    evidence = answer.describe(view.shared_blocks_text) or f"observed {answer.mean:.6g}"
    yield f"Trial {answer.number} is recommended: {evidence}; {_trials(later)} finished after it."
    if view.shared_blocks is not None and answer.deviation is not None:
        effect = f"The effect of each of {view.shared_blocks_text} on all trials alike"
        yield f"{effect} is removed from that."
    if answer.luckiest != answer.number:
        yield f"Trial {answer.luckiest} has the best observed value, {answer.luck}."
    if advice := answer.advise_seeds(view.name):
        yield f"{advice}."


def _describe_state(view: StudyView, results: Results) -> Iterator[str]:
    state = "It failed" if view.state is StudyStatus.FAILED else f"It is {view.state}"
    yield f"{state}: {view.reason}." if view.reason else f"{state}."
    if view.queued is not None:
        yield f"Its place in the queue is {view.queued.position}: {view.queued.reason}."
    if view.unattended:
        yield f"No process runs it; `{view.resume_command}` continues it."
    if view.budget is not None:
        yield f"{view.fraction:.0%} of its budget is spent."
    forecast = expected(view, results)
    if forecast is not None and forecast.text not in view.reason:
        yield sentence(forecast.text)
