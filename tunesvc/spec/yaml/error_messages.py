"""Pydantic's validation errors in plain words, at the paths of study.yaml.

Uses the model's field names for suggestions; handles neither files nor lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tunesvc.spec import foreign_names
from tunesvc.spec.diagnostics import Path, SpecIssue, printable
from tunesvc.spec.model import StudySpec
from tunesvc.spec.sections.budget import Budget, Prices, StopWhen
from tunesvc.spec.sections.data_keys import Data, DataSplit, DataStep, FeatureStore
from tunesvc.spec.sections.evaluation_keys import Evaluation
from tunesvc.spec.sections.execution_keys import Environment, Keep, Limits, Resources, Retries
from tunesvc.spec.sections.objective import Constraint, Metric
from tunesvc.spec.sections.parameter_types import CategoricalParameter, FloatParameter, IntParameter
from tunesvc.spec.sections.population_keys import Search
from tunesvc.spec.sections.watch_keys import Watch
from tunesvc.util.suggestions import suggest

_SECTIONS: Mapping[str, type[BaseModel]] = {
    "watch": Watch,
    "metric": Metric,
    "metrics": Metric,
    "constraints": Constraint,
    "data": Data,
    "evaluation": Evaluation,
    "search": Search,
    "budget": Budget,
    "resources": Resources,
    "cost": Prices,
    "retries": Retries,
    "limits": Limits,
    "keep": Keep,
    "environment": Environment,
}
_PARAMETERS: Mapping[object, type[BaseModel]] = {
    "float": FloatParameter,
    "int": IntParameter,
    "categorical": CategoricalParameter,
}
_NEEDED_KEYS: Mapping[object, str] = {
    "name": "what the study is called, such as `name: digits`",
    "metrics": "what is optimised, such as `metric: {name: loss, goal: minimize}`",
    "budget": "how much may be spent, such as `budget: {trials: 100}`",
}
_NEEDED_TYPES: Mapping[str, str] = {
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


def to_issues(error: ValidationError, data: Mapping[str, Any]) -> list[SpecIssue]:
    """Convert all errors that pydantic found in `data`, the long form of a study."""
    details = [detail for detail in error.errors(include_url=False) if not _is_echo(detail)]
    return [_to_issue(detail, data) for detail in details]


def _is_echo(detail: ErrorDetails) -> bool:
    """Return True if a list is too short only because its items were refused."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _to_issue(detail: ErrorDetails, data: Mapping[str, Any]) -> SpecIssue:
    location, error_type = detail["loc"], detail["type"]
    if location[-1] == "[key]":
        key = str(detail["input"])
        return SpecIssue(
            (*_without_tags(location[:-2], data), key),
            f"`{printable(key)}` {_describe(detail)}",
            at_key=True,
        )
    path = _without_tags(location, data)
    if error_type == "extra_forbidden":
        key = str(path[-1])
        hint = foreign_names.hint(key) if len(location) == 1 else ""
        return SpecIssue(
            path,
            _unknown_key(key, list(_known_keys(location)), hint),
            at_key=True,
        )
    if error_type == "missing":
        return SpecIssue(path, _missing(location[-1], at_top=not path))
    return SpecIssue(path, _describe(detail))


def _without_tags(location: Path, data: Mapping[str, Any]) -> Path:
    """Drop the parts of a location that are not in the data: pydantic adds the chosen member of a
    union."""
    path: list[str | int] = []
    node: Any = data
    for part in location:
        if _has(node, part):
            node = node[part]
            path.append(part)
    return tuple(path)


def _has(node: object, part: str | int) -> bool:
    if isinstance(node, Mapping):
        return part in node
    return isinstance(node, (list, tuple)) and isinstance(part, int) and part < len(node)


def _unknown_key(key: str, known: list[str], hint: str) -> str:
    remedy = hint or suggest(key, known) or f"; known: {', '.join(known)}"
    return f"unknown key `{printable(key)}`{remedy}"


def _known_keys(location: Path) -> Iterable[str]:
    if len(location) == 1:
        return [*StudySpec.model_fields, "metric"]
    if location[:2] == ("budget", "stop_when"):
        return StopWhen.model_fields
    if location[:2] == ("watch", "budget") and len(location) > 2:
        return Budget.model_fields
    if location[:2] == ("data", "split"):
        return DataSplit.model_fields
    if location[:2] == ("data", "source"):
        return FeatureStore.model_fields
    if location[:2] == ("data", "steps"):
        return DataStep.model_fields
    section = _SECTIONS.get(str(location[0]))
    if location[0] == "parameters":
        section = _PARAMETERS.get(location[2])
    return section.model_fields if section else ()


def _missing(key: str | int, *, at_top: bool) -> str:
    shown = "metric" if key == "metrics" else key
    meaning = f": {_NEEDED_KEYS[key]}" if at_top and key in _NEEDED_KEYS else ""
    return f"`{shown}` is missing{meaning}"


def _describe(detail: ErrorDetails) -> str:
    error_type = detail["type"]
    value = detail["input"]
    context = detail.get("ctx", {})
    if error_type in ("value_error", "assertion_error"):
        return str(context["error"])
    if error_type == "union_tag_not_found":
        if isinstance(value, Mapping):
            return "needs `values`, or `min` and `max`"
        return _NO_PARAMETER.format(describe_value(value))
    if error_type == "union_tag_invalid":
        return f"unknown type {printable(repr(context['tag']))}: write float, int or categorical"
    if error_type == "model_attributes_type" and detail["loc"][0] == "parameters":
        return _NO_PARAMETER.format(describe_value(value))
    if error_type == "literal_error":
        choices = context["expected"].replace("'", "")
        return f"write {choices}, found {describe_value(value)}" + suggest(
            value, choices.replace(" or ", ", ").split(", ")
        )
    if error_type == "too_short":
        return "needs at least one"
    if error_type == "string_unicode":
        return "cannot be stored: it holds half of a surrogate pair"
    if error_type == "string_too_short":
        return "must not be empty"
    if error_type == "string_too_long":
        return f"has {len(str(value))} characters; at most {context['max_length']}"
    if error_type in _NEEDED_TYPES:
        remedy = _remedy(error_type, value)
        return f"{_NEEDED_TYPES[error_type]}, found {describe_value(value)}{remedy}"
    return f"{_bound(detail)}, found {describe_value(value)}"


_NO_PARAMETER = "needs `values`, or `min` and `max`, found {}; a fixed value goes into `constants`"


def _bound(detail: ErrorDetails) -> str:
    """Format a limit as `must be at least 1`, from pydantic's own message."""
    words = detail["msg"].removeprefix("Input should be ")
    words = words.replace("greater than or equal to", "at least")
    words = words.replace("less than or equal to", "at most")
    return f"must be {words}"


def _remedy(error_type: str, value: object) -> str:
    if error_type == "string_type" and isinstance(value, (bool, int, float)):
        return ": put it in quotes"
    if isinstance(value, float) and value.is_integer():
        return f": write {int(value)}" if error_type in ("int_type", "int_from_float") else ""
    if isinstance(value, str) and _reads_as_number(value):
        needs_number = error_type in ("int_type", "float_type", "bool_type")
        return ": remove the quotes" if needs_number else ""
    return ""


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def describe_value(value: object) -> str:
    """Describe a value and its type in everyday words."""
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
