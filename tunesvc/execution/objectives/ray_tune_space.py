"""A Ray Tune search space as parameters of ours, so that a function written for Ray Tune runs unmodified.

Knows the classes of `ray.tune`, which is imported only when a search space is at hand; knows no Optuna.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from tunesvc.errors import SpecError
from tunesvc.spec import CategoricalParameter, FloatParameter, IntParameter, Parameter, Scalar


def from_ray(search_space: Mapping[str, Any]) -> dict[str, Parameter]:
    """The parameters of a Ray Tune search space; those of nested dicts are named by their path, `model/lr`.

    Whatever is no domain is left out: see `constants_of`.

    Raises:
        SpecError: a domain that has no bounds or no fixed values (`randn`, `sample_from`), quantized log scales,
            choices between values that are neither scalars nor lists, or a domain within a list.
    """
    for name, leaf in _leaves(search_space):
        if isinstance(leaf, (list, tuple)) and any(map(_is_domain, leaf)):
            raise SpecError(
                f"parameter `{name}`: a range within a list has no name: give each a key of its own, or use "
                "choice between whole lists"
            )
    return {name: _parameter(name, leaf) for name, leaf in _leaves(search_space) if _is_domain(leaf)}


def constants_of(search_space: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a Ray Tune search space, named like its parameters."""
    return {name: leaf for name, leaf in _leaves(search_space) if not _is_domain(leaf)}


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """`{"model/lr": 0.1}` -> `{"model": {"lr": 0.1}}`: the config that a Ray Tune function expects."""
    config: dict[str, Any] = {}
    for name, value in params.items():
        *folders, leaf = name.split("/")
        place = config
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return config


def _leaves(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in space.items():
        if isinstance(value, Mapping) and not _is_grid(value):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _is_grid(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {"grid_search"}


def _is_domain(value: object) -> bool:
    from ray.tune.search.sample import Domain

    return _is_grid(value) or isinstance(value, Domain)


def _parameter(name: str, domain: Any) -> Parameter:
    from ray.tune.search import sample as ray

    if _is_grid(domain):
        return _categorical(name, domain["grid_search"])
    if isinstance(domain, ray.Categorical):
        return _categorical(name, domain.categories)
    sampler = domain.get_sampler()
    quantum = sampler.q if isinstance(sampler, ray.Quantized) else None
    sampler = sampler.sampler if isinstance(sampler, ray.Quantized) else sampler
    log = isinstance(sampler, ray.LogUniform)
    if isinstance(domain, ray.Function):
        raise SpecError(
            f"parameter `{name}`: sample_from draws by code of its own, of which no sampler learns: use a range, and "
            "compute in the function what follows from other parameters"
        )
    if isinstance(sampler, ray.Normal):
        low, high = sampler.mean - 3 * sampler.sd, sampler.mean + 3 * sampler.sd
        raise SpecError(f"parameter `{name}`: randn has no bounds: use uniform, such as uniform({low:g}, {high:g})")
    if log and quantum not in (None, 1):
        raise SpecError(
            f"parameter `{name}`: a log scale cannot be quantized: use loguniform or lograndint and round in the "
            "function, or choice"
        )
    if not isinstance(domain, (ray.Float, ray.Integer)) or not isinstance(sampler, (ray.Uniform, ray.LogUniform)):
        raise SpecError(f"parameter `{name}`: {type(sampler).__name__} sampling is unknown: use uniform or choice")
    if isinstance(domain, ray.Integer):
        return _integer(domain, None if log or quantum is None else int(quantum), log)
    return _float(domain, quantum, log)


def _float(domain: Any, quantum: float | None, log: bool) -> Parameter:
    return FloatParameter(type="float", min=float(domain.lower), max=float(domain.upper), step=quantum, log=log)


def _integer(domain: Any, quantum: int | None, log: bool) -> Parameter:
    # Ray excludes the upper bound, except where it quantizes by more than 1
    low, high = int(domain.lower), int(domain.upper)
    if quantum in (None, 1):
        return IntParameter(type="int", min=low, max=high - 1, log=log)
    # Ray draws the multiples of the quantum, wherever the lower bound lies
    return IntParameter(type="int", min=-(-low // quantum) * quantum, max=high, step=quantum)


def _categorical(name: str, values: Any) -> Parameter:
    choices = [value.tolist() if hasattr(value, "tolist") else value for value in values]
    for value in choices:
        if not isinstance(value, (Scalar, list, tuple)):
            raise SpecError(
                f"parameter `{name}`: a choice between {type(value).__name__}s cannot be stored or compared: "
                "choose between names and look the value up in the function"
            )
    try:
        return CategoricalParameter(values=tuple(choices))
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(f"parameter `{name}`: {text}") from None


def is_trainable(objective: object) -> bool:
    """Tell whether an objective is a class that inherits from `ray.tune.Trainable`."""
    bases = objective.__mro__ if isinstance(objective, type) else ()
    return any(base.__name__ == "Trainable" and base.__module__.startswith("ray.tune.") for base in bases)


def resources_of(objective: object) -> dict[str, Any] | None:
    """What `ray.tune.with_resources` asked for, as `resources` of a study; None when it asked for nothing.

    Raises:
        SpecError: bundles that differ from each other, or resources that depend on the trial's parameters.
    """
    asked = _request_of(objective) if is_trainable(objective) else getattr(objective, "_resources", None)
    if asked is None:
        return None
    if not hasattr(asked, "bundles"):
        raise SpecError("resources that depend on the parameters of a trial are not supported: name fixed ones")
    first, *others = asked.bundles
    if any(bundle != first for bundle in others):
        raise SpecError("a placement group of different bundles is not supported: make all bundles equal")
    bundle = dict(first)
    known = {"cpu": float(bundle.pop("CPU", 0)), "gpu": float(bundle.pop("GPU", 0)), "workers": len(asked.bundles)}
    memory = {"memory": int(bundle.pop("memory"))} if "memory" in bundle else {}
    return {**known, **memory, "custom": bundle}


def _request_of(trainable: Any) -> Any:
    try:
        return trainable.default_resource_request({})
    except Exception as error:  # noqa: BLE001  # anybody's code
        raise SpecError(
            f"{trainable.__name__}.default_resource_request asks by the parameters of a trial "
            f"({type(error).__name__}: {error}), which is not supported: name fixed resources"
        ) from None
