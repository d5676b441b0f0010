"""Configuration spaces of Syne Tune, as `config_space_to_json_dict` writes them."""

from __future__ import annotations

import math
from typing import Any

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.section import Section

TITLE = "a configuration space of Syne Tune"
_NUMBERS = {"Float": dimensions.real, "Integer": dimensions.whole}
_CHOICES = ("Categorical", "Ordinal", "OrdinalNearestNeighbor")


def recognises(top: Section) -> bool:
    """Return True for a configuration space."""
    sections = [top.section(key) for key in top if top.has_section(key)]
    return any(section is not None and "domain_cls" in section for section in sections)


def convert(top: Section, draft: Draft) -> None:
    """Make a study of a configuration space."""
    draft.data["metric"] = {"name": "loss", "goal": "minimize"}
    draft.note(0, "it names no metric: `loss`, to be minimized, is a guess")
    for key in top:
        one = top.section(key) if top.has_section(key) else None
        if one is None:
            draft.add_constant(key, top.take(key))
            continue
        draft.add_parameter(key, _dimension(one))
        one.close()
    draft.set_program(None)


def _dimension(one: Section) -> Dimension | None:
    kind = one.need("domain_cls", "domain_cls: Float")
    given = one.section("domain_kwargs")
    if given is None:
        one.need("domain_kwargs", "domain_kwargs: {lower: 0.1, upper: 1.0}")
        return None
    if kind in _CHOICES:
        given.drop("choices here have no order", "log_scale")
        values = given.need("categories", "categories: [a, b]") or []
        given.close()
        one.take("sampler_cls")
        if (options := one.section("sampler_kwargs")) is not None:
            options.close()
        return dimensions.among(values)
    low, high = given.number("lower"), given.number("upper")
    if low is None or high is None:
        return None
    made: Dimension | None
    if kind == "FiniteRange":
        made = _finite(given, low, high)
    elif kind in _NUMBERS:
        made = _ranged(one, str(kind), low, high)
    else:
        remedy = f"write {', '.join((*_NUMBERS, *_CHOICES))} or FiniteRange"
        one.refuse("domain_cls", f"`{one.path()}` is `{kind}`: {remedy}")
        return None
    given.close()
    return made


def _finite(given: Section, low: float, high: float) -> Dimension:
    size = int(given.number("size") or 2)
    is_log, is_whole = given.take("log_scale", False), given.take("cast_int", False)
    step = (high - low) / max(1, size - 1)
    if not is_log and not is_whole:
        return dimensions.real(low, high, step=step)
    if is_log:
        low, high = math.log(low), math.log(high)
    points = [low + (high - low) * index / max(1, size - 1) for index in range(size)]
    values = [math.exp(point) if is_log else point for point in points]
    given.draft.note(given.position.line, f"`{given.path()}`: its values are choices without order")
    return dimensions.among(sorted({round(v) if is_whole else round(v, 12) for v in values}))


def _ranged(one: Section, kind: str, low: float, high: float) -> Dimension | None:
    spread = str(one.take("sampler_cls", "Uniform")).strip("_")
    options: Any = one.section("sampler_kwargs")
    if spread == "Normal":
        mean = options.number("mean") if options and "mean" in options else None
        deviation = options.number("sd") if options and "sd" in options else None
        one.refuse(
            "sampler_cls", f"`{one.path()}` is `Normal`: {dimensions.bounded(mean, deviation)}"
        )
        return None
    if options is not None:
        options.take("base")
        options.close()
    if spread not in ("Uniform", "LogUniform"):
        remedy = "write Uniform or LogUniform, of 1 - x if it crowds at the upper end"
        one.refuse("sampler_cls", f"`{one.path()}` is drawn by `{spread}`: {remedy}")
        return None
    return _NUMBERS[kind](low, high, log=spread == "LogUniform")
