"""`trial` as an Optuna objective knows it: Optuna's own `Trial` and `Study`, over an attempt.

Imports Optuna, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import Trial as OptunasTrial

from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.optuna_trial_storage import AttemptStorage
from tunesvc.spec import as_choice
from tunesvc.trial import Trial


class OptunaTrial(OptunasTrial):
    """The argument of `objective(trial)`.

    Where the study declares its parameters, `suggest_*` returns the value that the trial has.
    Where it declares none, the study's sampler is asked.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        storage, pruner = AttemptStorage(attempt), AttemptPruner(attempt)
        study = AttemptStudy(attempt.job.study, storage, RandomSampler(), pruner)
        super().__init__(study, attempt.launch.attempt.trial_id)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Optuna trial cannot travel to another process: hand `trial.tunesvc` over, whose `report` works there"
        )

    @property
    def params(self) -> dict[str, Any]:
        """The values suggested so far; all of them where the study declares them."""
        declared = {} if self._attempt.job.define_by_run else self._attempt.launch.params
        return {**declared, **super().params}

    @property
    def system_attrs(self) -> dict[str, Any]:
        """System attributes that were set in this attempt."""
        return self.storage.get_trial_system_attrs(self._trial_id)

    @property
    def tunesvc(self) -> Trial:
        """This trial with checkpoints and devices, see `tunesvc.Trial`."""
        return self._attempt.trial()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of `choices`, which may be lists and tuples; return it as it stands there."""
        known = [_known_as(name, choice) for choice in choices]
        value = as_choice(self._suggest(name, CategoricalDistribution(known)))
        for choice, scalar in zip(choices, known, strict=True):
            if type(scalar) is type(value) and scalar == value:
                return choice
        return value

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        trial = self._cached_frozen_trial
        if name not in trial.params:
            trial.distributions[name] = distribution
            is_asked = self._attempt.job.define_by_run
            trial.params[name] = self._ask(name, distribution) if is_asked else self._declared(name)
        return trial.params[name]

    def _ask(self, name: str, distribution: BaseDistribution) -> Any:
        constants = self._attempt.launch.params
        if name in constants:
            return constants[name]
        return self._attempt.ask(name, distribution_to_json(distribution))

    def _declared(self, name: str) -> Any:
        params = self._attempt.launch.params
        if name not in params:
            known = ", ".join(params) or "none"
            raise EntrypointError(
                f"the objective asks for parameter `{name}`, which this trial does not have "
                f"(it has: {known}): declare it in the study's `parameters`"
            )
        return params[name]


def _known_as(name: str, choice: Any) -> Any:
    """Return the scalar by which the search knows a choice.

    NumPy's numbers are known as Python's, lists and mappings by their JSON text.
    """
    plain = choice.tolist() if hasattr(choice, "tolist") else choice
    if plain is None or isinstance(plain, (bool, int, float, str)):
        return plain
    try:
        return json.dumps(plain)
    except (TypeError, ValueError):
        raise TypeError(
            f"parameter {name!r}: a choice of type {type(choice).__name__} cannot be stored: "
            "choose between names and look the value up in the objective"
        ) from None


class AttemptStudy(Study):
    """The study, from inside one of its trials."""

    @property
    def system_attrs(self) -> dict[str, Any]:
        """The study's system attributes, which older objectives read; Optuna 5 hides them."""
        return self._storage.get_study_system_attrs(self._study_id)

    def stop(self) -> NoReturn:
        """Refuse: the coordinator ends the study."""
        raise NotImplementedError(
            "an objective cannot end its study: give the metric a `target`, the budget `stop_when`, or use `tune stop`"
        )


class AttemptPruner(BasePruner):
    """The study's decision about the attempt, as `trial.should_prune()` asks for it."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether the attempt has been asked to stop."""
        return self._attempt.stop_requested


def as_optuna(value: object) -> object:
    """Return a result as Optuna reads it: whatever `float` accepts is a number, such as "0.5"."""
    if isinstance(value, (list, tuple)):
        return [as_optuna(item) for item in value]
    try:
        return float(value) if isinstance(value, (bool, str)) else value
    except ValueError:
        return value
