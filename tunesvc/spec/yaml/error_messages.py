"""Pydantic's validation errors in plain words, at the paths of study.yaml.

Knows the model's field names for suggestions; knows nothing of files and lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tunesvc.spec import foreign_names, model
from tunesvc.spec.diagnostics import Path, SpecIssue, printable, suggest

_PARTS: Mapping[str, type[BaseModel]] = {
    "metric": model.Metric,
    "metrics": model.Metric,
    "constraints": model.Constraint,
    "budget": model.Budget,
    "resources": model.Resources,
    "retries": model.Retries,
    "limits": model.Limits,
    "keep": model.Keep,
    "environment": model.Environment,
}
_PARAMETERS: Mapping[object, type[BaseModel]] = {
    "float": model.FloatParameter,
    "int": model.IntParameter,
    "categorical": model.CategoricalParameter,
}
_NEEDED: Mapping[object, str] = {
    "name": "what the study is called, such as `name: digits`",
    "metrics": "what is optimised, such as `metric: {name: loss, goal: minimize}`",
    "budget": "how much may be spent, such as `budget: {trials: 100}`",
}
_WANTED: Mapping[str, str] = {
    "int_type": "needs a whole number",
    "int_from_float": "needs a whole number",
    "float_type": "needs a number",
    "bool_type": "needs true or false",
    "string_type": "needs text",
    "tuple_type": "needs a list",
    "list_type": "needs a list",
    "dict_type": "needs a mapping",
    "mapping_type": "needs a mapping",
    "model_type": "needs a mapping",
    "model_attributes_type": "needs a mapping",
    "invalid-json-value": "needs a value that JSON can hold",
    "finite_number": "needs a finite number",
}


def to_faults(error: ValidationError, data: Mapping[str, Any]) -> list[SpecIssue]:
    """Every mistake that pydantic found in `data`, the long form of a study."""
    return [_fault(detail, data) for detail in error.errors(include_url=False) if not _is_echo(detail)]


def _is_echo(detail: ErrorDetails) -> bool:
    """Pydantic calls a list too short when its items were refused."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _fault(detail: ErrorDetails, data: Mapping[str, Any]) -> SpecIssue:
    location, kind = detail["loc"], detail["type"]
    if location[-1] == "[key]":
        key = str(detail["input"])
        return SpecIssue(
            (*_without_tags(location[:-2], data), key),
            f"`{printable(key)}` {_say(detail)}",
            at_key=True,
        )
    path = _without_tags(location, data)
    if kind == "extra_forbidden":
        key = str(path[-1])
        hint = foreign_names.hint(key) if len(location) == 1 else ""
        return SpecIssue(path, _unknown_key(key, list(_known_keys(location)), hint), at_key=True)
    if kind == "missing":
        return SpecIssue(path, _missing(location[-1], at_top=not path))
    return SpecIssue(path, _say(detail))


def _without_tags(location: Path, data: Mapping[str, Any]) -> Path:
    """Pydantic puts the chosen member of a union into the location; in the data there is no such key."""
    path: list[str | int] = []
    place: Any = data
    for part in location:
        if _has(place, part):
            place = place[part]
            path.append(part)
    return tuple(path)


def _has(place: object, part: str | int) -> bool:
    if isinstance(place, Mapping):
        return part in place
    return isinstance(place, (list, tuple)) and isinstance(part, int) and part < len(place)


def _unknown_key(key: str, known: list[str], hint: str) -> str:
    return f"unknown key `{printable(key)}`" + (hint or suggest(key, known) or f"; known: {', '.join(known)}")


def _known_keys(location: Path) -> Iterable[str]:
    if len(location) == 1:
        return [*model.StudySpec.model_fields, "metric"]
    if location[:2] == ("budget", "stop_when"):
        return model.StopWhen.model_fields
    part = _PARAMETERS.get(location[2]) if location[0] == "parameters" else _PARTS.get(str(location[0]))
    return part.model_fields if part else ()


def _missing(key: str | int, *, at_top: bool) -> str:
    shown = "metric" if key == "metrics" else key
    return f"`{shown}` is missing" + (f": {_NEEDED[key]}" if at_top and key in _NEEDED else "")


def _say(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind == "union_tag_not_found":
        return (
            "needs `values`, or `min` and `max`" if isinstance(value, Mapping) else _NO_PARAMETER.format(found(value))
        )
    if kind == "union_tag_invalid":
        return f"unknown type {printable(repr(context['tag']))}: write float, int or categorical"
    if kind == "model_attributes_type" and detail["loc"][0] == "parameters":
        return _NO_PARAMETER.format(found(value))
    if kind == "literal_error":
        choices = context["expected"].replace("'", "")
        return f"write {choices}, found {found(value)}" + suggest(value, choices.replace(" or ", ", ").split(", "))
    if kind == "too_short":
        return "needs at least one"
    if kind == "string_unicode":
        return "cannot be stored: it holds half of a surrogate pair"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_too_long":
        return f"has {len(str(value))} characters; at most {context['max_length']}"
    if kind in _WANTED:
        return f"{_WANTED[kind]}, found {found(value)}{_remedy(kind, value)}"
    return f"{_bound(detail)}, found {found(value)}"


_NO_PARAMETER = "needs a mapping with `values`, or `min` and `max`, found {}; a fixed value belongs under `constants`"


def _bound(detail: ErrorDetails) -> str:
    """`must be at least 1`: pydantic's own words for limits, which name the limit."""
    words = detail["msg"].removeprefix("Input should be ")
    return (
        f"must be {words.replace('greater than or equal to', 'at least').replace('less than or equal to', 'at most')}"
    )


def _remedy(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return ": put it in quotes"
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        return f": write {int(value)}"
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str) and _reads_as_number(value):
        return ": take the quotes away"
    return ""


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def found(value: object) -> str:
    """A value and its kind, as people name it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"text {printable(repr(value[:80]))}"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"
