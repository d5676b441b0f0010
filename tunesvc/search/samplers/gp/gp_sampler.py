"""The Gaussian-process sampler, which learns from finished, pruned and running trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.explanations import REPEATS, Reason, RecentEntries
from tunesvc.search.samplers.gp.acquisitions.acquisition import Acquisition, Incumbents, maximise
from tunesvc.search.samplers.gp.acquisitions.front_acquisition import FrontAcquisition
from tunesvc.search.samplers.gp.acquisitions.imagined import imagine
from tunesvc.search.samplers.gp.acquisitions.region import Region, TrustRegion, WholeSpace
from tunesvc.search.samplers.gp.initial_design import spread
from tunesvc.search.samplers.gp.model.domain import Domain, draw_alone
from tunesvc.search.samplers.gp.model.feasibility import Feasibility
from tunesvc.search.samplers.gp.model.fit_cache import FitCache
from tunesvc.search.samplers.gp.model.observations import OBSERVED_MAX
from tunesvc.search.samplers.gp.model.study_models import ObjectiveModel, StudyModels
from tunesvc.search.samplers.gp.model.warping import Warping
from tunesvc.search.study_lock import locked
from tunesvc.search.study_storage import shown_as_infeasible
from tunesvc.search.tracking.transferred import source_of
from tunesvc.search.training_seeds import groups, turn
from tunesvc.util.optuna_internals import cached_trials

VERSION = "gp 15"
"""Version; it changes when the same seed and history give another proposal."""
_TEACHING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
ACQUISITION = "acquisition"
"""Key of a reason's details: the logarithm of the improvement that is expected."""
SKILL = "skill"
"""Key of a reason's details: how much better than a constant the model predicts held-out trials."""
CORRELATIONS = "correlations"
"""Key of a reason's details: those of values with values of earlier studies, by their names."""
_NEAREST = 3
_STARTS = 5


