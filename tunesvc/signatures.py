"""Name and arguments of an objective, from its signature.

Imports neither Ray nor Optuna: their types are known by name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tunesvc.trial import Trial

_Parameter = inspect.Parameter
_POSITIONAL = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The signature of an objective."""

    signature: inspect.Signature

    @classmethod
    def of(cls, objective: Callable[..., Any]) -> Arguments | None:
        """Read a signature, with resolved annotations if possible; None for some builtins."""
        # Names in annotations may exist for type checkers only: then read them unresolved.
        for resolve in (True, False):
            with suppress(Exception):
                return cls(inspect.signature(objective, eval_str=resolve))
        return None

    @property
    def only_required(self) -> inspect.Parameter | None:
        """The only positional argument without a default, if there is just one."""
        required = [p for p in self._all if p.kind in _POSITIONAL and p.default is p.empty]
        return required[0] if len(required) == 1 else None

    def is_by_name(self, params: Mapping[str, object]) -> bool:
        """Return True if the objective takes parameters by name, not a trial or a dict of them."""
        first = self.only_required
        if first is None or first.name in params:
            return True
        if first.name in ("trial", "config"):
            return False
        if is_our_trial(first.annotation) or is_optunas_trial(first.annotation):
            return False
        return self.takes_any_of(params)

    @property
    def has_trial(self) -> bool:
        """True if there is an argument `trial`."""
        return "trial" in self.signature.parameters

    @property
    def takes_trial(self) -> bool:
        """True if there is a keyword-only argument `trial`."""
        return self.has_trial and self.signature.parameters["trial"].kind is _Parameter.KEYWORD_ONLY

    def takes_any_of(self, names: Mapping[str, object]) -> bool:
        """Return True if an argument has one of these names."""
        return not names.keys().isdisjoint(self.signature.parameters)

    def surplus(self, given: Mapping[str, object]) -> list[str]:
        """Return the names that are no arguments."""
        if any(p.kind is _Parameter.VAR_KEYWORD for p in self._all):
            return []
        return [name for name in given if name not in self.signature.parameters]

    def missing(self, given: Mapping[str, object]) -> list[str]:
        """Return the arguments without a default that are not given."""
        needed = [p.name for p in self._all if p.default is p.empty and p.kind not in VARIADIC]
        return [name for name in needed if name not in given]

    def as_annotated(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with lists as tuples where the `Choice` of an annotation has tuples."""
        return {name: self._as_annotated(name, value) for name, value in params.items()}

    def _as_annotated(self, name: str, value: Any) -> Any:
        parameter = self.signature.parameters.get(name)
        if parameter is None:
            return value
        return as_annotated(getattr(parameter.annotation, "__metadata__", ()), value)

    @property
    def _all(self) -> list[inspect.Parameter]:
        return list(self.signature.parameters.values())


def as_annotated(annotations: Iterable[Any], value: Any) -> Any:
    """Return a list as the tuple that a `Choice` among the annotations has; others unchanged."""
    if isinstance(value, list):
        for annotated in annotations:
            for choice in getattr(annotated, "values", ()):
                if _as_lists(choice) == value:
                    return choice
    return value


def without_partial(objective: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a `functools.partial`, which has name and source; others unchanged."""
    return objective.func if isinstance(objective, partial) else objective


def name_of(objective: Callable[..., Any]) -> str:
    """Return the name of a function or class; for a callable object, that of its class."""
    function = without_partial(objective)
    return str(getattr(function, "__name__", type(function).__name__))


def is_our_trial(annotation: object) -> bool:
    """Return True if an annotation means `tunesvc.Trial`.

    A bare "Trial" is Optuna's only where Optuna is in use.
    """
    if annotation == "Trial":
        return "optuna" not in sys.modules
    return annotation is Trial or annotation == "tunesvc.Trial"


def is_optunas_trial(annotation: object) -> bool:
    """Return True if an annotation means one of Optuna's trial classes."""
    if annotation == "Trial":
        return "optuna" in sys.modules
    if isinstance(annotation, str):
        return annotation.startswith("optuna.")
    module = str(getattr(annotation, "__module__", ""))
    return module.partition(".")[0] == "optuna" and "Trial" in getattr(annotation, "__name__", "")


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
