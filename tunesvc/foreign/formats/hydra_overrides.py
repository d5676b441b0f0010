"""Overrides of Hydra that have several values, as its Optuna sweeper reads them.

Its ranges include their end, other than those of Hydra's basic sweeper.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.section import Section
from tunesvc.spec.yaml import scalars

_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_SWEEPS = {"choice", "range", "interval", "tag", "shuffle", "sort", "glob"}
_PIECE = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)


def is_sweep(written: str) -> bool:
    """Return True for an override with several values."""
    found = _CALL.fullmatch(written.strip())
    return len(_split(written)) > 1 or (found is not None and found[1] in _SWEEPS)


def sweep(params: Section, name: str, written: str) -> Dimension | None:
    """Return the parameter of `choice(...)`, `range(...)`, `interval(...)`, or of `a,b,c`."""
    try:
        if (dimension := _dimension(written)) is not None:
            return dimension
    except (TypeError, ValueError) as error:
        params.refuse(name, f"`{params.path(name)}` is `{written}`: {error}")
        return None
    remedy = "write choice(a, b), range(1, 8), interval(0.1, 1.0) or tag(log, interval(1e-4, 1.0))"
    params.refuse(name, f"`{params.path(name)}` is `{written}`: {remedy}")
    return None


def _dimension(written: str, *, log: bool = False) -> Dimension | None:
    found = _CALL.fullmatch(written)
    kind, words = (found[1], _split(found[2])) if found else ("choice", _split(written))
    if kind == "tag" and words:
        return _dimension(words[-1], log="log" in words[:-1])
    if kind in ("shuffle", "sort") and len(words) == 1 and is_sweep(words[0]):
        return _dimension(words[0])  # samplers have an order of their own
    if kind in ("choice", "shuffle", "sort"):
        return dimensions.among([plain_value(word) for word in words if "=" not in word])
    numbers = _numbers(words)
    if kind == "interval" and len(numbers) == 2:
        return dimensions.number(*numbers, log=log)
    if kind == "range" and len(numbers) in (1, 2, 3):
        low, high, step = ([0, *numbers, 1] if len(numbers) == 1 else [*numbers, 1])[:3]
        whole = all(isinstance(number, int) for number in (low, high, step))
        return (dimensions.whole if whole else dimensions.real)(low, high, step=step)
    return None


def _numbers(words: Sequence[str]) -> list[float]:
    """Return the numbers among arguments, which may be named."""
    named = {key.strip(): word for key, _, word in (word.partition("=") for word in words)}
    order = [key for key in ("start", "stop", "end", "step") if key in named]
    texts = [word for word in words if "=" not in word] + [named[key] for key in order]
    values = [scalars.resolve(text.strip()) for text in texts]
    return [value for value in values if isinstance(value, (int, float))]


def plain_value(word: str) -> Any:
    """Return the value of an element of an override; text in quotes stays text.

    Raises:
        ValueError: it is a mapping, or nothing that a parameter can be.
    """
    if word[:1] in ("'", '"') and word[-1:] == word[:1] and len(word) > 1:
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    if word.startswith("[") and word.endswith("]"):
        return [plain_value(item) for item in _split(word[1:-1])]
    if word.startswith("{"):
        raise ValueError("a choice between mappings: make each a config of a group")
    return scalars.resolve(word)


def _split(text: str) -> list[str]:
    """Split at commas that are neither in quotes nor in brackets."""
    parts, depth = [""], 0
    for piece in _PIECE.findall(text):
        depth += (piece in "([{") - (piece in ")]}")
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts if part.strip()]


def distribution(one: Section) -> Dimension | None:
    """Return the parameter of an entry of `search_space`, the form before Hydra 1.2."""
    kind = one.take("type")
    if kind == "categorical":
        return dimensions.among(one.need("choices", "choices: [a, b]") or [])
    if kind not in ("int", "float"):
        one.refuse("type", f"`{one.path()}` has a type `{kind}`: write int, float or categorical")
        return None
    low, high = one.number("low"), one.number("high")
    step = one.number("step") if "step" in one else None
    if low is None or high is None:
        return None
    make = dimensions.whole if kind == "int" else dimensions.real
    return make(low, high, log=bool(one.take("log", False)), step=step)
