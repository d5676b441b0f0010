"""Ray Tune's schedulers as our pruners and searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.execution.objectives.ray_tune_space import from_ray

_STEP = "training_iteration"


def pruner_of(scheduler: Any) -> dict[str, Any]:
    """Return the `pruner` of a scheduler that stops trials; `none` without one.

    Raises:
        SpecError: there is nothing like it, or it counts something else than iterations.
    """
    kind = "FIFOScheduler" if scheduler is None else type(scheduler).__name__
    if kind == "FIFOScheduler":
        return {"name": "none"}
    if kind in ("AsyncHyperBandScheduler", "HyperBandScheduler", "MedianStoppingRule"):
        _require_iterations(kind, scheduler._time_attr)
    if kind == "AsyncHyperBandScheduler":
        return _asha(scheduler)
    if kind == "HyperBandScheduler":
        top, factor = int(scheduler._max_t_attr), int(scheduler._eta)
        return {"name": "hyperband", "min": 1, "max": top, "eta": factor}
    if kind == "MedianStoppingRule":
        return {
            "name": "median",
            "n_startup_trials": scheduler._min_samples_required,
            "n_warmup_steps": int(scheduler._grace_period),
        }
    raise SpecError(f"scheduler {kind} is Ray Tune's alone: {_instead(kind)}")


def _asha(scheduler: Any) -> dict[str, Any]:
    if len(scheduler._brackets) > 1:
        raise SpecError("ASHAScheduler with several brackets: use one, or HyperBandScheduler")
    rungs = [milestone for milestone, _ in scheduler._brackets[0]._rungs]
    factor = scheduler._reduction_factor
    if factor != int(factor):
        raise SpecError(f"ASHAScheduler with reduction_factor={factor:g}: use a whole number")
    return {
        "name": "asha",
        "min": int(min(rungs, default=1)),
        "max": int(scheduler._max_t),
        "eta": int(factor),
    }


def last_step_of(scheduler: Any) -> int | None:
    """Return `max_t`, the iteration at which a scheduler ends every trial; None without one."""
    kind = type(scheduler).__name__
    if kind == "AsyncHyperBandScheduler":
        return int(scheduler._max_t)
    return int(scheduler._max_t_attr) if kind == "HyperBandScheduler" else None


def is_population(scheduler: Any) -> bool:
    """Return True for population-based training and PB2."""
    return type(scheduler).__name__ in ("PopulationBasedTraining", "PB2")


def population_of(scheduler: Any, members: int, steps: float | None) -> dict[str, Any]:
    """Return the `search` of a population.

    Args:
        scheduler: Ray's.
        members: number of members.
        steps: iterations after which a member is complete.

    Raises:
        SpecError: it uses what ours has not, or says not when members end.
    """
    kind = type(scheduler).__name__
    _require_iterations(kind, scheduler._time_attr)
    if steps is None:
        text = f"{kind} without an end: say when a member is complete, RunConfig(stop="
        raise SpecError(f'{text}{{"{_STEP}": ...}})')
    search: dict[str, Any] = {
        "method": "pb2" if kind == "PB2" else "pbt",
        "population": members,
        "interval": int(scheduler._perturbation_interval),
        "steps": int(steps),
        "quantile": scheduler._quantile_fraction,
    }
    if kind == "PB2":
        return search
    if scheduler._custom_explore_fn is not None:
        raise SpecError(f"{kind} with a custom_explore_fn: ours has none, leave it out")
    above, below = max(scheduler._perturbation_factors), min(scheduler._perturbation_factors)
    if above <= 1 or abs(above * below - 1) > 0.1:
        text = f"{kind} with perturbation_factors ({above:g}, {below:g})"
        raise SpecError(f"{text}: ours multiplies or divides by one factor: use (1.2, 1 / 1.2)")
    return search | {"resample": scheduler._resample_probability, "factor": above}


def mutations_of(scheduler: Any) -> dict[str, Any]:
    """Return the parameters that a population changes, as a study's `parameters`.

    Raises:
        SpecError: one is drawn by a function, whose range is unknown.
    """
    from ray import tune

    if type(scheduler).__name__ == "PB2":
        bounds: Mapping[str, Any] = scheduler._hyperparam_bounds
        space: dict[str, Any] = {name: tune.uniform(*ends) for name, ends in bounds.items()}
    else:
        space = _domains(scheduler._hyperparam_mutations)
    return {name: found.model_dump(exclude_none=True) for name, found in from_ray(space).items()}


def _domains(mutations: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    from ray import tune

    space: dict[str, Any] = {}
    for name, mutation in mutations.items():
        if isinstance(mutation, Mapping):
            space[name] = _domains(mutation, f"{prefix}{name}/")
        elif isinstance(mutation, (list, tuple)):
            space[name] = tune.choice(list(mutation))
        elif callable(mutation):
            text = f"hyperparam_mutations of `{prefix}{name}` is a function, whose range is unknown"
            raise SpecError(f"{text}: give the range itself, such as tune.uniform(0.1, 1.0)")
        else:
            space[name] = mutation
    return space


def _require_iterations(kind: str, attribute: str) -> None:
    if attribute != _STEP:
        text = f"{kind} counts {attribute}, and ours counts reports"
        raise SpecError(f'{text}: set time_attr="{_STEP}", and its limits in reports')


def _instead(kind: str) -> str:
    if kind == "HyperBandForBOHB":
        return "use HyperBandScheduler, and no search_alg: `auto` learns from stopped trials too"
    if kind == "ResourceChangingScheduler":
        return "a trial's resources are fixed, see tune.with_resources"
    return "use ASHAScheduler, HyperBandScheduler, MedianStoppingRule or PopulationBasedTraining"
