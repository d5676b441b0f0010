"""The study file and training function that `tune init` writes, and study files to start from in the dashboard.

They lie in `files`, which is no package of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tunesvc.errors import SpecError

FILES = ("study.yaml", "train.py")
TEMPLATES = ("empty", "starter", "gpus", "program", "objectives")


@dataclass(frozen=True, slots=True)
class Template:
    """A study file to start from."""

    key: str
    title: str
    text: str


def templates() -> tuple[Template, ...]:
    """Study files to start from, the simplest first."""
    starter = Template("starter", "A commented example, as `tune init` writes it", _read("study.yaml"))
    return tuple(starter if key == "starter" else _template(key) for key in TEMPLATES)


def _template(key: str) -> Template:
    title, text = _read("templates", f"{key}.yaml").split("\n", 1)
    return Template(key, title.removeprefix("# "), text)


def _read(*path: str) -> str:
    return files(__package__).joinpath("files", *path).read_text(encoding="utf-8")


def write_starter(folder: Path) -> list[Path]:
    """Write a study and its training function into a folder, which is made if it is not there.

    Raises:
        SpecError: one of them is there already (nothing is written then), or the folder cannot be written.
    """
    paths = [folder / name for name in FILES]
    if there := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        raise SpecError(f"{' and '.join(there)} would be overwritten: name another folder, `tune init FOLDER`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with path.open("x", encoding="utf-8") as file:
                file.write(_read(path.name))
    except OSError as error:
        raise SpecError(f"cannot write to {folder}: {error}") from None
    return paths
