"""Numbers, durations and parameters in few characters, for terminal and page alike. Imports nothing of tunesvc."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime


def number(value: float | None) -> str:
    """A value in few characters."""
    if value is None:
        return "–"
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def parameter(value: object) -> str:
    """A parameter's value in few characters; a list as the search knows it."""
    if isinstance(value, (list, tuple)):
        return json.dumps(value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def parameters(params: Mapping[str, object]) -> str:
    """All parameters in one line."""
    return ", ".join(f"{name}={parameter(value)}" for name, value in params.items())


def violation(name: str, excess: float) -> str:
    """How far a constraint such as `cost.max` is exceeded."""
    if not math.isfinite(excess):
        return f"{name} is not finite"
    metric, _, bound = name.rpartition(".")
    if bound == "max" and metric:
        return f"{metric} is {number(excess)} above its maximum"
    if bound == "min" and metric:
        return f"{metric} is {number(excess)} below its minimum"
    return f"constraint {name} is {number(excess)} above 0"


def violations(excesses: Mapping[str, float]) -> str:
    """All constraints that are broken, in one line; the excesses are of those only."""
    return ", ".join(violation(name, excess) for name, excess in excesses.items())


def duration(seconds: float | None) -> str:
    """`4.2s`, `3m 07s`, `2h 05m`, `3d 04h`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, part, part_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part_size:02d}{part}"
    return f"{whole}s"


def resume_command(study: str, *, has_program: bool) -> str:
    """Return the command that continues a study.

    Of a study that was started from Python the objective is not stored: only Python can hand the function over.
    """
    if has_program:
        return f"tune resume {shlex.quote(study)}"
    return f"tunesvc.load_study({study!r}).resume(function=your_function)"


def confirm_command(study: str, *, has_program: bool) -> str:
    """Return the command that runs a study's finalists again."""
    if has_program:
        return f"tune confirm {shlex.quote(study)}"
    return f"tunesvc.load_study({study!r}).confirm(function=your_function)"


def ago(moment: datetime | None) -> str:
    """How long ago a moment was."""
    return "–" if moment is None else f"{duration(max(0.0, (datetime.now(UTC) - moment).total_seconds()))} ago"


def escape_csv_formula(value: object) -> object:
    """Text that no spreadsheet takes for a formula. Numbers stay what they are.

    OWASP, "CSV Injection": an apostrophe before = + - @, tab and carriage return.
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|$)")
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def strip_control(text: str) -> str:
    """A program's output as plain text: no colours or cursor moves, of an overwritten line (a progress bar) what was
    written last, and a replacement character for whatever else would not be seen.
    """
    kept = _OVERWRITTEN.sub("", _ESCAPES.sub("", text))
    return _HIDDEN.sub("\ufffd", kept.replace("\r", ""))
