"""Frameworks' own callbacks that report to a trial: `from tunesvc.integrations import ...`.

Each framework is loaded with the first name of its module, so that none is needed for another.
Nothing of tunesvc imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesvc.integrations.lightgbm import LightGBMReporter

_HOMES = {
    "LightGBMReporter": "lightgbm",
}
"""Public names, and the module of each, which bears the name of its extra."""

__all__ = ["LightGBMReporter"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesvc.integrations' has no attribute {name!r}")
    home = _HOMES[name]
    try:
        return getattr(import_module(f"tunesvc.integrations.{home}"), name)
    except ModuleNotFoundError as error:
        text = f"{name} needs {error.name}: pip install 'tunesvc[{home}]'"
        raise ImportError(text, name=error.name) from error


def __dir__() -> list[str]:
    return sorted(__all__)
