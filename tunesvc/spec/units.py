"""Durations and sizes as people write them."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", re.IGNORECASE)


def parse_duration_s(value: object) -> object:
    """Parse `90`, `90s`, `15m` or `1h30m` into seconds; other types are left to the type check."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    if not isinstance(value, str):
        return float(value)
    text = value.strip().lower().replace(" ", "")
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{value!r} is not a duration: write 90s, 15m, 12h, 3d or 1h30m")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    return float(sum(float(amount) * _SECONDS[unit] for amount, unit in parts))


def parse_bytes(value: object) -> object:
    """Parse `4GB`, `512MiB` or `1000` into bytes; other types are left to the type check."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size: write 512MB, 4GB or 1.5GiB")
    number, unit = match.groups()
    size = float(number) * _BYTES[(unit or "").upper()]
    if size >= 2**63:
        raise ValueError(f"{value!r} is too large")
    return int(size)
