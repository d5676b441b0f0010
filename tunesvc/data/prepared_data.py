"""Names of the prepared data of a study, small enough to travel with each job, and its files.

    TUNE_HOME/data/<version>/train.arrow           a part on this machine, whole or not there
    TUNE_HOME/data/<version>/fold-0/train.arrow    that of a fold
    TUNE_HOME/data/<version>-final-<digest>/...    the parts of a final run, by their files

Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesvc.util.paths import home_directory

TRIAL_PARTS = ("train", "validation")
"""Parts that trials get."""
TEST = "test"
"""The part that no trial gets."""
FINAL_VARIANT = "final"
"""Variant of the parts that a final run gets, the test part among them."""
FOLD_FOLDER = "fold-"
"""Beginning of the name of a fold's folder."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """A version of a study's data, as far as trials may know it."""

    version: str
    store: str
    """Address of the artifact store that has it."""
    parts: Mapping[str, str]
    """Part that trials get -> digest of its file."""
    variant: str = ""
    """Names parts that are not those of ordinary trials: they have folders of their own."""

    @property
    def folder(self) -> Path:
        """The folder of these parts on this machine. It may not exist.

        A variant has a folder for each choice of its files, so that no part of one choice is read
        as that of another: with scorers the validation part of a final run is another file.
        """
        if not self.variant:
            return node_folder(self.version)
        listed = "\n".join(f"{name} {digest}" for name, digest in sorted(self.parts.items()))
        digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
        return node_folder(f"{self.version}-{self.variant}-{digest}")


def part_of_fold(part: str, fold: int) -> str:
    """Return the name of a part of a fold, which is also its path in the version's folder."""
    return f"{FOLD_FOLDER}{fold}/{part}"


def node_folder(name: str) -> Path:
    """Return the folder of a version's files on this machine. It may not exist."""
    return home_directory() / "data" / name


def node_folders(version: str) -> list[Path]:
    """Return all folders of a version on this machine."""
    return [node_folder(version), *node_folder(version).parent.glob(f"{version}-*")]


def version_in(folder: Path) -> str:
    """Return the version of the files in a folder."""
    return folder.name.partition("-")[0]


def part_path(folder: Path, part: str) -> Path:
    """Return the path of a part's file in the folder of its version."""
    return folder / f"{part}.arrow"


def write_whole(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file that appears whole or not at all. Several processes may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(pieces)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
