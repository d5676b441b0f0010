"""Every sampler that a spec can name, and what `auto` chooses.

Optuna's `BaseSampler` is the seam: a sampler of our own is one more line in the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from tunesvc.errors import SpecError
from tunesvc.search.foresight import ForesightSampler
from tunesvc.search.options import build, choose
from tunesvc.space import MAX_LISTED, Space
from tunesvc.spec import StudySpec


def make_sampler(spec: StudySpec, space: Space, *, trials_before: int = 0) -> BaseSampler:
    """The sampler that a spec names.

    Args:
        trials_before: how many trials the study has already. A resumed study goes on with other random numbers
            than it started with; otherwise it would propose its first trials once more.

    Raises:
        SpecError: no such sampler, wrong options, or one that does not fit the study.
    """
    name = spec.sampler.name
    make = choose("sampler", name, _makers(spec, space))
    options = dict(spec.sampler.options)
    return build(f"sampler {name!r}", make(_seed(spec, trials_before)), options)


def trials_max(spec: StudySpec, space: Space) -> int | None:
    """How many different trials the sampler can propose, or None when there is no end."""
    return space.size if resolve(spec) in _COMPLETE else None


def resolve(spec: StudySpec) -> str:
    """The sampler's name, `auto` decided."""
    return "tpe" if spec.sampler.name == "auto" else spec.sampler.name


def _seed(spec: StudySpec, trials_before: int) -> int | None:
    seed = spec.seed if spec.sampler.seed is None else spec.sampler.seed
    if seed is None or trials_before == 0 or resolve(spec) in _COMPLETE:
        return seed
    return int(np.random.SeedSequence([seed, trials_before]).generate_state(1)[0])


_DISCRETE = f"int, stepped float, or values; at most {MAX_LISTED:,} of each"

_COMPLETE = ("grid", "brute")
"""They try every configuration once, in an order that their seed fixes."""

Maker = Callable[[int | None], Callable[..., BaseSampler]]
"""Seed -> constructor that takes the remaining options."""


def _makers(spec: StudySpec, space: Space) -> dict[str, Maker]:
    samplers = optuna.samplers
    return {
        "auto": lambda seed: lambda: ForesightSampler(_tpe(seed, space)(), seed=seed),
        "tpe": lambda seed: _tpe(seed, space),
        "gp": lambda seed: _gp(seed),
        "random": lambda seed: _fix(samplers.RandomSampler, seed=seed),
        "qmc": lambda seed: _fix(
            samplers.QMCSampler, seed=seed, warn_independent_sampling=False, warn_asynchronous_seeding=False
        ),
        "cmaes": lambda seed: _cmaes(seed, spec),
        "nsga2": lambda seed: _fix(samplers.NSGAIISampler, seed=seed),
        "nsga3": lambda seed: _fix(samplers.NSGAIIISampler, seed=seed),
        "grid": lambda seed: _grid(seed, space),
        "brute": lambda seed: _brute(seed, space),
    }


def _fix(make: Callable[..., BaseSampler], **fixed: Any) -> Callable[..., BaseSampler]:
    """A constructor with some arguments decided, whose signature shows the others only."""

    def made(**options: Any) -> BaseSampler:
        return make(**(fixed | options))

    signature = inspect.signature(make)
    hidden = {"seed", "constraints_func"}
    free = [p for p in signature.parameters.values() if p.name not in hidden]
    made.__signature__ = signature.replace(parameters=free)  # type: ignore[attr-defined]
    return made


def _tpe(seed: int | None, space: Space) -> Callable[..., BaseSampler]:
    # constant_liar: parallel trials must not all be sent to the same place. group: a conditional space falls into
    # groups of parameters that occur together, each modelled jointly.
    fixed = {"multivariate": True, "group": space.is_conditional, "constant_liar": True}
    return _fix(optuna.samplers.TPESampler, seed=seed, **fixed)


def _gp(seed: int | None) -> Callable[..., BaseSampler]:
    if find_spec("torch") is None:
        raise SpecError(
            "sampler 'gp' is Optuna's GPSampler, which needs PyTorch: `pip install torch`, or use `sampler: tpe`"
        )
    return _fix(optuna.samplers.GPSampler, seed=seed, warn_independent_sampling=False)


def _cmaes(seed: int | None, spec: StudySpec) -> Callable[..., BaseSampler]:
    if len(spec.metrics) > 1:
        raise SpecError("sampler 'cmaes' optimises one metric; use nsga2 or tpe for several")
    return _fix(optuna.samplers.CmaEsSampler, seed=seed, warn_independent_sampling=False)


def _grid(seed: int | None, space: Space) -> Callable[..., BaseSampler]:
    grid = space.grid()
    if grid is None or space.is_conditional:
        raise SpecError("sampler 'grid' needs parameters that are all discrete (int, stepped or values) and no `when`")
    return lambda: optuna.samplers.GridSampler(grid, seed=seed)


def _brute(seed: int | None, space: Space) -> Callable[..., BaseSampler]:
    if space.grid() is None:
        raise SpecError(
            "sampler 'brute' needs parameters that are all discrete: int, stepped float, or values; at most 10,000 each"
        )
    return _fix(optuna.samplers.BruteForceSampler, seed=seed)
