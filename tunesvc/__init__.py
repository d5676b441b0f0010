"""tunesvc: Bayesian hyperparameter tuning as a service.

Everything public is named here and loaded on first use, so that `import tunesvc` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesvc.api import delete_study, load_study, run, storage, studies
    from tunesvc.champions.champion_functions import (
        champion_history,
        list_champions,
        load_champion,
        promote,
        rollback,
        watch,
    )
    from tunesvc.client.model_loading import load_model
    from tunesvc.client.remote.http_client import Client
    from tunesvc.decorator import Choice, Float, Int, tunable
    from tunesvc.errors import Pruned, StudyFailed, TuneError
    from tunesvc.preparation.fitted_preparation import load_preparation
    from tunesvc.search.pruners.asha import AshaPruner
    from tunesvc.search.pruners.curve.curve_pruner import CurvePruner
    from tunesvc.search.pruners.curve.paired_pruner import PairedPruner
    from tunesvc.search.samplers.auto_sampler import AutoSampler
    from tunesvc.search.samplers.gp.gp_sampler import GPSampler
    from tunesvc.search.samplers.tpe.tpe_sampler import TPESampler
    from tunesvc.spec import StudySpec
    from tunesvc.study import Study
    from tunesvc.subprocess_trial import current_trial
    from tunesvc.trial import Trial

__version__ = "0.1.0"

_HOMES = {
    "AshaPruner": "tunesvc.search.pruners.asha",
    "AutoSampler": "tunesvc.search.samplers.auto_sampler",
    "Choice": "tunesvc.decorator",
    "Client": "tunesvc.client.remote.http_client",
    "CurvePruner": "tunesvc.search.pruners.curve.curve_pruner",
    "Float": "tunesvc.decorator",
    "GPSampler": "tunesvc.search.samplers.gp.gp_sampler",
    "Int": "tunesvc.decorator",
    "PairedPruner": "tunesvc.search.pruners.curve.paired_pruner",
    "Pruned": "tunesvc.errors",
    "Study": "tunesvc.study",
    "StudyFailed": "tunesvc.errors",
    "StudySpec": "tunesvc.spec",
    "TPESampler": "tunesvc.search.samplers.tpe.tpe_sampler",
    "Trial": "tunesvc.trial",
    "TuneError": "tunesvc.errors",
    "champion_history": "tunesvc.champions.champion_functions",
    "current_trial": "tunesvc.subprocess_trial",
    "delete_study": "tunesvc.api",
    "list_champions": "tunesvc.champions.champion_functions",
    "load_champion": "tunesvc.champions.champion_functions",
    "load_model": "tunesvc.client.model_loading",
    "load_preparation": "tunesvc.preparation.fitted_preparation",
    "load_study": "tunesvc.api",
    "promote": "tunesvc.champions.champion_functions",
    "rollback": "tunesvc.champions.champion_functions",
    "run": "tunesvc.api",
    "storage": "tunesvc.api",
    "studies": "tunesvc.api",
    "tunable": "tunesvc.decorator",
    "watch": "tunesvc.champions.champion_functions",
}

__all__ = [
    "AshaPruner",
    "AutoSampler",
    "Choice",
    "Client",
    "CurvePruner",
    "Float",
    "GPSampler",
    "Int",
    "PairedPruner",
    "Pruned",
    "Study",
    "StudyFailed",
    "StudySpec",
    "TPESampler",
    "Trial",
    "TuneError",
    "champion_history",
    "current_trial",
    "delete_study",
    "list_champions",
    "load_champion",
    "load_model",
    "load_preparation",
    "load_study",
    "promote",
    "rollback",
    "run",
    "storage",
    "studies",
    "tunable",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesvc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
