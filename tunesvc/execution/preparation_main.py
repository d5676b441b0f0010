"""Main program of the process that prepares a study's data, see `runtime.data_preparation`.

Imports code of the study, and scikit-learn.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesvc.data.prepared_data import TRIAL_PARTS
from tunesvc.errors import DataError, TuneError
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.entrypoint import load_object
from tunesvc.execution.objectives.source_digest import digest_of_files, entrypoint_files
from tunesvc.spec.sections.data_keys import Data

if TYPE_CHECKING:
    from tunesvc.preparation.data_store import DataManifest, DataStore


@dataclass(frozen=True, slots=True)
class PreparationTask:
    """The first message to the process, with the path of a file for its output."""

    data: Data
    folder: Path
    """The study's folder."""
    store: str
    """Address of the artifact store."""
    scoring: tuple[str, ...] = ()
    """Names of the study's scorers, which have to fit the target."""
    folds: int | None = None
    refit_of: str = ""
    """A version to fit again, on training and validation part together."""
    rows_of: str = ""
    """A version whose stored rows are prepared, in place of those that the source gives now."""


def main(descriptor: int) -> None:
    """Do the task that arrives at a descriptor.

    Answers are JSON, since the study's code may have written them: `doing` with a text, then
    `version` or `failure`.
    """
    connection = Connection(descriptor)
    message: tuple[PreparationTask, Path] = connection.recv()
    task, output = message

    def answer(**message: str) -> None:
        connection.send_bytes(json.dumps(message).encode())

    answer(**run(task, output, lambda text: answer(doing=text)))


def run(task: PreparationTask, output: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Return the `version` of prepared data, or the `failure`.

    This process does nothing else: what the study's code prints is in the file `output` from now
    on.
    """
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path.insert(0, str(task.folder))
    os.chdir(task.folder)
    try:
        return {"version": _prepare(task, say)}
    except (TuneError, EntrypointError) as error:
        _print_cause(error)
        return {"failure": str(error)}
    except MemoryError:
        return {"failure": "the data are too large to prepare here: memory ran out"}


def _prepare(task: PreparationTask, say: Callable[[str], None]) -> str:
    try:
        from tunesvc.preparation import preparing
    except ModuleNotFoundError as error:
        raise DataError(f"needs {error.name}: run `pip install 'tunesvc[data]'`") from None
    from tunesvc.preparation.data_store import DataStore

    preparation = preparing.Preparation(
        task.data,
        task.folder,
        DataStore.open(task.store),
        partial(_load, task.folder),
        _code_digest(task.data, task.folder),
        task.folds,
    )
    if task.refit_of:
        return preparing.refit(preparation, task.refit_of, say).version
    manifest = preparing.prepare(preparation, say, task.rows_of)
    if task.scoring:
        _require_scorers(manifest, preparation.store, task.scoring)
    return manifest.version


def _require_scorers(manifest: DataManifest, store: DataStore, scoring: tuple[str, ...]) -> None:
    """Refuse scorers that do not fit the target, before a worker starts."""
    from tunesvc.data.part import Part
    from tunesvc.data.prepared_data import part_of_fold, part_path
    from tunesvc.evaluation.scoring import require_fitting_scorers
    from tunesvc.preparation.data_store import place_on_this_machine

    folder = place_on_this_machine(manifest.prepared(store.address))
    names = [part_of_fold(name, 0) if manifest.folds else name for name in TRIAL_PARTS]
    train, validation = (Part.open(part_path(folder, name), manifest.version) for name in names)
    require_fitting_scorers(train, validation, scoring)


def _load(folder: Path, import_path: str) -> Any:
    module, _, name = import_path.partition(":")
    if (folder / f"{module}.py").is_file():  # also if a package has a module of that name
        import_path = f"{module}.py:{name}"
    return load_object(import_path, folder, repr(import_path))


def _code_digest(data: Data, folder: Path) -> str:
    """Return a digest of the files of the study's own transformers; empty if it has none."""
    paths = [data.transformer] if data.transformer is not None else []
    paths += [one.name for step in data.steps for one in step.apply if one.is_imported]
    return digest_of_files([file for path in paths for file in entrypoint_files(path, folder)])


def _print_cause(error: BaseException) -> None:
    if error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
