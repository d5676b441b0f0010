"""`trial` as an Optuna objective knows it, on top of an attempt.

Imports Optuna, no Ray.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import BaseTrial

from tunesvc.execute.attempt import Attempt
from tunesvc.execute.executor import Attributed
from tunesvc.execute.failures import EntrypointError
from tunesvc.objective import Trial, as_number, as_step


class OptunaTrial(BaseTrial):
    """What `objective(trial)` gets: suggest, report, should_prune, attributes.

    Where the study declares its parameters, `suggest_*` returns the value that the trial has; where it declares none,
    the study's sampler is asked. As in Optuna, `report` never raises `TrialPruned`: ask `should_prune()`.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._define_by_run = attempt.job.define_by_run
        self._params: dict[str, Any] = {}
        self._distributions: dict[str, BaseDistribution] = {}
        self._user_attrs: dict[str, Any] = {}
        self._started_at = datetime.datetime.now(tz=datetime.UTC)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A real number."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """Optuna's older name."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """Optuna's older name."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """Optuna's older name."""
        return self.suggest_float(name, low, high, step=q)

    def report(self, value: float, step: int) -> None:
        """Report the objective's value after `step`; the first report of a step stands.

        Raises:
            NotImplementedError: the study has several objectives, as in Optuna.
            BadReport: no number, or no step that can be stored.
        """
        if len(self._attempt.job.metrics) > 1:
            raise NotImplementedError("Trial.report is not supported for multi-objective optimization.")
        name = self._attempt.job.metrics[0]
        self._attempt.report(as_step(step), {name: as_number(name, value)})

    def should_prune(self) -> bool:
        """Whether the trial has been asked to stop."""
        if len(self._attempt.job.metrics) > 1:
            raise NotImplementedError("Trial.should_prune is not supported for multi-objective optimization.")
        return self._attempt.stop_requested

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep a note on the trial.

        Raises:
            TypeError: the value cannot be written as JSON.
        """
        self._attempt.outbox.put(Attributed(key, json.dumps(value)))
        self._user_attrs[key] = value

    def set_system_attr(self, key: str, value: Any) -> NoReturn:
        """Not for objectives."""
        raise AttributeError(f"system attributes belong to the study's sampler: use trial.set_user_attr({key!r}, ...)")

    def set_constraint(self, key: str, value: float) -> NoReturn:
        """Constraints are declared in the study."""
        raise NotImplementedError(
            f"declare `constraints: [{{metric: {key}, max: 0}}]` in the study and report {key} as a metric"
        )

    @property
    def constraints(self) -> dict[str, float]:
        """None on this side."""
        return {}

    @property
    def tunesvc(self) -> Trial:
        """This trial with checkpoints and devices, see `tunesvc.Trial`."""
        return self._attempt.trial()

    @property
    def params(self) -> dict[str, Any]:
        """The values suggested so far; all of them where the study declares them."""
        return dict(self._params if self._define_by_run else {**self._attempt.launch.params, **self._params})

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What has been asked for so far."""
        return dict(self._distributions)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What `set_user_attr` kept."""
        return dict(self._user_attrs)

    @property
    def system_attrs(self) -> dict[str, Any]:
        """None on this side."""
        return {}

    @property
    def datetime_start(self) -> datetime.datetime:
        """When this attempt began."""
        return self._started_at

    @property
    def number(self) -> int:
        """The trial's number within its study."""
        return self._attempt.launch.trial_number

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params:
            self._distributions[name] = distribution
            self._params[name] = self._ask(name, distribution) if self._define_by_run else self._declared(name)
        return self._params[name]

    def _ask(self, name: str, distribution: BaseDistribution) -> Any:
        constants = self._attempt.launch.params
        return constants[name] if name in constants else self._attempt.ask(name, distribution_to_json(distribution))

    def _declared(self, name: str) -> Any:
        params = self._attempt.launch.params
        if name not in params:
            known = ", ".join(params) or "none"
            raise EntrypointError(
                f"the objective asks for parameter `{name}`, which this trial does not have (it has: {known}): "
                "declare it in the study's `parameters`"
            )
        return params[name]
