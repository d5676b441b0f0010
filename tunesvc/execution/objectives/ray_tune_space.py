"""Converts a Ray Tune search space to parameters.

Imports `ray.tune` only when there is a search space. Knows no Optuna.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from tunesvc.errors import SpecError
from tunesvc.execution.ray_internals import requested_resources
from tunesvc.spec import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
)


def from_ray(search_space: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return the parameters of a Ray Tune search space.

    Those of nested dicts are named by path, `model/lr`.

    Values that are not domains are left out, see `constants_of`.

    Raises:
        SpecError: a domain has no bounds or no fixed values (`randn`, `sample_from`), is a
            quantized log scale, is a choice between values that are neither scalars nor lists, or
            is inside a list.
    """
    for name, leaf in _leaves(search_space):
        if isinstance(leaf, (list, tuple)) and any(map(_is_domain, leaf)):
            raise SpecError(
                f"parameter `{name}`: a range within a list has no name: give each a key of its"
                " own, or use choice between whole lists",
            )
    domains = [(name, leaf) for name, leaf in _leaves(search_space) if _is_domain(leaf)]
    return {name: _parameter(name, domain) for name, domain in domains}


def constants_of(search_space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a Ray Tune search space, named like its parameters."""
    return {name: leaf for name, leaf in _leaves(search_space) if not _is_domain(leaf)}


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config for a Ray Tune function.

    `{"model/lr": 0.1}` becomes `{"model": {"lr": 0.1}}`.
    """
    config: dict[str, Any] = {}
    for name, value in params.items():
        *keys, last = name.split("/")
        inner = config
        for key in keys:
            inner = inner.setdefault(key, {})
        inner[last] = value
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
    sampler: Any = domain.get_sampler()
    quantum = None
    if isinstance(sampler, ray.Quantized):
        quantum = sampler.q
        sampler = sampler.sampler
    log = isinstance(sampler, ray.LogUniform)
    _check_supported(name, domain, sampler, quantum)
    if isinstance(domain, ray.Integer):
        step = None if log or quantum is None else int(quantum)
        return _integer(domain, step, log)
    return _float(domain, quantum, log)


def _check_supported(
    name: str,
    domain: Any,
    sampler: Any,
    quantum: float | None,
) -> None:
    from ray.tune.search import sample as ray

    if isinstance(domain, ray.Function):
        raise SpecError(
            f"parameter `{name}`: sample_from draws by code of its own, of which no sampler learns:"
            " use a range, and compute in the function what follows from other parameters",
        )
    if isinstance(sampler, ray.Normal):
        low, high = sampler.mean - 3 * sampler.sd, sampler.mean + 3 * sampler.sd
        example = f"uniform({low:g}, {high:g})"
        raise SpecError(
            f"parameter `{name}`: randn has no bounds: use uniform, such as {example}",
        )
    if isinstance(sampler, ray.LogUniform) and quantum not in (None, 1):
        raise SpecError(
            f"parameter `{name}`: a log scale cannot be quantized: "
            "use loguniform or lograndint and round in the function, or choice",
        )
    is_uniform = isinstance(sampler, (ray.Uniform, ray.LogUniform))
    if not isinstance(domain, (ray.Float, ray.Integer)) or not is_uniform:
        kind = type(sampler).__name__
        raise SpecError(
            f"parameter `{name}`: {kind} sampling is unknown: use uniform or choice",
        )


def _float(domain: Any, quantum: float | None, log: bool) -> Parameter:
    low, high = float(domain.lower), float(domain.upper)
    return FloatParameter(type="float", min=low, max=high, step=quantum, log=log)


def _integer(domain: Any, quantum: int | None, log: bool) -> Parameter:
    # Ray excludes the upper bound, unless it quantizes by more than 1.
    low, high = int(domain.lower), int(domain.upper)
    if quantum in (None, 1):
        return IntParameter(type="int", min=low, max=high - 1, log=log)
    # Ray draws multiples of the quantum, so the first one may lie above the lower bound.
    first = -(-low // quantum) * quantum
    return IntParameter(type="int", min=first, max=high, step=quantum)


def _categorical(name: str, values: Any) -> Parameter:
    choices = [value.tolist() if hasattr(value, "tolist") else value for value in values]
    for value in choices:
        if not isinstance(value, (Scalar, list, tuple)):
            raise SpecError(
                f"parameter `{name}`: a choice between {type(value).__name__}s cannot be stored or"
                " compared: choose between names and look the value up in the function",
            )
    try:
        return CategoricalParameter(values=tuple(choices))
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(f"parameter `{name}`: {text}") from None


def is_trainable(objective: object) -> bool:
    """Return True for a class that inherits from `ray.tune.Trainable`."""
    for base in objective.__mro__ if isinstance(objective, type) else ():
        if base.__name__ == "Trainable" and base.__module__.startswith("ray.tune."):
            return True
    return False


def resources_of(objective: object) -> dict[str, Any] | None:
    """Return the request of `ray.tune.with_resources` as a study's `resources`, or None.

    Raises:
        SpecError: the bundles differ, or the request depends on the trial's parameters.
    """
    request = requested_resources(objective)
    if is_trainable(objective):
        request = _request_of(objective)
    if request is None:
        return None
    if not hasattr(request, "bundles"):
        raise SpecError(
            "resources that depend on the parameters of a trial are not supported: name fixed ones",
        )
    first, *others = request.bundles
    if any(bundle != first for bundle in others):
        raise SpecError(
            "a placement group of different bundles is not supported: make all bundles equal",
        )
    bundle = dict(first)
    resources = {
        "cpu": float(bundle.pop("CPU", 0)),
        "gpu": float(bundle.pop("GPU", 0)),
        "workers": len(request.bundles),
    }
    if "memory" in bundle:
        resources["memory"] = int(bundle.pop("memory"))
    return {**resources, "custom": bundle}


def _request_of(trainable: Any) -> Any:
    try:
        return trainable.default_resource_request({})
    except Exception as error:  # noqa: BLE001  # user code may raise anything
        raise SpecError(
            f"{trainable.__name__}.default_resource_request asks by the parameters of a trial "
            f"({type(error).__name__}: {error}), which is not supported: name fixed resources",
        ) from None
