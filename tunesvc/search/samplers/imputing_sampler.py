"""A wrapper that shows a sampler pruned trials with forecast final values, as if they had finished.

Optuna's TPE ranks a pruned trial behind every finished one, by its last step; other samplers ignore
it. Both lose information where pruning works well and few trials finish. Here a sampler sees each
pruned trial as complete, with the forecast of the study's model as its value.

The wrapper also avoids repetitions. In a space that is a grid, TPE proposes its favourite again and
again, and a pruner lets each repetition run, for it looks as good as the best.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, overload

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.explanations import Explainable, Reason
from tunesvc.search.pruners.curve.forecasts import ForecastModel
from tunesvc.search.pruners.curve.study_forecasts import models_of
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.study_history import history_of
from tunesvc.util.optuna_internals import StudyProxy, random_states

_CHANGES = 50
"""After so many changes the space counts as covered, and a repetition is accepted."""


class ImputingSampler(BaseSampler):
    """Shows another sampler pruned trials with forecast final values, and avoids repetitions.

    Args:
        sampler: the sampler that proposes, such as TPE. A joint proposal that was made before is
            changed at random in one parameter after the other, until it is new.
        seed: of those changes.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        *,
        seed: int | None = None,
    ) -> None:
        self._sampler = sampler
        self._random = RandomSampler(seed)

    def reseed_rng(self) -> None:
        """Reseed both samplers."""
        self._sampler.reseed_rng()
        self._random.reseed_rng()

    @locked
    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        """Delegate to the wrapped sampler."""
        return self._sampler.infer_relative_search_space(_imputed(study), trial)

    @locked
    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return a joint proposal that is new, if one is found."""
        history = history_of(study, study.get_trials(deepcopy=False))

        def is_tried() -> bool:
            return history.repeated(proposal, trial.number) is not None

        proposal = self._sampler.sample_relative(
            _imputed(study),
            trial,
            search_space,
        )
        if not proposal or not is_tried():
            return proposal
        for _ in range(_CHANGES):
            name = str(random_states(self._random)[0].choice(list(proposal)))
            proposal[name] = self._random.sample_independent(
                study,
                trial,
                name,
                search_space[name],
            )
            if not is_tried():
                break
        return proposal

    @locked
    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Delegate to the wrapped sampler."""
        return self._sampler.sample_independent(
            _imputed(study),
            trial,
            param_name,
            param_distribution,
        )

    @locked
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Delegate to the wrapped sampler."""
        self._sampler.before_trial(study, trial)

    def explain(self, number: int) -> Reason | None:
        """Return the wrapped sampler's reason."""
        return self._sampler.explain(number) if isinstance(self._sampler, Explainable) else None

    @locked
    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Delegate to the wrapped sampler."""
        self._sampler.after_trial(study, trial, state, values)


def _imputed(study: Study) -> _ImputedStudy:
    """Return the study with its models' current forecasts."""
    return _ImputedStudy(study, models_of(study))


class _ImputedStudy(StudyProxy):
    """A study as the wrapped sampler sees it."""

    def __init__(self, study: Study, models: Sequence[ForecastModel]) -> None:
        super().__init__(study)
        self._models = models

    @property
    def forecasts(self) -> Sequence[object]:
        """See `finished.forecasts_in`."""
        return [model.state for model in self._models]

    def shown(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials with pruned ones completed by their forecasts."""
        return _ImputedTrials(trials, self._models)


class _ImputedTrials(list[FrozenTrial]):
    """Trials of which the pruned ones are imputed on access: a sampler may know most of them."""

    def __init__(
        self,
        trials: list[FrozenTrial],
        models: Sequence[ForecastModel],
    ) -> None:
        super().__init__(trials)
        self._models = models

    def __iter__(self) -> Iterator[FrozenTrial]:
        return iter(self[:])

    @overload
    def __getitem__(self, index: SupportsIndex) -> FrozenTrial: ...
    @overload
    def __getitem__(self, index: slice) -> list[FrozenTrial]: ...
    def __getitem__(
        self,
        index: SupportsIndex | slice,
    ) -> FrozenTrial | list[FrozenTrial]:
        found = super().__getitem__(index)
        return self._impute(found) if isinstance(found, list) else self._impute([found])[0]

    def _impute(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        each = [model.expected(trials) for model in self._models]
        return [_as_complete(trial, [of.get(trial.number) for of in each]) for trial in trials]


def _as_complete(
    trial: FrozenTrial,
    values: Sequence[float | None],
) -> FrozenTrial:
    if trial.state != TrialState.PRUNED or None in values:
        return trial
    imputed = copy.copy(trial)
    imputed.state, imputed.values = TrialState.COMPLETE, list(values)
    return imputed
