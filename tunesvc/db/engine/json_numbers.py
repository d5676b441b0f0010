"""Numbers in JSONB, which has neither NaN nor infinities: they are stored as strings.

`float("NaN")`, `float("Infinity")` and `float("-Infinity")` read them, in Python and in Postgres.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesvc.util.json_values import plain


def dump(value: Any) -> str:
    """Return JSON text for a JSONB column; characters that Postgres refuses become U+FFFD."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, default=str)


def load_metrics(value: Mapping[str, Any] | None) -> dict[str, float]:
    """Return stored metrics as floats."""
    return {name: float(number) for name, number in (value or {}).items()}
