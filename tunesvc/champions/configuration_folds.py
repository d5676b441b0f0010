"""Values of configurations on the same folds of a data version.

They are in a study for the version, the space and the constants. All configurations have the same
folds and the same seeds, so that they can be compared in pairs. A value that is stored is not
computed again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.champions.study_runner import StudyRunner
from tunesvc.champions.watch_specs import digest, folds_spec, folds_study, watch_options
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import was_cancelled
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import DataError, StudyFailed
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.queries.operations.data_lineage import get_data
from tunesvc.search.optimizer import queued
from tunesvc.spec import StudySpec, as_choices
from tunesvc.util.formatting import number

CONFIGURATION = "configuration"
"""User attribute of a trial: the digest of its parameters."""


@dataclass(frozen=True, slots=True)
class FoldValues:
    """Values of configurations on the same folds."""

    values: tuple[tuple[float, ...], ...]
    """Values by configuration and fold; NaN for all folds of a trial that failed."""
    ratio: float
    """Validation rows per training row, the mean over folds."""

    def has_failed(self, index: int) -> bool:
        """Return True if a configuration has no value."""
        return not any(map(math.isfinite, self.values[index]))


class ConfigurationFolds:
    """Evaluates configurations on the folds of one data version."""

    def __init__(
        self,
        database: Database,
        spec: StudySpec,
        manifest: DataManifest,
        runner: StudyRunner,
    ) -> None:
        """Take the spec that all of the configurations fit, with their constants, and its data."""
        self._database = database
        self._spec = spec
        self._manifest = manifest
        self._runner = runner
        self._name = folds_study(spec, manifest.version)
        self._count = watch_options(spec).folds

    def values(self, **configurations: Mapping[str, Any]) -> FoldValues:
        """Return the values of these parameters, once all of their trials have ended.

        Args:
            configurations: parameters by the name that is shown, such as `challenger`.

        Raises:
            DataError: the data have changed meanwhile.
            WatchInterrupted: meanwhile.
        """
        requested = {digest(params): params for params in configurations.values()}
        stored = self._stored()
        # More than once if a failed study is replaced.
        while missing := {key: requested[key] for key in requested if key not in stored}:
            self._enqueue(missing, len(stored))
            stored = self._stored()
        if any(not stored[key].state.is_finished() for key in requested):
            record = self._create(len(stored))
            with suppress(StudyFailed):  # its values are NaN: what fails here is not better
                self._runner.run(record, for_new_trials=True)
            stored = self._stored()
        manifest = self._checked_manifest(len(stored))
        rows = []
        for name, params in configurations.items():
            rows.append(self._values_of(stored[digest(params)]))
            shown = ", ".join(map(number, rows[-1]))
            self._runner.say(f"{name}, {self._spec.metrics[0].name} on folds: {shown}")
        return FoldValues(tuple(rows), manifest.validation_ratio)

    def _stored(self) -> dict[str, FrozenTrial]:
        """Return the trials by the digest of their parameters."""
        with self._database.engine.connect() as connection:
            record = study_records.look_up(connection, self._name)
        if record is None:
            return {}
        trials = PgStorage(self._database).get_all_trials(record.study_id, deepcopy=False)
        return {
            trial.user_attrs[CONFIGURATION]: trial
            for trial in trials
            if CONFIGURATION in trial.user_attrs and not was_cancelled(trial)
        }

    def _enqueue(self, missing: Mapping[str, Mapping[str, Any]], stored: int) -> None:
        record = self._create(stored + len(missing))
        storage = PgStorage(self._database)
        origin = f"a configuration of {self._spec.name}"
        for key, params in missing.items():
            template = create_trial(
                state=TrialState.WAITING,
                system_attrs=queued(as_choices(params), origin),
                user_attrs={CONFIGURATION: key},
            )
            storage.create_new_trial(record.study_id, template)

    def _create(self, trials: int) -> StudyRecord:
        return self._runner.create(self._folds_spec(trials), self._manifest.version)

    def _folds_spec(self, trials: int) -> StudySpec:
        return folds_spec(self._spec, self._manifest.version, trials)

    def _values_of(self, trial: FrozenTrial) -> tuple[float, ...]:
        if trial.state != TrialState.COMPLETE:
            return (math.nan,) * self._count
        return tuple(trial.intermediate_values[step] for step in range(self._count))

    def _checked_manifest(self, trials: int) -> DataManifest:
        """Return the version with the folds, prepared again if it was removed.

        Raises:
            DataError: the source has changed since the watch began.
        """
        with self._database.engine.connect() as connection:
            record = study_records.find(connection, self._name)
        used = get_data(self._database, record.study_id)
        found = None if used is None else DataStore.open().find(used.version)
        if found is None:
            found = self._runner.prepare(self._folds_spec(trials), self._manifest.version)
        if _digests(found) != _digests(self._manifest):
            raise DataError(
                f"{self._manifest.source} changed while it was watched, so that study "
                f"{self._name!r} has other rows: `tune rm {self._name}` deletes it, and the next "
                "watch repeats it"
            )
        return found


def _digests(manifest: DataManifest) -> Sequence[str]:
    return [one.digest for one in manifest.inputs]
