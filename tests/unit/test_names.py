"""Names that a reader meets: no class and no module stands for two things."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import tunesvc

PACKAGE = Path(tunesvc.__file__).parent
MODULES_MAX = 15
"""In one folder, its `__init__` left out."""

STEMS = {
    "database": "`tune db` is a group of commands; `db.engine.database` opens one",
    "figures": "a page is named by its address, /figures; `charts.figures` draws them",
    "live": "a page is named by its address, /live; `views.live` is the terminal's",
    "studies": "a page is named by its address, /studies; `queries.studies` reads them",
    "study": "a page is named by its address; `tunesvc.study` is Python's `Study`",
    "trial": "a page is named by its address; `tunesvc.trial` is Python's `Trial`",
}
"""Reasons why a stem may exist twice."""


def modules() -> Iterator[Path]:
    """Yield the modules of the package, but for migrations and the templates of study files."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.name != "__init__.py" and not {"versions", "files"} & set(
            file.relative_to(PACKAGE).parts[:-1]
        ):
            yield file


def test_a_module_stem_exists_once() -> None:
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for file in modules():
        files[file.stem].append(file.relative_to(PACKAGE))
    assert {stem for stem, places in files.items() if len(places) > 1} == set(STEMS)


def test_a_class_name_exists_once() -> None:
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in classes.items() if len(files) > 1} == {}


def test_no_folder_is_crowded() -> None:
    counts: defaultdict[Path, int] = defaultdict(int)
    for file in modules():
        counts[file.parent.relative_to(PACKAGE)] += 1
    assert {folder: count for folder, count in counts.items() if count > MODULES_MAX} == {}
