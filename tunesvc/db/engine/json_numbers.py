"""Numbers in JSONB, which has neither NaN nor infinities: they are stored as strings.

`float("NaN")`, `float("Infinity")` and `float("-Infinity")` read them, in Python and in Postgres.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tunesvc.util.characters import storable


def dump(value: Any) -> str:
    """Return JSON text for a JSONB column; characters that Postgres refuses become U+FFFD."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)


def load_metrics(value: Mapping[str, Any] | None) -> dict[str, float]:
    """Return stored metrics as floats."""
    return {name: float(number) for name, number in (value or {}).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
