"""Every pruner that a spec can name. Optuna's `BasePruner` is the seam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.pruners import BasePruner

from tunesvc.errors import SpecError
from tunesvc.search.asha import AshaPruner, check_ladder
from tunesvc.search.curve_pruner import CurvePruner
from tunesvc.search.options import build, choose
from tunesvc.spec import Pruner, StudySpec
from tunesvc.spec.checks import PRUNERS_OF_SEVERAL as SEVERAL


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner that a spec names.

    Raises:
        SpecError: no such pruner, wrong options, or one of Optuna's with several metrics.
    """
    if len(spec.metrics) > 1 and spec.pruner.name not in SEVERAL:
        raise SpecError(f"pruner {spec.pruner.name!r} compares one metric; with several, use {', '.join(SEVERAL)}")
    return _named(spec.pruner.name, spec.pruner.options)


def last_step(spec: StudySpec) -> int | None:
    """The step from which on nothing is pruned, because the trial is as good as finished: the pruner's `max`."""
    last = spec.pruner.options.get("max")
    return last if isinstance(last, int) else None


def _named(name: str, options: dict[str, Any]) -> BasePruner:
    make = choose("pruner", name, _MAKERS)
    return build(f"pruner {name!r}", make, options)


def _hyperband(max: int, min: int = 1, eta: int = 3, bootstrap_count: int = 0) -> BasePruner:
    check_ladder(min, max, eta)
    return optuna.pruners.HyperbandPruner(min, max, eta, bootstrap_count)


def _patient(patience: int, wrapped: Any = None, min_delta: float = 0.0) -> BasePruner:
    inner = None
    if wrapped is not None:
        spec = Pruner.model_validate({"name": wrapped} if isinstance(wrapped, str) else wrapped)
        inner = _named(spec.name, spec.options)
    return optuna.pruners.PatientPruner(inner, patience, min_delta)


_MAKERS: dict[str, Callable[..., BasePruner]] = {
    "auto": CurvePruner,  # which stops nothing where nothing is reported
    "curve": CurvePruner,
    "asha": AshaPruner,
    "hyperband": _hyperband,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "threshold": optuna.pruners.ThresholdPruner,
    "patient": _patient,
    "wilcoxon": optuna.pruners.WilcoxonPruner,
    "none": optuna.pruners.NopPruner,
}
