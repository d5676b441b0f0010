"""The documents hang together: links lead somewhere, and every decision is in the index under
its title."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.conftest import FAULT_NUMBERS
from tunesvc.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").glob("*.md")]
BLOCK = re.compile(r"```(?:bash|sh)\n(.*?)```", re.DOTALL)
LINE = re.compile(r"(?m)^(?:\.venv/bin/)?tune(?:svc)? ([^#\n]+)")
INLINE = re.compile(r"`tune(?:svc)? ([^`]+)`")
PLACEHOLDERS = {
    "STUDY": "digits",
    "TRIAL": "3",
    "FILE": "study.yaml",
    "N": "3",
    "DIR": "folder",
    "TAG": "tag",
}
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ("CHANGELOG.md", "cli.md")], ids=str
)
def test_every_command_can_be_typed(page: Path) -> None:
    """It is parsed with its options and arguments, and not run.

    A sentence may leave arguments out.
    """
    root: Any = typer.main.get_command(app)
    text = page.read_text()
    blocks = [(line, True) for block in BLOCK.findall(text) for line in LINE.findall(block)]
    for line, is_whole in blocks + [(line, False) for line in INLINE.findall(text)]:
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line.replace("...", ""))]
        if "|" in words or words[0].startswith(("-", "{")):
            continue
        try:
            parse(root, words)
        except typer.TyperException as error:
            if is_whole or "Missing" not in error.format_message():
                pytest.fail(f"tune {line}: {error.format_message()}")


MODULE = re.compile(r"`(?:tunesvc/)?((?:[a-z_]+/)*[a-z_]+\.py)`")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_every_module_path_exists(page: Path) -> None:
    """A path is relative to the repository or to the package; a name without a folder may be a
    user's file."""
    paths = [
        path
        for path in MODULE.findall(page.read_text())
        if "/" in path or page.name == "code-tour.md"
    ]
    assert [
        path
        for path in paths
        if not any((root / path).exists() for root in (ROOT, ROOT / "tunesvc"))
    ] == []


def parse(root: Any, words: list[str]) -> None:
    group = root
    while words and hasattr(group, "commands"):
        name, *words = words
        assert name in group.commands, f"there is no command {name!r}"
        group = group.commands[name]
    if words:
        group.make_context(group.name, list(words))


def test_every_decision_is_in_the_index_under_its_title() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    listed = re.findall(r"^\| \[(\d+)\]\((\S+)\) \| (.+) \|$", index, re.MULTILINE)
    titles = [page.read_text().splitlines()[0] for page in DECISIONS]
    assert [f"# {number}. {title}" for number, _, title in listed] == titles
    assert [name for _, name, _ in listed] == [page.name for page in DECISIONS]


FAULTS = list(range(1, 63))


def test_every_fault_names_tests_that_are_there_and_bear_its_number() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = {
        int(number): re.findall(r"`(test_\w+)`", row)
        for number, row in re.findall(r"^\| (\d+) \|(.*)$", page, re.M)
    }
    assert list(rows) == FAULTS
    assert [number for number, names in rows.items() if not names] == []
    borne = set(_faults_of_tests())
    assert [
        (name, number)
        for number, names in rows.items()
        for name in names
        if (name, number) not in borne
    ] == []


def _faults_of_tests() -> Iterator[tuple[str, int]]:
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                named = FAULT_NUMBERS.search(ast.get_docstring(node) or "")
                yield from (
                    (node.name, int(number))
                    for number in re.findall(r"\d+", named[1] if named else "")
                )
