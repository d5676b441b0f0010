"""The published JSON Schema of study.yaml, short forms included: for editors and for the reference.

Generated from the model, so that names, defaults and descriptions are written once. An editor with
the schema catches most mistakes while typing; `tune validate` catches all.
"""

from __future__ import annotations

import copy
from typing import Any

from tunesvc.spec.model import StudySpec
from tunesvc.spec.sections.execution_keys import Limits

Schema = dict[str, Any]

_DURATION = {
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}],
    "examples": ["90s", "15m", "12h"],
}
_SIZE = {
    "anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}],
    "examples": ["512MB", "4GB"],
}
_TEXT = {"type": ["string", "number", "boolean", "null"]}
_PROGRAM = [
    {"required": ["entrypoint"]},
    {"required": ["command"]},
    {
        "properties": {"agents": {"const": "only"}, "entrypoint": False, "command": False},
        "required": ["agents"],
    },
]
"""Program of a trial. A study on agents only may leave it to whoever asks for trials."""
_END = [{"required": ["budget"]}, {"required": ["search"]}]
"""Limits of a study; a population ends by itself."""
_SCORED: Schema = {
    "properties": {"evaluation": {"required": ["scoring"]}},
    "required": ["evaluation"],
}
_METRIC = [{"required": ["metric"]}, {"required": ["metrics"]}, _SCORED]
"""The metric, which is the first scorer if there are scorers."""


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a study file."""
    schema = _tidy(StudySpec.model_json_schema())
    parts = schema["$defs"]
    keys = _with_short_forms(schema["properties"])
    _parameters(keys, parts)
    durations = [("Budget", "wall"), *(("Limits", key) for key in Limits.model_fields)]
    for part, key in durations:
        _replace(parts[part]["properties"], key, _DURATION)
    _replace(parts["Resources"]["properties"], "memory", _SIZE)
    for part, base in (("Sampler", "sampler"), ("Pruner", "pruner")):
        _with_class(parts[part]["properties"], base, f"an Optuna {base}")
    _data(keys, parts)
    _scoring(parts["Evaluation"]["properties"])
    _loggers(keys, parts)
    environment = parts["Environment"]["properties"]
    environment["env"]["additionalProperties"] = environment["pip"]["items"] = _TEXT
    keys["tags"]["items"] = _TEXT
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tunesvc study",
        "description": "A study: what is searched, how a trial is run, and how much may be spent.",
        "type": "object",
        "properties": keys,
        "required": ["name"],
        "allOf": [{"oneOf": _METRIC}, {"oneOf": _PROGRAM}, {"anyOf": _END}],
        "additionalProperties": False,
        "$defs": parts,
    }


def _with_short_forms(keys: Schema) -> Schema:
    metric = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Metric"}]}
    keys["metrics"]["items"] = metric
    _also(keys, "sampler", {"type": "string"})
    _also(keys, "pruner", {"type": "string"})
    _also(keys, "budget", {"type": "integer", "minimum": 1})
    words = {**keys["command"], "items": _TEXT}
    keys["command"] = {
        "anyOf": [{"type": "string"}, words],
        "description": words.pop("description"),
    }
    described = {
        **metric,
        "description": "What is optimised: a name to minimise, or a mapping.",
    }
    before = list(keys).index("metrics")
    return dict(
        [
            *list(keys.items())[:before],
            ("metric", described),
            *list(keys.items())[before:],
        ]
    )


def _data(keys: Schema, parts: Schema) -> None:
    _also(keys, "data", {"type": "string"})
    transformer = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Transformer"}]}
    listed = parts["DataStep"]["properties"]["apply"]
    listed["items"] = transformer
    parts["DataStep"]["properties"]["apply"] = {
        "anyOf": [*transformer["anyOf"], listed],
        "description": listed.pop("description"),
    }
    parts["Transformer"]["required"] = []
    parts["Transformer"]["properties"]["class"] = {
        "type": "string",
        "pattern": ":",
        "description": "In place of `name`: a transformer of yours or of any package, as "
        "`module:Name`. The other keys are its arguments.",
    }


def _scoring(keys: Schema) -> None:
    """Allow one scorer without a list."""
    listed = keys["scoring"]
    described = {"description": listed.pop("description")}
    keys["scoring"] = {"anyOf": [{"type": "string"}, listed], **described}


def _loggers(keys: Schema, parts: Schema) -> None:
    """Allow names, and names with their options below, beside the long form."""
    logger = parts["Logger"]
    _with_class(logger["properties"], "logger", "a `TrialLogger`")
    logger["anyOf"] = [{"required": ["name"]}, {"required": ["class"]}, {"maxProperties": 1}]
    del logger["required"]
    keys["loggers"]["items"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Logger"}]}


def _with_class(keys: Schema, base: str, made: str) -> None:
    keys["class"] = {
        "type": "string",
        "pattern": ":",
        "description": f"In place of `name`: a {base} of yours or of any package, as `module:Name` "
        "or `path/file.py:Name` beside the study file. It is a class, or a function that returns "
        f"{made}. The other keys are its arguments.",
    }


def _parameters(keys: Schema, parts: Schema) -> None:
    """Make `type` optional: a parameter of whole numbers matches both kinds of range."""
    kinds = ("FloatParameter", "IntParameter", "CategoricalParameter")
    references = [{"$ref": f"#/$defs/{kind}"} for kind in kinds]
    keys["parameters"]["additionalProperties"] = {"anyOf": references}
    for kind in kinds:
        parts[kind]["required"] = [key for key in parts[kind]["required"] if key != "type"]
        parts["When"] = parts[kind]["properties"]["when"]
        parts[kind]["properties"]["when"] = {"$ref": "#/$defs/When"}
    choice = parts["CategoricalParameter"]["properties"]["values"]["items"]
    parts["When"]["additionalProperties"] = {
        "anyOf": [
            *_scalars(choice),
            {"type": "array", "items": choice},
        ]
    }


def _scalars(choice: Schema) -> list[Schema]:
    return [kind for kind in choice["anyOf"] if kind["type"] != "array"]


def _also(keys: Schema, key: str, short: Schema) -> None:
    long = keys[key]
    keys[key] = {
        "anyOf": [short, {"$ref": long["$ref"]}],
        "description": long["description"],
    }
    if "default" in long:
        keys[key]["default"] = long["default"]


def _replace(keys: Schema, key: str, schema: Schema) -> None:
    kept = {name: keys[key][name] for name in ("description", "default") if name in keys[key]}
    keys[key] = {**copy.deepcopy(schema), **kept}


def _tidy(schema: Any) -> Any:
    """Remove what only pydantic needs: generated titles, and nulls of optional keys."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {
        key: _tidy_properties(value) if key in ("properties", "$defs") else _tidy(value)
        for key, value in schema.items()
    }
    tidy.pop("discriminator", None)
    if isinstance(tidy.get("title"), str):
        del tidy["title"]
    if tidy.get("default", ...) is None:
        del tidy["default"]
    return _without_null(tidy)


def _tidy_properties(properties: Schema) -> Schema:
    return {name: _tidy(schema) for name, schema in properties.items()}


def _without_null(schema: Schema) -> Schema:
    """Reduce `anyOf: [X, null]` of an optional key to X; a longer list of choices keeps its
    null."""
    choices = schema.get("anyOf", [])
    if len(choices) == 2 and {"type": "null"} in choices:
        (only,) = [choice for choice in choices if choice != {"type": "null"}]
        return {
            **only,
            **{key: value for key, value in schema.items() if key != "anyOf"},
        }
    return schema
