"""Every pruner that a spec can name. Optuna's `BasePruner` is the seam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.pruners import BasePruner

from tunesvc.errors import SpecError
from tunesvc.search.options import build, choose
from tunesvc.spec import Pruner, StudySpec


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner that a spec names.

    Raises:
        SpecError: no such pruner, wrong options, or pruning asked for with several metrics.
    """
    if len(spec.metrics) > 1 and spec.pruner.name != "none":
        raise SpecError(f"pruner {spec.pruner.name!r} compares one metric; with several, use `pruner: none`")
    return _named(spec.pruner.name, spec.pruner.options)


def last_step(spec: StudySpec) -> int | None:
    """The step from which on nothing is pruned, because the trial is as good as finished: the pruner's `max`."""
    last = spec.pruner.options.get("max")
    return last if isinstance(last, int) else None


def _named(name: str, options: dict[str, Any]) -> BasePruner:
    make = choose("pruner", name, _MAKERS)
    return build(f"pruner {name!r}", make, options)


def _asha(
    min: int = 1, max: int | None = None, eta: int = 4, min_early_stopping_rate: int = 0, bootstrap_count: int = 0
) -> BasePruner:
    _check_rungs(min, max, eta)
    return optuna.pruners.SuccessiveHalvingPruner(min, eta, min_early_stopping_rate, bootstrap_count)


def _hyperband(max: int, min: int = 1, eta: int = 3, bootstrap_count: int = 0) -> BasePruner:
    _check_rungs(min, max, eta)
    return optuna.pruners.HyperbandPruner(min, max, eta, bootstrap_count)


def _check_rungs(min: int, max: int | None, eta: int) -> None:
    if min < 1:
        raise ValueError(f"min ({min}) is the first step at which a trial may be stopped: at least 1")
    if eta < 2:
        raise ValueError(f"eta ({eta}) is how many times fewer trials go on at each rung: at least 2")
    if max is not None and max < min:
        raise ValueError(f"max ({max}) is below min ({min})")


def _patient(patience: int, wrapped: Any = None, min_delta: float = 0.0) -> BasePruner:
    inner = None
    if wrapped is not None:
        spec = Pruner.model_validate({"name": wrapped} if isinstance(wrapped, str) else wrapped)
        inner = _named(spec.name, spec.options)
    return optuna.pruners.PatientPruner(inner, patience, min_delta)


_MAKERS: dict[str, Callable[..., BasePruner]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "threshold": optuna.pruners.ThresholdPruner,
    "patient": _patient,
    "wilcoxon": optuna.pruners.WilcoxonPruner,
    "none": optuna.pruners.NopPruner,
}
