"""The OpenAPI document of the API, derived from its routes and dataclasses."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from tunesvc.client.problems import MEDIA_TYPE
from tunesvc.client.study_inputs import NewStudy

_REF = "#/components/schemas/{model}"
_WIDENED = "Real"
_REAL = {
    "description": "A number; NaN and infinities are text.",
    "anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}],
}


def document(api: FastAPI) -> dict[str, Any]:
    """Return the document without its server, which FastAPI adds; it is made once."""
    if api.openapi_schema is None:
        made = get_openapi(
            title=api.title,
            version=api.version,
            description=api.description,
            routes=api.routes,
        )
        schemas = made["components"]["schemas"]
        _add(schemas, NewStudy)
        read = _reachable(made["paths"], schemas)
        for name in read:
            schemas[name] = _with_wide_numbers(schemas[name])
        schemas[_WIDENED] = _REAL
        made["paths"] = _with_problems(made["paths"])
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
        api.openapi_schema = made
    return api.openapi_schema


def _add(schemas: dict[str, Any], kind: type) -> None:
    """Add the schema of a type that no route names."""
    schema = TypeAdapter(kind).json_schema(ref_template=_REF)
    schemas.update(schema.pop("$defs", {}))
    schemas[kind.__name__] = schema


def _reachable(paths: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """Return the names of the schemas of answers."""
    found: set[str] = set()
    waiting = [
        operation["responses"] for methods in paths.values() for operation in methods.values()
    ]
    while waiting:
        for name in _names_in(waiting.pop()) - found:
            found.add(name)
            waiting.append(schemas[name])
    return found


def _names_in(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_names_in, schema))
    if not isinstance(schema, dict):
        return set()
    here = {schema["$ref"].rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else set()
    return here.union(*map(_names_in, schema.values()))


def _with_wide_numbers(schema: Any) -> Any:
    """Have numbers without bounds be text too where they are not finite."""
    if isinstance(schema, list):
        return [_with_wide_numbers(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "number" and not _BOUNDS & set(schema):
        kept = {key: value for key, value in schema.items() if key in ("title", "description")}
        return {**kept, "$ref": f"#/components/schemas/{_WIDENED}"}
    return {key: _with_wide_numbers(value) for key, value in schema.items()}


_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "default"}


def _with_problems(paths: dict[str, Any]) -> dict[str, Any]:
    """Give errors their media type, and leave out the one that FastAPI adds by itself."""
    for methods in paths.values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            for status in ("4XX", "503"):
                content = operation["responses"][status]["content"]
                content[MEDIA_TYPE] = content.pop("application/json", content.get(MEDIA_TYPE))
    return paths
