"""Samplers and pruners by name: lookup, check of options, construction."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from optuna.exceptions import ExperimentalWarning

from tunesvc.errors import SpecError
from tunesvc.spec.diagnostics import Path, SpecIssue
from tunesvc.spec.model import Pruner, Sampler
from tunesvc.util.suggestions import suggest

T = TypeVar("T")

OBJECT = "object"
"""Name in a spec of a sampler or pruner object from Python. Only its class is stored."""


def entry_of(given: object) -> dict[str, str]:
    """Return the spec's entry for a sampler or pruner object."""
    path = f"{type(given).__module__}.{type(given).__qualname__}"
    public = [part for part in path.split(".") if not part.startswith("_")]
    return {"name": OBJECT, "class": ".".join(public)}


def name_of(entry: Sampler | Pruner) -> str:
    """Return the name of a spec's sampler or pruner for reasons; an object has its class."""
    return str(entry.options.get("class", OBJECT)) if entry.name == OBJECT else entry.name


def required(kind: str, given: T | None, options: Mapping[str, Any]) -> T:
    """Return the object of a study that was started with one.

    Raises:
        SpecError: this process does not have it.
    """
    if given is None:
        name = options.get("class", OBJECT)
        text = f"this study was started from Python with a {kind} object, {name}"
        raise SpecError(f"{text}: go on with it there, and hand over `{kind}=` again")
    return given


class OptionError(SpecError):
    """Issues of a sampler's or pruner's name and options, each at its path."""

    def __init__(self, *issues: SpecIssue) -> None:
        super().__init__("\n".join(map(str, issues)))
        self.issues = issues


def choose(path: Path, name: str, table: Mapping[str, T]) -> T:
    """Return the table's entry of that name; `path` is that of the sampler or pruner.

    Raises:
        OptionError: there is none; the text suggests the nearest name.
    """
    if name in table:
        return table[name]
    hint = suggest(name, table, quote="'", otherwise=".")
    text = f"there is no {name!r}{hint} Known: {', '.join(table)}"
    raise OptionError(SpecIssue((*path, "name"), text, at_key=True))


def build(
    path: Path,
    name: str,
    make: Callable[..., T],
    options: Mapping[str, Any],
) -> T:
    """Call a constructor with a user's options; `path` is that of the sampler or pruner.

    Raises:
        OptionError: options do not exist, are missing, or are refused by the constructor.
    """
    known = [p for p in inspect.signature(make).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = [p.name for p in known]
    issues = [_unknown(path, name, option, names) for option in options if option not in names]
    if missing := [p.name for p in known if p.default is p.empty and p.name not in options]:
        text = f"{name!r} needs the option{'s' * (len(missing) > 1)} {', '.join(missing)}"
        raise OptionError(*issues, SpecIssue(path, text))
    try:
        # Filters belong to the whole process.
        with (
            _making,
            warnings.catch_warnings(),
        ):
            # Optuna calls some components experimental. The user chose them by name.
            warnings.simplefilter("ignore", ExperimentalWarning)
            made = make(**{option: value for option, value in options.items() if option in names})
    except OptionError as error:
        raise OptionError(*issues, *error.issues) from None
    except (TypeError, ValueError, ImportError) as error:
        raise OptionError(
            *issues,
            SpecIssue(path, f"{name!r} refuses its options: {error}"),
        ) from error
    if issues:
        raise OptionError(*issues)
    return made


def _unknown(
    path: Path,
    name: str,
    option: str,
    names: Sequence[str],
) -> SpecIssue:
    listed = ", ".join(names) or "none"
    hint = suggest(option, names, quote="'", otherwise=".")
    text = f"{name!r} has no option {option!r}{hint} Its options: {listed}"
    return SpecIssue((*path, option), text, at_key=True)


_making = threading.RLock()  # a pruner may wrap another one
