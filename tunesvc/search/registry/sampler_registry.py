"""Every sampler that a spec can name. All implement Optuna's `BaseSampler`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler

from tunesvc.errors import SpecError
from tunesvc.search.population.pb2_sampler import Pb2Sampler
from tunesvc.search.population.pbt_sampler import PbtSampler
from tunesvc.search.population.schedule_sampler import ScheduleSampler
from tunesvc.search.registry.component_options import (
    Given,
    build,
    build_imported,
    choose,
    required,
)
from tunesvc.search.samplers.auto_sampler import AutoSampler
from tunesvc.search.samplers.gp.gp_sampler import GPSampler
from tunesvc.search.samplers.tpe.tpe_sampler import TPESampler
from tunesvc.space.search_space import MAX_LISTED, Space
from tunesvc.spec import StudySpec
from tunesvc.spec.conditions import when_values
from tunesvc.spec.sections.components import OBJECT
from tunesvc.spec.sections.population_keys import Search


def make_sampler(
    spec: StudySpec,
    space: Space,
    given: Given[BaseSampler] = None,
) -> BaseSampler:
    """Return the sampler that a spec names.

    Args:
        spec: of the study.
        space: of its parameters.
        given: the sampler itself, for a study that was started in Python with an object; the class
            or function, for a spec with an import path.

    Raises:
        SpecError: no such sampler, wrong options, or one that does not fit the study.
    """
    name = spec.sampler.name
    if name == OBJECT:
        return required("sampler", spec.sampler, given, BaseSampler)
    seed = spec.seed if spec.sampler.seed is None else spec.sampler.seed
    if spec.sampler.is_imported:
        filled = _filled(seed, spec, space)
        return build_imported("sampler", spec.sampler, given, BaseSampler, filled)
    make = choose(("sampler",), name, _makers(spec, space))
    return build(("sampler",), name, make(seed), spec.sampler.options)


def _filled(seed: int | None, spec: StudySpec, space: Space) -> dict[str, Any]:
    """Return what an imported sampler gets of the study, if its constructor takes it."""
    parameters = space.parameters.items()
    filled: dict[str, Any] = {
        "seed": seed,
        "search_space": space.distributions,
        "conditions": {
            name: {parent: when_values(allowed) for parent, allowed in one.when.items()}
            for name, one in parameters
            if one.when
        },
        "n_trials": spec.budget.trials,
    }
    return {name: value for name, value in filled.items() if value is not None}


_DISCRETE = f"int, stepped float, or values; at most {MAX_LISTED:,} of each"

RANDOM_ALONE = ("cmaes", "qmc", "nsga2", "nsga3")
"""Samplers that draw parameters at random which they do not propose jointly."""

Maker = Callable[[int | None], Callable[..., BaseSampler]]
"""Seed -> constructor that takes the remaining options."""


def _makers(spec: StudySpec, space: Space) -> dict[str, Maker]:
    samplers = optuna.samplers
    return {
        "auto": lambda seed: _fix(
            AutoSampler,
            seed=seed,
            search_space=space.distributions,
            shared_blocks=spec.shared_blocks,
        ),
        "gp": lambda seed: _fix(
            GPSampler,
            seed=seed,
            search_space=space.distributions,
            shared_blocks=spec.shared_blocks,
        ),
        "tpe": lambda seed: _fix(TPESampler, seed=seed),
        "random": lambda seed: _fix(samplers.RandomSampler, seed=seed),
        "qmc": lambda seed: _fix(
            samplers.QMCSampler,
            seed=seed,
            warn_independent_sampling=False,
            warn_asynchronous_seeding=False,
        ),
        "cmaes": lambda seed: _cmaes(seed, spec, space),
        "nsga2": lambda seed: _fix(samplers.NSGAIISampler, seed=seed),
        "nsga3": lambda seed: _fix(samplers.NSGAIIISampler, seed=seed),
        "pbt": lambda seed: _member(PbtSampler, seed, spec, space),
        "pb2": lambda seed: _member(Pb2Sampler, seed, spec, space),
        "schedule": lambda seed: _member(ScheduleSampler, seed, spec, space),
        "grid": lambda seed: _grid(seed, space),
        "brute": lambda seed: _brute(seed, space),
    }


def _fix(
    make: Callable[..., BaseSampler],
    **fixed: Any,
) -> Callable[..., BaseSampler]:
    """Return a constructor with some arguments fixed, and the others in its signature."""

    def made(**options: Any) -> BaseSampler:
        return make(**(fixed | options))

    signature = inspect.signature(make)
    hidden = {"seed", "constraints_func", "search_space", "shared_blocks", *fixed}
    free = [p for p in signature.parameters.values() if p.name not in hidden]
    made.__signature__ = signature.replace(parameters=free)  # type: ignore[attr-defined]
    return made


def _cmaes(
    seed: int | None,
    spec: StudySpec,
    space: Space,
) -> Callable[..., BaseSampler]:
    if len(spec.metrics) > 1:
        raise SpecError(
            "sampler 'cmaes' optimises one metric; use nsga2 or tpe for several",
        )
    numbers = []
    for name, kind in space.distributions.items():
        is_number = not isinstance(kind, CategoricalDistribution) and not kind.single()
        if is_number and not space.parameters[name].when:
            numbers.append(name)
    if space.parameters and len(numbers) < 2:
        text = "sampler 'cmaes' needs two int or float parameters without `when`"
        raise SpecError(f"{text}, and draws all others at random; use auto or tpe")
    return _fix(
        optuna.samplers.CmaEsSampler,
        seed=seed,
        warn_independent_sampling=False,
    )


def _member(
    make: Callable[..., BaseSampler],
    seed: int | None,
    spec: StudySpec,
    space: Space,
) -> Callable[..., BaseSampler]:
    return _fix(make, seed=seed, search_space=space.distributions, search=_search_of(spec))


def _search_of(spec: StudySpec) -> Search:
    if spec.search is None:
        name = spec.sampler.name
        raise SpecError(f"sampler {name!r} belongs to `search: {{method: {name}, ...}}`")
    return spec.search


def _grid(seed: int | None, space: Space) -> Callable[..., BaseSampler]:
    grid = space.grid()
    if grid is None or space.is_conditional:
        text = "sampler 'grid' needs parameters that are all discrete (int, stepped or values)"
        raise SpecError(f"{text} and no `when`")
    return lambda: optuna.samplers.GridSampler(grid, seed=seed)


def _brute(seed: int | None, space: Space) -> Callable[..., BaseSampler]:
    if space.grid() is None:
        text = "sampler 'brute' needs parameters that are all discrete: int, stepped float"
        raise SpecError(f"{text}, or values; at most 10,000 each")
    return _fix(optuna.samplers.BruteForceSampler, seed=seed)
