"""The parts that a trial gets, and where this process has them.

A worker on Ray gives the bytes that it has from the object store. Any other process maps the files
in the folder that `TUNE_DATA` names, or else those below `TUNE_HOME`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from tunesvc.data.part import Part
from tunesvc.data.prepared_data import (
    FOLD_FOLDER,
    TEST,
    PreparedData,
    part_of_fold,
    part_path,
    version_in,
)
from tunesvc.errors import DataError

FOLDER_VARIABLE = "TUNE_DATA"


class TrialData:
    """`trial.data`: the same object for all trials of a process."""

    def __init__(
        self,
        version: str,
        folder: Path,
        buffers: Mapping[str, Any] | None = None,
        fold: int | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            version: of the data.
            folder: of the files.
            buffers: bytes of files by part, in place of the folder's.
            fold: fold that the parts are of; None for those of data without folds.
        """
        self.version = version
        self._folder = folder
        self._buffers = dict(buffers or {})
        self._fold = fold

    @cached_property
    def _folds(self) -> dict[int, TrialData]:
        return {}

    def of_fold(self, fold: int | None) -> TrialData:
        """Return the data of a fold: the same object for all trials of a process."""
        if fold is None:
            return self
        made = TrialData(self.version, self._folder, self._buffers, fold)
        return self._folds.setdefault(fold, made)

    @cached_property
    def train(self) -> Part:
        """The rows to train on."""
        return self._part("train")

    @cached_property
    def validation(self) -> Part:
        """The rows that the trial is evaluated on."""
        return self._part("validation")

    @property
    def test(self) -> NoReturn:
        """Nothing: no trial gets the test part.

        Raises:
            DataError: always.
        """
        raise DataError(
            "no trial gets the test part: a result that was chosen by it would say nothing about "
            "new data. Judge the trial by `trial.data.validation`"
        )

    def _part(self, name: str) -> Part:
        if self._fold is not None:
            name = part_of_fold(name, self._fold)
        if name in self._buffers:
            return Part(self._buffers[name], self.version)
        return Part.open(part_path(self._folder, name), self.version)


def open_test(data: TrialData) -> Part | None:
    """Return the test part where scorers evaluate a final run; None in every other trial.

    For the worker only, which gives it to no objective.
    """
    is_there = TEST in data._buffers or part_path(data._folder, TEST).exists()
    return data._part(TEST) if is_there else None


_opened: dict[str, TrialData] = {}


def provide(prepared: PreparedData, folder: Path, buffers: Mapping[str, Any]) -> None:
    """Let trials of this process use bytes that it has, and processes that it starts the files."""
    _opened[prepared.folder.name] = TrialData(prepared.version, folder, buffers)
    os.environ[FOLDER_VARIABLE] = str(folder)


def is_provided(prepared: PreparedData) -> bool:
    """Return True if this process has opened the data."""
    return prepared.folder.name in _opened


def open_data(prepared: PreparedData | None, fold: int | None = None) -> TrialData:
    """Return the data of a study, or of one of its folds, in this process.

    Raises:
        DataError: the study has none.
    """
    if prepared is None:
        raise DataError("the study has no data: write `data:` into its file, see docs/data.md")
    folder = Path(os.environ.get(FOLDER_VARIABLE, ""))
    if folder.name != prepared.folder.name:  # that of a study whose trial runs this one
        folder = prepared.folder
    opened = _opened.setdefault(folder.name, TrialData(prepared.version, folder))
    return opened.of_fold(fold)


def data_of_program() -> TrialData:
    """Return the data of the trial that started this program.

    Raises:
        DataError: its study has none.
    """
    if not os.environ.get(FOLDER_VARIABLE):
        return open_data(None)
    folder = Path(os.environ[FOLDER_VARIABLE])
    if folder.name.startswith(FOLD_FOLDER):  # its parts are named as those of data without folds
        return TrialData(version_in(folder.parent), folder)
    return TrialData(version_in(folder), folder)
