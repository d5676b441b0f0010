"""Generates docs/study-yaml.md from the JSON Schema.

`python -m tunesvc.spec.schema.key_reference > docs/study-yaml.md` writes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tunesvc.spec.schema.json_schema import json_schema

_HEAD = """\
# study.yaml

A study file defines the search space, how a trial runs, and how much may be spent. `tune init`
writes one to start from, `tune validate FILE` checks it, `tune preview FILE` shows what it would
do, and `tune schema` prints the JSON Schema that this page is generated from. For completion in an
editor with a YAML language server:

```bash
tune schema --out study.schema.json
```

```yaml
# yaml-language-server: $schema=study.schema.json
name: digits
entrypoint: digits:train            # or  command: python train.py --lr ${lr}
metric: {name: val_error, goal: minimize, target: 0.01}
parameters:
  lr: {type: float, min: 0.0001, max: 1.0, log: true}
  optimizer: {values: [sgd, adam]}
  momentum: {type: float, min: 0.0, max: 0.99, when: {optimizer: sgd}}
constants: {epochs: 27}
sampler: tpe                        # or  {name: tpe, seed: 7, n_startup_trials: 20}
pruner: {name: asha, min: 1, max: 81, eta: 3}
budget: {trials: 200, gpu_hours: 40, wall: 12h}
parallelism: 8
resources: {cpu: 1, gpu: 0.5}
cost: {gpu_hour: 2.5, cpu_hour: 0.04, currency: EUR}
retries: {lost: 10, error: 1}
```

## Short forms

| Short | Long |
|---|---|
| `metric: loss` | `metric: {name: loss, goal: minimize}` |
| `metric: {...}` | `metrics: [{...}]` |
| `sampler: tpe`, `pruner: asha` | `sampler: {name: tpe}`, `pruner: {name: asha}` |
| `sampler: {class: "module:Name"}` | `sampler: {name: "module:Name"}`; of a pruner likewise |
| `budget: 100` | `budget: {trials: 100}` |
| `search: {method: pbt, ...}` | also `sampler: pbt`, `pruner: none`, and a `budget` that suffices |
| `watch: {budget: 20}` | `watch: {budget: {trials: 20}}` |
| `warm_start: digits` | `warm_start: [digits]` |
| `data: iris.csv` | `data: {source: iris.csv}` |
| `evaluation: {scoring: roc_auc}` | `evaluation: {scoring: [roc_auc]}`, with the metric `roc_auc` |
| `apply: standardize`, `apply: [standardize]` | `apply: [{name: standardize}]` |
| `seeds: 5` | `evaluation: {repeats: 5, per_trial: 1}` |
| `command: python train.py --lr ${lr}` | `command: [python, train.py, --lr, "${lr}"]` |
| `{values: [a, b]}` | `{type: categorical, values: [a, b]}` |
| `{min: 1, max: 8}` | `{type: int, min: 1, max: 8}`; `float` unless all numbers are whole |

Durations are seconds, or `90s`, `15m`, `12h`, `3d`, `1h30m`. Sizes are bytes, or `512MB`, `4GB`,
`1.5GiB`.
"""

_TAIL = """\
## How values are read

Unquoted values follow YAML 1.2, not its older versions.

| Written | Read as |
|---|---|
| `1e-3`, `.5`, `1_000` | the numbers 0.001, 0.5, 1000 |
| `no`, `yes`, `on`, `off` | text; true and false are `true` and `false` |
| `1:30`, `2026-11-23` | text, and so an error where a number is needed |
| `010` | an error: octal to some readers |
| `.nan`, `.inf`, `1e999` | an error |

Arguments in `command`, `environment.env` and `pip`, and `tags` are always text.

Refused, with file, line and column: unknown and duplicate keys, values of the wrong type, tags,
anchors and aliases, a second document, more than 20 levels of nesting, more than 256 kB, control
characters, and names longer than 200 characters or with invisible characters. All mistakes of a
file are reported together.
"""


def reference() -> str:
    """Return the page."""
    schema = json_schema()
    parts = schema["$defs"]
    lines = [_HEAD, "## Keys\n", *_table(schema["properties"], schema["required"]), ""]
    for title, part in _SECTIONS.items():
        lines += [f"### {title}\n", f"{parts[part]['description']}\n"]
        lines += [
            *_table(parts[part]["properties"], parts[part].get("required", [])),
            "",
        ]
    return "\n".join([*lines, _TAIL])


_SECTIONS = {
    "metric": "Metric",
    "constraints": "Constraint",
    "parameters: float": "FloatParameter",
    "parameters: int": "IntParameter",
    "parameters: categorical": "CategoricalParameter",
    "data": "Data",
    "data: source": "FeatureStore",
    "data: split": "DataSplit",
    "data: steps": "DataStep",
    "data: steps: apply": "Transformer",
    "evaluation": "Evaluation",
    "sampler": "Sampler",
    "pruner": "Pruner",
    "search": "Search",
    "search: stages": "Stage",
    "budget": "Budget",
    "budget: stop_when": "StopWhen",
    "resources": "Resources",
    "cost": "Prices",
    "retries": "Retries",
    "limits": "Limits",
    "keep": "Keep",
    "environment": "Environment",
    "loggers": "Logger",
    "watch": "Watch",
}


def _table(properties: Mapping[str, Any], required: Collection[str]) -> Iterator[str]:
    yield "| Key | Type | Default | Meaning |"
    yield "|---|---|---|---|"
    for key, schema in properties.items():
        default = "**needed**" if key in required else _default(schema)
        meaning = schema.get("description", _MEANING.get(key, ""))
        yield f"| `{key}` | {_type(schema)} | {default} | {meaning} |"


_MEANING = {
    "type": "One of the three kinds; may be left out.",
    "when": "Exists only if each named parameter has the given value, or one of the values.",
}


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    return "" if default in (None, "", [], {}) else f"`{json.dumps(default)}`".replace('"', "")


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "mapping"
    if "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("examples"):
        return "duration" if "90s" in schema["examples"] else "size"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_type, choices)))
    return _NAMES[schema["type"]] + _bounds(schema)


_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "array": "list",
    "object": "mapping",
}


def _bounds(schema: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f" > {schema['exclusiveMinimum']}"
    return f" ≥ {schema['minimum']}" if schema.get("minimum", -1) >= 0 else ""


if __name__ == "__main__":
    sys.stdout.write(reference())
