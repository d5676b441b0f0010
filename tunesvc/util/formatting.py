"""Short texts for numbers, durations and parameters. Imports nothing of tunesvc."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime


def number(value: float | None) -> str:
    """Format a value in few characters."""
    if value is None:
        return "–"
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def parameter(value: object) -> str:
    """Format a parameter's value in few characters; a list as JSON."""
    if isinstance(value, (list, tuple)):
        return json.dumps(value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def names_in(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return all keys of some mappings, in order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def parameters(params: Mapping[str, object]) -> str:
    """Format all parameters in one line."""
    return ", ".join(f"{name}={parameter(value)}" for name, value in params.items())


def violation(name: str, excess: float) -> str:
    """Describe the violation of a constraint such as `cost.max`."""
    if not math.isfinite(excess):
        return f"{name} is not finite"
    metric, _, bound = name.rpartition(".")
    if bound == "max" and metric:
        return f"{metric} is {number(excess)} above its maximum"
    if bound == "min" and metric:
        return f"{metric} is {number(excess)} below its minimum"
    return f"constraint {name} is {number(excess)} above 0"


def violations(excesses: Mapping[str, float]) -> str:
    """Describe the violated constraints in one line, given their excesses."""
    return ", ".join(violation(name, excess) for name, excess in excesses.items())


_UNITS = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))


def duration(seconds: float | None) -> str:
    """Format seconds as `4.2s`, `3m 07s`, `2h 05m` or `3d 04h`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, part, part_size in _UNITS:
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part_size:02d}{part}"
    return f"{whole}s"


def money(amount: float, currency: str = "") -> str:
    """Format an amount with two decimals as `4.20 EUR`; one below 0.1 with three digits.

    Smaller ones than a hundredth of a cent are `under 0.0001 EUR`.
    """
    text = f"{amount:.3g}" if 0 < abs(amount) < 0.1 else f"{amount:,.2f}"
    if 0 < abs(amount) < 0.0001:
        text = "under 0.0001"
    return f"{text} {currency}".rstrip()


def size(count: float) -> str:
    """Format a number of bytes as `12.3 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def resume_command(study: str, *, has_program: bool) -> str:
    """Return the command that continues a study.

    A study that was started from Python has no stored objective: only Python can provide it.
    """
    if has_program:
        return f"tune resume {shlex.quote(study)}"
    return f"tunesvc.load_study({study!r}).resume(function=your_function)"


def final_command(study: str, kind: str) -> str:
    """Return the command that evaluates a study on its test part, or trains its final model."""
    name = shlex.quote(study)
    return f"tune best {name} --test" if kind == "test" else f"tune apply {name} --train"


def no_result_message(study: str, final: str, kind: str, reason: str) -> str:
    """Return the error of a final run that has ended without a result."""
    why = f": {reason}" if reason else ""
    return (
        f"the trial of {final!r} has no result{why}. `tune show {shlex.quote(final)}` has its "
        f"state, and `{final_command(study, kind)}` runs it again"
    )


def confirm_command(study: str, *, has_program: bool) -> str:
    """Return the command that runs a study's finalists again."""
    if has_program:
        return f"tune confirm {shlex.quote(study)}"
    return f"tunesvc.load_study({study!r}).confirm(function=your_function)"


def ago(time: datetime | None) -> str:
    """Format the time since `time`."""
    if time is None:
        return "–"
    elapsed_s = (datetime.now(UTC) - time).total_seconds()
    return f"{duration(max(0.0, elapsed_s))} ago"


def until(time: datetime) -> str:
    """Format the time until `time`."""
    left_s = (time - datetime.now(UTC)).total_seconds()
    return f"in {duration(left_s)}" if left_s > 0 else "now"


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def escape_csv_formula(value: object) -> object:
    """Return text that no spreadsheet reads as a formula; numbers stay unchanged.

    OWASP, "CSV Injection": an apostrophe before = + - @, tab and carriage return.
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value
