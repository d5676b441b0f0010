"""A study's page: its figures, its best trials, and what it has come to. Reads through `insights` only."""

from __future__ import annotations

from collections.abc import Sequence

from tunesvc import insights
from tunesvc.charts.chart import short
from tunesvc.charts.figures import Reader, Wanted, draw, kinds_of
from tunesvc.charts.page import page
from tunesvc.insights import StudyView, TrialRow
from tunesvc.store.database import Database


def study_page(database: Database, study: StudyView) -> str:
    """The HTML page of a study."""
    several = len(study.objectives) > 1
    best = insights.best(database, study.study_id, limit=10)
    reader = Reader(database, study)
    charts = [
        draw(kind, reader, Wanted(index))
        for kind in kinds_of(study)
        for index in range(len(study.objectives) if kind.has_objective else 1)
    ]
    heads, rows = _best_table(study, best)
    return page(
        study.name,
        charts,
        badge=str(study.state),
        about=_about(study),
        facts=_facts(study),
        table=("Pareto front" if several else "Best trials", heads, rows) if best else None,
    )


def _facts(study: StudyView) -> dict[str, str]:
    counts = study.counts
    facts = {"trials": f"{counts.total:,}", "complete": f"{counts.complete:,}", "pruned": f"{counts.pruned:,}"}
    facts["failed"] = f"{counts.failed:,}"
    if study.best_value is not None:
        facts[f"best {study.objectives[0].name}"] = short(study.best_value)
    facts["time"] = f"{study.active_s / 60:.1f} min" if study.active_s < 3600 else f"{study.active_s / 3600:.1f} h"
    if study.gpu_hours:
        facts["GPU hours"] = f"{study.gpu_hours:.3g}"
    return facts


def _about(study: StudyView) -> str:
    goals = ", ".join(f"{objective.goal} {objective.name}" for objective in study.objectives)
    description = study.spec.description if study.spec else ""
    return " — ".join(filter(None, [goals, description, study.reason]))


def _best_table(study: StudyView, best: Sequence[TrialRow]) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(name for trial in best for name in trial.params))
    heads = ["trial", *(objective.name for objective in study.objectives), *names]
    rows = [
        [
            str(trial.number),
            *(short(value) for value in trial.values or ()),
            *(short(trial.params[name]) if name in trial.params else "–" for name in names),
        ]
        for trial in best
    ]
    return heads, rows
