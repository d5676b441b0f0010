"""The language in which trials are filtered: `lr < 0.01 and optimizer == "adam"`. Text -> tree, names resolved. Pure.

    state == complete and (value <= 0.1 or number > 500)
    1e-4 < lr <= 0.01 and not optimizer in [sgd, "my own"]
    duration > 15m and failure != none and "batch size" >= 64

A name stands on one side of each comparison, a value on the other; words that are values need no quotes. What a trial
does not have (a conditional parameter, a value) satisfies `== none` and no other comparison. NaN equals `nan`, and is
neither less nor more than anything.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from tunesvc.db.schema.states import STATES_SHOWN
from tunesvc.errors import FilterError
from tunesvc.spec import ParamValue
from tunesvc.spec.units import parse_duration_s

LONGEST = 2_000
"""Characters of a filter."""
_DEEPEST = 40
_COMPARISONS_MAX = 200
_LISTED = 30
"""Names that an error lists."""


class FieldKind(StrEnum):
    """What a name of the language stands for."""

    NUMBER = "number"
    STATE = "state"
    VALUE = "value"
    STEP = "step"
    LAST = "last"
    DURATION = "duration"
    ATTEMPTS = "attempts"
    FAILURE = "failure"
    FEASIBLE = "feasible"
    TAG = "tag"
    PARAM = "params"
    METRIC = "metrics"
    CONSTRAINT = "constraints"

    @property
    def is_text(self) -> bool:
        """Whether its values are words without an order."""
        return self in (FieldKind.STATE, FieldKind.FAILURE, FieldKind.TAG)


MEANINGS = {
    FieldKind.NUMBER: "the trial's number",
    FieldKind.STATE: ", ".join(STATES_SHOWN),
    FieldKind.VALUE: "the first objective's value",
    FieldKind.STEP: "the newest report's step",
    FieldKind.LAST: "the first objective at that step",
    FieldKind.DURATION: "from start to end or until now; seconds, or 90s, 15m, 1h30m",
    FieldKind.ATTEMPTS: "how many it had",
    FieldKind.FAILURE: "class of the last attempt's failure",
    FieldKind.FEASIBLE: "whether it keeps every constraint; true or false",
    FieldKind.TAG: "== for a tag that it has, != for one that it has not",
}
"""The names that every study has."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a comparison is about."""

    kind: FieldKind
    name: str = ""
    """Of a parameter, metric or constraint."""
    index: int = 0
    """Of the objective, for `VALUE`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against a value: `==`, `!=`, `<`, `<=`, `>` or `>=`."""

    field: Field
    op: str
    wanted: ParamValue


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class All:
    """What holds altogether; always, without parts."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What holds for one of several."""

    parts: tuple[Filter, ...]


Filter = Comparison | Not | All | AnyOf
EVERYTHING = All(())


@dataclass(frozen=True, slots=True)
class Names:
    """What a study's trials have, beyond what all trials have."""

    objectives: Sequence[str] = ()
    params: Mapping[str, bool] = field(default_factory=dict)
    """Parameters, and whether each is a number."""
    metrics: Sequence[str] = ()
    """Numbers that trials returned or reported, objectives among them."""
    constraints: Sequence[str] = ()
    attrs: Sequence[str] = ()
    """User attributes that are no numbers. They are shown, and nothing is filtered by them."""

    @property
    def other_metrics(self) -> list[str]:
        """Metrics that are no objectives."""
        return [name for name in self.metrics if name not in self.objectives]

    def find(self, name: str) -> Field | None:
        """What a name stands for; `params.NAME` and `metrics.NAME` are those, where a shorter name is taken.

        A constraint is always `constraints.NAME`.
        """
        if name in MEANINGS:
            return Field(FieldKind(name))
        prefix, _, rest = name.partition(".")
        if name in self.params or (prefix == "params" and rest in self.params):
            return Field(FieldKind.PARAM, name if name in self.params else rest)
        objective = rest if prefix == "values" else name
        if objective in self.objectives:
            return Field(FieldKind.VALUE, index=list(self.objectives).index(objective))
        if name in self.metrics or (prefix == "metrics" and rest in self.metrics):
            return Field(FieldKind.METRIC, name if name in self.metrics else rest)
        if prefix == "constraints" and rest in self.constraints:
            return Field(FieldKind.CONSTRAINT, rest)
        return None

    @property
    def all(self) -> list[str]:
        """Every name that can be used."""
        constraints = (f"constraints.{name}" for name in self.constraints)
        own = (*self.objectives, *self.params, *self.metrics, *constraints)
        return list(dict.fromkeys((*map(str, MEANINGS), *own)))


