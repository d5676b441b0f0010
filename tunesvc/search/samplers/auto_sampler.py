"""The default sampler: selects a Gaussian process or TPE for each trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.explanations import Reason, RecentEntries
from tunesvc.search.samplers.gp.gp_sampler import ACQUISITION, SKILL, GPSampler
from tunesvc.search.samplers.imputing_sampler import ImputingSampler
from tunesvc.search.samplers.tpe.tpe_sampler import TPESampler
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.study_history import StudyHistory, history_of
from tunesvc.search.training_seeds import turn
from tunesvc.util.optuna_internals import cached_trials

GP_MAX = 500
"""Most finished trials for a Gaussian process of the whole space; beyond, it costs more than it
gains over TPE."""
PARAMETERS_MAX = 100
"""Most parameters for a Gaussian process; beyond, an ask takes too long."""
OBJECTIVES_MAX = 4
UNMODELLED_EVERY = 8
"""One trial of so many is proposed by TPE, in case the Gaussian process is wrong."""
SKILL_MIN = 5.0
"""Least skill of a Gaussian process, in nats; below it, TPE proposes every second trial."""
GAIN_MIN = -5.0
"""Least logarithm of the improvement that the Gaussian process expects, in deviations of the
values; below it, TPE proposes every second trial of a space with conditions."""
LOCAL_MAX = 2_000
"""Most finished trials for a Gaussian process of the neighbourhood of the best one."""
Selected = GPSampler | ImputingSampler


class AutoSampler(BaseSampler):
    """Spreads the first trials evenly, then uses a Gaussian process, or TPE where that is better.

    TPE is better in spaces of more than 100 parameters, and for more than four objectives. After
    500 trials it takes turns with a Gaussian process of the best trial's neighbourhood, and after
    2,000 it proposes all. Where trials are pruned, the two take turns too: each finds what the
    other overlooks. If the Gaussian process would measure a configuration again there, TPE proposes
    instead, because a full training is expensive. Elsewhere TPE proposes every eighth trial, and
    every second one while the Gaussian process predicts held-out trials no better than their mean
    does, as in noise. In a space with conditions it also does while the Gaussian process expects no
    improvement: smoothness learned from one model's parameters says little of another's.
    docs/benchmarks.md has the measurements.
    """

    repeatable = True

    def __init__(
        self,
        seed: int | None = None,
        *,
        n_startup_trials: int = 10,
        search_space: Mapping[str, BaseDistribution] | None = None,
        shared_blocks: int | None = None,
    ) -> None:
        """Take the arguments of `GPSampler`. TPE treats effects of training seeds as noise."""
        self._n_startup_trials = n_startup_trials
        self._shared_blocks = shared_blocks
        self._gp = GPSampler(
            seed,
            n_startup_trials=n_startup_trials,
            search_space=search_space,
            shared_blocks=shared_blocks,
        )
        self._tpe = ImputingSampler(
            TPESampler(seed=seed, n_startup_trials=n_startup_trials),
            seed=seed,
        )
        self._selected: RecentEntries[tuple[Selected, str]] = RecentEntries()

    def reseed_rng(self) -> None:
        """Reseed the random numbers."""
        self._gp.reseed_rng()
        self._tpe.reseed_rng()

    @locked
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Select a sampler for the trial."""
        self._selected.pop(trial.number, None)
        self._select(study, trial).before_trial(study, trial)

    @locked
    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        """Delegate to the selected sampler."""
        return self._select(study, trial).infer_relative_search_space(
            study,
            trial,
        )

    @locked
    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return values that the selected sampler draws jointly."""
        sampler = self._select(study, trial)
        proposal = sampler.sample_relative(study, trial, search_space)
        unfit = self._why_unfit(study, trial, proposal) if sampler is self._gp else None
        if unfit is None:
            return proposal
        self._selected[trial.number] = (self._tpe, f"TPE, because {unfit}")
        self._tpe.before_trial(study, trial)
        known = self._tpe.infer_relative_search_space(study, trial)
        return self._tpe.sample_relative(
            study,
            trial,
            {name: kind for name, kind in known.items() if name in search_space},
        )

    @locked
    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a value that the selected sampler draws by itself."""
        return self._select(study, trial).sample_independent(
            study,
            trial,
            param_name,
            param_distribution,
        )

    @locked
    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler that proposed the trial, unless it is forgotten.

        It is after a restart, and after many other trials.
        """
        if trial.number in self._selected:
            self._selected[trial.number][0].after_trial(
                study,
                trial,
                state,
                values,
            )

    def explain(self, number: int) -> Reason | None:
        """Return the selected sampler's reason, and that of an unusual selection."""
        if number not in self._selected:
            return None
        sampler, why = self._selected[number]
        reason = sampler.explain(number)
        if reason is None or not why:
            return reason
        return Reason(
            f"{reason.text} (drawn by {why})",
            {**reason.details, "chosen": why},
        )

    def _select(self, study: Study, trial: FrozenTrial) -> Selected:
        """Return one sampler for all of a trial's parameters, whatever finishes meanwhile."""
        if trial.number not in self._selected:
            self._selected[trial.number] = self._decide(study, trial)
        return self._selected[trial.number][0]

    def _decide(self, study: Study, trial: FrozenTrial) -> tuple[Selected, str]:
        """Return the sampler and the reason to select it.

        The reason is empty for the usual choice.
        """
        trials = cached_trials(study)
        history = history_of(study, trials)
        if len(study.directions) > OBJECTIVES_MAX:
            return (
                self._tpe,
                f"TPE, because the study has {len(study.directions)} objectives",
            )
        if GP_MAX < history.ended <= LOCAL_MAX and len(study.directions) == 1:
            local = "a Gaussian process of the best trial's neighbourhood"
            if turn(trial.number, self._shared_blocks) % 2:
                return self._gp, local
            return self._tpe, f"TPE, in turn with {local}"
        if history.ended > GP_MAX:
            return (
                self._tpe,
                f"TPE, because {history.ended:,} trials would slow a Gaussian process down",
            )
        parameters = len({name for trial in trials[-20:] for name in trial.params})
        if parameters > PARAMETERS_MAX:
            return (
                self._tpe,
                f"TPE, because the space has {parameters} parameters",
            )
        if not self._take_turns(study, history):
            count = turn(trial.number, self._shared_blocks) + 1
            if history.ended >= self._n_startup_trials and count % UNMODELLED_EVERY == 0:
                return self._tpe, "TPE, as every eighth trial, in case the model is wrong"
            return self._gp, ""
        if turn(trial.number, self._shared_blocks) % 2:
            return (
                self._gp,
                "a Gaussian process, in turn with TPE because trials are pruned",
            )
        return (
            self._tpe,
            "TPE, in turn with a Gaussian process because trials are pruned",
        )

    def _take_turns(self, study: Study, history: StudyHistory) -> bool:
        has_pruned = history.pruned > 0 and history.ended >= self._n_startup_trials
        return len(study.directions) == 1 and has_pruned

    def _why_unfit(
        self,
        study: Study,
        trial: FrozenTrial,
        proposal: Mapping[str, Any],
    ) -> str | None:
        """Return the reason not to use a proposal of the Gaussian process; None to use it."""
        history = history_of(study, cached_trials(study))
        if self._take_turns(study, history):
            repeated = history.repeated(proposal, trial.number)
            if repeated is not None:
                return f"the Gaussian process would repeat trial {repeated}"
        reason = self._gp.explain(trial.number)
        details = {} if reason is None else reason.details
        is_odd = turn(trial.number, self._shared_blocks) % 2 == 1
        if SKILL in details and details[SKILL] < SKILL_MIN and not is_odd:
            return "the Gaussian process predicts trials no better than their mean does"
        is_single = len(study.directions) == 1
        is_exhausted = is_single and details.get(ACQUISITION, math.inf) < GAIN_MIN
        if is_exhausted and is_odd and _has_conditions(study):
            return "the Gaussian process expects no improvement"
        return None


def _has_conditions(study: Study) -> bool:
    """Return True if trials differ in which parameters they have."""
    return len({frozenset(trial.params) for trial in cached_trials(study) if trial.params}) > 1
