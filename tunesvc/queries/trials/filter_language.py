"""Filter language for trials, such as `lr < 0.01 and optimizer == "adam"`.

Parses text to a tree with resolved names. Pure.

    state == complete and (value <= 0.1 or number > 500)
    1e-4 < lr <= 0.01 and not optimizer in [sgd, "my own"]
    duration > 15m and failure != none and "batch size" >= 64

A comparison has a name on one side and a value on the other; words that are values need no quotes.
A missing field (a conditional parameter, a value) satisfies `== none` and no other comparison. NaN
equals `nan`, and is neither less nor more than any number.
"""

from __future__ import annotations

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
from tunesvc.util.suggestions import suggest

LONGEST = 2_000
"""Most characters of a filter."""
_DEPTH_MAX = 40
_COMPARISONS_MAX = 200
_LISTED_MAX = 30
"""Most names listed in an error."""


class FieldKind(StrEnum):
    """Kind of a field that a name refers to."""

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
        """True if its values are words, which have no order."""
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
"""Names that every study has, with descriptions."""


@dataclass(frozen=True, slots=True)
class Field:
    """Field of a trial."""

    kind: FieldKind
    name: str = ""
    """Name of a parameter, metric or constraint."""
    index: int = 0
    """Index of the objective, for `VALUE`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of a field with a value: `==`, `!=`, `<`, `<=`, `>` or `>=`."""

    field: Field
    op: str
    value: ParamValue


@dataclass(frozen=True, slots=True)
class Not:
    """Negation of a filter."""

    part: Filter


@dataclass(frozen=True, slots=True)
class All:
    """Conjunction of filters; true without parts."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Disjunction of filters."""

    parts: tuple[Filter, ...]


Filter = Comparison | Not | All | AnyOf
EVERYTHING = All(())


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one study's fields, in addition to those of every study."""

    objectives: Sequence[str] = ()
    params: Mapping[str, bool] = field(default_factory=dict)
    """Parameters; True for numbers."""
    metrics: Sequence[str] = ()
    """Numbers that trials returned or reported, including objectives."""
    constraints: Sequence[str] = ()
    attrs: Sequence[str] = ()
    """User attributes that are not numbers: shown, but not filtered by."""

    @property
    def other_metrics(self) -> list[str]:
        """Metrics that are not objectives."""
        return [name for name in self.metrics if name not in self.objectives]

    def find(self, name: str) -> Field | None:
        """Return the field of a name; None if there is none.

        `params.NAME` and `metrics.NAME` refer to fields whose short names are ambiguous. A
        constraint is always `constraints.NAME`.
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
        """Every name that a filter may use."""
        constraints = (f"constraints.{name}" for name in self.constraints)
        own = (*self.objectives, *self.params, *self.metrics, *constraints)
        return list(dict.fromkeys((*map(str, MEANINGS), *own)))


def parse(text: str, names: Names) -> Filter:
    """Parse a filter; a blank text selects every trial.

    Raises:
        FilterError: the text is not a filter; the error has the position and the possible names.
    """
    if len(text) > LONGEST:
        problem = f"a filter has at most {LONGEST:,} characters"
        raise FilterError(problem, text[:LONGEST], 0, 1)
    return _Parser(text, names).parse() if text.strip() else EVERYTHING


def holds(actual: ParamValue, op: str, value: ParamValue) -> bool:
    """Return True if a comparison holds for a trial's actual value; None means that it has none."""
    if actual is None or value is None:
        if op == "==":
            return actual is None and value is None
        return actual is not None and value is None
    if _is_nan(actual) or _is_nan(value):
        same = _is_nan(actual) and _is_nan(value)
        return {"==": same, "!=": not same}.get(op, False)
    if _type_of(actual) is not _type_of(value):
        return op == "!="
    if op not in ("==", "!=") and _type_of(actual) is not float:
        return False
    return bool(_OPERATORS[op](actual, value))


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


def _type_of(value: ParamValue) -> type:
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, (int, float)) else str


# --- text -> tokens ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`number`, `quoted`, `word`, `op`, `mark`, `end`."""
    text: str
    start: int
    end: int

    def is_any(self, *words: str) -> bool:
        """Return True if it is one of these keywords or marks, unquoted."""
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
            if text[start] in "\"'`":
                raise FilterError("the quote is not closed", text, start, len(text))
            problem = f"{text[start]!r} means nothing here"
            raise FilterError(problem, text, start, start + 1)
        kind = found.lastgroup
        yield _Token(kind, found[kind], found.start(kind), found.end(kind))
        if kind == "end":
            return
        at = found.end()


# --- tokens -> tree ------------------------------------------------------------------------------


