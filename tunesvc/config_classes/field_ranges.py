"""Ranges of fields: our annotations, bounds of pydantic, and types with few values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunesvc.config_classes.config_class import MISSING, ConfigClass, ConfigField
from tunesvc.errors import SpecError

_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
_EXAMPLES = {
    float: "Float(0.0, 1.0)",
    int: "Int(1, 10)",
    str: 'Choice("a", "b")',
    bool: "Choice(False, True)",
}


def ranges_of(
    config: ConfigClass, given: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return ranges in the form of study.yaml, and plain defaults, of fields that are not given.

    A `bool` with a default keeps it; other types with few values are choices.

    Raises:
        SpecError: fields have neither a range, a default nor a value; the text lists them.
    """
    ranges: dict[str, dict[str, Any]] = {}
    defaults: dict[str, Any] = {}
    issues: list[str] = []
    for name, field in config.leaves():
        if not given.keys().isdisjoint((name, *_parents(name))):
            continue
        try:
            found = _range(name, field)
        except SpecError as error:
            issues.append(f"{config.kind.__name__}: {error}")
            continue
        if found is not None:
            ranges[name] = found
        elif field.default is MISSING:
            issues.append(without_range(config.kind.__name__, name, field.hint))
        elif isinstance(field.default, (bool, int, float, str)):
            defaults[name] = field.default
    if issues:
        raise SpecError("\n".join(issues))
    return {name: _absolute(name, one, config) for name, one in ranges.items()}, defaults


def without_range(owner: str, name: str, hint: object) -> str:
    """Return the problem of a field or argument whose values are not known."""
    kind = next((one for one in (int, str, bool) if one is hint), float)
    return (
        f"{owner}: `{name}` has neither a range nor a default: annotate it, such as "
        f"`{name.rpartition('.')[2]}: Annotated[{kind.__name__}, {_EXAMPLES[kind]}]`, or give it a "
        "value under `constants`"
    )


def surplus(config: ConfigClass, given: Mapping[str, Any]) -> list[str]:
    """Return the names that are no fields."""
    known = {name for leaf, _ in config.leaves() for name in (leaf, *_parents(leaf))}
    return [name for name in given if name not in known]


def missing(config: ConfigClass, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields without a default that are not given."""
    for name, field in config.leaves():
        if field.default is MISSING and given.keys().isdisjoint((name, *_parents(name))):
            yield name


def _parents(name: str) -> list[str]:
    """Return the names of the configs that a field is in."""
    return [name[:index] for index, char in enumerate(name) if char == "."]


def _range(name: str, field: ConfigField) -> dict[str, Any] | None:
    for annotated in field.metadata:
        if hasattr(annotated, "as_written"):
            written: dict[str, Any] = annotated.as_written()
            if written.get("when") and field.default is MISSING:
                raise SpecError(f"`{name}` needs a default for when it does not exist")
            return written
    if (bounded := _bounded(name, field)) is not None:
        return bounded
    choices = field.choices
    if choices is None or len(choices) < 2:
        return None
    if field.default is not MISSING and all(one in (False, True, None) for one in choices):
        return None  # a switch
    return {"type": "categorical", "values": list(choices)}


def _bounded(name: str, field: ConfigField) -> dict[str, Any] | None:
    """Return the range between two bounds of pydantic or annotated_types.

    Raises:
        SpecError: an end of real numbers is open.
    """
    found = {
        key: value
        for one in field.metadata
        for key in _BOUNDS
        if isinstance(value := getattr(one, key, None), (int, float))
    }
    low, high = found.get("ge", found.get("gt")), found.get("le", found.get("lt"))
    if low is None or high is None:
        return None
    whole = int in (field.hint, *getattr(field.hint, "__args__", ()))
    step = {"step": found["multiple_of"]} if "multiple_of" in found else {}
    if whole:
        low, high = low + ("ge" not in found), high - ("le" not in found)
        return {"type": "int", "min": low, "max": high, **step}
    if "ge" not in found or "le" not in found:
        raise SpecError(
            f"`{name}` is open at an end ({', '.join(f'{k}={v:g}' for k, v in found.items())}): "
            "write ge and le, or annotate a range such as Float(1e-4, 1.0, log=True)"
        )
    return {"type": "float", "min": float(low), "max": float(high), **step}


def _absolute(name: str, written: dict[str, Any], config: ConfigClass) -> dict[str, Any]:
    """Return a range whose `when` names fields of its own class by their dotted names."""
    if not written.get("when"):
        return written
    parent = name.rpartition(".")[0]
    known = {one for one, _ in config.leaves()}
    siblings = {one: f"{parent}.{one}" if parent else one for one in written["when"]}
    when = {
        siblings[one] if siblings[one] in known else one: value
        for one, value in written["when"].items()
    }
    return {**written, "when": when}
