"""Ranges around defaults, guessed from names and values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tunesvc.foreign.programs.program_option import UNKNOWN, ProgramOption

FIXED = (
    *("epoch", "step", "iter", "iteration", "round", "seed", "worker", "thread", "cpu", "gpu"),
    *("device", "rank", "world", "port", "verbose", "log", "logging", "save", "eval", "print"),
    *("patience", "timeout", "version", "id", "frequency", "freq", "interval", "every", "trial"),
    *("classes", "job", "debug", "resume", "quiet", "test", "cuda", "profile", "download"),
    *("overwrite", "force", "wandb", "tensorboard", "dry"),
)
"""Words in names of what is rather set than tuned."""
SHARES = (
    *("dropout", "drop", "momentum", "prob", "probability", "ratio", "fraction", "beta", "beta1"),
    *("beta2", "gamma", "tau", "subsample", "colsample", "smoothing", "mixup", "p"),
)
"""Words in names of numbers between 0 and 1."""


def is_fixed(option: ProgramOption) -> bool:
    """Return True for an option that is rather set than tuned, by its name."""
    words = re.split(r"[_\-.]+", option.name.lower())
    return any(word in FIXED or word.removesuffix("s") in FIXED for word in words)


def guess(option: ProgramOption) -> tuple[Mapping[str, Any], str] | None:
    """Return a parameter and how it was found; None if there is nothing to go by."""
    if option.kind == "flag":
        return {"values": [False, True]}, "a flag"
    if option.choices and UNKNOWN not in option.choices and len(option.choices) > 1:
        return {"values": list(option.choices)}, "its choices"
    if option.kind not in ("int", "float"):
        return None
    default = option.default
    is_bounded = option.low is not None and option.high is not None
    if not isinstance(default, (int, float)) or isinstance(default, bool):
        if default is not None and not is_bounded:
            return None
        default = None
    found = _around(option, default)
    if found is None:
        return None
    low = found["min"] if option.low is None else option.low
    high = found["max"] if option.high is None else option.high
    if option.kind == "int":
        low, high = math.ceil(low), math.floor(high)
    if low >= high:
        return None
    if is_bounded:
        ends = {"min": low, "max": high} if option.kind == "int" else _real(low, high)
        wide = {"log": True} if low > 0 and high / low >= 100 else {}
        return {**ends, **wide}, "the range that the program checks"
    said = "without a default" if default is None else f"default {default:g}"
    scale = {"log": True} if found.get("log") and low > 0 else {}
    return {"min": low, "max": high, **scale}, f"{said}; the range is a guess"


def _around(option: ProgramOption, default: float | None) -> dict[str, Any] | None:
    words = re.split(r"[_\-.]+", option.name.lower())
    if option.kind == "int":
        if default is None or default < 1:
            has_ends = option.low is not None and option.high is not None
            return {"min": 1, "max": 10} if default is None or has_ends else None
        low, high = max(1, int(default) // 4), max(4, int(default) * 4)
        return {"min": low, "max": high, "log": True} if high > 16 else {"min": low, "max": high}
    if any(word in SHARES for word in words) and (default is None or 0 <= default < 1):
        top = next(top for top in (0.9, 0.99, 0.9999, 1.0) if default is None or default < top)
        return {"min": 0.0, "max": top}
    if default is None:
        is_rate = words[0] == "lr" or "learning" in words
        return {"min": 1e-5, "max": 0.1, "log": True} if is_rate else {"min": 0.0, "max": 1.0}
    if default > 0:
        return {"min": _round(default / 10), "max": _round(default * 10), "log": True}
    if option.low is not None or option.high is not None:
        return {"min": 0.0, "max": 1.0}
    return None


def _real(low: float, high: float) -> dict[str, float]:
    return {"min": float(low), "max": float(high)}


def _round(number: float) -> float:
    return float(f"{number:.3g}")
