"""Report of a study as one file to share: results, health, figures and explanation.

Reads through `queries` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunesvc.charts.chart import Chart, short
from tunesvc.charts.figures import FigureKind, FigureOptions, Reader, draw, kinds_of
from tunesvc.charts.page import Card, CodeBlock, Sentences, TableBlock, page
from tunesvc.charts.report.first_page import FirstPage
from tunesvc.db.engine.database import Database
from tunesvc.queries.cost.outlook import get_outlook
from tunesvc.queries.cost.spending import list_by_failure
from tunesvc.queries.explain.explanation import explain_study
from tunesvc.queries.health import Health, health
from tunesvc.queries.recommendation import answer_rows, get_recommendation
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.trials.trial_table import list_best_trials
from tunesvc.spec.yaml.document import to_yaml, written
from tunesvc.util.formatting import duration, names_in, number, parameter
from tunesvc.util.versions import package_versions

if TYPE_CHECKING:
    from tunesvc.search.analysis.recommend import Recommendation

Answer = tuple["Recommendation | None", Sequence[TrialRow]]
"""The recommendation, and its trials."""
LISTED = 50
"""Most trials in the list of the best."""


def report(database: Database, study: StudyView) -> str:
    """Return a study's report as HTML."""
    best = list_best_trials(database, study.study_id, limit=LISTED)
    reader = Reader(database, study)
    answer = get_recommendation(database, study, reader.results())
    rows = answer_rows(database, study, answer)
    examined = health(database, study)
    return page(
        study.name,
        list(_parts(database, study, best, (answer, rows), examined, reader)),
        badge=str(study.state),
        about=_about(study),
        facts=_facts(study),
        first_page=list(_first_page(database, study, (answer, rows), examined, reader)),
    )


def _first_page(
    database: Database,
    study: StudyView,
    answer: Answer,
    examined: Health,
    reader: Reader,
) -> Iterator[Card | Chart]:
    with database.engine.connect() as connection:
        spent = list_by_failure(connection, study)
    recommendation, rows = answer
    written_from = FirstPage(
        study,
        recommendation,
        next(iter(rows), None),
        get_outlook(study, reader.results()),
        examined,
        spent,
    )
    yield Card("In short", [Sentences(written_from.sentences())])
    if FigureKind.COST in kinds_of(study):
        yield replace(reader.cost(), wide=True)


def _parts(
    database: Database,
    study: StudyView,
    best: Sequence[TrialRow],
    answer: Answer,
    examined: Health,
    reader: Reader,
) -> Iterator[Card | Chart]:
    yield _answer_card(study, *answer)
    yield _health(examined)
    yield from _figures(study, reader)
    if best:
        yield _best(study, best)
    explanation = explain_study(database, study)
    sentences = [(one.topic, one.text) for one in explanation.statements]
    yield Card("How it was searched", [Sentences(sentences)])
    if study.spec is not None:
        yield Card("Study file", [CodeBlock(study.source_text or written(study.spec))])
    yield Card("Made with", [Sentences(package_versions())])


def _best(study: StudyView, best: Sequence[TrialRow]) -> Card:
    table = _table(study, best)
    if len(study.objectives) > 1:
        return Card("Pareto front", [table])
    complete = study.counts.complete
    note = ""
    if complete > len(best):
        note = f"the best {len(best)} of {complete:,} complete trials"
    return Card("Best trials", [table], note)


def _answer_card(
    study: StudyView,
    answer: Recommendation | None,
    rows: Sequence[TrialRow],
) -> Card:
    """Return the card with the recommended parameters."""
    if not rows:
        nothing = Sentences([("", "No trial is complete and feasible yet.")])
        return Card("Parameters to take", [nothing])
    sentences = Sentences(list(_describe_answer(study, answer, rows[0])))
    params = CodeBlock(to_yaml(dict(rows[0].params)))
    return Card("Parameters to take", [sentences, params], is_wide=False)


def _describe_answer(
    study: StudyView,
    answer: Recommendation | None,
    row: TrialRow,
) -> Iterator[tuple[str, str]]:
    pairs = zip(study.objectives, row.values or (), strict=False)
    values = ", ".join(f"{objective.name} = {number(value)}" for objective, value in pairs)
    yield "observed", f"Trial {row.number}: {values}."
    if answer is not None and (evidence := answer.describe(study.shared_blocks_text)):
        yield "evidence", f"{evidence[0].upper()}{evidence[1:]}."
    if answer is not None and answer.luckiest != answer.number:
        best = f"Trial {answer.luckiest} has the best observed value"
        yield "luckiest", f"{best}, {answer.luck}."
    if answer is not None and (advice := answer.advise_seeds(study.name)):
        yield "seeds", f"{advice}."
    if len(study.objectives) > 1:
        front = "One of the front, which is listed below"
        yield "choice", f"{front}: no other beats it in every objective."


def _health(examined: Health) -> Card:
    sentences = []
    for check, finding in examined.findings:
        sentences.append((check.name, f"{finding.text} {finding.advice}"))
    early: list[str] = []
    passed: list[str] = []
    for check in examined.checks:
        if check.silence is not None:
            (early if check.silence.is_early else passed).append(check.name)
    if passed:
        sentences.append(("nothing found", ", ".join(passed)))
    if early:
        sentences.append(("too early", ", ".join(early)))
    return Card("Health", [Sentences(sentences)], is_wide=False)


def _figures(study: StudyView, reader: Reader) -> Iterator[Chart]:
    for kind in kinds_of(study):
        if kind is FigureKind.COST:
            continue  # on the first page
        for index in range(len(study.objectives) if kind.has_objective else 1):
            yield draw(kind, reader, FigureOptions(index))


def _facts(study: StudyView) -> dict[str, str]:
    counts = study.counts
    facts = {
        "trials": f"{counts.total:,}",
        "complete": f"{counts.complete:,}",
        "pruned": f"{counts.pruned:,}",
    }
    facts["failed"] = f"{counts.failed:,}"
    if counts.stopped:
        facts["stopped"] = f"{counts.stopped:,}"
    if study.best_value is not None:
        facts[f"best {study.objectives[0].name}"] = short(study.best_value)
    facts["time"] = duration(study.active_s)
    if study.gpu_hours:
        facts["GPU hours"] = f"{study.gpu_hours:.3g}"
    if study.prices is not None:
        facts["cost"] = study.cost_text
    facts["as of"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return facts


def _about(study: StudyView) -> str:
    goals = ", ".join(f"{objective.goal} {objective.name}" for objective in study.objectives)
    description = study.spec.description if study.spec else ""
    return " — ".join(filter(None, [goals, description, study.reason]))


def _table(study: StudyView, best: Sequence[TrialRow]) -> TableBlock:
    params = names_in(trial.params for trial in best)
    heads = ["trial", *(objective.name for objective in study.objectives), *params]
    rows = []
    for trial in best:
        values = [short(value) for value in trial.values or ()]
        shown = {name: parameter(value) for name, value in trial.params.items()}
        texts = [shown.get(name, "–") for name in params]
        rows.append([str(trial.number), *values, *texts])
    return TableBlock(heads, rows)
