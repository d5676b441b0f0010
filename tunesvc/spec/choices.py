"""Choices that are lists, such as the layers of a network: `values: [[32, 16], [64, 32]]`.

Samplers, the database and all pages handle scalars only. So a list is searched, stored and shown as
its JSON text, `[32, 16]`. It becomes a list again where the objective or a user of the Python API
receives it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesvc.spec.sections.field_types import ParamValue, as_choice
from tunesvc.spec.sections.parameter_types import CategoricalParameter, Parameter


def as_choices(params: Mapping[str, Any]) -> dict[str, ParamValue]:
    """Convert a user's values to those that the search uses: lists to JSON text."""
    return {name: as_choice(value) for name, value in params.items()}


def as_given(params: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Convert the search's values back to those that the study declares: JSON text to lists."""
    return {name: _as_given(value, parameters.get(name)) for name, value in params.items()}


def _as_given(value: Any, parameter: Parameter | None) -> Any:
    if not isinstance(parameter, CategoricalParameter) or not isinstance(value, str):
        return value
    is_list = any(isinstance(v, tuple) and as_choice(v) == value for v in parameter.values)
    return json.loads(value) if is_list else value
