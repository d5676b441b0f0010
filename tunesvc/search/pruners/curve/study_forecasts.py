"""The models that forecast the trials of each study, shared by its pruner and its samplers."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from optuna.study import Study, StudyDirection

from tunesvc.search.pruners.curve.block_model import BlockModel
from tunesvc.search.pruners.curve.curve_model import CurveModel
from tunesvc.search.pruners.curve.forecasts import ForecastModel
from tunesvc.search.tracking.finished import resumed_in
from tunesvc.spec import Evaluation


def declare_evaluation(study: Study, evaluation: Evaluation | None) -> None:
    """Let trials of a study be forecast from folds or repeats, if those are their steps.

    With plain Optuna, `PairedPruner` says so.
    """
    if evaluation is not None and evaluation.is_stepwise:
        _EVALUATIONS[study] = evaluation


def models_of(study: Study) -> Sequence[ForecastModel]:
    """Return the shared models of a study, one per objective, updated by its current trials."""
    if study not in _MODELS:
        has_several = len(study.directions) > 1
        models = []
        for index, direction in enumerate(study.directions):
            models.append(_model(study, direction, index if has_several else None))
        _MODELS[study] = models
    trials = study.get_trials(deepcopy=False)
    for model in _MODELS[study]:
        model.update(trials, resumed_in(study))
    return _MODELS[study]


def model_of(study: Study) -> ForecastModel:
    """Return the model of a study of one objective."""
    (model,) = models_of(study)
    return model


def refit_models(study: Study) -> None:
    """Update the models of a study, if it has any.

    Called at every step of a study, it makes the fits depend on the course of the study alone, not
    on the times at which samplers and pruners use them.
    """
    if study in _MODELS:
        models_of(study)


def refit(study: Study) -> None:
    """Fit the models of a study from scratch, as after a restart."""
    for model in _MODELS.get(study, ()):
        model.forget()
    refit_models(study)


def reread(study: Study) -> None:
    """Make the models read all trials again, after a change of distributions; fits stay."""
    for model in _MODELS.get(study, ()):
        model.invalidate()


def _model(study: Study, direction: StudyDirection, objective: int | None) -> ForecastModel:
    evaluation = _EVALUATIONS.get(study) or getattr(study.pruner, "evaluation", None)
    if evaluation is None:
        return CurveModel(direction, objective)
    return BlockModel(direction, evaluation, objective)


_MODELS: WeakKeyDictionary[Study, Sequence[ForecastModel]] = WeakKeyDictionary()
_EVALUATIONS: WeakKeyDictionary[Study, Evaluation] = WeakKeyDictionary()
