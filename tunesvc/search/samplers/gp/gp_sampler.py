"""The Gaussian-process sampler, which learns from finished, pruned and running trials."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.explanations import REPEATS, Reason, RecentEntries
from tunesvc.search.pruners.curve.curve_model import CurveModel, models_of
from tunesvc.search.samplers.gp.acquisition import Acquisition, maximise
from tunesvc.search.samplers.gp.domain import Domain, draw_alone
from tunesvc.search.samplers.gp.feasibility import Feasibility
from tunesvc.search.samplers.gp.front_acquisition import FrontAcquisition
from tunesvc.search.samplers.gp.gp_model import Hyperparameters, Posterior, fit
from tunesvc.search.samplers.gp.imagined import imagine
from tunesvc.search.samplers.gp.initial_design import spread
from tunesvc.search.samplers.gp.observations import (
    OBSERVED_MAX,
    Observations,
    observe,
    prefers_log,
)
from tunesvc.search.samplers.gp.region import Region, TrustRegion, WholeSpace
from tunesvc.search.samplers.gp.trade_off import trade_off_scales
from tunesvc.search.samplers.gp.warping import Warping
from tunesvc.search.study_lock import locked
from tunesvc.search.study_storage import shown_as_infeasible
from tunesvc.search.tracking.objectives import seen_by
from tunesvc.search.tracking.scale import ValueScale
from tunesvc.search.training_seeds import groups, turn
from tunesvc.util.optuna_internals import cached_trials

VERSION = "gp 13"
"""Version; it changes when the same seed and history give another proposal."""
_FITTED_MAX = 150
"""Most observations that hyperparameters are fitted to."""
_EVERY_UP_TO, _GROWTH = 20, 1.1
"""Number of finished trials up to which each one leads to a new fit;
then every growth by `_GROWTH`."""
_FITS_MAX = 40
"""Cached fits: of each objective's values, of their logarithms and of constraints, now and at the
last milestone."""
_TEACHING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
ACQUISITION = "acquisition"
"""Key of a reason's details: the logarithm of the improvement that is expected."""
SKILL = "skill"
"""Key of a reason's details: how much better than a constant the model predicts held-out trials."""
_NEAREST = 3
_NEAREST_MODELLED = 100
"""Observations in the model of a neighbourhood, unless there are many parameters."""
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
        shared_seeds: int | None = None,
    ) -> None:
        """Make a sampler for one or several studies.

        Args:
            seed: of all random numbers; from the system's entropy by default.
            n_startup_trials: number of trials that are spread evenly before the model is used.
            search_space: the parameters, if they are known in advance; else learned from the
                trials.
            shared_seeds: set if trial k is trained with seed `k % shared_seeds`, or on that fold
                of the data. A seed's effect on all trials alike is then separated from the
                parameters'.
        """
        self._seed = _entropy() if seed is None else int(seed)
        self._n_startup_trials = n_startup_trials
        self._search_space = dict(search_space or {})
        self._shared_seeds = shared_seeds
        self._fits: OrderedDict[bytes, Hyperparameters] = OrderedDict()
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
        domain = Domain(search_space)
        found = cached_trials(study)
        trials = [shown_as_infeasible(other) or other for other in found]
        others = [other for other in trials if other.number != trial.number]
        others = [other for other in others if other.state in _TEACHING]
        domain.learn_conditions([other for other in others if other.state.is_finished()])
        point = self._propose(study, trial.number, others, domain)
        return domain.decode(point)

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

    def _propose(
        self,
        study: Study,
        number: int,
        trials: Sequence[FrozenTrial],
        domain: Domain,
    ) -> np.ndarray:
        ended = sum(trial.state.is_finished() for trial in trials)
        rng = np.random.default_rng([self._seed, number])
        objectives = self._objectives(study, trials, domain, ended)
        feasibility = None
        if ended >= self._n_startup_trials:
            feasibility = self._feasibility(trials, domain)
        is_any_kept = any(objective.every.is_candidate.any() for objective in objectives)
        if feasibility is not None and not is_any_kept:
            self._explain_infeasible(number, ended)
            space = WholeSpace(domain, Warping.identity(len(domain)))
            return maximise(feasibility, space, feasibility.starts(_STARTS), rng)[0]
        if not self._teach(objectives):
            self._explain_start(number, ended)
            return spread(domain, number, self._seed % 2**32)
        region: Region | None = None
        if self._is_local(number, objectives):
            objectives = [self._neighbourhood(objectives[0], trials, domain)]
            region = TrustRegion(domain, objectives[0].seen.points)
        model = self._model(number, objectives, trials, domain, feasibility, rng)
        region = region or WholeSpace(domain, model.acquisition.warping)
        point, value = maximise(model.acquisition, region, model.starts, rng)
        self._explain(number, model, point, value)
        return point

    def _objectives(
        self,
        study: Study,
        trials: Sequence[FrozenTrial],
        domain: Domain,
        ended: int,
    ) -> Sequence[_Objective]:
        """Return a model of each objective; empty while too few trials have finished."""
        has_finished = any(trial.state == TrialState.COMPLETE for trial in trials)
        if ended < self._n_startup_trials or not has_finished:
            return ()
        curves: Sequence[CurveModel | None] = [None] * len(study.directions)
        if any(trial.intermediate_values for trial in trials):
            curves = models_of(study)
        if len(study.directions) == 1:
            return [self._objective(trials, study.directions[0], curves[0], domain, ())]
        finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        scales = trade_off_scales(finished, study.directions)
        learned = self._to_learn_from(trials)
        of_learned = trade_off_scales(learned, study.directions) if learned else scales
        return [
            self._objective(
                [seen_by(trial, k) for trial in trials],
                direction,
                curves[k],
                domain,
                (scales[k], of_learned[k]),
            )
            for k, direction in enumerate(study.directions)
        ]

    def _objective(
        self,
        trials: Sequence[FrozenTrial],
        direction: StudyDirection,
        curve: CurveModel | None,
        domain: Domain,
        scales: Sequence[ValueScale],
    ) -> _Objective:
        """Model one objective; the trials are as those of a study with that one only.

        Args:
            scales: of the values, and of those that hyperparameters are fitted to; empty to derive
                both.
        """
        is_log = None if scales else self._prefers_log(trials, direction, domain)
        now, then = scales or (None, None)
        shared = self._shared_seeds
        every = observe(trials, domain, direction, curve, shared, is_log=is_log, scale=now)
        if every is None:
            raise ValueError("no trial has finished")
        seen = every.thinned(OBSERVED_MAX)
        finished = self._to_learn_from(trials)
        learned = observe(finished, domain, direction, None, shared, is_log=is_log, scale=then)
        known = self._learn((learned or seen).thinned(_FITTED_MAX), domain)
        return self._fitted(every, seen, known, trials, domain)

    def _is_local(self, number: int, objectives: Sequence[_Objective]) -> bool:
        """Return True for every second trial once the model cannot hold all observations."""
        is_too_many = len(objectives) == 1 and len(objectives[0].every) > OBSERVED_MAX
        return is_too_many and turn(number, self._shared_seeds) % 2 == 1

    def _neighbourhood(
        self,
        whole: _Objective,
        trials: Sequence[FrozenTrial],
        domain: Domain,
    ) -> _Objective:
        """Model the observations nearest to the best known point, in units of their own."""
        means = np.where(whole.seen.is_candidate, whole.posterior.mean(whole.seen.points), np.inf)
        best = whole.seen.points[means.argmin()]
        distances = whole.posterior.distances(best, whole.every.points)
        count = max(_NEAREST_MODELLED, 2 * len(domain))
        nearest = np.sort(np.argsort(distances, kind="stable")[:count])
        seen = whole.every.part(nearest).standardised()
        return self._fitted(whole.every, seen, self._learn(seen, domain), trials, domain)

    def _fitted(
        self,
        every: Observations,
        seen: Observations,
        known: Hyperparameters,
        trials: Sequence[FrozenTrial],
        domain: Domain,
    ) -> _Objective:
        posterior = Posterior(
            known,
            domain.choices,
            seen.points,
            seen.values,
            seen.variances,
            seen.seeds,
        )
        observed = posterior
        running = _running(trials)
        if running:
            posterior = self._with_running(posterior, seen, running, domain)
        return _Objective(every, seen, observed, posterior)

    def _teach(self, objectives: Sequence[_Objective]) -> bool:
        """Return True if the observations say where to search.

        A model of equal values would ask where it knows least: at the borders.
        """
        if not any(objective.every.is_candidate.any() for objective in objectives):
            return False
        are_few = any(len(objective.every) < self._n_startup_trials for objective in objectives)
        return are_few or any(np.ptp(objective.every.values) for objective in objectives)

    def _model(
        self,
        number: int,
        objectives: Sequence[_Objective],
        trials: Sequence[FrozenTrial],
        domain: Domain,
        feasibility: Feasibility | None,
        rng: np.random.Generator,
    ) -> _Model:
        (seed,) = self._seeds_of([number])
        every = objectives[0].every
        known_numbers = set(every.numbers.tolist())
        others = [trial for trial in trials if trial.number not in known_numbers]
        pruned = [trial for trial in others if trial.state == TrialState.PRUNED]
        failed = _points([trial for trial in pruned if not trial.intermediate_values], domain)
        tried = np.vstack([every.points, _points(others, domain)])
        running = _points(_running(trials), domain)
        if len(objectives) > 1:
            front = FrontAcquisition(
                [objective.posterior for objective in objectives],
                np.vstack([every.points[every.is_candidate], running]),
                domain,
                seed,
                rng,
                tried=tried,
                failed=failed,
                feasibility=feasibility,
            )
            return _Model(objectives, front, front.starts(_STARTS))
        seen, posterior = objectives[0].seen, objectives[0].posterior
        posterior, incumbents = imagine(
            posterior, seen.points[seen.is_candidate], running, feasibility, rng
        )
        single = Acquisition(
            posterior,
            incumbents,
            seed,
            tried=tried,
            failed=failed,
            feasibility=feasibility,
            is_deterministic=every.repeats.agree is True,
        )
        means = objectives[0].posterior.mean(seen.points)
        best = np.argsort(means, kind="stable")[:_STARTS]
        return _Model(objectives, single, seen.points[best])

    def _with_running(
        self,
        posterior: Posterior,
        seen: Observations,
        running: Sequence[FrozenTrial],
        domain: Domain,
    ) -> Posterior:
        """Add running trials with expected values: they will have finished when this one does."""
        points = np.stack([domain.encode(trial.params) for trial in running])
        seeds = self._seeds_of([trial.number for trial in running])
        return Posterior(
            posterior.known,
            domain.choices,
            np.vstack([seen.points, points]),
            np.concatenate([seen.values, posterior.mean(points, seeds)]),
            np.concatenate([seen.variances, np.zeros(len(points))]),
            np.concatenate([seen.seeds, seeds]),
        )

    def _feasibility(self, trials: Sequence[FrozenTrial], domain: Domain) -> Feasibility | None:
        ended = [trial for trial in trials if trial.state.is_finished()][-OBSERVED_MAX:]
        learned = slice(max(0, _milestone(len(ended)) - _FITTED_MAX), _milestone(len(ended)))

        def learn(points: np.ndarray, values: np.ndarray) -> Hyperparameters:
            count = len(points[learned])
            # All differ: effects of seeds on constraints are not modelled.
            arrays = points[learned], values[learned], np.zeros(count), np.arange(count)
            return self._fit_cached(*arrays, domain, jumps=True)

        return Feasibility.of(ended, domain, learn)

    def _to_learn_from(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Return the finished trials that hyperparameters are fitted to; empty while too few.

        They are fitted again whenever finished trials have grown by a tenth.
        """
        finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        count = _milestone(len(finished))
        if count < self._n_startup_trials:
            return ()
        return finished[:count]

    def _prefers_log(
        self,
        trials: Sequence[FrozenTrial],
        direction: StudyDirection,
        domain: Domain,
    ) -> bool | None:
        """Return True if logarithms fit better, see `prefers_log`; None with too few trials."""
        finished = self._to_learn_from(trials)
        if not finished:
            return None

        def learn(seen: Observations) -> Hyperparameters:
            return self._learn(seen, domain)

        return prefers_log(
            finished,
            domain,
            direction,
            self._shared_seeds,
            _FITTED_MAX,
            learn,
        )

    def _learn(self, seen: Observations, domain: Domain) -> Hyperparameters:
        return self._fit_cached(
            seen.points,
            seen.values,
            seen.variances,
            seen.seeds,
            domain,
        )

    def _fit_cached(
        self,
        points: np.ndarray,
        values: np.ndarray,
        variances: np.ndarray,
        seeds: np.ndarray,
        domain: Domain,
        *,
        jumps: bool = False,
    ) -> Hyperparameters:
        """Fit, or return a cached fit: several workers ask with the same data."""
        arrays = (points, values, variances, seeds, domain.decides)
        key = b"".join(array.tobytes() for array in arrays) + bytes([jumps])
        known = self._fits.get(key)
        if known is None:
            known = self._fits[key] = fit(
                points,
                values,
                variances,
                domain.choices,
                seeds,
                decides=domain.decides,
                jumps=jumps,
            )
            while len(self._fits) > _FITS_MAX:
                self._fits.popitem(last=False)
        return known

    def _seeds_of(self, numbers: Sequence[int]) -> np.ndarray:
        return groups(np.array(numbers), self._shared_seeds)

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
        model: _Model,
        point: np.ndarray,
        value: float,
    ) -> None:
        predictions = [objective.predict(point) for objective in model.objectives]
        is_repeated = bool((model.objectives[0].seen.points == point).all(axis=1).any())
        is_near = model.acquisition.is_near(*np.array(predictions).T)
        phase = "exploit" if is_near or is_repeated else "explore"
        nearest = model.objectives[0].nearest(point)
        details = {
            **self._signed(),
            "phase": phase,
            ACQUISITION: value,
            "nearest": nearest,
            SKILL: max(objective.observed.skill() for objective in model.objectives),
        }
        seeds = self._seeds_of([number])
        pairs = zip(model.objectives, predictions, strict=True)
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
            again = f"again{self._with_seed(number)}, to tell its value from noise"
            details[REPEATS] = nearest[0]["number"]
            why = f"the parameters of trial {nearest[0]['number']} {again}"
        self._reasons[number] = Reason(f"{phase}: {why}{expectation}", details)

    def _with_seed(self, number: int) -> str:
        if self._shared_seeds is None:
            return ""
        return f" with seed {number % self._shared_seeds} of {self._shared_seeds}"

    def _signed(self) -> dict[str, Any]:
        return {"sampler": "gp", "version": VERSION, "seed": self._seed}


@dataclass(frozen=True, slots=True)
class _Objective:
    """Observations of one objective, and the model of them."""

    every: Observations
    seen: Observations
    """The modelled ones."""
    observed: Posterior
    """The model without running trials."""
    posterior: Posterior

    def predict(self, point: np.ndarray) -> tuple[float, float]:
        """Return mean and deviation of the function at a point, on the scale."""
        (mean,), (variance,) = self.posterior.predict(point[None])
        return float(mean), math.sqrt(variance)

    def in_units(self, mean: float, deviation: float, seeds: np.ndarray) -> tuple[float, float]:
        """Return a prediction for a trial with this seed in the objective's units."""
        (shift,) = self.posterior.shifts(seeds)
        return self.seen.in_units(float(mean + shift), deviation)

    def nearest(self, point: np.ndarray) -> list[dict[str, float]]:
        """Return the observed trials nearest to a point, and their distances in length scales."""
        distances = self.posterior.distances(point, self.seen.points)
        order = np.argsort(distances, kind="stable")[:_NEAREST]
        numbers = self.seen.numbers[order].tolist()
        pairs = zip(numbers, order, strict=True)
        return [{"number": number, "distance": float(distances[i])} for number, i in pairs]


@dataclass(frozen=True, slots=True)
class _Model:
    objectives: Sequence[_Objective]
    acquisition: Acquisition | FrontAcquisition
    starts: np.ndarray
    """Points around which the acquisition is searched."""


def _running(trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.RUNNING]


def _points(trials: Sequence[FrozenTrial], domain: Domain) -> np.ndarray:
    """Return trials as points; shape (trials, parameters)."""
    return np.array([domain.encode(trial.params) for trial in trials]).reshape(
        -1,
        len(domain),
    )


def _milestone(count: int) -> int:
    """Return the largest of 20, 22, 24, 26 ... (a tenth more each) that is not above a count."""
    if count <= _EVERY_UP_TO:
        return count
    steps = int(math.log(count / _EVERY_UP_TO) / math.log(_GROWTH) + 1e-9)
    return int(_EVERY_UP_TO * _GROWTH**steps)


def _entropy() -> int:
    return int(np.random.SeedSequence().generate_state(1)[0])
