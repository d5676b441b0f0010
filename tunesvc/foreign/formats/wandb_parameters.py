"""Parameters of sweeps of Weights & Biases, and their distributions."""

from __future__ import annotations

import math

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.section import Section

_UNBOUNDED = ("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta")


def add_parameters(section: Section, draft: Draft, prefix: str = "") -> None:
    """Add all parameters of a sweep."""
    for key in section:
        one = section.section(key)
        if one is None:
            continue
        if (nested := one.section("parameters")) is not None:
            one.note("parameters", f"nested parameters are named `{prefix}{key}.NAME`")
            add_parameters(nested, draft, f"{prefix}{key}.")
        elif "value" in one:
            one.take("distribution")
            draft.add_constant(prefix + key, one.take("value"))
        else:
            draft.add_parameter(prefix + key, _dimension(one))
        one.close()


def _dimension(one: Section) -> Dimension | None:
    kind = one.take("distribution", _implied(one))
    if kind in ("categorical", "categorical_w_probabilities"):
        one.drop("choices are equally likely at first", "probabilities")
        return dimensions.among(one.need("values", "values: [a, b]") or [])
    if kind in _UNBOUNDED:
        mean = one.number("mu") if "mu" in one else None
        deviation = one.number("sigma") if "sigma" in one else None
        is_log = "log_normal" in kind
        remedy = dimensions.bounded(mean, deviation, is_log=is_log)
        one.refuse("distribution", f"`{one.path()}` is `{kind}`: {remedy}")
        return None
    low, high = one.number("min"), one.number("max")
    step = (one.number("q") if "q" in one else 1) if str(kind).startswith("q_") else None
    if low is None or high is None:
        return None
    return _range(one, str(kind), low, high, step)


def _range(
    one: Section, kind: str, low: float, high: float, step: float | None
) -> Dimension | None:
    if kind == "int_uniform":
        return dimensions.whole(low, high)
    if kind == "q_uniform":
        return dimensions.multiples(low, high, step or 1)
    if kind == "uniform":
        return dimensions.real(low, high)
    if kind.removeprefix("q_") in ("log_uniform", "log_uniform_values"):
        if not kind.endswith("_values"):
            low, high = math.exp(low), math.exp(high)
        if step == 1:
            return dimensions.whole(low, high, log=True)
        if step is None:
            return dimensions.real(low, high, log=True)
        one.refuse("distribution", f"`{one.path()}` is `{kind}`: {dimensions.LOG_STEPS}")
        return None
    remedy = "write uniform, int_uniform, log_uniform_values or values"
    one.refuse("distribution", f"`{one.path()}` has a distribution `{kind}`: {remedy}")
    return None


def _implied(one: Section) -> str:
    if "values" in one:
        return "categorical"
    ends = [one.take("min"), one.take("max")]
    return "int_uniform" if all(isinstance(end, int) for end in ends) else "uniform"