class _Parser:
    """Recursive descent parser: `or`, `and`, `not`, then comparisons, which may be chained."""

    def __init__(self, text: str, names: Names) -> None:
        self._text = text
        self._names = names
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def parse(self) -> Filter:
        filter_ = self._or()
        if self._next.kind != "end":
            self._fail("expected `and`, `or` or the end here", self._next)
        return filter_

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _skip(self, *words: str) -> bool:
        is_next = self._next.is_any(*words)
        self._at += is_next
        return is_next

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
        if self._depth > _DEPTH_MAX:
            self._fail("this is nested too deeply", opening)
        if self._skip("not"):
            filter_: Filter = Not(self._not())
        elif self._skip("("):
            filter_ = self._or()
            if not self._skip(")"):
                self._fail("expected `)`", self._next)
        else:
            filter_ = self._comparison()
        self._depth -= 1
        return filter_

    def _comparison(self) -> Filter:
        left = self._operand("a name")
        if self._next.is_any("not") and self._tokens[self._at + 1].is_any("in"):
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
        # `feasible` alone is short for `feasible == true`.
        if self._field(left).kind is not FieldKind.FEASIBLE:
            problem = "expected a comparison here, such as `< 0.1` or `== adam`"
            self._fail(problem, self._next)
        return Comparison(Field(FieldKind.FEASIBLE), "==", True)

    def _operand(self, what: str) -> _Token:
        token = self._take()
        is_keyword = token.is_any("and", "or", "not", "in")
        if token.kind not in ("number", "quoted", "word") or is_keyword:
            self._fail(f"expected {what} here", token)
        return token

    def _list(self) -> list[_Token]:
        closing = {"[": "]", "(": ")"}.get(self._next.text)
        if closing is None:
            self._fail("expected a list here, such as `[sgd, adam]`", self._next)
        self._take()
        items = [self._operand("a value")]
        while self._skip(","):
            items.append(self._operand("a value"))
        if not self._skip(closing):
            self._fail(f"expected `,` or `{closing}` here", self._next)
        return items

    def _compare(self, left: _Token, op: str, right: _Token) -> Comparison:
        self._comparisons += 1
        if self._comparisons > _COMPARISONS_MAX:
            self._fail(f"a filter has at most {_COMPARISONS_MAX} comparisons", left)
        left_is_field = left.kind != "number" and self._find(left) is not None
        # `0.1 > lr` is read as `lr < 0.1`. If neither is a name, the error is about the left one.
        flipped = left.kind == "number" or (not left_is_field and self._find(right) is not None)
        name, value = (right, left) if flipped else (left, right)
        compared = self._field(name)
        op = _FLIPPED[op] if flipped else op
        return Comparison(compared, op, self._checked_value(compared, op, value))

    def _field(self, token: _Token) -> Field:
        found = self._find(token)
        if found is None:
            self._fail_unknown(token)
        return found

    def _fail_unknown(self, token: _Token) -> NoReturn:
        if token.kind == "number":
            self._fail("a comparison needs a name on one side", token)
        names = self._names.all
        text = _unquoted(token)
        listed = ", ".join(names[:_LISTED_MAX])
        if len(names) > _LISTED_MAX:
            listed += f" and {len(names) - _LISTED_MAX} more"
        self._fail(f"there is no {text!r}{_hint(text, names)} There are: {listed}", token)

    def _find(self, token: _Token) -> Field | None:
        return None if token.kind == "number" else self._names.find(_unquoted(token))

    def _checked_value(self, compared: Field, op: str, token: _Token) -> ParamValue:
        value = self._value(compared, token)
        if op not in ("==", "!="):
            self._check_ordered(compared, value, token)
        if value is None:
            return None
        if compared.kind is FieldKind.STATE:
            return self._state(value, token)
        if compared.kind is FieldKind.FEASIBLE and not isinstance(value, bool):
            self._fail("`feasible` is true or false", token)
        if self._is_number(compared) and _type_of(value) is not float:
            name = compared.name or compared.kind
            self._fail(f"{name} is a number, and `{token.text}` is not", token)
        return value

    def _check_ordered(
        self,
        compared: Field,
        value: ParamValue,
        token: _Token,
    ) -> None:
        is_number = value is not None and _type_of(value) is float and not _is_nan(value)
        if compared.kind.is_text or not is_number:
            problem = f"nothing is less or more than `{token.text}`"
            self._fail(f"{problem}; compare it with == or !=", token)

    def _state(self, value: ParamValue, token: _Token) -> ParamValue:
        if value == "fail":  # Optuna's word
            return "failed"
        if value not in STATES_SHOWN:
            hint = _hint(str(value), STATES_SHOWN)
            listed = ", ".join(STATES_SHOWN)
            self._fail(f"there is no state {value!r}{hint} There are: {listed}", token)
        return value

    def _is_number(self, compared: Field) -> bool:
        if compared.kind is FieldKind.PARAM:
            return self._names.params[compared.name]
        return not compared.kind.is_text and compared.kind is not FieldKind.FEASIBLE

    def _value(self, compared: Field, token: _Token) -> ParamValue:
        if compared.kind.is_text and not token.is_any("none", "null"):
            return _unquoted(token)
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "word":
            if compared.kind is FieldKind.DURATION and token.text[0].isdigit():
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


def _hint(text: str, names: Sequence[str]) -> str:
    return suggest(text, names, quote="'", otherwise=".")


def _number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"[-+]?\d{1,15}", text) else float(text)


def _unquoted(token: _Token) -> str:
    if token.kind != "quoted":
        return token.text
    return re.sub(r"\\(.)", r"\1", token.text[1:-1])
