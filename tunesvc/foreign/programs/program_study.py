"""`tune init script.py`: a study file for a program, with proposals that say what they rest on."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.foreign.draft import printable_note
from tunesvc.foreign.programs.argparse_options import read_argparse
from tunesvc.foreign.programs.click_options import read_click
from tunesvc.foreign.programs.program_option import UNKNOWN, Constants, Program, ProgramOption
from tunesvc.foreign.programs.range_guess import guess, is_fixed
from tunesvc.foreign.source import read_text
from tunesvc.spec.yaml.document import SpecCheck, parse

_HEAD = """\
# Written by `tune init {file}` from its options; the file was read, not run.
{notes}
#   tune validate {study}     checks this file
#   tune preview {study}      shows sample configurations
#   tune run {study}          runs it

name: {name}
command: [{command}]

# Name the metric as the program reports it: by these lines, which do nothing without a study.
#   import tunesvc
#   tunesvc.current_trial().report(epoch, loss=loss)
# For an accuracy or score, write its name and `goal: maximize`.
metric: {{name: loss, goal: minimize}}

# Check each range. A line that is deleted here has to be deleted from `command` as well.
parameters:
{parameters}

budget: {{trials: 50}}
"""


def study_of_program(
    path: Path, study: Path, extra_check: SpecCheck | None = None
) -> tuple[str, list[str]]:
    """Return a study file for a script, to be written to `study`, and notes on what it leaves out.

    Raises:
        SpecError: the script cannot be read, or has no options that can be tuned.
    """
    program = read_program(path)
    script = os.path.relpath(path.absolute(), study.absolute().parent)
    words, lines = _proposals([one for one in program.options if one.command is None], program)
    for command, line in list(program.commands.items())[1:]:
        program.note(line, f"the subcommand `{command}` is left out")
    for command in list(program.commands)[:1]:
        options = [one for one in program.options if one.command == command]
        own, others = _proposals(options, program)
        words, lines = [*words, command, *own], [*lines, *others]
    if not lines:
        raise SpecError(_nothing_to_tune(path, program))
    noted = [f"line {number}: {printable_note(text)}" for number, text in sorted(program.notes)]
    text = _HEAD.format(
        file=printable_note(script),
        study=printable_note(study.name),
        name=re.sub(r"[^\w.-]+", "-", path.stem) or "study",
        notes="\n".join(
            ["# Left out, or to be completed:", *(f"#   {one}" for one in noted), "#"]
            if noted
            else "#"
        ),
        command=", ".join(json.dumps(word) for word in ["python", script, *words]),
        parameters="\n".join(lines),
    )
    parse(text, study.name, extra_check=extra_check)
    return text, noted


def read_program(path: Path) -> Program:
    """Return the options of a script, without running it.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        tree = ast.parse(read_text(str(path)))
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise SpecError(f"{path}{line} is no Python that can be read: {error}") from None
    program, constants = Program(), Constants(tree)
    read_argparse(tree, constants, program)
    read_click(tree, constants, program)
    if not program.options and any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "hydra.main"
        for node in ast.walk(tree)
    ):
        raise SpecError(
            f"{path} is a program of Hydra: pip install 'tunesvc[hydra]', and `override "
            "hydra/sweeper: tunesvc` in its defaults"
        )
    return program


def _proposals(options: Sequence[ProgramOption], program: Program) -> tuple[list[str], list[str]]:
    """Return words of the command, and lines of `parameters`; note options that are in neither."""
    words: list[str] = []
    lines: list[str] = []
    for option in options:
        shown = option.flag or option.name
        is_short_flag = option.kind == "flag" and not option.flag.startswith("--")
        is_kept = is_short_flag or (is_fixed(option) and not option.required)
        found = None if is_kept else guess(option)
        if found is not None:
            parameter, why = found
            words += _placeholder(option)
            key = option.name if option.name.isidentifier() else json.dumps(option.name)
            lines.append(f"  {key}: {_flow(parameter)}  # line {option.line}: {why}")
        elif option.required:
            words += [*([option.flag] if option.flag else []), option.name.upper()]
            text = f"`{shown}` is required: write its value in place of {option.name.upper()}"
            program.note(option.line, text)
        elif option.line not in dict(program.notes):
            program.note(option.line, f"`{shown}` keeps its default{_default(option)}")
    return words, lines


def _placeholder(option: ProgramOption) -> list[str]:
    """Return the words that give a parameter's value to the program."""
    if option.flag.startswith("--"):
        return [f"${{{option.flag}}}"]
    return [*([option.flag] if option.flag else []), f"${{{option.name}}}"]


def _flow(parameter: Any) -> str:
    """Return a parameter as YAML in one line."""
    return f"{{{', '.join(f'{key}: {_scalar(value)}' for key, value in parameter.items())}}}"


def _scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # 1e-05 is text to some readers of YAML.
    is_short = isinstance(value, float) and "e" in text and "." not in text
    return text.replace("e", ".0e") if is_short else text


def _default(option: ProgramOption) -> str:
    is_shown = option.default is not None and option.default is not UNKNOWN
    return f" {option.default!r}" if is_shown else ""


def _nothing_to_tune(path: Path, program: Program) -> str:
    if not program.options:
        return (
            f"{path} declares no options by argparse, click or typer: `tune init DIR` writes a "
            "study and a training function to start from"
        )
    noted = "".join(f"\n  line {line}: {text}" for line, text in sorted(program.notes))
    return f"{path} has no options with numbers or choices to tune:{noted}"
