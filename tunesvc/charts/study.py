"""A study's page: which charts it has, and what they are made of. Reads through `insights` only."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunesvc import insights
from tunesvc.charts.chart import Chart, finished, short
from tunesvc.charts.page import page
from tunesvc.charts.parameters import importance, parallel, parameter_names, slices
from tunesvc.charts.progress import choose_curves, history, learning_curves, timeline
from tunesvc.charts.tradeoff import pareto
from tunesvc.insights import StudyView, TrialRow
from tunesvc.store.database import Database

if TYPE_CHECKING:
    import optuna

_ENOUGH = 10
"""Complete trials from which on importances mean something."""


def study_page(database: Database, study: StudyView, importances: Mapping[str, float] | None = None) -> str:
    """The HTML page of a study.

    Args:
        database: where to read.
        study: which.
        importances: of the first objective's parameters, see `importances_of`.
    """
    trials = insights.trials(database, study.study_id)
    several = len(study.objectives) > 1
    best = insights.best(database, study.study_id, limit=10)
    charts = _charts(database, study, trials, best, importances)
    heads, rows = _best_table(study, best)
    return page(
        study.name,
        charts,
        badge=str(study.state),
        about=_about(study),
        facts=_facts(study),
        table=("Pareto front" if several else "Best trials", heads, rows) if best else None,
    )


def importances_of(study: optuna.Study, objective: int = 0) -> dict[str, float] | None:
    """Each parameter's share in the differences of the objective, by PED-ANOVA; None with too few trials.

    Watanabe, Bansal, Hutter: PED-ANOVA (IJCAI 2023). Optuna's default evaluator would need scikit-learn.
    """
    import optuna

    done = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if all(math.isfinite(value) for value in trial.values)
    ]
    if len(done) < _ENOUGH or not set.intersection(*(set(trial.params) for trial in done)):
        return None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    if len(study.directions) == 1:
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
    sign = -1 if study.directions[objective] == optuna.study.StudyDirection.MAXIMIZE else 1
    with warnings.catch_warnings():
        # it says that low targets count as good ones, which the sign has seen to
        warnings.simplefilter("ignore", UserWarning)
        return optuna.importance.get_param_importances(
            study, evaluator=evaluator, target=lambda trial: sign * trial.values[objective]
        )


def _charts(
    database: Database,
    study: StudyView,
    trials: Sequence[TrialRow],
    best: Sequence[TrialRow],
    importances: Mapping[str, float] | None,
) -> list[Chart]:
    objective = study.objectives[0]
    charts = [history(one, trials, i) for i, one in enumerate(study.objectives)]
    if len(study.objectives) > 1:
        front = insights.best(database, study.study_id)
        charts.insert(0, pareto(study.objectives, trials, front))
    else:
        numbers = choose_curves(objective, trials)
        curves = insights.curves(database, study.study_id, numbers=numbers, max_points=200)
        charts.append(learning_curves(objective, trials, curves, best[0].number if best else None))
    attempts = insights.attempts(database, study.study_id)
    log = _log_parameters(study)
    charts += [parallel(objective, trials, log=log), slices(objective, trials, log=log)]
    charts += [importance(importances, objective), timeline(attempts)]
    return charts


def _log_parameters(study: StudyView) -> set[str] | None:
    """Parameters that are searched on a logarithmic scale; None when the spec does not say."""
    if study.spec is None or study.spec.define_by_run:
        return None
    return {name for name, parameter in study.spec.parameters.items() if getattr(parameter, "log", False)}


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
    names = parameter_names(finished(best))
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
