"""SMAC3 (Lindauer et al. 2022), a random forest with expected improvement: `tunesvc[smac]`.

SMAC gets the conditions of the space. Several objectives become one by ParEGO.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ConfigSpace import (
    AndConjunction,
    Categorical,
    Configuration,
    ConfigurationSpace,
    Float,
    InCondition,
    Integer,
)
from ConfigSpace.hyperparameters import Hyperparameter
from joblib import parallel_config
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from smac import HyperparameterOptimizationFacade as Facade
from smac import Scenario
from smac.runhistory.dataclasses import TrialInfo, TrialValue
from smac.runhistory.enumerations import StatusType

from tunesvc.integrations.samplers.foreign_sampler import (
    Axis,
    Conditions,
    ForeignSampler,
    KnownTrial,
    Point,
)

logging.getLogger("smac").setLevel(logging.ERROR)


class SmacSampler(ForeignSampler):
    """Proposes what SMAC's facade for hyperparameters proposes."""

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        *,
        conditions: Conditions | None = None,
        n_trials: int = 100,
        seed: int | None = None,
    ) -> None:
        """Take the study's distributions.

        Args:
            search_space: distributions by name.
            conditions: of parameters that do not always exist.
            n_trials: planned trials; at most a quarter of them are the initial design.
            seed: of the design and the model.
        """
        super().__init__(search_space, seed)
        self._conditions = conditions or {}
        self._trials = n_trials

    def _propose(self, study: Study, trial: FrozenTrial, known: Sequence[KnownTrial]) -> Point:
        with (
            TemporaryDirectory() as folder,
            parallel_config("sequential"),  # the cores belong to training
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            seen = [point for _, point in self._tried(study, trial)]
            design = [self._numbers(config) for config in self._design(Path(folder))]
            untried = [point for point in design if point not in seen]
            if untried and len(seen) < len(design):
                return untried[0]
            seed = self._seed_of(trial)
            facade = self._facade(Path(folder), seed, len(study.directions))
            for one in known:
                self._show(facade, one)
            return self._numbers(facade.ask().config)

    def _design(self, folder: Path) -> list[Configuration]:
        """Return the initial design, the same for all trials."""
        scenario = self._scenario(folder / "design", self._seed >> 1, 1)
        return list(Facade.get_initial_design(scenario).select_configurations())

    def _facade(self, folder: Path, seed: int, objectives: int) -> Facade:
        scenario = self._scenario(folder / "facade", seed, objectives)
        parego = Facade.get_multi_objective_algorithm(scenario) if objectives > 1 else None
        return Facade(
            scenario,
            lambda config, seed: 0.0,
            initial_design=Facade.get_initial_design(scenario, n_configs=0),
            multi_objective_algorithm=parego,
            overwrite=True,
            logging_level=False,
        )

    def _scenario(self, folder: Path, seed: int, objectives: int) -> Scenario:
        return Scenario(
            self._space(seed),
            objectives=[f"loss{i}" for i in range(objectives)] if objectives > 1 else "loss",
            deterministic=True,
            n_trials=self._trials,
            seed=seed,
            output_directory=folder,
        )

    def _space(self, seed: int) -> ConfigurationSpace:
        space = ConfigurationSpace(seed=seed)
        made = {name: _parameter(name, axis) for name, axis in self._axes.items()}
        space.add(*made.values())
        for name, parents in self._conditions.items():
            clauses = [
                InCondition(made[name], made[parent], [self._index(parent, v) for v in values])
                for parent, values in parents.items()
                if name in made and parent in made
            ]
            if clauses:
                space.add(clauses[0] if len(clauses) == 1 else AndConjunction(*clauses))
        return space

    def _index(self, parent: str, value: object) -> float:
        return self._axes[parent].number(value)

    def _show(self, facade: Facade, one: KnownTrial) -> None:
        try:
            config = Configuration(facade.scenario.configspace, values=dict(one.point))
        except ValueError:  # its parameters exist under other conditions
            return
        status = StatusType.RUNNING if one.losses is None else StatusType.SUCCESS
        losses = list(one.losses or [0.0])
        value = TrialValue(losses[0] if len(losses) == 1 else losses, status=status)
        facade.tell(TrialInfo(config, seed=0), value, save=False)

    def _numbers(self, config: Configuration) -> Point:
        return {
            name: one.item() if hasattr(one, "item") else one for name, one in dict(config).items()
        }


def _parameter(name: str, axis: Axis) -> Hyperparameter:
    if axis.kind == "choice":
        return Categorical(name, list(range(int(axis.high) + 1)))
    made = Integer if axis.kind == "int" else Float
    return made(name, (axis.low, axis.high), log=axis.log)
