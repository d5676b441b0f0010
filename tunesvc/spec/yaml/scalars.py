"""Unquoted YAML scalars by the core schema of YAML 1.2, which matches what people mean.

PyYAML follows YAML 1.1, where `1e-3` is text, `no` is false, `1:30` is 90, `010` is 8 and
`2026-11-23` is a date.
"""

from __future__ import annotations

import math
import re

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_GROUPED = r"\d{1,3}(?:_\d{3})+"
_INT = re.compile(rf"[-+]?(?:\d+|{_GROUPED})", re.ASCII)
_FLOAT = re.compile(rf"[-+]?(?:\.\d+|(?:\d+|{_GROUPED})(?:\.\d*)?)(?:[eE][-+]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_LEADING_ZERO = re.compile(r"[-+]?0\d+", re.ASCII)
_LONGEST_NUMBER = 400
"""Characters; far more than a number needs, and few enough to convert quickly."""

_QUOTE = "put it in quotes if it is text"


def resolve(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted scalar.

    Raises:
        ValueError: YAML readers disagree about it, or it is too large a number; the text has the
            remedy.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _FLOAT.fullmatch(text) or _OTHER_BASE.fullmatch(text):
        return _number(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"`{text}` is not a finite number; {_QUOTE}")
    return text


def _number(text: str) -> int | float:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} characters is too long; {_QUOTE}")
    if _LEADING_ZERO.fullmatch(text):
        plain = ("-" if text.startswith("-") else "") + (text.lstrip("+-0") or "0")
        raise ValueError(f"`{text}` is octal to some readers: write {plain}, or {_QUOTE}")
    number = _convert(text)
    if not -(2**63) <= number < 2**63 if isinstance(number, int) else math.isinf(number):
        raise ValueError(f"`{text}` is too large a number; {_QUOTE}")
    return number


def _convert(text: str) -> int | float:
    if _OTHER_BASE.fullmatch(text):
        return int(text, base=0)
    return int(text) if _INT.fullmatch(text) else float(text)
