"""A fitted model as a folder: `model.pkl`, and `model.json` on what it needs.

The worker writes the folder where it trains; it becomes the trial's checkpoint. Imports NumPy and
the model's own library only.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesvc.errors import BadReport, DataError

if TYPE_CHECKING:
    import numpy as np

FOLDER = "model"
PICKLE = "model.pkl"
NEEDS = "model.json"
METHODS = ("predict", "predict_proba", "decision_function")
PROBED = 64
"""Rows that are predicted one by one to see whether a batch gives the same bits."""


@dataclass(frozen=True, slots=True)
class ModelNeeds:
    """The needs of a pickled model, and the calls that it supports."""

    kind: str
    """Class of the model."""
    libraries: Mapping[str, str]
    """Distributions that it was trained with, and their versions."""
    columns: tuple[str, ...]
    """Names of its inputs; empty if it takes a matrix."""
    by_row: bool
    """True if a batch gives other bits than its rows, which are then predicted one by one."""


def write_model(model: Any, inputs: Any, folder: Path) -> Path:
    """Write a model below a folder; return its own folder.

    Args:
        model: the fitted model.
        inputs: rows of the kind that it predicts for: a matrix, or a DataFrame.
        folder: an existing folder.

    Raises:
        BadReport: it cannot be pickled.
    """
    import numpy as np

    try:
        content = pickle.dumps(model, protocol=5)
    except Exception as error:  # objects may raise anything
        raise BadReport(
            f"the model ({type(model).__name__}) cannot be stored: {error}. Use functions and "
            "classes of a module in place of lambdas and local ones"
        ) from error
    columns = tuple(map(str, getattr(inputs, "columns", ())))
    if not columns:
        inputs = np.ascontiguousarray(inputs)  # as in production: its layout decides the last bits
    by_row = not gives_equal_bits(model, inputs)
    needs = ModelNeeds(type(model).__qualname__, _libraries(model), columns, by_row)
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    (target / PICKLE).write_bytes(content)
    (target / NEEDS).write_text(json.dumps(asdict(needs), indent=1))
    return target


def read_needs(folder: Path) -> ModelNeeds | None:
    """Return what a model needs; None for a folder that holds something else."""
    try:
        found = json.loads((folder / NEEDS).read_text())
        return ModelNeeds(**{**found, "columns": tuple(found["columns"])})
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None


def read_model(folder: Path, needs: ModelNeeds) -> Any:
    """Return a model. It is unpickled: read only models that you trust.

    Warns where a library has another version than the one that it was trained with.

    Raises:
        DataError: a module that it needs is not there.
    """
    for name, version in needs.libraries.items():
        installed = _version_of(name)
        if installed != version:
            warnings.warn(
                f"the model was trained with {name} {version}, and here it is "
                f"{installed or 'not installed'}: it may predict other values, or fail",
                stacklevel=3,
            )
    try:
        return pickle.loads((folder / PICKLE).read_bytes())  # noqa: S301
    except ModuleNotFoundError as error:
        raise DataError(
            f"the model needs the module {error.name!r}: install it, or put the study's folder on "
            "Python's path"
        ) from error


def gives_equal_bits(model: Any, inputs: Any) -> bool:
    """Return True if the first rows one by one give the bits of a large and a small batch.

    Products of matrices need not: their sums have another order for other shapes.
    """
    import numpy as np

    for name in METHODS:
        if not callable(getattr(model, name, None)):
            continue
        method = getattr(model, name)
        count = min(PROBED, len(inputs))
        rows = [np.asarray(method(row_of(inputs, row)))[0] for row in range(count)]
        for size in (len(inputs), min(7, count)):
            batch = np.asarray(method(inputs[:size]))[:count]
            if not _same_bits(np.asarray(rows[:size]), batch):
                return False
    return True


def row_of(inputs: Any, row: int) -> Any:
    """Return one row as a batch of its own."""
    import numpy as np

    if hasattr(inputs, "iloc"):
        return inputs.iloc[[row]]
    return np.ascontiguousarray(inputs[row : row + 1])


def _same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    import numpy as np

    if left.shape != right.shape:
        return False
    if left.dtype.kind == "f" and right.dtype.kind == "f":
        return bool(np.array_equal(left, right, equal_nan=True))
    return bool(np.array_equal(left, right))


def _libraries(model: Any) -> dict[str, str]:
    """Return the versions of the model's library, scikit-learn and NumPy."""
    package = type(model).__module__.partition(".")[0]
    names = metadata.packages_distributions().get(package, [])
    wanted = dict.fromkeys([*names, "scikit-learn", "numpy"])
    found = {name: version for name in wanted if (version := _version_of(name))}
    return {**found, "python": _version_of("python")}


def _version_of(name: str) -> str:
    if name == "python":
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
