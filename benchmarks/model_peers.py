"""Peers with models of their own, imported only when they take part: Ax, SMAC and HEBO.

SMAC gets the conditions of a space. Ax and HEBO get it flat: they give every parameter a value, and
the objective reads those that exist. (Ax knows conditions, but no parameter of two choices.)
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from tunesvc.space.search_space import Space
from tunesvc.spec.conditions import when_values

Params = Mapping[str, Any]


class _ModelPeer:
    """A peer that answers with the best value that it observed."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._params: Params = {}
        self._best: tuple[float, Params | None] = (math.inf, None)

    def answer(self) -> Params | None:
        return self._best[1]

    def _keep(self, value: float) -> None:
        if value < self._best[0]:
            self._best = (value, self._params)


class AxPeer(_ModelPeer):
    """Ax with its default strategy."""

    def __init__(self, space: Space, seed: int, trials: int) -> None:
        from ax.api.client import Client
        from ax.utils.common.logger import set_ax_logger_levels

        super().__init__(space)
        set_ax_logger_levels(logging.CRITICAL)
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(
            [_ax_parameter(name, kind) for name, kind in space.distributions.items()]
        )
        self._client.configure_optimization("-loss")

    def ask(self) -> Params:
        ((self._index, params),) = self._client.get_next_trials(max_trials=1).items()
        self._params = self._space.select(params)
        return self._params

    def tell(self, value: float) -> None:
        if math.isfinite(value):
            self._client.complete_trial(self._index, raw_data={"loss": float(value)})
            self._keep(value)
        else:
            self._client.mark_trial_failed(self._index)


def _ax_parameter(name: str, kind: Any) -> Any:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    if not isinstance(kind, CategoricalDistribution):
        sort = "int" if isinstance(kind, IntDistribution) else "float"
        scaling = "log" if kind.log else "linear"
        return RangeParameterConfig(name, (kind.low, kind.high), sort, kind.step, scaling)
    sort = {bool: "bool", int: "int", str: "str"}[type(kind.choices[0])]
    return ChoiceParameterConfig(name, list(kind.choices), sort, False)


class SmacPeer(_ModelPeer):
    """SMAC's facade for hyperparameters: a random forest, and repetitions only with declared noise."""

    def __init__(self, space: Space, seed: int, trials: int) -> None:
        from ConfigSpace import AndConjunction, ConfigurationSpace, InCondition
        from smac import HyperparameterOptimizationFacade, Scenario

        super().__init__(space)
        known = ConfigurationSpace(seed=seed)
        made = {name: _smac_parameter(name, kind) for name, kind in space.distributions.items()}
        known.add(*made.values())
        for name, parameter in space.parameters.items():
            clauses = [
                InCondition(made[name], made[parent], self._indices(parent, when_values(allowed)))
                for parent, allowed in (parameter.when or {}).items()
            ]
            if clauses:
                known.add(clauses[0] if len(clauses) == 1 else AndConjunction(*clauses))
        self._folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            known,
            deterministic=True,
            n_trials=trials,
            seed=seed,
            output_directory=Path(self._folder.name),
        )
        self._facade = HyperparameterOptimizationFacade(
            scenario, lambda config, seed: 0.0, overwrite=True, logging_level=False
        )

    def _indices(self, parent: str, values: tuple[Any, ...]) -> list[int]:
        choices = self._space.distributions[parent].choices  # type: ignore[attr-defined]
        return [choices.index(value) for value in values]

    def ask(self) -> Params:
        self._info = self._facade.ask()
        self._params = {
            name: _from_smac(self._space.distributions[name], value)
            for name, value in dict(self._info.config).items()
        }
        return self._params

    def tell(self, value: float) -> None:
        from smac.runhistory.dataclasses import TrialValue
        from smac.runhistory.enumerations import StatusType

        failed = not math.isfinite(value)
        status = StatusType.CRASHED if failed else StatusType.SUCCESS
        self._facade.tell(self._info, TrialValue(math.inf if failed else value, status=status))
        self._keep(math.inf if failed else value)


def _smac_parameter(name: str, kind: Any) -> Any:
    from ConfigSpace import Categorical, Float, Integer

    if isinstance(kind, CategoricalDistribution):
        return Categorical(name, list(range(len(kind.choices))))
    of_type = Integer if isinstance(kind, IntDistribution) else Float
    return of_type(name, (kind.low, kind.high), log=kind.log)


def _from_smac(kind: BaseDistribution, value: Any) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(value)]
    return int(value) if isinstance(kind, IntDistribution) else float(value)


class HeboPeer(_ModelPeer):
    """HEBO, which takes no failures: they count as the worst value so far."""

    def __init__(self, space: Space, seed: int, trials: int) -> None:
        import numpy as np
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        super().__init__(space)
        np.random.seed(seed)  # HEBO draws from it
        described = [_hebo_parameter(name, kind) for name, kind in space.distributions.items()]
        self._hebo = HEBO(DesignSpace().parse(described), scramble_seed=seed)
        self._worst = 0.0

    def ask(self) -> Params:
        self._row = self._hebo.suggest(n_suggestions=1)
        values = {
            name: _from_hebo(kind, self._row[name].iloc[0])
            for name, kind in self._space.distributions.items()
        }
        self._params = self._space.select(values)
        return self._params

    def tell(self, value: float) -> None:
        import numpy as np

        if math.isfinite(value):
            self._worst = max(self._worst, value)
            self._keep(value)
        self._hebo.observe(self._row, np.array([[value if math.isfinite(value) else self._worst]]))


def _hebo_parameter(name: str, kind: Any) -> dict[str, Any]:
    if isinstance(kind, CategoricalDistribution):
        return {"name": name, "type": "cat", "categories": list(range(len(kind.choices)))}
    is_int = isinstance(kind, IntDistribution)
    sort = {
        (False, False): "num",
        (False, True): "pow",
        (True, False): "int",
        (True, True): "pow_int",
    }
    return {"name": name, "type": sort[is_int, kind.log], "lb": kind.low, "ub": kind.high}


def _from_hebo(kind: Any, value: Any) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(value)]
    return int(value) if isinstance(kind, IntDistribution) else float(value)
