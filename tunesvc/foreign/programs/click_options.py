"""Options of click, by decorators, and of typer, by the arguments of functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunesvc.foreign.programs.argparse_options import switch
from tunesvc.foreign.programs.program_option import (
    UNKNOWN,
    Constants,
    Program,
    ProgramOption,
    keywords,
    kind_of,
    last,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def read_click(tree: ast.Module, constants: Constants, program: Program) -> None:
    """Add the options that a program declares by click or typer."""
    run = {
        last(call.args[0])
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "typer.run" and call.args
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    commands = [one for one in functions if one.name in run or "command" in _decorators(one)]
    is_group = len(commands) > 1 or any(
        {"group", "callback"} & set(_decorators(one)) for one in functions
    )
    for function in commands:
        command = None
        if is_group:
            command = _command_name(function, constants)
            program.commands[command] = function.lineno
        if {"option", "argument"} & set(_decorators(function)):
            for call in _calls(function):
                if last(call) in ("option", "argument"):
                    _add_click(call, command, constants, program)
        else:
            for argument, default in _arguments(function):
                _add_typer(argument, default, command, constants, program)


def _decorators(function: Function) -> list[str]:
    return [last(one) for one in function.decorator_list]


def _calls(function: Function) -> list[ast.Call]:
    return [one for one in function.decorator_list if isinstance(one, ast.Call)]


def _command_name(function: Function, constants: Constants) -> str:
    for call in _calls(function):
        if last(call) == "command":
            given = call.args[0] if call.args else keywords(call).get("name")
            if isinstance(name := constants.value(given), str):
                return name
    return function.name.replace("_", "-")


# --- click ----------------------------------------------------------------------------------------


def _add_click(call: ast.Call, command: str | None, constants: Constants, program: Program) -> None:
    given = keywords(call)
    words = [constants.value(one) for one in call.args]
    if not words or not all(isinstance(word, str) for word in words):
        program.note(call.lineno, "an option whose name is computed: add it by hand")
        return
    flags = [word for word in words if word.startswith("-")]
    long = next((flag for flag in flags if flag.startswith("--")), (flags or words)[0])
    long, _, negative = long.partition("/")
    name = long.lstrip("-").replace("-", "_")
    default = constants.value(given.get("default"))
    option = ProgramOption(name, long if flags else "", call.lineno, default=default)
    option = replace(option, command=command)
    if constants.value(given.get("multiple")) or "nargs" in given or "callback" in given:
        program.note(call.lineno, f"`{long}` takes several values or a callback: it is left out")
        if not flags:
            program.add(replace(option, kind="other", required=True))
    elif negative:
        program.add(switch(option, negative.strip()))
    elif constants.value(given.get("is_flag")):
        program.add(replace(option, kind="flag", default=False))
    else:
        required = constants.value(given.get("required")) is True or (
            not flags and "default" not in given
        )
        option = replace(option, required=required)
        program.add(_of_type(option, given.get("type"), constants, program))


def _of_type(
    option: ProgramOption, type_: ast.expr | None, constants: Constants, program: Program
) -> ProgramOption:
    if option.default is UNKNOWN:
        program.note(option.line, f"`{option.flag or option.name}`: its default cannot be read")
    kind = last(type_) if type_ is not None else ""
    if not isinstance(type_, ast.Call) or kind not in ("Choice", "FloatRange", "IntRange"):
        if type_ is None and isinstance(option.default, bool):
            return replace(option, kind="flag", default=False)
        return replace(option, kind=kind_of(type_, option.default))
    given = keywords(type_)
    if kind == "Choice":
        values = constants.value(type_.args[0] if type_.args else given.get("choices"))
        if values is UNKNOWN or values is None:
            program.note(option.line, f"`{option.flag}`: its choices cannot be read")
            return option
        return replace(option, choices=tuple(values))
    ends = [constants.value(one) for one in type_.args[:2]] + [None, None]
    low = constants.value(given["min"]) if "min" in given else ends[0]
    high = constants.value(given["max"]) if "max" in given else ends[1]
    return _between(replace(option, kind="int" if kind == "IntRange" else "float"), low, high)


def _between(option: ProgramOption, low: Any, high: Any) -> ProgramOption:
    ends = [end if isinstance(end, (int, float)) else None for end in (low, high)]
    return replace(option, low=ends[0], high=ends[1])


# --- typer ----------------------------------------------------------------------------------------


def _arguments(function: Function) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Yield the arguments of a function with their defaults."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    absent: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    yield from zip(positional, absent + list(arguments.defaults), strict=True)
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)


def _add_typer(
    argument: ast.arg,
    default: ast.expr | None,
    command: str | None,
    constants: Constants,
    program: Program,
) -> None:
    hint, declared = _annotation(argument.annotation)
    if isinstance(default, ast.Call) and last(default) in ("Option", "Argument"):
        declared = default
        default = default.args[0] if default.args else keywords(default).get("default")
    if last(hint) == "Context":
        return
    is_option = last(declared) == "Option" if declared is not None else default is not None
    long, negative = _typer_flags(argument, declared, constants)
    absent = default is None or (isinstance(default, ast.Constant) and default.value is ...)
    option = ProgramOption(
        long.lstrip("-").replace("-", "_") if is_option else argument.arg,
        long if is_option else "",
        argument.lineno,
        default=None if absent else constants.value(default),
        required=absent,
        command=command,
    )
    if last(hint) == "bool" and is_option:
        program.add(switch(option, negative))
    elif (choices := _choices(hint, constants)) is not None:
        program.add(replace(option, choices=choices))
    elif isinstance(hint, ast.Subscript):
        program.note(argument.lineno, f"`{argument.arg}` takes several values: it is left out")
        if absent:
            program.add(replace(option, kind="other"))
    else:
        given = keywords(declared) if declared is not None else {}
        ends = constants.value(given.get("min")), constants.value(given.get("max"))
        program.add(_between(_of_type(option, hint, constants, program), *ends))


def _typer_flags(
    argument: ast.arg, declared: ast.Call | None, constants: Constants
) -> tuple[str, str]:
    """Return the long flag of an argument, and the one for false."""
    words = [constants.value(one) for one in declared.args] if declared is not None else []
    flags = [one for one in words if isinstance(one, str) and one.startswith("--")]
    long = flags[0] if flags else f"--{argument.arg.replace('_', '-')}"
    long, _, negative = long.partition("/")
    return long, negative.strip() or f"--no-{long.lstrip('-')}"


def _choices(hint: ast.expr, constants: Constants) -> tuple[Any, ...] | None:
    """Return the values of an `Enum` of the file or of a `Literal`."""
    if last(hint) in constants.enums:
        return constants.enums[last(hint)]
    if isinstance(hint, ast.Subscript) and last(hint.value) == "Literal":
        listed = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
        return tuple(constants.value(one) for one in listed)
    return None


def _annotation(node: ast.expr | None) -> tuple[ast.expr, ast.Call | None]:
    """Return the type of an annotation, without `None`, and its `typer.Option(...)`."""
    declared = None
    if isinstance(node, ast.Subscript) and last(node.value) == "Annotated":
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        node, calls = inner[0], [one for one in inner[1:] if isinstance(one, ast.Call)]
        declared = next((one for one in calls if last(one) in ("Option", "Argument")), None)
    if isinstance(node, ast.Subscript) and last(node.value) == "Optional":
        node = node.slice
    if isinstance(node, ast.BinOp):
        node = node.left if not _is_none(node.left) else node.right
    return node if node is not None else ast.Name("str", ast.Load()), declared


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
