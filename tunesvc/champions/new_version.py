"""The look at data of another version than the champion's: drift, re-tune, challenge."""

from __future__ import annotations

import numpy as np

from tunesvc.champions.configuration_folds import FoldValues
from tunesvc.champions.family_studies import FamilyStudies, with_values
from tunesvc.champions.fitting_spec import find_misfit
from tunesvc.champions.watch_result import WatchResult
from tunesvc.champions.watch_specs import retune_spec
from tunesvc.db.champions.champion_records import Champion, Configuration, PromotionEvidence
from tunesvc.drift.drift_report import DriftReport
from tunesvc.errors import ArtifactMissing, SpecError
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.search.analysis.resampled_tests import (
    corrected_error,
    degradation_p_value,
    improvement_p_value,
)
from tunesvc.util.formatting import number


class NewVersion:
    """The look at data of another version than the champion's."""

    def __init__(
        self,
        family: FamilyStudies,
        champion: Champion,
        manifest: DataManifest,
        *,
        always: bool,
    ) -> None:
        self._family = family
        self._always = always
        self._champion = champion
        self._manifest = manifest
        self._options = family.options
        self._goal = champion.configuration.goal
        self._drift: DriftReport | None = None
        self._degradation: float | None = None

    def look(self) -> WatchResult:
        """Re-tune if inputs have drifted or the champion is worse."""
        cause = self._find_cause()
        if cause is None:
            reason = "no column has drifted, and the champion is not worse on these data"
            if self._degradation is None:
                reason = (
                    "no column has drifted; whether the champion is worse cannot be tested, because"
                    " its values on folds show no noise, or it was promoted without any"
                )
            return self._result("steady", reason)
        self._family.say(f"{cause}: tuning for data {self._manifest.version}")
        study = self._champion.configuration.study
        earlier = (study,) if self._family.exists(study) else ()
        spec = retune_spec(self._family.spec, self._manifest.version, earlier)
        challenger = self._family.tune(spec, self._manifest)
        try:
            return self._challenge(challenger, cause)
        except SpecError as error:
            origin = f"trial {challenger.trial_number} of {challenger.study}"
            return self._result("undecided", f"{cause}; {_UNTESTED.format(origin, error)}")

    def _find_cause(self) -> str | None:
        """Return why the study is tuned again; None if it is not.

        Inputs and metric each have half of the level, so that both together have all of it.
        """
        self._drift = self._compare_inputs()
        misfit = find_misfit(self._family.spec, self._champion.configuration)
        if misfit:
            return f"the champion does not fit the study file: {misfit}"
        if self._drift is None:
            return "the rows of the champion's version were removed, so that drift cannot be seen"
        if self._drift.is_alarm:
            return f"inputs have drifted ({describe_drift(self._drift)})"
        return "asked to" if self._always else self._find_degradation()

    def _compare_inputs(self) -> DriftReport | None:
        version = self._champion.configuration.data_version
        before = None if version is None else DataStore.open().find(version)
        if before is None:
            return None
        try:
            return self._family.compare(before, self._manifest)
        except ArtifactMissing:
            return None

    def _find_degradation(self) -> str | None:
        """Return that the champion fails or is worse on these data; None if it is not shown."""
        configuration = self._champion.configuration
        found = self._family.fold_values(self._manifest, champion=configuration)
        if found.has_failed(0):
            return _FAILS
        self._degradation = degradation_p_value(
            configuration.fold_values,
            found.values[0],
            self._goal,
            (configuration.standard_error, corrected_error(found.values[0], found.ratio)),
        )
        if self._degradation is None or self._degradation > self._options.level / 2:
            return None
        return f"the champion is worse on these data (p = {number(self._degradation)})"

    def _challenge(self, challenger: Configuration, cause: str) -> WatchResult:
        """Compare champion and challenger, and record the better one."""
        champion = self._champion.configuration
        if challenger.trains_as(champion):
            found = self._family.fold_values(self._manifest, champion=champion)
            return self._keep(found, f"{cause}; the re-tune found the same parameters", None)
        found = self._family.fold_values(self._manifest, champion=champion, challenger=challenger)
        old, new = found.values
        p_value = improvement_p_value(new, old, self._goal, found.ratio)
        compared = f"{cause}; {_compare(challenger, old, new)}"
        if p_value is None:
            has_values = not (found.has_failed(0) or found.has_failed(1))
            cause = "show no noise" if has_values else "are missing"
            return self._result("undecided", f"{compared}, {_WITHOUT_TEST.format(cause)}")
        reason = f"{compared}, p = {number(p_value)}"
        if p_value > self._options.level:
            return self._keep(found, f"{reason}: not shown to be better", p_value)
        evidence = PromotionEvidence(reason, old, p_value, self._options.level, self._drift)
        promoted = with_values(challenger, self._manifest, found, 1)
        self._family.record("challenge", promoted, evidence, self._champion)
        return self._result("promoted", reason)

    def _keep(self, found: FoldValues, reason: str, p_value: float | None) -> WatchResult:
        """Record the champion with its values on these data, which later ones are compared to."""
        kept = with_values(self._champion.configuration, self._manifest, found, 0)
        if found.has_failed(0):
            return self._result("undecided", f"{reason}, and {_FAILS}")
        previous = found.values[-1] if len(found.values) > 1 else ()
        evidence = PromotionEvidence(reason, previous, p_value, self._options.level, self._drift)
        self._family.record("kept", kept, evidence, self._champion)
        return self._result("kept", reason)

    def _result(self, outcome: str, reason: str) -> WatchResult:
        return WatchResult(
            self._family.name,
            outcome,
            reason,
            self._manifest.version,
            drift=self._drift,
            degradation=self._degradation,
        )


def describe_drift(report: DriftReport) -> str:
    """Return the columns that have drifted, came or went, in words."""
    names = [*report.changed_columns, *dict.fromkeys(one.column for one in report.drifted)]
    rest = len(names) - 5
    return ", ".join(names[:5]) + (f" and {rest} more" if rest > 0 else "")


def _compare(challenger: Configuration, old: tuple[float, ...], new: tuple[float, ...]) -> str:
    origin = f"trial {challenger.trial_number} of {challenger.study}"
    return f"{origin} has {challenger.metric} {_mean(new)}, the champion {_mean(old)}"


def _mean(values: tuple[float, ...]) -> str:
    return number(float(np.nanmean(values))) if np.isfinite(values).any() else "no value"


_UNTESTED = (
    "the challenger is {}, but the champion cannot be evaluated ({}), so that no test is possible: "
    "`tune champion promote` decides"
)
_FAILS = "the champion fails on the folds of these data"
_WITHOUT_TEST = (
    "but values on folds {}, so that no test is possible: `tune champion promote` decides"
)
