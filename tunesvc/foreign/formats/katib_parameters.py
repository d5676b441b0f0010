"""Parameters of Katib, and their feasible spaces."""

from __future__ import annotations

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.section import Section
from tunesvc.spec.yaml import scalars


def dimension_of(one: Section) -> Dimension | None:
    """Return a parameter; None if it is refused."""
    kind = one.need("parameterType", "parameterType: double")
    space = one.section("feasibleSpace")
    if space is None:
        one.need("feasibleSpace", 'feasibleSpace: {min: "0.01", max: "0.1"}')
        return None
    if kind in ("discrete", "categorical"):
        values = [str(value) for value in space.need("list", "list: [a, b]") or []]
        space.close()
        return dimensions.among(
            values if kind == "categorical" else list(map(scalars.resolve, values))
        )
    if kind not in ("int", "double"):
        remedy = "write int, double, discrete or categorical"
        one.refuse("parameterType", f"`{one.path()}` has a type `{kind}`: {remedy}")
        return None
    low, high = space.number("min"), space.number("max")
    step = space.number("step") if "step" in space else None
    spread = space.take("distribution", "uniform")
    if low is None or high is None:
        return None
    if spread not in ("uniform", "logUniform"):
        text = "within its bounds, every value is as likely as any other at first"
        space.note("distribution", f"`{spread}`: {text}")
    is_log = spread in ("logUniform", "logNormal")
    if is_log and step is not None:
        space.note("step", "a logarithmic range has no steps")
        step = None
    space.close()
    make = dimensions.whole if kind == "int" else dimensions.real
    return make(low, high, log=is_log, step=step)
