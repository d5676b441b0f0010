"""A study as one file to send to somebody: what it has come to, whether it is well, its figures, how it was searched.

Reads through `queries` only.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata

import yaml

from tunesvc.charts.chart import Chart, short
from tunesvc.charts.figures import FigureOptions, Reader, draw, kinds_of
from tunesvc.charts.page import Card, CodeBlock, Sentences, TableBlock, page
from tunesvc.db.engine.database import Database
from tunesvc.queries.explain.explanation import explain_study
from tunesvc.queries.health import health
from tunesvc.queries.recommendation import answer_rows, get_recommendation
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.trials.trial_table import list_best_trials
from tunesvc.spec.yaml.document import written
from tunesvc.util.formatting import duration, number, parameter

LISTED = 50
"""The best trials that are listed."""
_PACKAGES = ("tunesvc", "optuna", "ray", "numpy", "scipy")


def report(database: Database, study: StudyView) -> str:
    """The HTML of a study's report."""
    best = list_best_trials(database, study.study_id, limit=LISTED)
    return page(
        study.name,
        list(_parts(database, study, best)),
        badge=str(study.state),
        about=_about(study),
        facts=_facts(study),
    )


def _parts(
    database: Database,
    study: StudyView,
    best: Sequence[TrialRow],
) -> Iterator[Card | Chart]:
    yield _answer(database, study)
    yield _health(database, study)
    yield from _figures(database, study)
    if best:
        several = len(study.objectives) > 1
        there = study.counts.complete
        note = f"the best {len(best)} of {there:,} complete trials" if there > len(best) and not several else ""
        yield Card(
            "Pareto front" if several else "Best trials",
            [_table(study, best)],
            note,
        )
    told = explain_study(database, study)
    yield Card(
        "How it was searched",
        [Sentences([(one.topic, one.text) for one in told.statements])],
    )
    if study.spec is not None:
        yield Card("Study file", [CodeBlock(study.source_text or written(study.spec))])
    yield Card("Made with", [Sentences(list(_versions()))])


def _answer(database: Database, study: StudyView) -> Card:
    """The parameters to take."""
    answer = get_recommendation(database, study)
    rows = answer_rows(database, study, answer)[:1]
    if not rows:
        return Card(
            "Parameters to take",
            [Sentences([("", "No trial is complete and feasible yet.")])],
        )
    values = ", ".join(
        f"{objective.name} = {number(value)}"
        for objective, value in zip(study.objectives, rows[0].values or (), strict=False)
    )
    told = [("observed", f"Trial {rows[0].number}: {values}.")]
    if answer is not None and (evidence := answer.describe(study.shared_seeds)):
        told.append(("evidence", f"{evidence[0].upper()}{evidence[1:]}."))
    if answer is not None and answer.luckiest != answer.number:
        told.append(
            (
                "luckiest",
                f"Trial {answer.luckiest} has the best observed value, {answer.luck}.",
            )
        )
    if len(study.objectives) > 1:
        told.append(
            (
                "choice",
                "One of the front, which is listed below: no other beats it in every objective.",
            )
        )
    params = yaml.safe_dump(dict(rows[0].params), sort_keys=False, allow_unicode=True)
    return Card("Parameters to take", [Sentences(told), CodeBlock(params)], is_wide=False)


def _health(database: Database, study: StudyView) -> Card:
    examined = health(database, study)
    told = [(check.name, f"{finding.text} {finding.advice}") for check, finding in examined.findings]
    early = [check.name for check in examined.checks if check.silence is not None and check.silence.is_early]
    silent = [check.name for check in examined.checks if check.silence is not None and not check.silence.is_early]
    told += [("nothing found", ", ".join(silent))] * bool(silent)
    told += [("too early", ", ".join(early))] * bool(early)
    return Card("Health", [Sentences(told)], is_wide=False)


def _figures(database: Database, study: StudyView) -> Iterator[Chart]:
    reader = Reader(database, study)
    for kind in kinds_of(study):
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
    facts["as of"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return facts


def _about(study: StudyView) -> str:
    goals = ", ".join(f"{objective.goal} {objective.name}" for objective in study.objectives)
    description = study.spec.description if study.spec else ""
    return " — ".join(filter(None, [goals, description, study.reason]))


def _table(study: StudyView, best: Sequence[TrialRow]) -> TableBlock:
    names = list(dict.fromkeys(name for trial in best for name in trial.params))
    heads = ["trial", *(objective.name for objective in study.objectives), *names]
    rows = [
        [
            str(trial.number),
            *(short(value) for value in trial.values or ()),
            *(parameter(trial.params[name]) if name in trial.params else "–" for name in names),
        ]
        for trial in best
    ]
    return TableBlock(heads, rows)


def _versions() -> Iterator[tuple[str, str]]:
    yield from ((name, metadata.version(name)) for name in _PACKAGES)
    yield "Python", platform.python_version()
