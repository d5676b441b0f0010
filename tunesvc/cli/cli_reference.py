"""Generates `docs/cli.md`: `python -m tunesvc.cli.cli_reference > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from tunesvc.cli import app
from tunesvc.cli.exits import ExitCode

_PREFACE = """# Command line

`tune`, `tunesvc` and `python -m tunesvc` are the same program. This page is generated from it:
`python -m tunesvc.cli.cli_reference > docs/cli.md`.

Every command takes `--help`. `tune --install-completion` adds completion of commands and study
names to your shell. `--json` prints JSON and nothing else on standard output; messages go to
standard error. `NO_COLOR=1` turns colours off, `TUNE_DEBUG=1` shows the traceback of an unexpected
error.

`tune --log-level info run ...` (or `TUNE_LOG_LEVEL=info`) logs each event of a run to standard
error, with the study's name and the trial's number. `--log-format json` (`TUNE_LOG_FORMAT=json`,
needs `tunesvc[json-logs]`) writes JSON lines. In Python the logger is `tunesvc`, configured by your
program's `logging`.
"""


def reference() -> str:
    """Return the page."""
    root: Any = typer.main.get_command(app)
    return "\n".join([_PREFACE, *_exit_codes(), *_commands("tune", root)]) + "\n"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n\n| code | meaning |\n|---|---|"
    for code in ExitCode:
        yield f"| {code.value} | {code.meaning} |"
    yield ""


def _commands(prefix: str, group: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from _commands(path, command)
        else:
            yield from _command(path, command)


def _command(path: str, command: Any) -> Iterator[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    options = [option for option in options if not option.hidden]
    usage = " ".join(
        [
            path,
            *("[OPTIONS]" if options else "",),
            *(_placeholder(one) for one in arguments),
        ]
    )
    yield f"## `{path}`\n\n{command.help}\n\n```\n{' '.join(usage.split())}\n```\n"
    rows = [(f"`{_placeholder(one)}`", one.help) for one in arguments]
    rows += [("`" + "`, `".join(one.opts) + "`", f"{one.help}{_default(one)}") for one in options]
    if rows:
        yield "| | |\n|---|---|"
        yield from (f"| {name} | {text or ''} |" for name, text in rows)
        yield ""


def _placeholder(argument: Any) -> str:
    shown = argument.metavar or argument.name.upper()
    shown = shown if argument.required else f"[{shown}]"
    return shown if argument.nargs == 1 else f"{shown}..."


def _default(option: Any) -> str:
    value = option.default
    is_obvious = value is None or value == "" or isinstance(value, bool)
    if is_obvious or callable(value) or not option.show_default:
        return ""
    return f" Default: `{value}`."


if __name__ == "__main__":
    sys.stdout.write(reference())
