"""Samplers and pruners by name: look one up, check its options, build it; mistakes in words to act on."""

from __future__ import annotations

import difflib
import inspect
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from optuna.exceptions import ExperimentalWarning

from tunesvc.errors import SpecError

T = TypeVar("T")


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The table's entry of that name.

    Raises:
        SpecError: there is none; the text suggests the nearest name.
    """
    if name in table:
        return table[name]
    raise SpecError(f"unknown {kind} {name!r}{_suggest(name, table)}; known: {', '.join(table)}")


def build(what: str, make: Callable[..., T], options: Mapping[str, Any]) -> T:
    """Call a constructor with a user's options.

    Raises:
        SpecError: an option does not exist, is missing, or is refused by the constructor.
    """
    known = [p for p in inspect.signature(make).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = [p.name for p in known]
    for option in options:
        if option not in names:
            listed = ", ".join(names) or "none"
            raise SpecError(f"{what} has no option {option!r}{_suggest(option, names)}; its options: {listed}")
    missing = [p.name for p in known if p.default is p.empty and p.name not in options]
    if missing:
        raise SpecError(f"{what} needs the option{'s' * (len(missing) > 1)} {', '.join(missing)}")
    try:
        with _making, warnings.catch_warnings():  # which is of the whole process
            # Optuna calls what a user asked for by name "experimental"; nothing that the user could act on.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return make(**options)
    except (TypeError, ValueError, ImportError) as error:
        raise SpecError(f"{what} refuses its options: {error}") from error


_making = threading.RLock()  # a pruner may wrap another one


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
