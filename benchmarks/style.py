"""Readability of a package in numbers: density, folders, names, words and sentences.

    python -m benchmarks.style [FOLDER ...]

Give other projects' folders to measure them with the same script. Counts every `*.py` file below a
folder, except migrations in `versions/`. Public tools only: Python's `ast` and `tokenize`, and
`ruff format` for the growth.

    tokens a line          of code, without comments, docstrings and blank lines
    growth at 88 columns   of lines, when `ruff format --line-length 88` wraps them
    conditionals, nested   conditional expressions, and comprehensions in comprehensions, per 1,000 statements
    comments               share of lines that are a comment alone
    folder, init           most modules in one folder; most arguments of an `__init__`, `self` left out
    function               lines at the 90th percentile, without the docstring
    twice                  class names and module stems that exist more than once
    persons                who, whom, whose, nobody, somebody ... per 10,000 words of docstrings and comments
    openers                docstrings and comments that open with What, Whether, Who, Whose or How per 10,000 words
    attempt, stop          class names that contain the word
    words of no peer       share of the words in identifiers that occur in none of `PEERS`, as installed
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PERSONS = re.compile(r"\b(who|whom|whose|whoever|nobody|somebody|everybody)\b", re.IGNORECASE)
OPENERS = re.compile(r"^(What|Whether|Who|Whose|How)\b")
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
PEERS = (
    "optuna",
    "ray.tune",
    "ray.train",
    "ray._private",
    "sqlalchemy",
    "alembic",
    "pydantic",
    "starlette",
    "fastapi",
    "uvicorn",
    "jinja2",
    "typer",
    "rich",
    "plotly.io",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "joblib",
    "_pytest",
    "hypothesis",
)
"""Packages of the field whose words are standard."""
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Counts:
    """Counts over all files of a folder."""

    lines: int = 0
    tokens: int = 0
    code_lines: int = 0
    comment_lines: int = 0
    statements: int = 0
    conditionals: int = 0
    nested: int = 0
    function_lines: list[int] = field(default_factory=list)
    init_arguments: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    stems: Counter[str] = field(default_factory=Counter)
    folders: Counter[Path] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    """Words in identifiers, in lower case."""


def modules(folder: Path) -> Iterator[Path]:
    """Yield the files that are measured."""
    for file in sorted(folder.rglob("*.py")):
        if "versions" not in file.parts:
            yield file


def measure(folder: Path) -> Counts:
    """Count over all files of a folder."""
    counts = Counts()
    for file in modules(folder):
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        if file.name != "__init__.py":
            counts.stems[file.stem] += 1
            counts.folders[file.parent] += 1
        count_tokens(counts, text, docstring_lines(tree))
        for node in ast.walk(tree):
            count_node(counts, node)
    return counts


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the lines that docstrings of modules, classes, functions and attributes take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def count_tokens(counts: Counts, text: str, docstrings: set[int]) -> None:
    """Add a file's lines, tokens and comments."""
    code_lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            counts.texts.append(token.string.lstrip("# "))
            counts.comment_lines += token.line.lstrip().startswith("#")
        elif token.type not in SILENT and token.start[0] not in docstrings:
            counts.tokens += 1
            if token.type == tokenize.NAME:
                counts.words.update(words_of(token.string))
            code_lines.add(token.start[0])
    counts.code_lines += len(code_lines)
    counts.lines += text.count("\n")


def words_of(name: str) -> list[str]:
    """Return the words of an identifier: of at least three letters, and without a plural's s."""
    words = [word.lower().removesuffix("s") for word in WORD.findall(name)]
    return [word for word in words if len(word) > 2]


@functools.cache
def peers_words() -> set[str]:
    """Return the words in identifiers of the peers that are installed."""
    words: set[str] = set()
    for peer in PEERS:
        found = importlib.util.find_spec(peer)
        if found is None or found.origin is None:
            continue
        for file in modules(Path(found.origin).parent):
            with suppress(SyntaxError, UnicodeDecodeError):
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                    for value in vars(node).values():
                        if isinstance(value, str) and value.isidentifier():
                            words.update(words_of(value))
    return words


def count_node(counts: Counts, node: ast.AST) -> None:
    """Add one node of the syntax tree."""
    counts.statements += isinstance(node, ast.stmt)
    counts.conditionals += isinstance(node, ast.IfExp)
    comprehension = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    if isinstance(node, comprehension):
        counts.nested += any(
            isinstance(inner, comprehension) for inner in ast.walk(node) if inner is not node
        )
    if isinstance(node, ast.ClassDef):
        counts.classes[node.name] += 1
    if isinstance(node, FUNCTION):
        documented = ast.get_docstring(node) is not None and len(node.body) > 1
        first = node.body[1] if documented else node.body[0]
        counts.function_lines.append((node.end_lineno or first.lineno) - first.lineno + 1)
        if node.name == "__init__":
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            counts.init_arguments = max(counts.init_arguments, len(arguments) - 1)
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        counts.texts.append(node.value.value)


def growth(folder: Path) -> float:
    """Return the share of lines that a format at 88 columns adds."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "copy")
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__", "versions"))
        before = sum(file.read_text(encoding="utf-8").count("\n") for file in modules(copy))
        command = [
            sys.executable,
            "-m",
            "ruff",
            "format",
            "--isolated",
            "-q",
            "--line-length",
            "88",
            str(copy),
        ]
        subprocess.run(command, check=True)
        after = sum(file.read_text(encoding="utf-8").count("\n") for file in modules(copy))
    return after / before - 1


def rows(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the printed rows of a folder."""
    counts = measure(folder)
    words = sum(len(text.split()) for text in counts.texts)
    persons = sum(len(PERSONS.findall(text)) for text in counts.texts)
    openers = sum(bool(OPENERS.match(text)) for text in counts.texts)
    per_1000 = 1000 / counts.statements
    yield "tokens", f"{counts.tokens:,}"
    yield "tokens a line", f"{counts.tokens / counts.code_lines:.1f}"
    yield "growth at 88 columns", f"{growth(folder):+.0%}"
    yield "conditionals per 1,000 statements", f"{counts.conditionals * per_1000:.0f}"
    yield "nested comprehensions per 1,000", f"{counts.nested * per_1000:.1f}"
    yield "comments", f"{counts.comment_lines / counts.lines:.1%}"
    yield "largest folder", f"{max(counts.folders.values())}"
    yield "longest __init__", f"{counts.init_arguments}"
    yield (
        "lines of a function, p90",
        f"{sorted(counts.function_lines)[int(0.9 * len(counts.function_lines))]}",
    )
    yield "class names twice", f"{sum(count > 1 for count in counts.classes.values())}"
    yield "module stems twice", f"{sum(count > 1 for count in counts.stems.values())}"
    yield "persons per 10,000 words", f"{persons / words * 10_000:.0f}"
    yield "openers per 10,000 words", f"{openers / words * 10_000:.0f}"
    own = counts.words - peers_words()
    yield "words of no peer", f"{len(own) / len(counts.words):.0%}"
    yield "classes with Attempt", f"{sum('Attempt' in name for name in counts.classes)}"
    yield "classes with Stop", f"{sum('Stop' in name for name in counts.classes)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, a column for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path(__file__).parents[1] / "tunesvc"]
    )
    folders = parser.parse_args(arguments).folders
    columns = [dict(rows(folder)) for folder in folders]
    print(f"{'':36}" + "".join(f"{folder.name:>14}" for folder in folders))
    for name in columns[0]:
        print(f"{name:36}" + "".join(f"{column[name]:>14}" for column in columns))


if __name__ == "__main__":
    main()
