"""Optuna's private interface, as far as tunesvc uses it: the place to look when an upgrade breaks.

Each function and class documents why Optuna's public interface does not suffice.
Imports Optuna.
"""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np
from optuna._hypervolume import compute_hypervolume
from optuna._hypervolume.hssp import _solve_hssp
from optuna.distributions import BaseDistribution
from optuna.pruners import _filter_study
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.study import Study
from optuna.study._frozen import FrozenStudy
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, Trial, TrialState

# Parts of the storage contract that Optuna exports nowhere.
__all__ = ["BaseHeartbeat", "FrozenStudy"]

# --- studies and trials --------------------------------------------------------------------------


def storage_of(study: Study) -> BaseStorage:
    """Return a study's storage. Only `Trial` has a public attribute for it."""
    return study._storage


def id_of(study: Study) -> int:
    """Return a study's id in its storage. `Study` has only its name."""
    return study._study_id


def trial_id_of(trial: FrozenTrial) -> int:
    """Return a trial's id in its storage, whose methods require it. Only its number is public."""
    return trial._trial_id


def renumber(trial: FrozenTrial, number: int, trial_id: int) -> None:
    """Give a trial another number and id. `create_trial` takes neither."""
    trial.number, trial._trial_id = number, trial_id


def set_system_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Set a system attribute. Samplers and pruners get a `FrozenTrial`, which cannot set any."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def cached_trials(study: Study) -> list[FrozenTrial]:
    """Return all trials, from the list that Optuna caches for an ask. Do not change them.

    `Study.get_trials` always reads the storage.
    """
    return study._get_trials(deepcopy=False, use_cache=True)


def clear_trial_cache(study: Study) -> None:
    """Let this thread read the study's trials again.

    Optuna does that in `Study.ask` and `tell`, which the caller does not use.
    """
    study._thread_local.cached_all_trials = None


def allow_stop(study: Study) -> None:
    """Allow `Study.stop`, which grid and brute-force samplers call when nothing is left.

    Optuna allows it within its own loop only.
    """
    study._thread_local.in_optimize_loop = True


def was_stopped(study: Study) -> bool:
    """Return True if `Study.stop` was called. Only Optuna's own loop reads that."""
    return study._stop_flag


def undo_stop(study: Study) -> None:
    """Forget a call of `Study.stop`, as Optuna's own loop does when it begins."""
    study._stop_flag = False


