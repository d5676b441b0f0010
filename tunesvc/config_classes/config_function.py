"""A function of a config as a function of its fields, which the other parts know how to call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Set
from typing import Any

from tunesvc.config_classes.config_class import ConfigClass, is_config_class
from tunesvc.config_classes.field_ranges import missing, surplus
from tunesvc.signatures import VARIADIC, Arguments, name_of
from tunesvc.util.suggestions import suggest

_Parameter = inspect.Parameter


class ConfigFunction:
    """Called with the fields of the config by dotted names, it makes the config for its function.

    Travels to workers with the class and its annotations as they are resolved here.
    """

    def __init__(self, function: Callable[..., Any], argument: str, config: ConfigClass) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self.__name__ = name_of(function)
        self.argument = argument
        self.config = config
        fields = _Parameter("fields", _Parameter.VAR_KEYWORD)
        self.__signature__ = inspect.Signature([*_others(function, argument), fields])

    @property
    def own(self) -> Set[str]:
        """The names of the function's other arguments."""
        return self.__signature__.parameters.keys() - {"fields"}

    def __call__(self, /, **fields: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(**self.arguments(fields))

    def surplus(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the names that are neither fields nor arguments, each with the problem."""
        kind = self.config.kind.__name__
        known = [name for name, _ in self.config.leaves()]
        near = list(missing(self.config, given)) or known
        return {
            name: f"`{kind}` has no field `{name}`"
            + (suggest(name, near) or f": it has {', '.join(known[:10])}")
            for name in surplus(self.config, given)
            if name not in self.own
        }

    def missing(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the fields without a value, each with the problem."""
        remedy = "declare it as a parameter or constant, or give it a default value"
        kind = self.config.kind.__name__
        return {name: f"`{kind}` needs `{name}`: {remedy}" for name in missing(self.config, given)}

    def arguments(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of the function: the config, and others by their names.

        Raises:
            TypeError: there is no such field.
        """
        if problems := self.surplus(fields):
            raise TypeError("; ".join(problems.values()))
        others = {name: fields[name] for name in self.own & fields.keys()}
        rest = {name: value for name, value in fields.items() if name not in others}
        return {self.argument: self.config.make(rest), **others}


def with_config(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a config as one of its fields; any other function as it is.

    Raises:
        SpecError: annotations of the class cannot be read.
    """
    if isinstance(function, ConfigFunction) or inspect.isclass(function):
        return function
    arguments = Arguments.of(function)
    if arguments is None:
        return function
    found = [
        parameter
        for name in arguments.missing({"trial": None})
        if is_config_class((parameter := arguments.signature.parameters[name]).annotation)
    ]
    if len(found) != 1 or found[0].kind is _Parameter.POSITIONAL_ONLY:
        return function
    return ConfigFunction(function, found[0].name, ConfigClass.of(found[0].annotation))


def _others(function: Callable[..., Any], argument: str) -> list[inspect.Parameter]:
    """Return the other arguments of a function, as keywords."""
    arguments = Arguments.of(function)
    return [
        parameter.replace(kind=_Parameter.KEYWORD_ONLY, annotation=_Parameter.empty)
        for name, parameter in (arguments.signature.parameters.items() if arguments else ())
        if name != argument and parameter.kind not in VARIADIC
    ]
