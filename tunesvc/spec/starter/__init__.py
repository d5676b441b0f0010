"""The study file and training function that `tune init` writes, and the dashboard's templates.

They are data in `files`, which is not a package.
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
    """Return study files to start from, the simplest first."""
    starter = Template(
        "starter",
        "A commented example, as `tune init` writes it",
        _read("study.yaml"),
    )
    return tuple(starter if key == "starter" else _template(key) for key in TEMPLATES)


def _template(key: str) -> Template:
    title, text = _read("templates", f"{key}.yaml").split("\n", 1)
    return Template(key, title.removeprefix("# "), text)


def _read(*path: str) -> str:
    return files(__package__).joinpath("files", *path).read_text(encoding="utf-8")


def write_starter(folder: Path) -> list[Path]:
    """Write a study and its training function into a folder, which is created if needed.

    Raises:
        SpecError: one of the files exists (nothing is written then), or the folder is not writable.
    """
    paths = [folder / name for name in FILES]
    if there := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        listed = " and ".join(there)
        raise SpecError(f"{listed} would be overwritten: name another folder, `tune init FOLDER`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with path.open("x", encoding="utf-8") as file:
                file.write(_read(path.name))
    except OSError as error:
        raise SpecError(f"cannot write to {folder}: {error}") from None
    return paths
