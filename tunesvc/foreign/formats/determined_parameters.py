"""Hyperparameters of Determined."""

from __future__ import annotations

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.section import Section


def add_hyperparameters(section: Section, draft: Draft, prefix: str = "") -> None:
    """Add all hyperparameters of an experiment."""
    for key in section:
        name = prefix + key
        if not section.has_section(key):
            draft.add_constant(name, section.take(key))
            continue
        one = section.section(key)
        if one is None:
            continue
        if "type" in one:
            if one.take("type") == "const":
                draft.add_constant(name, one.take("val"))
            else:
                draft.add_parameter(name, _dimension(one))
            one.close()
        else:
            section.note(key, f"nested hyperparameters are named `{name}.NAME`")
            add_hyperparameters(one, draft, f"{name}.")


def _dimension(one: Section) -> Dimension | None:
    kind = one.take("type")
    if kind == "categorical":
        return dimensions.among(one.need("vals", "vals: [a, b]") or [])
    if kind not in ("int", "double", "log"):
        remedy = "write int, double, log, categorical or const"
        one.refuse("type", f"`{one.path()}` has a type `{kind}`: {remedy}")
        return None
    low, high = one.number("minval"), one.number("maxval")
    count = one.number("count") if "count" in one else None
    if low is None or high is None:
        return None
    if kind == "log":
        base = (one.number("base") if "base" in one else 10.0) or 10.0
        if count:
            one.note("count", "a grid here has no points on a logarithmic range: list the values")
        return dimensions.real(base**low, base**high, log=True)
    if not count or count < 2:
        return (dimensions.whole if kind == "int" else dimensions.real)(low, high)
    step = (high - low) / (count - 1)
    if kind == "double":
        return dimensions.real(low, high, step=step)
    points = {round(low + index * step) for index in range(int(count))}
    return dimensions.among(sorted(points))
