"""An option or argument of a program, as its source declares it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["float", "int", "str", "flag", "other"]
UNKNOWN = object()
"""The value of an expression that only running the program would tell."""
_KINDS: Mapping[str, Kind] = {"float": "float", "int": "int", "str": "str"}


@dataclass(frozen=True, slots=True)
class ProgramOption:
    """An option; one without a flag is positional."""

    name: str
    flag: str
    line: int
    kind: Kind = "str"
    default: Any = None
    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    """Ends that the program itself checks."""
    required: bool = False
    command: str | None = None
    """The subcommand that it belongs to."""


@dataclass(slots=True)
class Program:
    """The options that were read, and what was not, with lines."""

    options: list[ProgramOption] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)
    commands: dict[str, int] = field(default_factory=dict)
    """Subcommands and their lines."""

    def add(self, option: ProgramOption) -> None:
        """Add an option; a second one of its name is noted, unless another subcommand has it."""
        beside = [one for one in self.options if None in (one.command, option.command)]
        beside += [one for one in self.options if one.command == option.command]
        if any(one.name == option.name for one in beside):
            self.note(option.line, f"`{option.flag or option.name}` is there twice")
        else:
            self.options.append(option)

    def note(self, line: int, text: str) -> None:
        """Note what cannot be read."""
        self.notes.append((line, text))


class Constants:
    """The names at the top of a module that are bound once, to plain values."""

    def __init__(self, tree: ast.Module) -> None:
        self.enums: dict[str, tuple[Any, ...]] = {}
        self._values: dict[str, Any] = {}
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and any("Enum" in last(base) for base in node.bases):
                values = [one.value for one in node.body if isinstance(one, ast.Assign)]
                self.enums[node.name] = tuple(self.value(one) for one in values)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                known = name in self._values
                self._values[name] = UNKNOWN if known else self.value(node.value)

    def value(self, node: ast.expr | None) -> Any:
        """Return the plain value of an expression, or `UNKNOWN`."""
        if node is None:
            return None
        if isinstance(node, ast.Name):
            return self._values.get(node.id, UNKNOWN)
        if isinstance(node, (ast.List, ast.Tuple)):
            items = [self.value(one) for one in node.elts]
            return UNKNOWN if UNKNOWN in items else items
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            return UNKNOWN


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    """Return the keyword arguments of a call."""
    return {one.arg: one.value for one in call.keywords if one.arg is not None}


def last(node: ast.AST) -> str:
    """Return the last name of `a.b.c`; empty for other expressions."""
    if isinstance(node, ast.Call):
        return last(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def kind_of(type_: ast.expr | None, default: Any) -> Kind:
    """Return the kind of a type, or of a default where none is given."""
    if type_ is None:
        name = type(default).__name__
        return _KINDS.get(name, "str" if default is None else "other")
    return _KINDS.get(last(type_), "other")
