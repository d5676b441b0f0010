"""Every pruner that a spec can name. All implement Optuna's `BasePruner`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.pruners import BasePruner
from pydantic import ValidationError

from tunesvc.errors import SpecError
from tunesvc.search.pruners.asha import AshaPruner, check_ladder
from tunesvc.search.pruners.curve.curve_pruner import CurvePruner
from tunesvc.search.pruners.curve.paired_pruner import CHANCE, STARTUP, PairedPruner
from tunesvc.search.registry.component_options import (
    Given,
    OptionError,
    build,
    build_imported,
    choose,
    required,
)
from tunesvc.spec import Evaluation, Pruner, StudySpec
from tunesvc.spec.checks import PRUNERS_OF_SEVERAL as SEVERAL
from tunesvc.spec.diagnostics import Path, SpecIssue
from tunesvc.spec.sections.components import OBJECT


def make_pruner(spec: StudySpec, given: Given[BasePruner] = None) -> BasePruner:
    """Return the pruner that a spec names.

    Args:
        spec: of the study.
        given: the pruner itself, for a study that was started in Python with an object; the class
            or function, for a spec with an import path.

    Raises:
        SpecError: no such pruner, wrong options, or one of Optuna's with several metrics.
    """
    if len(spec.metrics) > 1 and spec.pruner.name not in SEVERAL:
        name, several = spec.pruner.name, ", ".join(SEVERAL)
        raise SpecError(f"pruner {name!r} compares one metric; with several, use {several}")
    if spec.pruner.name == OBJECT:
        return required("pruner", spec.pruner, given, BasePruner)
    if spec.pruner.is_imported:
        return build_imported("pruner", spec.pruner, given, BasePruner, {"seed": spec.seed})
    if spec.evaluation is not None and spec.is_stepwise and spec.pruner.name in _OF_FOLDS:
        make = _paired(spec.evaluation)
        return build(("pruner",), spec.pruner.name, make, spec.pruner.options)
    return _named(spec.pruner.name, spec.pruner.options)


def last_step(spec: StudySpec) -> int | None:
    """Return the step from which on nothing is pruned: the pruner's `max`."""
    last = None if spec.pruner.is_foreign else spec.pruner.options.get("max")
    return last if isinstance(last, int) else None


def _named(
    name: str,
    options: dict[str, Any],
    path: Path = ("pruner",),
) -> BasePruner:
    return build(path, name, choose(path, name, _MAKERS), options)


_OF_FOLDS = ("auto", "paired")
"""Names of `PairedPruner` where folds or repeats are the steps of trials."""


def _paired(evaluation: Evaluation) -> Callable[..., BasePruner]:
    """Return a constructor of which the study's evaluation is no option."""

    def made(
        chance: float = CHANCE, startup: int = STARTUP, audit: float = 0.01, seed: int = 0
    ) -> BasePruner:
        return PairedPruner(
            evaluation.folds,
            repeats=evaluation.repeats,
            per_trial=evaluation.per_trial,
            chance=chance,
            startup=startup,
            audit=audit,
            seed=seed,
        )

    return made


def _hyperband(
    max: int,
    min: int = 1,
    eta: int = 3,
    bootstrap_count: int = 0,
) -> BasePruner:
    check_ladder(min, max, eta)
    return optuna.pruners.HyperbandPruner(min, max, eta, bootstrap_count)


def _patient(
    patience: int,
    wrapped: Any = None,
    min_delta: float = 0.0,
) -> BasePruner:
    inner = None if wrapped is None else _wrapped(wrapped)
    return optuna.pruners.PatientPruner(inner, patience, min_delta)


def _wrapped(written: Any) -> BasePruner:
    path = ("pruner", "wrapped")
    try:
        spec = Pruner.model_validate({"name": written} if isinstance(written, str) else written)
    except ValidationError:
        text = "write a pruner's name, or a mapping with its `name`"
        raise OptionError(SpecIssue(path, text)) from None
    return _named(spec.name, spec.options, path)


_MAKERS: dict[str, Callable[..., BasePruner]] = {
    "auto": CurvePruner,  # without reports it stops nothing
    "curve": CurvePruner,
    "paired": PairedPruner,  # of a study, see `_OF_FOLDS`
    "asha": AshaPruner,
    "hyperband": _hyperband,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "threshold": optuna.pruners.ThresholdPruner,
    "patient": _patient,
    "wilcoxon": optuna.pruners.WilcoxonPruner,
    "none": optuna.pruners.NopPruner,
}
