"""Search spaces of NNI."""

from __future__ import annotations

from typing import Any

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.section import Section


def add_space(
    space: Section, draft: Draft, prefix: str = "", parent: tuple[str, Any] | None = None
) -> None:
    """Add the parameters of a search space; those of nested choices exist under their `parent`."""
    space.take("_name")
    for key in space:
        if not space.has_section(key):
            continue
        one = space.section(key)
        if one is None:
            continue
        name = prefix + key
        made = _dimension(one, name, draft)
        if made is not None and parent is not None:
            made = dimensions.when(made, *parent)
        draft.add_parameter(name, made)
        one.close()
    space.close()


def _dimension(one: Section, name: str, draft: Draft) -> Dimension | None:
    kind = one.need("_type", "_type: uniform")
    if kind == "choice":
        branches = list(one.sections("_value")) if _is_nested(one) else []
        if not branches:
            return dimensions.among(one.need("_value", '_value: ["a", "b"]') or [])
        draft.note(one.position.line, f"nested choices are named `{name}.NAME`")
        names = [each.need("_name", '_name: "conv"') for each in branches]
        draft.add_parameter(name, dimensions.among(names))  # before those that depend on it
        for each, branch in zip(branches, names, strict=True):
            add_space(each, draft, f"{name}.", (name, branch))
        return dimensions.among(names)
    numbers = [
        n for n in one.need("_value", "_value: [0.1, 1.0]") or [] if isinstance(n, (int, float))
    ]
    if kind in ("normal", "qnormal", "lognormal", "qlognormal"):
        mean, deviation = [*numbers, None, None][:2]
        remedy = dimensions.bounded(mean, deviation, is_log="log" in kind)
        one.refuse("_type", f"`{name}` is `{kind}`: {remedy}")
        return None
    wanted = 3 if str(kind).startswith("q") else 2
    if len(numbers) != wanted:
        one.refuse("_value", f"`{name}`: `{kind}` takes {wanted} numbers, not {len(numbers)}")
        return None
    low, high, *rest = numbers
    if kind == "randint":
        return dimensions.whole(low, high - 1)
    if kind == "uniform":
        return dimensions.real(low, high)
    if kind == "loguniform":
        return dimensions.real(low, high, log=True)
    if kind == "quniform":
        return dimensions.multiples(low, high, rest[0])
    if kind == "qloguniform" and rest[0] == 1:
        return dimensions.whole(low, high, log=True)
    remedy = (
        dimensions.LOG_STEPS
        if kind == "qloguniform"
        else "write choice, randint, uniform or loguniform"
    )
    one.refuse("_type", f"`{name}` is `{kind}`: {remedy}")
    return None


def _is_nested(one: Section) -> bool:
    values = one.take("_value")
    return isinstance(values, list) and any(isinstance(value, dict) for value in values)
