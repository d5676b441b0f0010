"""Specs for tests: small and valid, changed where a test needs it."""

from __future__ import annotations

import json
from typing import Any

from tunesvc.spec import StudySpec


def make_spec(**changes: Any) -> StudySpec:
    """A study of two parameters and one metric, `loss`, that prunes nothing, with the given keys
    changed."""
    base: dict[str, Any] = {
        "name": "test",
        "entrypoint": "module:function",
        "metrics": [{"name": "loss"}],
        "parameters": {
            "x": {"type": "float", "min": 0.0, "max": 1.0},
            "n": {"type": "int", "min": 1, "max": 8},
        },
        "sampler": {"name": "random", "seed": 1},
        "pruner": {"name": "none"},
        "budget": {"trials": 10},
        "parallelism": 4,
    }
    return StudySpec.model_validate_json(json.dumps(base | changes))
