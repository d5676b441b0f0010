"""The studies and the history of a family, as a watch uses them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from tunesvc.champions.announcements import deliver_due
from tunesvc.champions.configuration_folds import ConfigurationFolds, FoldValues
from tunesvc.champions.fitting_spec import fitting_spec
from tunesvc.champions.promotion import configuration_of
from tunesvc.champions.promotion_hooks import hooks_of, keep_hooks
from tunesvc.champions.study_runner import StudyRunner, WatchInterrupted
from tunesvc.champions.watch_specs import folds_study, watch_options
from tunesvc.db import study_records
from tunesvc.db.champions import champion_records, promotion_deliveries
from tunesvc.db.champions.champion_records import Champion, Configuration, PromotionEvidence
from tunesvc.db.engine.database import Database
from tunesvc.drift.drift_report import DriftReport
from tunesvc.errors import ChampionNotFound, SpecError
from tunesvc.preparation.data_store import DataManifest
from tunesvc.queries.operations.data_lineage import get_data
from tunesvc.queries.studies import get_study
from tunesvc.search.analysis.resampled_tests import corrected_error
from tunesvc.spec import StudySpec
from tunesvc.spec.entrypoint_file import entrypoint_issues
from tunesvc.spec.sections.watch_keys import Watch
from tunesvc.util.user import whoami


class FamilyStudies:
    """Runs the studies of a family, and records its champions. For arguments see `FamilyWatch`."""

    def __init__(
        self,
        database: Database,
        spec: StudySpec,
        runner: StudyRunner,
        folder: str,
        user: str,
    ) -> None:
        self._database = database
        self._runner = runner
        self._user = user or whoami()
        self.spec = spec
        """The spec of the family."""
        self._folder = Path(folder)
        self._hooks = hooks_of(spec, folder)

    @property
    def name(self) -> str:
        """The family's name."""
        return self.spec.name

    @property
    def options(self) -> Watch:
        """The options of its watch."""
        return watch_options(self.spec)

    def say(self, text: str) -> None:
        """Show a sentence to the user."""
        self._runner.say(text)

    def compare(self, before: DataManifest, after: DataManifest) -> DriftReport:
        """Return the drift between two versions of the data.

        Raises:
            ArtifactMissing: rows of a version were removed.
        """
        return self._runner.compare(before, after, self.options)

    def champion(self) -> Champion | None:
        """Return today's champion; None if there is none yet.

        Raises:
            ChampionNotFound: the one of this name is of another project than the study.
        """
        with self._database.engine.connect() as connection:
            champion = champion_records.current(connection, self.name)
            record = study_records.look_up(connection, self.name)
            if champion is None or record is None:
                return champion
            project_id = study_records.project_of(connection, record.study_id)
        if champion.project_id != project_id:
            raise ChampionNotFound(
                f"the champion of {self.name!r} is of another project than the study of this "
                "name: move the study there, or rename it"
            )
        return champion

    def declined_versions(self) -> set[str | None]:
        """Return the data versions whose promotions were rolled back."""
        with self._database.engine.connect() as connection:
            history = champion_records.list_history(connection, self.name)
        declined: set[str | None] = set()
        for one in history:
            if one.kind == "rollback" and one.restores_id is not None:
                span = range(one.restores_id + 1, one.champion_id)
                undone = [old for old in history if old.champion_id in span]
                declined |= {old.configuration.data_version for old in undone}
                declined.discard(one.configuration.data_version)
        return declined

    def is_first_study_on(self, manifest: DataManifest) -> bool:
        """Return False if the study of the family's name has used other data.

        Also rows that are equal, of a source or with settings that the study file had before.
        """
        with self._database.engine.connect() as connection:
            record = study_records.look_up(connection, self.name)
        used = None if record is None else get_data(self._database, record.study_id)
        if record is None or used is None:
            return True
        is_same = record.spec is not None and record.spec.data == self.spec.data
        return is_same and used.version == manifest.version

    def tune(self, spec: StudySpec, manifest: DataManifest) -> Configuration:
        """Run a study on a version of the data to its end; return its recommended trial."""
        self._runner.run(self._runner.create(spec, manifest.version))
        return configuration_of(self._database, get_study(self._database, spec.name), None)

    def fold_values(self, manifest: DataManifest, **configurations: Configuration) -> FoldValues:
        """Return the values of configurations on the folds of a version, by the names to show.

        Each has the constants that it was tuned with.

        Raises:
            SpecError: one cannot be evaluated; the text says why.
        """
        groups: dict[str, tuple[StudySpec, dict[str, Configuration]]] = {}
        for name, one in configurations.items():
            spec = self._spec_of(one)
            study = folds_study(spec, manifest.version)
            groups.setdefault(study, (spec, {}))[1][name] = one
        self.say(f"evaluating on {self.options.folds} folds of the data")
        values: dict[str, tuple[float, ...]] = {}
        for spec, group in groups.values():
            folds = ConfigurationFolds(self._database, spec, manifest, self._runner)
            found = folds.values(**{name: one.params for name, one in group.items()})
            values |= dict(zip(group, found.values, strict=True))
        return FoldValues(tuple(values[name] for name in configurations), found.ratio)

    def _spec_of(self, configuration: Configuration) -> StudySpec:
        """Return the spec that a configuration is evaluated with, of this name.

        Raises:
            SpecError: it fits none, or its objective is not in the folder any more.
        """
        with self._database.engine.connect() as connection:
            record = study_records.look_up(connection, configuration.study)
        spec = fitting_spec(self.spec, configuration, None if record is None else record.spec)
        if spec.parameters != self.spec.parameters:
            for issue in entrypoint_issues(spec, self._folder):
                raise SpecError(issue.text)
        return spec

    def exists(self, study: str) -> bool:
        """Return True if there is a study of that name."""
        with self._database.engine.connect() as connection:
            return study_records.look_up(connection, study) is not None

    def record(
        self,
        kind: str,
        configuration: Configuration,
        evidence: PromotionEvidence,
        follows: Champion | None,
    ) -> Champion:
        """Record a promotion, or that a champion stays, and plan its announcements.

        Raises:
            WatchInterrupted: the watch was replaced or removed meanwhile; nothing is recorded.
        """
        with self._database.engine.begin() as connection:
            study, project_id = study_records.look_up(connection, self.name), None
            if study is not None:
                project_id = study_records.project_of(connection, study.study_id)
            champion_id = champion_records.record(
                connection,
                self.name,
                kind,
                configuration,
                evidence,
                self._user,
                follows=follows,
                project_id=project_id,
            )
            made = champion_records.get_current(connection, self.name)
            if made.is_new:
                promotion_deliveries.plan(connection, champion_id, self._hooks.addresses)
            # last: a move of the study to another project locks champions before watches
            if not self._runner.is_current(connection, lock=True):
                raise WatchInterrupted
        return made

    def deliver(self) -> int:
        """Announce what is due to the hooks of the study file; return the number that failed.

        Announces nothing if the watch was replaced or removed: its hooks are those of before.
        """
        with self._database.engine.begin() as connection:
            if not self._runner.is_current(connection):
                return 0
            keep_hooks(connection, self.spec)
        return deliver_due(self._database, self.name, self.say, self._hooks)


def with_values(
    configuration: Configuration,
    manifest: DataManifest,
    found: FoldValues,
    index: int,
) -> Configuration:
    """Return a configuration with its values on a version, the ones of an index."""
    values = found.values[index]
    known = [value for value in values if math.isfinite(value)]
    return replace(
        configuration,
        data_version=manifest.version,
        value=float(np.mean(known)) if known else configuration.value,
        standard_error=corrected_error(values, found.ratio),
        fold_values=values,
    )
