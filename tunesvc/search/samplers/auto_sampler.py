"""The sampler for people who do not want to choose one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.explanations import LRUDict, Reason
from tunesvc.search.samplers.gp.gp_sampler import GPSampler
from tunesvc.search.samplers.imputing_sampler import ImputingSampler
from tunesvc.search.samplers.tpe.tpe_sampler import TPESampler
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.study_history import StudyHistory, history_of
from tunesvc.search.training_seeds import turn

GP_MAX = 500
"""Up to so many ended trials the Gaussian process decides; from then on it costs more than it gains over TPE."""
PARAMETERS_MAX = 30
"""In spaces of more parameters distances say little."""
OBJECTIVES_MAX = 3
Chosen = GPSampler | ImputingSampler


class AutoSampler(BaseSampler):
    """Spreads the first trials evenly, then asks a Gaussian process, and TPE where that is the better choice.

    TPE decides in spaces of more than 30 parameters, for more than three objectives, and after 500 trials. Where trials
    are pruned, the two take turns: each finds what the other overlooks. What the Gaussian process would measure once
    more, TPE replaces: a full training is dear. The benchmarks in docs/benchmarks.md say why.
    """

    repeatable = True

    def __init__(
        self,
        seed: int | None = None,
        *,
        n_startup_trials: int = 10,
        search_space: Mapping[str, BaseDistribution] | None = None,
        shared_seeds: int | None = None,
    ) -> None:
        """As for `GPSampler`. TPE takes what a seed does for noise."""
        self._n_startup_trials = n_startup_trials
        self._shared_seeds = shared_seeds
        self._gp = GPSampler(
            seed,
            n_startup_trials=n_startup_trials,
            search_space=search_space,
            shared_seeds=shared_seeds,
        )
        self._tpe = ImputingSampler(
            TPESampler(seed=seed, n_startup_trials=n_startup_trials),
            seed=seed,
        )
        self._chosen: LRUDict[tuple[Chosen, str]] = LRUDict()

    def reseed_rng(self) -> None:
        """Draw other numbers from now on."""
        self._gp.reseed_rng()
        self._tpe.reseed_rng()

    @locked
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose a sampler for the trial."""
        self._chosen.pop(trial.number, None)
        self._choose(study, trial).before_trial(study, trial)

    @locked
    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        """As the chosen sampler says."""
        return self._choose(study, trial).infer_relative_search_space(study, trial)

    @locked
    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Values that the chosen sampler draws together."""
        chosen = self._choose(study, trial)
        proposal = chosen.sample_relative(study, trial, search_space)
        tried = self._tried(study, trial, proposal) if chosen is self._gp else None
        if tried is None:
            return proposal
        self._chosen[trial.number] = (
            self._tpe,
            f"TPE, because the Gaussian process would repeat trial {tried}",
        )
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
        """A value that the chosen sampler draws by itself."""
        return self._choose(study, trial).sample_independent(
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
        """Tell whoever proposed it, as far as that is known: not across a restart, nor after many other trials."""
        if trial.number in self._chosen:
            self._chosen[trial.number][0].after_trial(study, trial, state, values)

    def explain(self, number: int) -> Reason | None:
        """The chosen sampler's reason, and why it was chosen where that is not the usual one."""
        if number not in self._chosen:
            return None
        sampler, why = self._chosen[number]
        reason = sampler.explain(number)
        if reason is None or not why:
            return reason
        return Reason(
            f"{reason.text} (drawn by {why})",
            {**reason.details, "chosen": why},
        )

    def _choose(self, study: Study, trial: FrozenTrial) -> Chosen:
        """One sampler for all of a trial's parameters, whatever ends meanwhile."""
        if trial.number not in self._chosen:
            self._chosen[trial.number] = self._decide(study, trial)
        return self._chosen[trial.number][0]

    def _decide(self, study: Study, trial: FrozenTrial) -> tuple[Chosen, str]:
        """Return the sampler, and why it draws instead of the Gaussian process; empty for the usual choice."""
        trials = study._get_trials(deepcopy=False, use_cache=True)
        history = history_of(study, trials)
        if len(study.directions) > OBJECTIVES_MAX:
            return (
                self._tpe,
                f"TPE, because the study has {len(study.directions)} objectives",
            )
        if history.ended > GP_MAX:
            return (
                self._tpe,
                f"TPE, because {history.ended:,} trials would slow a Gaussian process down",
            )
        parameters = len({name for trial in trials[-20:] for name in trial.params})
        if parameters > PARAMETERS_MAX:
            return self._tpe, f"TPE, because the space has {parameters} parameters"
        if not self._take_turns(study, history):
            return self._gp, ""
        if turn(trial.number, self._shared_seeds) % 2:
            return (
                self._gp,
                "a Gaussian process, in turn with TPE because trials are pruned",
            )
        return (
            self._tpe,
            "TPE, in turn with a Gaussian process because trials are pruned",
        )

    def _take_turns(self, study: Study, history: StudyHistory) -> bool:
        return len(study.directions) == 1 and history.pruned > 0 and history.ended >= self._n_startup_trials

    def _tried(
        self,
        study: Study,
        trial: FrozenTrial,
        proposal: Mapping[str, Any],
    ) -> int | None:
        """The first trial that a proposal would repeat, where that is not wanted."""
        history = history_of(study, study._get_trials(deepcopy=False, use_cache=True))
        if not self._take_turns(study, history):
            return None
        return history.repeated(proposal, trial.number)
