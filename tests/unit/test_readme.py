"""The README is correct: its study file can be used, its code compiles, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from tunesvc.cli import app
from tunesvc.search.registry.pruner_registry import make_pruner
from tunesvc.spec.yaml.document import load, parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [
    README,
    (ROOT / "docs" / "concepts.md").read_text(),
    (ROOT / "studies" / "digits.yaml").read_text(),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_study_file_can_be_used(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "train.py").write_text("def main(lr, optimizer, momentum=0.0): ...")
    make_pruner(parse(text, folder=tmp_path))


@pytest.mark.parametrize(
    "file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_examples_fit_their_functions(file: Path) -> None:
    load(file)


@pytest.mark.parametrize("code", blocks("python"))
def test_its_python_compiles(code: str) -> None:
    compile(code, "README.md", "exec")


@pytest.mark.parametrize("page", PAGES)
def test_its_commands_exist(page: str) -> None:
    known = typer.main.get_command(app)
    named = re.findall(r"(?:`|bin/)tune(?:svc)? ([a-z]+)", page)
    assert named
    for name in named:
        assert name in known.commands, f"tune {name}"  # type: ignore[attr-defined]


def test_the_pipeline_runs_its_second_command() -> None:
    install = 'pip install -q -e ".[dev]"'
    assert install in README
    assert install in (ROOT / ".ci" / "run").read_text()
