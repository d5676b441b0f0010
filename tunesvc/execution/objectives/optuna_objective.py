"""The `trial` of an Optuna objective: Optuna's own `Trial` and `Study` on top of an attempt.

Imports Optuna, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from optuna.distributions import (
    BaseDistribution,
    distribution_to_json,
)
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.optuna_trial_storage import WorkerStorage
from tunesvc.spec import as_choice
from tunesvc.trial import Trial
from tunesvc.util.optuna_internals import TrialProxy, id_of, storage_of


class OptunaTrial(TrialProxy):
    """The argument of `objective(trial)`.

    If the study declares its parameters, `suggest_*` returns the trial's value. Otherwise it asks
    the study's sampler.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        storage, pruner = WorkerStorage(attempt), WorkerPruner(attempt)
        study = WorkerStudy(attempt.job.study, storage, RandomSampler(), pruner)
        super().__init__(study, attempt.launch.attempt.trial_id)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Optuna trial cannot travel to another process: hand `trial.tunesvc` over, whose"
            " `report` works there",
        )

    @property
    def params(self) -> dict[str, Any]:
        """The values suggested so far, or all values if the study declares its parameters."""
        declared = {} if self._attempt.job.define_by_run else self._attempt.launch.params
        return {**declared, **super().params}

    @property
    def system_attrs(self) -> dict[str, Any]:
        """System attributes set in this attempt."""
        return self.storage.get_trial_system_attrs(self._attempt.launch.attempt.trial_id)

    @property
    def tunesvc(self) -> Trial:
        """This trial as a `tunesvc.Trial`, with checkpoints and devices."""
        return self._attempt.trial()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of `choices`, which may be lists and tuples. Return that very object."""
        scalars = [_as_scalar(name, choice) for choice in choices]
        value = as_choice(super().suggest_categorical(name, scalars))
        for choice, scalar in zip(choices, scalars, strict=True):
            if type(scalar) is type(value) and scalar == value:
                return choice
        return value

    def _value_of(self, name: str, distribution: BaseDistribution) -> Any:
        if self._attempt.job.define_by_run:
            return self._ask(name, distribution)
        return self._declared(name)

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
                f"(it has: {known}): declare it in the study's `parameters`",
            )
        return params[name]


def _as_scalar(name: str, choice: Any) -> Any:
    """Return the scalar that stands for a choice in the search.

    NumPy's numbers become Python's, lists and mappings become JSON text.
    """
    plain = choice.tolist() if hasattr(choice, "tolist") else choice
    if plain is None or isinstance(plain, (bool, int, float, str)):
        return plain
    try:
        return json.dumps(plain)
    except (TypeError, ValueError):
        raise TypeError(
            f"parameter {name!r}: a choice of type {type(choice).__name__} cannot be stored: "
            "choose between names and look the value up in the objective",
        ) from None


class WorkerStudy(Study):
    """The study, seen from one of its trials."""

    @property
    def system_attrs(self) -> dict[str, Any]:
        """The study's system attributes. Older objectives read them, but Optuna 5 hides them."""
        return storage_of(self).get_study_system_attrs(id_of(self))

    def stop(self) -> NoReturn:
        """Refuse, because only the coordinator ends the study."""
        raise NotImplementedError(
            "an objective cannot end its study: give the metric a `target`, the budget `stop_when`,"
            " or use `tune stop`",
        )


class WorkerPruner(BasePruner):
    """Makes `trial.should_prune()` return the study's decision."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return True if the attempt has been asked to stop."""
        return self._attempt.stop_requested


def as_optuna(value: object) -> object:
    """Convert a result as Optuna does: all that `float` accepts is a number, such as "0.5"."""
    if isinstance(value, (list, tuple)):
        return [as_optuna(item) for item in value]
    try:
        return float(value) if isinstance(value, (bool, str)) else value
    except ValueError:
        return value
