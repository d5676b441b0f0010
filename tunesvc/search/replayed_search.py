"""An optimizer for replay: each trial is drawn again, then replaced by what was recorded."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.optimizer import Optimizer
from tunesvc.search.proposals import configuration
from tunesvc.search.study_storage import FAILURE
from tunesvc.search.tracking.lineage import PARENT
from tunesvc.search.tracking.pausing import RESUMED
from tunesvc.search.warm_start import ENQUEUED_FROM
from tunesvc.spec import ParamValue
from tunesvc.util.optuna_internals import clear_trial_cache
from tunesvc.util.optuna_keys import CONSTRAINT, FIXED_PARAMS, OLD_CONSTRAINTS


class ReplayedOptimizer(Optimizer):
    """An `Optimizer` without prefetched proposals."""

    def redraw(
        self,
        recorded: FrozenTrial,
        seed: int,
        *,
        untried: bool = False,
    ) -> dict[str, ParamValue]:
        """Return the present proposal for a trial, then add the trial as it was recorded.

        Args:
            recorded: the stored trial. Missing trials before it were enqueued and not asked for.
            seed: of the sampler at that ask.
            untried: True if the proposal was replaced by the nearest untried configuration.
        """
        clear_trial_cache(self.study)
        while self.count <= recorded.number:
            waits = self.count < recorded.number
            template = create_trial(state=TrialState.WAITING) if waits else None
            self.memory.create_new_trial(self.memory.study_id, template)
        trial = self.trial(recorded.number)
        if trial.state == TrialState.WAITING:
            self.memory.set_trial_state_values(
                recorded.number,
                TrialState.RUNNING,
            )
            trial = self.trial(recorded.number)
        for key in {FIXED_PARAMS, ENQUEUED_FROM, PARENT} & recorded.system_attrs.keys():
            self.memory.set_trial_system_attr(
                recorded.number,
                key,
                recorded.system_attrs[key],
            )
        self._proposer.seed = seed
        try:
            drawn = self._proposer.draw_all(recorded.number, self.study.sampler)
            if untried:
                drawn = self._proposer.nearest_untried(recorded.number, drawn) or drawn
        finally:
            trial = self.trial(recorded.number)
            trial.params = dict(recorded.params)
            trial.distributions = dict(self.space.with_distributions(recorded).distributions)
            attrs = recorded.system_attrs.items()
            attrs_at_start = {k: v for k, v in attrs if k != RESUMED and not _is_outcome(k)}
            trial.system_attrs = attrs_at_start
            self._tried.add(configuration(recorded.params))
        return drawn

    def version(self, number: int) -> str:
        """Return the version that the sampler gave with its last draw for that trial."""
        return self._proposer.version(number)

    def retell(self, recorded: FrozenTrial) -> None:
        """Finish a trial as it was recorded."""
        for key, value in recorded.system_attrs.items():
            if _is_outcome(key):
                self.memory.set_trial_system_attr(recorded.number, key, value)
        self.tell(recorded.number, recorded.state, recorded.values)


def _is_outcome(attr: str) -> bool:
    """Return True if a system attribute was set when the trial ended."""
    return attr in (FAILURE, OLD_CONSTRAINTS) or attr.startswith(CONSTRAINT)
