"""Samplers and pruners by name: lookup, check of options, construction."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard, TypeVar, cast

from optuna.exceptions import ExperimentalWarning

from tunesvc.errors import SpecError
from tunesvc.spec.diagnostics import Path, SpecIssue
from tunesvc.spec.sections.components import OBJECT, Pruner, Sampler
from tunesvc.util.suggestions import suggest

T = TypeVar("T")
Given: TypeAlias = T | Callable[..., object] | None
"""A sampler or pruner object from Python, or the class or function of an import path."""


def entry_of(given: object) -> dict[str, str]:
    """Return the spec's entry for a sampler or pruner object."""
    path = f"{type(given).__module__}.{type(given).__qualname__}"
    public = [part for part in path.split(".") if not part.startswith("_")]
    return {"name": OBJECT, "class": ".".join(public)}


def name_of(entry: Sampler | Pruner) -> str:
    """Return the name of a spec's sampler or pruner for reasons; an object has its class."""
    return str(entry.options.get("class", OBJECT)) if entry.name == OBJECT else entry.name


def required(kind: str, entry: Sampler | Pruner, given: Given[T], base: Callable[..., T]) -> T:
    """Return the object of a study that was started with one.

    Raises:
        SpecError: this process does not have it.
    """
    if not _is_made(given, base):
        name = entry.options.get("class", OBJECT)
        text = f"this study was started from Python with a {kind} object, {name}"
        raise SpecError(f"{text}: go on with it there, and hand over `{kind}=` again")
    return given


def build_imported(
    kind: str,
    entry: Sampler | Pruner,
    given: Given[T],
    base: Callable[..., T],
    filled: Mapping[str, Any],
) -> T:
    """Call the class or function that a spec's sampler or pruner names by its import path.

    Args:
        kind: `sampler` or `pruner`.
        entry: of the spec.
        given: the class or function; None in a process that does not import it.
        base: what it has to return.
        filled: arguments that it gets if it has them and the spec leaves them out.

    Raises:
        OptionError: it refuses its arguments, or returns something else.
        SpecError: this process does not import it.
    """
    if not callable(given):
        raise SpecError(f"{kind} {entry.name!r} is imported only where its study runs")
    taken = inspect.signature(given).parameters
    options = {name: value for name, value in filled.items() if name in taken} | entry.options
    made = build((kind,), entry.name, given, options)
    if not _is_made(made, base):
        text = f"{entry.name!r} makes a {type(made).__name__}, and has to make a {base.__name__}"
        remedy = f"derive it from `optuna.{kind}s.{base.__name__}`"
        raise OptionError(SpecIssue((kind, "name"), f"{text}: {remedy}"))
    return made


def _is_made(given: object, base: Callable[..., T]) -> TypeGuard[T]:
    """Return whether an object is of a class. mypy takes no abstract one as a `type[T]`."""
    return isinstance(given, cast("type[T]", base))


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
    arguments = inspect.signature(make).parameters.values()
    known = [p for p in arguments if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    names = [p.name for p in known]
    if any(p.kind is p.VAR_KEYWORD for p in arguments):
        names += [option for option in options if option not in names]
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
    except SpecError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        text = f"{name!r} refuses its options: {error}"
        raise OptionError(*issues, SpecIssue(path, text)) from error
    except Exception as error:  # a user's class
        text = f"{name!r} raised {type(error).__name__}: {error}"
        raise OptionError(*issues, SpecIssue(path, text)) from error
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
