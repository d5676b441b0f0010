"""The Python reference: complete, and the same as in the docs."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import tunesvc

DOCS = Path(__file__).parents[2] / "docs"
EXPLAINED_ELSEWHERE = {"StudySpec"}
"""Its keys are those of a study file."""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("python_reference", DOCS / "python_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_in_the_docs_is_current(generator: ModuleType) -> None:
    page = (DOCS / "python-reference.md").read_text(encoding="utf-8")
    assert page == generator.reference(), (
        "python docs/python_reference.py > docs/python-reference.md"
    )


def test_every_public_name_is_in_it(generator: ModuleType) -> None:
    explained = {member.__name__ for members in generator.SECTIONS.values() for member in members}
    assert set(tunesvc.__all__) - explained == EXPLAINED_ELSEWHERE


def test_everything_in_it_has_a_docstring(generator: ModuleType) -> None:
    for member in (member for members in generator.SECTIONS.values() for member in members):
        assert inspect.getdoc(member), member
        if inspect.isclass(member):
            for name, value in generator.public_members(member):
                assert inspect.getdoc(value), f"{member.__name__}.{name}"
