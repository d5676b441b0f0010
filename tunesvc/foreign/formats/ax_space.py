"""Parameters and objectives of Ax, as JSON or YAML: what `create_experiment` takes, of the service
API and of `ax.Client`."""

from __future__ import annotations

import re

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.section import Section

TITLE = "a search space of Ax"
_BOUND = re.compile(r"\s*([\w.\-/]+)\s*(<=|>=)\s*([-+\d.eE]+)\s*")


def recognises(top: Section) -> bool:
    """Return True for an experiment with a list of parameters."""
    listed = top.take("parameters")
    return isinstance(listed, list) and any(
        isinstance(one, dict) and {"bounds", "values"} & one.keys() for one in listed
    )


def convert(top: Section, draft: Draft) -> None:
    """Make a study of an experiment."""
    if (name := top.take("name")) is not None:
        draft.data["name"] = str(name)
    for one in top.sections("parameters"):
        key = str(one.need("name", "name: lr"))
        if one.take("type") == "fixed" or "value" in one:
            draft.add_constant(key, one.take("value"))
        else:
            draft.add_parameter(key, _dimension(one))
        for tree in (one.section("dependents"), one.section("dependent_parameters")):
            if tree is not None:
                _dependents(tree, key, draft)
        one.close()
    parameters = draft.data.get("parameters", {})
    for name in [name for name, made in parameters.items() if made.keys() == {"when"}]:
        draft.note(0, f"`{name}` depends on another parameter, and is none itself")
        del parameters[name]
    _objectives(top, draft)
    _constraints(top, draft)
    draft.set_program(None)
    top.drop("return NaN where it is broken: samplers learn where that is", "parameter_constraints")
    top.close()


def _dependents(tree: Section, parent: str, draft: Draft) -> None:
    """Let parameters exist only with a value of their parent; they may follow it in the list."""
    values = draft.data.get("parameters", {}).get(parent, {}).get("values", [])
    for written in tree:
        children = tree.take(written)
        value = next((one for one in values if str(one).lower() == written.lower()), None)
        if value is None or not isinstance(children, list):
            tree.note(written, f"is no value of `{parent}` with a list of parameters")
            continue
        for child in map(str, children):
            known = draft.data.setdefault("parameters", {}).get(child, {})
            draft.data["parameters"][child] = dimensions.when(known, parent, value)


def _dimension(one: Section) -> Dimension | None:
    for key in ("is_ordered", "sort_values"):
        if one.take(key):
            one.note(key, "choices here have no order")
    kind = one.take("parameter_type") or one.take("value_type")
    if "values" in one:
        return dimensions.among(one.take("values") or [])
    ends = one.need("bounds", "bounds: [0.1, 1.0]")
    if not isinstance(ends, list) or len(ends) != 2:
        one.refuse("bounds", f"`{one.path('bounds')}` has two numbers: write [0.1, 1.0]")
        return None
    low, high = ends
    is_log = one.take("scaling") == "log" or bool(one.take("log_scale", False))
    step = one.number("step_size") if one.take("step_size") is not None else None
    if "digits" in one:
        one.note("digits", "leave the rounding to the program, or write `step`")
    if kind in ("int", "float"):
        make = dimensions.whole if kind == "int" else dimensions.real
        return make(low, high, log=is_log, step=step)
    return dimensions.number(low, high, log=is_log)


def _objectives(top: Section, draft: Draft) -> None:
    goals: dict[str, str] = {}
    if (listed := top.section("objectives")) is not None:
        for name in listed:
            options = listed.section(name)
            smaller = options is not None and bool(options.take("minimize", False))
            goals[name] = "minimize" if smaller else "maximize"
            if options is not None:
                options.close()
    elif (written := top.take("objective")) is not None:
        for part in str(written).split(","):
            name = part.strip().lstrip("-").strip()
            goals[name] = "minimize" if part.strip().startswith("-") else "maximize"
    elif (name := top.take("objective_name")) is not None:
        goals[str(name)] = "minimize" if top.take("minimize", False) else "maximize"
    if not goals:
        draft.note(0, "it names no objective: `loss`, to be minimized, is a guess")
        goals = {"loss": "minimize"}
    metrics = [{"name": name, "goal": goal} for name, goal in goals.items()]
    draft.data.update({"metric": metrics[0]} if len(metrics) == 1 else {"metrics": metrics})


def _constraints(top: Section, draft: Draft) -> None:
    for written in top.take("outcome_constraints") or []:
        found = _BOUND.fullmatch(str(written))
        if found is None:
            remedy = "write a metric, <= or >=, and a number"
            top.refuse("outcome_constraints", f"`{written}` is no bound of a metric: {remedy}")
            continue
        bound = {"metric": found[1], "max" if found[2] == "<=" else "min": float(found[3])}
        draft.data.setdefault("constraints", []).append(bound)
