"""Form fields of actions to requests. Pure.

Fields of each parameter are parallel lists, such as `name` and `value`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from tunesvc.errors import SpecError
from tunesvc.queries.rows import StudyView
from tunesvc.spec import CategoricalParameter, IntParameter, Parameter, ParamValue
from tunesvc.spec.units import parse_duration_s

MAX_TEXT = 40_000


class FormQuestion(StrEnum):
    """Action of a form."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    EXTEND = "extend"
    PARALLELISM = "parallelism"
    WIDEN = "widen"
    ENQUEUE = "enqueue"
    NEAR = "near"
    RETRY = "retry"
    STOP_TRIAL = "stop_trial"
    TAG = "tag"
    NOTE = "note"
    ROLLBACK = "rollback"

    @property
    def needs_trial(self) -> bool:
        """True if it applies to one trial."""
        return self in (FormQuestion.NEAR, FormQuestion.RETRY, FormQuestion.STOP_TRIAL)


class Fields(BaseModel):
    """All fields of all forms."""

    trial: int | None = Field(None, ge=0, lt=2**31)
    trials: str = Field("", max_length=40)
    wall: str = Field("", max_length=40)
    gpu_hours: str = Field("", max_length=40)
    cost: str = Field("", max_length=40)
    name: list[str] = Field(default_factory=list)
    value: list[str] = Field(default_factory=list)
    low: list[str] = Field(default_factory=list)
    high: list[str] = Field(default_factory=list)
    choices: list[str] = Field(default_factory=list)
    chooser: list[str] = Field(default_factory=list)
    """Names of the parameters of `choices`."""
    text: str = Field("", max_length=MAX_TEXT)
    remove: list[str] = Field(default_factory=list)


def request_of(
    ask: FormQuestion,
    fields: Fields,
    study: StudyView,
) -> tuple[str, Mapping[str, Any]]:
    """Return the kind and the payload of a form's request, see `tunesvc.runtime.study_requests`.

    Raises:
        SpecError: a field cannot be read; the text names it.
    """
    parameters = {} if study.spec is None else study.spec.parameters
    if ask.needs_trial and fields.trial is None:
        raise SpecError("this is about a trial: say which")
    match ask:
        case FormQuestion.EXTEND:
            return ask, _extensions(fields)
        case FormQuestion.PARALLELISM:
            is_set = bool(fields.trials.strip())
            return ask, {"trials": _integer("parallelism", fields.trials) if is_set else None}
        case FormQuestion.WIDEN:
            return ask, {"parameters": _changes(fields, parameters)}
        case FormQuestion.ENQUEUE:
            params = {}
            for name, text in _filled(fields.name, fields.value):
                params[name] = _value(name, text, parameters.get(name))
            origin = "by hand" if fields.trial is None else f"by hand, from trial {fields.trial}"
            return ask, {"params": params, "origin": origin}
        case FormQuestion.NEAR:
            return FormQuestion.ENQUEUE, {"near": fields.trial}
        case FormQuestion.RETRY | FormQuestion.STOP_TRIAL:
            return ask, {"number": fields.trial}
    return ask, {}


def _extensions(fields: Fields) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if fields.trials.strip():
        more["trials"] = _integer("trials", fields.trials)
    if fields.wall.strip():
        try:
            more["wall"] = float(parse_duration_s(fields.wall.strip()))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise SpecError(f"wall time: {error}") from None
    if fields.gpu_hours.strip():
        more["gpu_hours"] = _number("GPU hours", fields.gpu_hours)
    if fields.cost.strip():
        more["cost"] = _number("cost", fields.cost)
    if not more:
        raise SpecError("say by how much")
    return more


def _changes(fields: Fields, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the bounds and choices that differ from the current ones."""
    changes: dict[str, dict[str, Any]] = {}
    for name, low, high in zip(fields.name, fields.low, fields.high, strict=False):
        current = parameters.get(name)
        for end, text in (("min", low), ("max", high)):
            if not text.strip():
                continue
            value = _value(name, text, current)
            if value != getattr(current, end, None):
                changes.setdefault(name, {})[end] = value
    for name, text in _filled(fields.chooser, fields.choices):
        changes[name] = {"values": _choices(text)}
    if not changes:
        raise SpecError("nothing is changed")
    return changes


def _filled(names: Sequence[str], texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in zip(names, texts, strict=False) if text.strip()]


def _value(name: str, text: str, parameter: Parameter | None) -> ParamValue:
    if isinstance(parameter, CategoricalParameter):  # the page sends choices as JSON
        choice: ParamValue = _choice(text)
        return choice
    return _integer(name, text) if isinstance(parameter, IntParameter) else _number(name, text)


def _choices(text: str) -> list[Any]:
    """Parse choices between commas: as JSON if all of them are, so that lists work; else as
    text."""
    try:
        listed = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        return [_choice(part) for part in text.split(",") if part.strip()]
    return list(listed)


def _choice(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # RecursionError for thousands of brackets
        return text.strip()


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"{name}: {text.strip()[:40]!r} is not a whole number") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"{name}: {text.strip()[:40]!r} is not a number") from None
