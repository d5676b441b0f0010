"""Compare an objective's signature with what a study passes to it, before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from tunesvc.config_classes.config_function import ConfigFunction, with_config
from tunesvc.signatures import Arguments, name_of
from tunesvc.spec.conditions import is_sometimes_absent
from tunesvc.spec.diagnostics import Path, SpecIssue, printable
from tunesvc.spec.model import StudySpec
from tunesvc.util.suggestions import suggest


def function_issues(
    spec: StudySpec,
    function: Callable[..., Any],
    names: Collection[str],
) -> Iterator[SpecIssue]:
    """Yield the mismatches between a function and a study's parameters and constants.

    Args:
        spec: the parameters and constants that the function gets.
        function: the objective; a class and some builtins are left to the worker.
        names: all parameters in the study file.
    """
    function = with_config(function)
    if isinstance(function, ConfigFunction):
        yield from _field_issues(spec, function, names)
        return
    arguments = None if inspect.isclass(function) else Arguments.of(function)
    if arguments is not None:
        yield from argument_issues(
            spec,
            arguments,
            f"`{name_of(function)}`",
            names,
            (),
        )


def _field_issues(
    spec: StudySpec,
    function: ConfigFunction,
    names: Collection[str],
) -> Iterator[SpecIssue]:
    """Yield the mismatches between the fields of a config and what is passed for them."""
    given = dict.fromkeys((*names, *spec.constants))
    for name, text in function.surplus(given).items():
        section = "parameters" if name in names else "constants"
        yield SpecIssue((section, name), text, at_key=True)
    for text in function.missing(given).values():
        yield SpecIssue((), text)
    kind = f"`{function.config.kind.__name__}`"
    yield from _needed_defaults(spec, kind, function.missing({}))


def argument_issues(
    spec: StudySpec,
    arguments: Arguments,
    where: str,
    names: Collection[str],
    path: Path,
) -> Iterator[SpecIssue]:
    """Yield the mismatches between arguments and the parameters and constants passed to them.

    `where` describes the function, and `path` is the key of the study that names it.
    """
    given = dict.fromkeys((*names, *spec.constants))
    first = arguments.only_required
    if first is not None and "Trial" in str(first.annotation):
        return  # ours or Optuna's: it declares its parameters itself
    if first is not None and not arguments.is_by_name(given):
        yield from _missing(arguments, {first.name: None, "trial": None}, where, path)
        return
    if arguments.has_trial:
        given["trial"] = None
    missing = arguments.missing(given)
    for name in arguments.surplus(given):
        section = "parameters" if name in names else "constants"
        remedy = suggest(name, missing) or ": add it to the arguments"
        yield SpecIssue(
            (section, name),
            f"{where} does not take `{printable(name)}`{remedy}",
            at_key=True,
        )
    yield from _missing(arguments, given, where, path)
    yield from _needed_defaults(spec, where, arguments.missing({}))


def _needed_defaults(spec: StudySpec, where: str, required: Iterable[str]) -> Iterator[SpecIssue]:
    """Yield the parameters that do not always exist, and whose arguments are required."""
    for name in required:
        if name in spec.parameters and is_sometimes_absent(name, spec.parameters):
            text = f"{where} needs a default value for `{name}`, which exists only under its `when`"
            yield SpecIssue(("parameters", name, "when"), text, at_key=True)


def _missing(
    arguments: Arguments,
    given: Mapping[str, object],
    where: str,
    path: Path,
) -> Iterator[SpecIssue]:
    for name in arguments.missing(given):
        remedy = ": declare it as a parameter or constant, or give it a default value"
        annotation = arguments.signature.parameters[name].annotation
        if not arguments.has_trial and ("Trial" in str(annotation) or suggest(name, ["trial"])):
            remedy = ", did you mean `trial`? The trial is handed over by that name"
        yield SpecIssue(path, f"{where} needs `{name}`{remedy}")
