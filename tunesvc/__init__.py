"""tunesvc: Bayesian hyperparameter tuning as a service.

Everything public is named here and loaded on first use, so that `import tunesvc` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesvc.api import delete_study, load_study, run, storage, studies
    from tunesvc.decorator import Choice, Float, Int, tunable
    from tunesvc.errors import Pruned, StudyFailed, TuneError
    from tunesvc.objective import Trial
    from tunesvc.program import current_trial
    from tunesvc.search.asha import AshaPruner
    from tunesvc.search.auto import AutoSampler
    from tunesvc.search.curve_pruner import CurvePruner
    from tunesvc.search.gp.sampler import GPSampler
    from tunesvc.search.tpe import TPESampler
    from tunesvc.spec import StudySpec
    from tunesvc.study import Study

__version__ = "0.1.0"

_HOMES = {
    "AshaPruner": "tunesvc.search.asha",
    "AutoSampler": "tunesvc.search.auto",
    "Choice": "tunesvc.decorator",
    "CurvePruner": "tunesvc.search.curve_pruner",
    "Float": "tunesvc.decorator",
    "GPSampler": "tunesvc.search.gp.sampler",
    "Int": "tunesvc.decorator",
    "Pruned": "tunesvc.errors",
    "Study": "tunesvc.study",
    "StudyFailed": "tunesvc.errors",
    "StudySpec": "tunesvc.spec",
    "TPESampler": "tunesvc.search.tpe",
    "Trial": "tunesvc.objective",
    "TuneError": "tunesvc.errors",
    "current_trial": "tunesvc.program",
    "delete_study": "tunesvc.api",
    "load_study": "tunesvc.api",
    "run": "tunesvc.api",
    "storage": "tunesvc.api",
    "studies": "tunesvc.api",
    "tunable": "tunesvc.decorator",
}

__all__ = [
    "AshaPruner",
    "AutoSampler",
    "Choice",
    "CurvePruner",
    "Float",
    "GPSampler",
    "Int",
    "Pruned",
    "Study",
    "StudyFailed",
    "StudySpec",
    "TPESampler",
    "Trial",
    "TuneError",
    "current_trial",
    "delete_study",
    "load_study",
    "run",
    "storage",
    "studies",
    "tunable",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesvc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
