"""The trained model of a study, for production: predicts for rows as they come from the source.

Needs the artifact store or a folder, and the libraries of model and preparation; no database.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesvc.errors import DataError
from tunesvc.models.model_file import ModelNeeds, read_model, read_needs, row_of
from tunesvc.models.model_store import ModelMetadata, read_metadata
from tunesvc.preparation.fitted_preparation import FittedPreparation, read_preparation

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class TrainedModel:
    """A model with the fitted preparation of its inputs, as `tune apply STUDY --train` stored it.

    Both are unpickled on first use: use only models that you trust.
    """

    def __init__(self, folder: Path) -> None:
        """Use the model in a folder.

        Raises:
            DataError: there is none.
        """
        self.metadata: ModelMetadata = read_metadata(folder)
        """Study, trial, parameters, versions and values."""
        self._folder = folder
        self._needs = read_needs(self.path)

    def __repr__(self) -> str:
        found = self.metadata
        return f"<TrainedModel of {found.study!r}, trial {found.trial}>"

    @property
    def path(self) -> Path:
        """The model's file or folder, under the name that the trial gave it."""
        return self._folder / self.metadata.file

    @cached_property
    def model(self) -> Any:
        """The fitted model that the objective returned.

        Raises:
            DataError: the trial saved a checkpoint instead, or a module is missing.
        """
        return read_model(self.path, self._required)

    @cached_property
    def preparation(self) -> FittedPreparation:
        """The fitted preparation.

        Raises:
            DataError: the study had no `data`, or scikit-learn has another version here.
        """
        if not self.metadata.preparation_version:
            raise DataError(f"study {self.metadata.study!r} has no `data`, and so no preparation")
        return read_preparation(self._folder)

    def predict(self, rows: Any) -> np.ndarray:
        """Return the model's predictions, one for each row.

        A row gives the same bits alone as in any batch. Where products of matrices would change
        them, rows are predicted one by one, which is slow for many rows; faster, and equal but for
        the last bits, is `model.model.predict(model.inputs(rows))`.

        Args:
            rows: a mapping for one row, a list of mappings, a DataFrame or a `pyarrow.Table`, with
                the columns that were read for the study. Others are ignored.

        Raises:
            DataError: a column is missing, or a value has another type.
        """
        return self._call("predict", rows)

    def predict_proba(self, rows: Any) -> np.ndarray:
        """Return the probability of each class, in the order of `model.classes_`.

        Args:
            rows: see `predict`.

        Raises:
            DataError: as `predict`; or the model has no probabilities.
        """
        return self._call("predict_proba", rows)

    def inputs(self, rows: Any) -> np.ndarray | pd.DataFrame:
        """Return prepared rows as the model takes them: a matrix, or a DataFrame if it has names.

        Args:
            rows: see `predict`.
        """
        import numpy as np

        frame = self.preparation.transform(rows)
        columns = list(self._required.columns)
        return frame[columns] if columns else np.ascontiguousarray(frame.to_numpy())

    def _call(self, name: str, rows: Any) -> np.ndarray:
        import numpy as np

        method: Callable[[Any], Any] | None = getattr(self.model, name, None)
        if method is None:
            raise DataError(f"the model ({self._required.kind}) has no `{name}`")
        inputs = self.inputs(rows)
        if not self._required.by_row or not len(inputs):
            return np.asarray(method(inputs))
        return np.concatenate([method(row_of(inputs, row)) for row in range(len(inputs))])

    @property
    def _required(self) -> ModelNeeds:
        if self._needs is None:
            raise DataError(
                f"study {self.metadata.study!r} saved a checkpoint and returned no model: load "
                f"{self.path} with your framework. An objective that returns its model, with "
                "`evaluation: {scoring: ...}`, gives one that predicts"
            )
        return self._needs
