"""Ax (Bakshy et al. 2018), whose default is BoTorch's Gaussian process: `tunesvc[ax]`.

Ax chooses the model and the acquisition; of several objectives it maximizes the expected
hypervolume improvement. Conditions are unknown to it: a parameter that a trial lacks counts as the
middle of its range.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
from ax.utils.common.logger import set_ax_logger_levels
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.integrations.samplers.foreign_sampler import Axis, ForeignSampler, KnownTrial, Point

set_ax_logger_levels(logging.ERROR)


class AxSampler(ForeignSampler):
    """Proposes what Ax's default strategy proposes."""

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        *,
        startup: int = 5,
        seed: int | None = None,
    ) -> None:
        """Take the study's distributions.

        Args:
            search_space: distributions by name.
            startup: trials of a Sobol sequence before the model is asked, at least 2.
            seed: of the sequence and the model.
        """
        super().__init__(search_space, seed)
        if startup < 2:
            raise ValueError(f"startup ({startup}) has to be at least 2")
        self._startup = startup

    def _propose(self, study: Study, trial: FrozenTrial, known: Sequence[KnownTrial]) -> Point:
        if sum(one.losses is not None for one in known) < self._startup:
            return self._spread(trial.number)
        seed = self._seed_of(trial)
        with torch.random.fork_rng(), _one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            client = self._client(seed, [f"loss{i}" for i in range(len(study.directions))])
            for one in known:
                self._show(client, one)
            ((_, parameters),) = client.get_next_trials(max_trials=1).items()
        return {name: float(number) for name, number in parameters.items()}

    def _client(self, seed: int, losses: Sequence[str]) -> Client:
        client = Client(random_seed=seed)
        client.configure_experiment([_parameter(name, axis) for name, axis in self._axes.items()])
        client.configure_optimization(", ".join(f"-{loss}" for loss in losses))
        client.configure_generation_strategy(
            initialization_budget=self._startup,
            initialize_with_center=False,  # else it counts no trial as initial, and asks no model
        )
        return client

    def _show(self, client: Client, one: KnownTrial) -> None:
        point = self._complete(one.point)
        index = client.attach_trial(
            {name: _number(self._axes[name], number) for name, number in point.items()}
        )
        if one.losses is not None:
            values = {f"loss{i}": float(loss) for i, loss in enumerate(one.losses)}
            client.complete_trial(index, raw_data=values)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread within the block: the cores belong to training."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _parameter(name: str, axis: Axis) -> RangeParameterConfig | ChoiceParameterConfig:
    if axis.kind == "choice":
        indices = [str(index) for index in range(int(axis.high) + 1)]
        return ChoiceParameterConfig(name, indices, "str", is_ordered=False)
    scaling = "log" if axis.log else "linear"
    return RangeParameterConfig(name, (axis.low, axis.high), axis.kind, None, scaling)


def _number(axis: Axis, number: float) -> float | int | str:
    if axis.kind == "choice":
        return str(int(number))
    return int(number) if axis.kind == "int" else float(number)
