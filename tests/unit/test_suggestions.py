"""Suggestions for misspelled names."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunesvc
from tunesvc.util.suggestions import nearest, suggest


@pytest.mark.parametrize(
    ("name", "found"),
    [("paralelism", "parallelism"), ("LR", "lr"), ("momentun", "Momentum"), ("zzz", None)],
)
def test_the_most_similar_name_is_found_whatever_its_case(name: str, found: str | None) -> None:
    assert nearest(name, ["lr", "parallelism", "Momentum"]) == found


def test_a_suggestion_ends_a_sentence() -> None:
    assert suggest("lrr", ["lr"]) == ", did you mean `lr`?"
    assert suggest("lrr", ["lr"], quote="'") == ", did you mean 'lr'?"
    assert suggest("zzz", ["lr"], otherwise=".") == "."
    assert suggest(3, ["lr"]) == ""


def test_no_other_module_compares_names() -> None:
    package = Path(tunesvc.__file__).parent
    users = [file.stem for file in package.rglob("*.py") if "difflib" in file.read_text()]
    assert users == ["suggestions"]
