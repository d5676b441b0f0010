"""Every command is run on a database and on a server, or has a reason why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.acceptance.test_cli_on_a_server import READS
from tests.support.command_line import Tune, prepared
from tunesvc.cli import app

BOTH = {"tune", "ran", "desk"}
"""Fixtures that are `tune` in both places."""
FILES = "works on files of this machine"
DATABASE = "works on the database itself"
HOOKS = "runs hooks of this machine beside a database, and servers run no user's commands"
STORE = "reads the store of prepared data, which no server has"
REFUSING = {
    "init": FILES,
    "import": FILES,
    "validate": FILES,
    "preview": FILES,
    "schema": "prints what this version of the program reads",
    "dashboard": "serves the database; a server has its own pages",
    "serve": "is the server",
    "send": "records in the database what trackers have",
    "champion deliver": HOOKS,
    "data ls": STORE,
    "data show": STORE,
    "data diff": STORE,
    "data rm": STORE,
    "db status": DATABASE,
    "db upgrade": DATABASE,
    "db backup": DATABASE,
    "db restore": DATABASE,
    "db grant": DATABASE,
    "db path": DATABASE,
}
"""Commands that refuse `--server`, each with the reason."""
SERVERS_ONLY = {
    "login": "chooses the server",
    "logout": "returns to the database",
    "agent": "takes trials from a server, with HTTP alone; `tune run` is the same without one",
}
"""Commands that a database has no use for, each with the reason."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the words of every command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


COMMANDS = set(commands(typer.main.get_command(app)))


def run_in_both() -> set[str]:
    """Return the commands that tests of this folder run by a fixture of both places."""
    found = {line.split()[0] for line in READS}
    for file in Path(__file__).parent.glob("test_*.py"):
        for test in ast.walk(ast.parse(file.read_text())):
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                found |= {words for name in BOTH & _parameters(test) for words in _run(test, name)}
    return found & COMMANDS


def _parameters(test: ast.FunctionDef) -> set[str]:
    return {one.arg for one in test.args.args}


def _run(test: ast.FunctionDef, fixture: str) -> Iterator[str]:
    """Yield the first word, and the first two, of each call of a fixture or its methods."""
    for call in ast.walk(test):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        called = call.func.value if isinstance(call.func, ast.Attribute) else call.func
        names = [called, call.args[0]]  # itself, or given to a function of the test's module
        if any(isinstance(one, ast.Name) and one.id == fixture for one in names):
            words = [one.value for one in call.args if isinstance(one, ast.Constant)]
            yield str(words[0]) if words else ""
            yield " ".join(map(str, words[:2]))


def test_every_command_runs_in_both_places_or_has_a_reason() -> None:
    reasoned = REFUSING.keys() | SERVERS_ONLY.keys()
    assert COMMANDS - run_in_both() == reasoned


OPERANDS = {
    "apply": ["digits"],
    "send": ["digits"],
    "champion deliver": ["shop"],
    "import": ["sweep.yaml"],
    "data show": ["a1b2"],
    "data diff": ["a1b2", "c3d4"],
    "data rm": ["a1b2"],
    "validate": ["x.yaml"],
    "preview": ["x.yaml"],
    "db backup": ["x.dump"],
    "db restore": ["x.dump"],
    "db grant": ["reader", "--as", "ada"],
}
"""Arguments without which a command is refused."""


@pytest.mark.parametrize("command", REFUSING)
def test_what_works_here_only_refuses_a_server(tmp_path: Path, command: str) -> None:
    tune = Tune(tmp_path, tmp_path)
    words = ["--server", "http://127.0.0.1:9", *command.split(), *OPERANDS.get(command, ())]
    text = re.sub(r"[│╭╮╰╯─\s]+", " ", tune.here(*words, code=2))
    assert "works on this machine only: leave --server out" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["run bowl.yaml --resume", "run bowl.yaml --dashboard"])
def test_what_only_a_run_here_has_is_refused_for_a_server(tmp_path: Path, words: str) -> None:
    tune = prepared(Tune(tmp_path, tmp_path))
    text = tune.here(*words.split(), "--server", "http://127.0.0.1:9", code=2)
    assert "are for studies that run here" in text
