"""Nevergrad (Rapin and Teytaud 2018), a collection of optimizers: `tunesvc[nevergrad]`.

Its optimizers keep state from ask to ask. Each trial stores which trials were told before its ask,
so that a resumed study repeats the same asks and tells. Conditions are unknown to them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import nevergrad as ng
import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.integrations.samplers.foreign_sampler import Axis, ForeignSampler, KnownTrial, Point
from tunesvc.util.optuna_internals import set_system_attr

TOLD = "nevergrad:told"
"""System attribute of a trial: numbers of the trials that were told just before its ask."""


class NevergradSampler(ForeignSampler):
    """Proposes what one of Nevergrad's optimizers proposes."""

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        *,
        optimizer: str = "NGOpt",
        n_trials: int = 100,
        workers: int = 1,
        seed: int | None = None,
    ) -> None:
        """Take the study's distributions.

        Args:
            search_space: distributions by name.
            optimizer: a name of Nevergrad's registry, such as NGOpt, OnePlusOne or TwoPointsDE.
            n_trials: planned trials, by which NGOpt selects an algorithm.
            workers: trials at a time, likewise.
            seed: of the optimizer.
        """
        super().__init__(search_space, seed)
        if optimizer not in ng.optimizers.registry:
            raise ValueError(f"optimizer {optimizer!r} is not in `nevergrad.optimizers.registry`")
        self._make = ng.optimizers.registry[optimizer]
        self._planned = {"budget": n_trials, "num_workers": workers}
        self._run: _Conversation | None = None

    def _propose(self, study: Study, trial: FrozenTrial, known: Sequence[KnownTrial]) -> Point:
        done = {one.number: one for one in known if one.losses is not None}
        asked = {
            one.number: one.system_attrs[TOLD]
            for one in study.get_trials(deepcopy=False)
            if TOLD in one.system_attrs and one.number < trial.number
        }
        if self._run is None or self._run.asked != list(asked):
            self._run = self._repeated(asked, done, len(study.directions))
        told = [number for number in done if number not in self._run.told]
        set_system_attr(study, trial, TOLD, told)
        return self._run.step(trial.number, [done[number] for number in told])

    def _repeated(
        self, asked: Mapping[int, Sequence[int]], done: Mapping[int, KnownTrial], objectives: int
    ) -> _Conversation:
        """Return a run with the asks and tells of all earlier trials."""
        space = ng.p.Dict(**{name: _parameter(axis) for name, axis in self._axes.items()})
        space.random_state = np.random.RandomState(self._seed)
        optimizer = self._make(space, **self._planned)
        optimizer.num_objectives = objectives
        run = _Conversation(optimizer, self._axes)
        for number, told in asked.items():
            run.step(number, [done[one] for one in told if one in done])
        return run


class _Conversation:
    """An optimizer, and what it was asked and told."""

    def __init__(self, optimizer: ng.optimizers.base.Optimizer, axes: Mapping[str, Axis]) -> None:
        self._optimizer = optimizer
        self._axes = axes
        self._candidates: dict[int, ng.p.Parameter] = {}
        self.asked: list[int] = []
        self.told: set[int] = set()

    def step(self, number: int, finished: Sequence[KnownTrial]) -> Point:
        """Tell trials, then ask for the next one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for one in finished:
                self._tell(one)
            candidate = self._optimizer.ask()
        self.asked.append(number)
        self._candidates[number] = candidate
        return self._point(candidate)

    def _tell(self, one: KnownTrial) -> None:
        self.told.add(one.number)
        candidate = self._candidates.pop(one.number, None)
        if candidate is None or not _matches(self._point(candidate), one.point):
            values = {**self._optimizer.parametrization.value, **one.point}  # it was enqueued
            candidate = self._optimizer.parametrization.spawn_child(new_value=values)
        losses = one.losses or ()
        try:
            self._optimizer.tell(candidate, losses[0] if len(losses) == 1 else list(losses))
        except ng.errors.TellNotAskedNotSupportedError:
            return

    def _point(self, candidate: ng.p.Parameter) -> Point:
        return {
            name: axis.number(axis.value(candidate.value[name]))
            for name, axis in self._axes.items()
        }


def _matches(asked: Point, tried: Point) -> bool:
    """Return whether a trial has the point that was asked for; it may lack parameters."""
    return all(np.isclose(asked[name], number) for name, number in tried.items())


def _parameter(axis: Axis) -> ng.p.Parameter:
    if axis.kind == "choice":
        return ng.p.Choice(range(int(axis.high) + 1))
    made = ng.p.Log if axis.log else ng.p.Scalar
    parameter = made(lower=axis.low, upper=axis.high)
    return parameter.set_integer_casting() if axis.kind == "int" else parameter