def parse(text: str, names: Names) -> Filter:
    """The filter that a text means; every trial's when it is blank.

    Raises:
        FilterError: it means nothing; the error points at the place and names what there is.
    """
    if len(text) > LONGEST:
        raise FilterError(
            f"a filter has at most {LONGEST:,} characters",
            text[:LONGEST],
            0,
            1,
        )
    return _Parser(text, names).whole() if text.strip() else EVERYTHING


def holds(actual: ParamValue, op: str, wanted: ParamValue) -> bool:
    """Whether a comparison is true of what a trial has; None when it does not have it."""
    if actual is None or wanted is None:
        return (actual is None) == (wanted is None) if op == "==" else actual is not None and wanted is None
    if _is_nan(actual) or _is_nan(wanted):
        same = _is_nan(actual) and _is_nan(wanted)
        return {"==": same, "!=": not same}.get(op, False)
    if _sort(actual) is not _sort(wanted):
        return op == "!="
    if op not in ("==", "!=") and _sort(actual) is not float:
        return False
    return bool(_OPERATORS[op](actual, wanted))


_OPERATORS: Mapping[str, Callable[[Any, Any], object]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def _is_nan(value: ParamValue) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _sort(value: ParamValue) -> type:
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, (int, float)) else str


# --- text -> tokens ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`number`, `quoted`, `word`, `op`, `mark`, `end`."""
    text: str
    start: int
    end: int

    def says(self, *words: str) -> bool:
        """Whether it is one of these keywords or marks, unquoted."""
        return self.kind in ("word", "mark") and self.text.lower() in words


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]) | [-+]inf(?!\w))
      | (?P<quoted>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | `[^`]*`)
      | (?P<word>\w[\w./:\-]*)
      | (?P<op><=|>=|==|!=|<>|=|<|>)
      | (?P<mark>[()\[\],])
      | (?P<end>$)
    )""",
    re.VERBOSE,
)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            quote = text[start] in "\"'`"
            raise FilterError("the quote is not closed" if quote else f"{text[start]!r} means nothing here",
                              text, start, len(text) if quote else start + 1)  # fmt: skip
        kind = found.lastgroup
        yield _Token(kind, found[kind], found.start(kind), found.end(kind))
        if kind == "end":
            return
        at = found.end()


# --- tokens -> tree ------------------------------------------------------------------------------------


