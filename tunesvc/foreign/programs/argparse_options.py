"""Options of argparse: calls of `add_argument`, on parsers and their groups and subcommands."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

from tunesvc.foreign.programs.program_option import (
    UNKNOWN,
    Constants,
    Program,
    ProgramOption,
    keywords,
    kind_of,
    last,
)


def read_argparse(tree: ast.Module, constants: Constants, program: Program) -> None:
    """Add the options that a program declares by argparse."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    parsers = _subcommands(tree, constants, program)
    for call in sorted(calls, key=lambda one: (one.lineno, one.col_offset)):
        if last(call.func) == "add_argument" and isinstance(call.func, ast.Attribute):
            owner = call.func.value
            command = parsers.get(owner.id) if isinstance(owner, ast.Name) else None
            _add(call, command, constants, program)
    for call in calls:
        if last(call.func) == "set_defaults":
            _set_defaults(call, constants, program)


def _subcommands(tree: ast.Module, constants: Constants, program: Program) -> dict[str, str]:
    """Return variables with parsers of subcommands, and groups of those."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        call, target = node.value, node.targets[0]
        if not isinstance(target, ast.Name):
            continue
        if last(call.func) == "add_parser" and call.args:
            name = constants.value(call.args[0])
            if isinstance(name, str):
                found[target.id] = name
                program.commands[name] = call.lineno
        elif last(call.func).endswith("_group") and isinstance(call.func, ast.Attribute):
            owner = call.func.value
            if isinstance(owner, ast.Name) and owner.id in found:
                found[target.id] = found[owner.id]
    return found


def _add(call: ast.Call, command: str | None, constants: Constants, program: Program) -> None:
    given = keywords(call)
    flags = [constants.value(one) for one in call.args]
    if not flags or not all(isinstance(flag, str) for flag in flags):
        program.note(call.lineno, "an option whose name is computed: add it by hand")
        return
    action = constants.value(given.get("action"))
    if action in ("help", "version", "count", "append", "extend", "append_const"):
        if action not in ("help", "version"):
            program.note(call.lineno, f"`{flags[0]}` has the action `{action}`: it is left out")
        return
    long = next((flag for flag in flags if flag.startswith("--")), flags[0])
    flag = long if long.startswith("-") else ""
    name = long.lstrip("-").replace("-", "_")
    default = constants.value(given.get("default"))
    option = ProgramOption(name, flag, call.lineno, command=command, default=default)
    if "nargs" in given and constants.value(given["nargs"]) != "?":
        program.note(call.lineno, f"`{long}` takes several values: it is left out")
        if not flag or constants.value(given.get("required")) is True:
            program.add(replace(option, kind="other", required=True))
        return
    program.add(_described(option, given, action, constants, program))


def _described(
    option: ProgramOption,
    given: dict[str, ast.expr],
    action: Any,
    constants: Constants,
    program: Program,
) -> ProgramOption:
    shown = option.flag or option.name
    if action in ("store_true", "store_false", "store_const"):
        return replace(option, kind="flag", default=False)
    if last(given.get("action", ast.Constant(None))) == "BooleanOptionalAction":
        return switch(option, f"--no-{option.flag.lstrip('-')}")
    choices = constants.value(given.get("choices"))
    if choices is UNKNOWN and last(given["choices"]) in constants.enums:
        choices = list(constants.enums[last(given["choices"])])
    if choices is UNKNOWN or option.default is UNKNOWN:
        what = "choices" if choices is UNKNOWN else "default"
        program.note(option.line, f"`{shown}`: its {what} cannot be read")
    type_ = given.get("type")
    if type_ is not None and last(type_) == "bool":
        program.note(option.line, f"`{shown}` has `type=bool`, for which every text is true")
        return replace(option, kind="other")
    kind = kind_of(type_, None if type_ is None else option.default)
    if type_ is None and kind_of(None, option.default) in ("int", "float") and choices is None:
        remedy = f"add `type={type(option.default).__name__}` to tune it"
        program.note(option.line, f"`{shown}` has no type, so the program gets text: {remedy}")
    positional = not option.flag and "nargs" not in given
    return replace(
        option,
        kind=kind,
        choices=tuple(choices) if isinstance(choices, (list, tuple, range)) else None,
        required=positional or constants.value(given.get("required")) is True,
    )


def switch(option: ProgramOption, negative: str) -> ProgramOption:
    """Return a pair of flags, `--amp` and `--no-amp`, as the one that changes the default."""
    if option.default is not True:
        return replace(option, kind="flag", default=False)
    name = negative.lstrip("-").replace("-", "_")
    return replace(option, kind="flag", name=name, flag=negative, default=False)


def _set_defaults(call: ast.Call, constants: Constants, program: Program) -> None:
    for name, node in keywords(call).items():
        for index, option in enumerate(program.options):
            if option.name == name and option.kind != "flag":
                value = constants.value(node)
                program.options[index] = replace(option, default=value)
