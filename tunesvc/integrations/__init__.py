"""Frameworks' own callbacks that report to a trial: `from tunesvc.integrations import ...`.

Each framework is loaded with the first name of its module, so that none is needed for another.
Nothing of tunesvc imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesvc.integrations.catboost import CatBoostReporter
    from tunesvc.integrations.keras import KerasReporter
    from tunesvc.integrations.lightgbm import LightGBMReporter
    from tunesvc.integrations.lightning import LightningReporter
    from tunesvc.integrations.samplers.ax import AxSampler
    from tunesvc.integrations.samplers.nevergrad import NevergradSampler
    from tunesvc.integrations.samplers.smac import SmacSampler
    from tunesvc.integrations.scikit_learn import fit_in_steps
    from tunesvc.integrations.sklearn_search import TuneSearchCV
    from tunesvc.integrations.torch import TorchReporter
    from tunesvc.integrations.transformers import TransformersReporter
    from tunesvc.integrations.xgboost import XGBoostReporter

_HOMES = {
    "AxSampler": "samplers.ax",
    "CatBoostReporter": "catboost",
    "KerasReporter": "keras",
    "LightGBMReporter": "lightgbm",
    "LightningReporter": "lightning",
    "NevergradSampler": "samplers.nevergrad",
    "SmacSampler": "samplers.smac",
    "TorchReporter": "torch",
    "TransformersReporter": "transformers",
    "TuneSearchCV": "sklearn_search",
    "XGBoostReporter": "xgboost",
    "fit_in_steps": "scikit_learn",
}
"""Public names, and the module of each."""

_EXTRAS = {"scikit_learn": "sklearn", "sklearn_search": "sklearn"}
"""Extras that have other names than their modules."""

__all__ = [
    "AxSampler",
    "CatBoostReporter",
    "KerasReporter",
    "LightGBMReporter",
    "LightningReporter",
    "NevergradSampler",
    "SmacSampler",
    "TorchReporter",
    "TransformersReporter",
    "TuneSearchCV",
    "XGBoostReporter",
    "fit_in_steps",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesvc.integrations' has no attribute {name!r}")
    home = _HOMES[name]
    try:
        return getattr(import_module(f"tunesvc.integrations.{home}"), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(home, home.removeprefix("samplers."))
        text = f"{name} needs {error.name}: pip install 'tunesvc[{extra}]'"
        raise ImportError(text, name=error.name) from error


def __dir__() -> list[str]:
    return sorted(__all__)
