"""The data of a study, prepared in this process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tunesvc.data.trial_data import TrialData
from tunesvc.execution.objectives.entrypoint import load_object
from tunesvc.preparation.data_store import DataStore, place_on_this_machine
from tunesvc.preparation.preparing import Preparation, prepare
from tunesvc.spec import StudySpec


def prepared_data(spec: StudySpec, folder: Path) -> TrialData:
    """Prepare a study's data; `folder` has to be on the import path."""
    assert spec.data is not None
    store, load = DataStore.open(), partial(load_object, folder=folder, label="data")
    folds = None if spec.evaluation is None else spec.evaluation.folds
    manifest = prepare(Preparation(spec.data, folder, store, load, "", folds), lambda text: None)
    prepared = manifest.prepared(store.address)
    return TrialData(manifest.version, place_on_this_machine(prepared))