class _Parser:
    """Recursive descent: `or`, `and`, `not`, then comparisons, which may be chained."""

    def __init__(self, text: str, names: Names) -> None:
        self._text = text
        self._names = names
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def whole(self) -> Filter:
        found = self._or()
        if self._next.kind != "end":
            self._fail("expected `and`, `or` or the end here", self._next)
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _skip(self, *words: str) -> bool:
        found = self._next.says(*words)
        self._at += found
        return found

    def _or(self) -> Filter:
        parts = [self._and()]
        while self._skip("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _and(self) -> Filter:
        parts = [self._not()]
        while self._skip("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _not(self) -> Filter:
        opening = self._next
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail("this is nested too deeply", opening)
        if self._skip("not"):
            found: Filter = Not(self._not())
        elif self._skip("("):
            found = self._or()
            if not self._skip(")"):
                self._fail("expected `)`", self._next)
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> Filter:
        left = self._operand("a name")
        if self._next.says("not") and self._tokens[self._at + 1].says("in"):
            self._at += 2
            return All(tuple(self._compare(left, "!=", one) for one in self._list()))
        if self._skip("in"):
            return AnyOf(tuple(self._compare(left, "==", one) for one in self._list()))
        parts: list[Filter] = []
        while self._next.kind == "op":
            op = {"=": "==", "<>": "!="}.get(self._next.text, self._next.text)
            self._take()
            right = self._operand("a value")
            parts.append(self._compare(left, op, right))
            left = right
        if parts:
            return parts[0] if len(parts) == 1 else All(tuple(parts))
        if self._name(left).kind is not FieldKind.FEASIBLE:
            self._fail(
                "expected a comparison here, such as `< 0.1` or `== adam`",
                self._next,
            )
        return Comparison(Field(FieldKind.FEASIBLE), "==", True)

    def _operand(self, what: str) -> _Token:
        token = self._take()
        if token.kind not in ("number", "quoted", "word") or token.says(
            "and",
            "or",
            "not",
            "in",
        ):
            self._fail(f"expected {what} here", token)
        return token

    def _list(self) -> list[_Token]:
        closing = {"[": "]", "(": ")"}.get(self._next.text)
        if closing is None:
            self._fail("expected a list here, such as `[sgd, adam]`", self._next)
        self._take()
        found = [self._operand("a value")]
        while self._skip(","):
            found.append(self._operand("a value"))
        if not self._skip(closing):
            self._fail(f"expected `,` or `{closing}` here", self._next)
        return found

    def _compare(self, left: _Token, op: str, right: _Token) -> Comparison:
        self._comparisons += 1
        if self._comparisons > _COMPARISONS_MAX:
            self._fail(f"a filter has at most {_COMPARISONS_MAX} comparisons", left)
        flipped = left.kind == "number" or (self._known(left) is None and self._known(right) is not None)
        name, value = (right, left) if flipped else (left, right)
        found = self._name(name)
        op = _FLIPPED[op] if flipped else op
        return Comparison(found, op, self._wanted(found, op, value))

    def _name(self, token: _Token) -> Field:
        found = self._known(token)
        if found is None:
            self._unknown(token)
        return found

    def _unknown(self, token: _Token) -> NoReturn:
        if token.kind == "number":
            self._fail("a comparison needs a name on one side", token)
        there, text = self._names.all, _unquoted(token)
        near = difflib.get_close_matches(text, there, n=1)
        hint = f", did you mean {near[0]!r}?" if near else "."
        listed = ", ".join(there[:_LISTED]) + (f" and {len(there) - _LISTED} more" if len(there) > _LISTED else "")
        self._fail(f"there is no {text!r}{hint} There are: {listed}", token)

    def _known(self, token: _Token) -> Field | None:
        return None if token.kind == "number" else self._names.find(_unquoted(token))

    def _wanted(self, found: Field, op: str, token: _Token) -> ParamValue:
        value = self._value(found, token)
        ordered = op not in ("==", "!=")
        if ordered and (value is None or _is_nan(value) or _sort(value) is not float or found.kind.is_text):
            self._fail(
                f"nothing is less or more than `{token.text}`; compare it with == or !=",
                token,
            )
        if value is None:
            return None
        if found.kind is FieldKind.STATE and value == "fail":  # as Optuna calls it
            return "failed"
        if found.kind is FieldKind.STATE and value not in STATES_SHOWN:
            near = difflib.get_close_matches(str(value), STATES_SHOWN, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            self._fail(
                f"there is no state {value!r}{hint} There are: {', '.join(STATES_SHOWN)}",
                token,
            )
        if found.kind is FieldKind.FEASIBLE and not isinstance(value, bool):
            self._fail("`feasible` is true or false", token)
        if self._is_number(found) and _sort(value) is not float:
            self._fail(
                f"{found.name or found.kind} is a number, and `{token.text}` is none",
                token,
            )
        return value

    def _is_number(self, found: Field) -> bool:
        if found.kind is FieldKind.PARAM:
            return self._names.params[found.name]
        return not found.kind.is_text and found.kind is not FieldKind.FEASIBLE

    def _value(self, found: Field, token: _Token) -> ParamValue:
        if found.kind.is_text and not token.says("none", "null"):
            return _unquoted(token)
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "word":
            if found.kind is FieldKind.DURATION and token.text[0].isdigit():
                return self._seconds(token)
            return _CONSTANTS.get(token.text.lower(), token.text)
        return _unquoted(token)

    def _seconds(self, token: _Token) -> float:
        try:
            return float(str(parse_duration_s(token.text)))
        except ValueError as error:
            self._fail(str(error), token)

    def _fail(self, problem: str, token: _Token) -> NoReturn:
        raise FilterError(problem, self._text, token.start, token.end)


_CONSTANTS: Mapping[str, ParamValue] = {
    "none": None,
    "null": None,
    "true": True,
    "false": False,
    "nan": math.nan,
    "inf": math.inf,
}


def _number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"[-+]?\d{1,15}", text) else float(text)


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text
