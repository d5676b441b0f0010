"""The study file and training function that `tune init` writes. They lie in `files`, which is no package of ours."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from tunesvc.errors import SpecError

FILES = ("study.yaml", "train.py")


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
                file.write(files(__package__).joinpath("files", path.name).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot write to {folder}: {error}") from None
    return paths