class StudyProxy(Study):
    """A study that shows its samplers other trials than its storage has.

    Samplers read trials by a private method.
    """

    def __init__(self, study: Study) -> None:
        self.__dict__.update(study.__dict__)

    def shown(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials to show for these. A pruned one may become complete."""
        raise NotImplementedError

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        requested = states
        if states is not None and TrialState.COMPLETE in states and TrialState.PRUNED not in states:
            requested = [*(state for state in TrialState if state in states), TrialState.PRUNED]
        trials = self.shown(super()._get_trials(deepcopy, requested, use_cache))
        return trials if states is None else [trial for trial in trials if trial.state in states]


class TrialProxy(Trial):
    """A trial of an objective whose values do not come from its study's sampler.

    All of Optuna's `suggest_*` call a private method.
    """

    def _value_of(self, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of a parameter, which is asked for once."""
        raise NotImplementedError

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        trial = self._cached_frozen_trial
        if name not in trial.params:
            trial.distributions[name] = distribution
            trial.params[name] = self._value_of(name, distribution)
        return trial.params[name]


# --- samplers ------------------------------------------------------------------------------------


def study_of_bracket(study: Study, trial: FrozenTrial) -> Study:
    """Return the study as Optuna shows it to a sampler: `HyperbandPruner` hides other brackets.

    `Trial` does that, which proposals are made without.
    """
    return _filter_study(study, trial)


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Return True if a value is in a distribution's range. The public classes cannot tell.

    Raises:
        ValueError, TypeError: the value has no form in the storage.
    """
    return distribution._contains(distribution.to_internal_repr(value))


RandomNumbers = np.random.RandomState | np.random.Generator | random.Random


def random_states(sampler: BaseSampler) -> list[RandomNumbers]:
    """Return all generators of a sampler and of the samplers that it uses, in a stable order.

    `reseed_rng` takes entropy from the system, so nothing would be reproducible.
    """
    return list(_random_states(sampler, set()))


def _random_states(part: object, seen: set[int]) -> Iterator[RandomNumbers]:
    if id(part) in seen:
        return
    seen.add(id(part))
    for value in vars(part).values():
        if isinstance(value, LazyRandomState):
            yield value.rng
        elif isinstance(value, RandomNumbers):
            yield value
        elif isinstance(value, BaseSampler) or type(value).__module__.startswith(
            "optuna.samplers",
        ):
            yield from _random_states(value, seen) if hasattr(value, "__dict__") else ()


# --- several objectives --------------------------------------------------------------------------


def hypervolume(losses: np.ndarray, reference: np.ndarray) -> float:
    """Return the volume that rows dominate below a point. It is not exported."""
    return float(compute_hypervolume(losses, reference))


def non_domination_ranks(losses: np.ndarray, count: int | None = None) -> np.ndarray:
    """Return each row's front, 0 for the best one. It is not exported.

    Args:
        losses: shape (rows, objectives).
        count: the fronts after the one with the row of that rank may be left unsorted.
    """
    return _fast_non_domination_rank(losses, n_below=count)


def spread_subset(
    losses: np.ndarray,
    indices: np.ndarray,
    count: int,
    reference: np.ndarray,
) -> np.ndarray:
    """Return the indices of the rows that together dominate most. It is not exported."""
    return _solve_hssp(losses, indices, count, reference)


# --- storage in memory ---------------------------------------------------------------------------

# It announces every study as "created in memory", which is wrong of a study stored in Postgres.
logging.getLogger("optuna.storages._in_memory").setLevel(logging.WARNING)


class EditableStorage(InMemoryStorage):
    """Optuna's storage in memory, whose trials can be loaded, removed and masked.

    The public interface only adds trials, and copies every value of them. Ids of trials are their
    numbers if there is one study.
    """

    def __init__(self) -> None:
        super().__init__()
        self._masked: dict[int, FrozenTrial] = {}

    @property
    def masked(self) -> Mapping[int, FrozenTrial]:
        """Trials as they are, of which lists of trials show something else."""
        return self._masked

    def count_trials(self, study_id: int) -> int:
        """Return the number of trials, without making a list of them."""
        return len(self._studies[study_id].trials)

    def load_trial(self, study_id: int, trial: FrozenTrial) -> int:
        """Add a trial; return its number.

        `create_new_trial` copies every value, which would take most of the time of a start.
        """
        known = self._studies[study_id].trials
        loaded = copy.copy(trial)
        loaded.system_attrs = dict(trial.system_attrs)
        loaded.intermediate_values = dict(trial.intermediate_values)
        number = self._max_trial_id = len(known)
        renumber(loaded, number, number)
        self._trial_id_to_study_id_and_number[number] = study_id, number
        known.append(loaded)
        self._update_cache(number, study_id)
        return number

    def remove_last(self, study_id: int, count: int) -> None:
        """Remove the last trials without a trace."""
        trials = self._studies[study_id].trials
        for trial in trials[-count:]:
            del self._trial_id_to_study_id_and_number[trial._trial_id]
        del trials[-count:]
        self._max_trial_id -= count

    def replace_distributions(
        self,
        study_id: int,
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        """Accept these distributions of parameters, which were others so far."""
        self._studies[study_id].param_distribution.update(distributions)

    def mask(self, number: int, shown: FrozenTrial) -> None:
        """List another version of a trial, which itself is still read by its id and changed."""
        real = self.get_trial(number)
        super()._set_trial(number, shown)
        self._masked[number] = real

    def unmask(self, number: int) -> bool:
        """List the trial itself again; return False if it was not masked."""
        real = self._masked.pop(number, None)
        if real is None:
            return False
        super()._set_trial(number, real)
        return True

    def _get_trial(self, trial_id: int) -> FrozenTrial:
        real = self._masked.get(trial_id)
        return super()._get_trial(trial_id) if real is None else real

    def _set_trial(self, trial_id: int, trial: FrozenTrial) -> None:
        if trial_id in self._masked:
            self._masked[trial_id] = trial
        else:
            super()._set_trial(trial_id, trial)