class GPSampler(BaseSampler):
    """Bayesian optimisation with a Gaussian process, on NumPy and SciPy.

    A proposal is a function of the seed, the trial's number and the trials so far. So a restarted
    study continues as it would have, and every proposal can be reproduced. Takes one or several
    objectives, constraints as Optuna stores them (values above 0 are violations), and every kind of
    parameter. The dependence of conditional parameters on choices is learned from the trials.
    Beyond 400 observations of one objective, every second model is one of the best point's
    neighbourhood (a trust region: Eriksson et al. 2019).
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
        """Make a sampler for one or several studies.

        Args:
            seed: of all random numbers; from the system's entropy by default.
            n_startup_trials: number of trials that are spread evenly before the model is used.
            search_space: the parameters, if they are known in advance; else learned from the
                trials.
            shared_blocks: set if trial k is trained with seed `k % shared_blocks`, or on that fold
                of the data. The effect of a fold or seed on all trials alike is then separated
                from the parameters'.
        """
        self._seed = _entropy() if seed is None else int(seed)
        self._n_startup_trials = n_startup_trials
        self._search_space = dict(search_space or {})
        self._shared_blocks = shared_blocks
        self._fits = FitCache()
        self._reasons: RecentEntries[Reason] = RecentEntries()

    def reseed_rng(self) -> None:
        """Reseed, as Optuna does with a sampler's copy in another worker."""
        self._seed = _entropy()

    @locked
    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        """Return every parameter of any trial, with its latest distribution."""
        union = dict(self._search_space)
        for other in cached_trials(study):
            if other.number != trial.number:
                union.update(other.distributions)
        return {name: kind for name, kind in union.items() if not kind.single()}

    @locked
    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return values for all parameters jointly."""
        if not search_space:
            self._explain_start(trial.number, 0)
            return {}
        found = cached_trials(study)
        trials = [shown_as_infeasible(other) or other for other in found]
        others = [other for other in trials if other.number != trial.number]
        others = [other for other in others if other.state in _TEACHING]
        sources = {name for name in map(source_of, others) if name is not None}
        domain = Domain(search_space, sorted(sources))
        domain.learn_conditions([other for other in others if other.state.is_finished()])
        shared, fewest = self._shared_blocks, self._n_startup_trials
        models = StudyModels(study, others, domain, self._fits, shared, fewest)
        return domain.decode(self._propose(models, trial.number, domain))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a uniformly drawn value, for a parameter that no trial had before."""
        return draw_alone(self._seed, trial.number, param_name, param_distribution)

    def explain(self, number: int) -> Reason | None:
        """Return the reason of the last proposal for this trial."""
        return self._reasons.get(number)

    # --- proposing ---

    def _propose(self, models: StudyModels, number: int, domain: Domain) -> np.ndarray:
        has_begun = models.ended >= self._n_startup_trials
        rng = np.random.default_rng([self._seed, number])
        objectives = models.objectives() if has_begun else ()
        feasibility = models.feasibility() if has_begun else None
        is_any_kept = any(objective.every.is_candidate.any() for objective in objectives)
        if feasibility is not None and not is_any_kept:
            self._explain_infeasible(number, models.ended)
            space = WholeSpace(domain, Warping.identity(len(domain)))
            return maximise(feasibility, space, feasibility.starts(_STARTS), rng)[0]
        if not self._teach(objectives):
            self._explain_start(number, models.ended)
            return spread(domain, number, self._seed % 2**32)
        region: Region | None = None
        if self._is_local(number, objectives):
            objectives = [models.neighbourhood(objectives[0])]
            region = TrustRegion(domain, objectives[0].seen.points)
        plan = self._plan(number, models, objectives, feasibility, domain, rng)
        region = region or WholeSpace(domain, plan.acquisition.warping)
        point, value = maximise(plan.acquisition, region, plan.starts, rng)
        self._explain(number, plan, point, value, domain)
        return point

    def _teach(self, objectives: Sequence[ObjectiveModel]) -> bool:
        """Return True if the observations say where to search.

        A model of equal values would ask where it knows least: at the borders.
        """
        if not any(objective.every.is_candidate.any() for objective in objectives):
            return False
        are_few = any(len(objective.every) < self._n_startup_trials for objective in objectives)
        return are_few or any(np.ptp(objective.every.values) for objective in objectives)

    def _is_local(self, number: int, objectives: Sequence[ObjectiveModel]) -> bool:
        """Return True for every second trial once the model cannot hold all observations."""
        is_too_many = len(objectives) == 1 and len(objectives[0].every) > OBSERVED_MAX
        return is_too_many and turn(number, self._shared_blocks) % 2 == 1

    def _plan(
        self,
        number: int,
        models: StudyModels,
        objectives: Sequence[ObjectiveModel],
        feasibility: Feasibility | None,
        domain: Domain,
        rng: np.random.Generator,
    ) -> _Plan:
        (seed,) = models.seeds_of([number])
        first = objectives[0]
        tried, failed = models.tried(first), models.failed(first)
        candidates = domain.as_own(first.every.points[first.every.is_candidate])
        if len(objectives) > 1:
            front = FrontAcquisition(
                [objective.posterior for objective in objectives],
                np.vstack([candidates, models.running]),
                domain,
                seed,
                rng,
                tried=tried,
                failed=failed,
                feasibility=feasibility,
            )
            return _Plan(objectives, front, front.starts(_STARTS))
        seen, posterior = first.seen, first.posterior
        points = domain.as_own(seen.points)
        means = posterior.mean(points)
        candidates = points[seen.is_candidate]
        incumbents = Incumbents.of(candidates, means[seen.is_candidate])
        if len(models.running):
            posterior, incumbents = imagine(posterior, candidates, models.running, feasibility, rng)
        single = Acquisition(
            posterior,
            incumbents,
            seed,
            tried=tried,
            failed=failed,
            feasibility=feasibility,
            is_deterministic=first.every.repeats.agree is True,
        )
        best = np.argsort(means, kind="stable")[:_STARTS]
        return _Plan(objectives, single, points[best])

    # --- reasons ---

    def _explain_start(self, number: int, ended: int) -> None:
        until = f"until {self._n_startup_trials} trials have finished"
        if ended >= self._n_startup_trials:
            until = "because the finished trials teach the model nothing yet"
        text = f"start: spread evenly over the space, {until}"
        self._reasons[number] = Reason(
            text,
            {**self._signed(), "phase": "start", "ended": ended},
        )

    def _explain_infeasible(self, number: int, ended: int) -> None:
        text = "explore: where constraints are most likely kept, because no trial has kept them yet"
        self._reasons[number] = Reason(text, {**self._signed(), "phase": "explore", "ended": ended})

    def _explain(
        self,
        number: int,
        plan: _Plan,
        point: np.ndarray,
        value: float,
        domain: Domain,
    ) -> None:
        predictions = [objective.predict(point) for objective in plan.objectives]
        is_repeated = bool((plan.objectives[0].seen.points == point).all(axis=1).any())
        is_near = plan.acquisition.is_near(*np.array(predictions).T)
        phase = "exploit" if is_near or is_repeated else "explore"
        nearest = plan.objectives[0].nearest(point, _NEAREST)
        details = {
            **self._signed(),
            "phase": phase,
            ACQUISITION: value,
            "nearest": nearest,
            SKILL: max(objective.observed.skill() for objective in plan.objectives),
        }
        correlations = plan.objectives[0].correlations(domain)
        transfer = ""
        if correlations:
            details[CORRELATIONS] = correlations
            named = [f"{one:.2f} with those of {name}" for name, one in correlations.items()]
            transfer = f"; values correlate by {' and by '.join(named)}"
        seeds = groups(np.array([number]), self._shared_blocks)
        pairs = zip(plan.objectives, predictions, strict=True)
        units = [objective.in_units(*prediction, seeds) for objective, prediction in pairs]
        if len(units) == 1:
            details |= {"mean": units[0][0], "deviation": units[0][1]}
        else:
            details |= {"means": [u[0] for u in units], "deviations": [u[1] for u in units]}
        verb = "is" if len(units) == 1 else "are"
        expected = " and ".join(f"{mean:.6g} ± {deviation:.2g}" for mean, deviation in units)
        expectation = f"; {expected} {verb} expected"
        why = {
            "exploit": "close to the best values that the model knows",
            "explore": "where the model knows so little that a better value is possible",
        }[phase]
        if is_repeated:
            again = f"again{self._on_block(number)}, to tell its value from noise"
            details[REPEATS] = nearest[0]["number"]
            why = f"the parameters of trial {nearest[0]['number']} {again}"
        self._reasons[number] = Reason(f"{phase}: {why}{expectation}{transfer}", details)

    def _on_block(self, number: int) -> str:
        if self._shared_blocks is None:
            return ""
        return f" with fold or seed {number % self._shared_blocks} of {self._shared_blocks}"

    def _signed(self) -> dict[str, Any]:
        return {"sampler": "gp", "version": VERSION, "seed": self._seed}


@dataclass(frozen=True, slots=True)
class _Plan:
    """An acquisition, and what it is made of."""

    objectives: Sequence[ObjectiveModel]
    acquisition: Acquisition | FrontAcquisition
    starts: np.ndarray
    """Points around which the acquisition is searched."""


def _entropy() -> int:
    return int(np.random.SeedSequence().generate_state(1)[0])
