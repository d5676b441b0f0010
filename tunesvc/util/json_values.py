"""Values as JSON and Postgres can hold them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from tunesvc.util.characters import storable


def plain(value: Any) -> Any:
    """Return a value of dictionaries, lists, text and finite numbers.

    NaN and infinities become the strings `NaN`, `Infinity` and `-Infinity`, which `float` reads in
    Python and in Postgres; bytes become base64; characters that Postgres refuses become U+FFFD.
    """
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {storable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
