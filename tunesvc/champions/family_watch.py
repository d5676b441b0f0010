"""One look at a family: have its data changed, and is there a better champion for them?

    no champion       ─ tune, evaluate on folds, promote ("first")
    same version      ─ nothing
    another version   ─ inputs drifted? champion worse?  no ─ nothing
                                                          yes ─ re-tune, warm-started
                        champion and challenger on the same folds, paired test ─ promote, or keep

Everything that was done is found in the database, so a killed look is continued by the next one.
"""

from __future__ import annotations

from dataclasses import replace

from tunesvc.champions.family_studies import FamilyStudies, with_values
from tunesvc.champions.fitting_spec import find_misfit
from tunesvc.champions.new_version import NewVersion
from tunesvc.champions.study_runner import StudyRunner, WatchInterrupted, WatchWaits
from tunesvc.champions.watch_result import OUTCOMES, WatchResult
from tunesvc.champions.watch_specs import folds_study, retune_spec, with_constants
from tunesvc.db.champions.champion_records import Champion, PromotionEvidence
from tunesvc.db.engine.database import Database
from tunesvc.errors import TuneError
from tunesvc.preparation.data_store import DataManifest
from tunesvc.spec import StudySpec


class FamilyWatch:
    """Looks at one family.

    Args:
        database: of its studies.
        spec: of the family, as its file is now.
        runner: runs studies.
        folder: of the study file, where hooks run.
        user: recorded with promotions, by default the system's user.
        always: re-tune for each new version, drifted or not.
    """

    def __init__(
        self,
        database: Database,
        spec: StudySpec,
        runner: StudyRunner,
        *,
        folder: str = "",
        user: str = "",
        always: bool = False,
    ) -> None:
        self._database = database
        self._runner = runner
        self._always = always
        self._family = FamilyStudies(database, spec, runner, folder, user)

    def look(self) -> WatchResult:
        """Look once. The caller holds the family's lock.

        Raises:
            TuneError: the data cannot be prepared, a study has failed, or the first champion
                fails on the folds.
        """
        name = self._family.name
        self._family.deliver()
        try:
            result = self._look()
        except WatchWaits as waiting:
            result = WatchResult(name, "waiting", str(waiting), waits_for=waiting.study)
        except WatchInterrupted:
            result = WatchResult(name, "interrupted", OUTCOMES["interrupted"])
        failed = self._family.deliver()
        return replace(result, champion=self._family.champion(), undelivered=failed)

    def _look(self) -> WatchResult:
        family = self._family
        manifest = self._runner.prepare(family.spec)
        champion = family.champion()
        if champion is None:
            return self._promote_first(manifest)
        if champion.configuration.data_version == manifest.version:
            return self._result("unchanged", _unchanged(family.spec, champion), manifest)
        if manifest.version in family.declined_versions():
            reason = (
                f"{OUTCOMES['declined']}: `tune champion promote` chooses a trial, and a new "
                "version is looked at again"
            )
            return self._result("declined", reason, manifest)
        return NewVersion(family, champion, manifest, always=self._always).look()

    def _promote_first(self, manifest: DataManifest) -> WatchResult:
        family = self._family
        spec = family.spec
        if not family.is_first_study_on(manifest):
            spec = retune_spec(spec, manifest.version, (spec.name,))
        configuration = family.tune(spec, manifest)
        found = family.fold_values(manifest, champion=configuration)
        if found.has_failed(0):
            tried = with_constants(family.spec, configuration.constants)
            folds = folds_study(tried, manifest.version)
            raise TuneError(
                f"trial {configuration.trial_number} of {configuration.study!r}, the recommended "
                f"one, fails on folds of the data, so that it is no champion: `tune show {folds}` "
                f"says why, and after `tune rm {folds}` the next watch tries it again"
            )
        evidence = PromotionEvidence(f"the recommended trial of {configuration.study}")
        family.record("first", with_values(configuration, manifest, found, 0), evidence, None)
        return self._result("first", evidence.reason, manifest)

    def _result(self, outcome: str, reason: str, manifest: DataManifest) -> WatchResult:
        return WatchResult(self._family.name, outcome, reason, manifest.version)


def _unchanged(spec: StudySpec, champion: Champion) -> str:
    misfit = find_misfit(spec, champion.configuration)
    if not misfit:
        return OUTCOMES["unchanged"]
    return (
        f"{OUTCOMES['unchanged']}; it does not fit the study file ({misfit}), so that the next "
        "version of the data is tuned for"
    )
