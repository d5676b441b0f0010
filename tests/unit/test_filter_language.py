"""The language of filters: the meaning of texts, and the errors for those without one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.errors import FilterError
from tunesvc.queries.trials.filter_language import (
    EVERYTHING,
    All,
    AnyOf,
    Comparison,
    Field,
    FieldKind,
    Filter,
    Names,
    Not,
    holds,
    parse,
)

NAMES = Names(
    objectives=("val_error", "speed"),
    params={"lr": True, "optimizer": False, "batch size": True, "state": True, "größe": True},
    metrics=("val/loss",),
)
LR, OPTIMIZER = Field(FieldKind.PARAM, "lr"), Field(FieldKind.PARAM, "optimizer")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("lr < 0.01", Comparison(LR, "<", 0.01)),
        ("0.01 > lr", Comparison(LR, "<", 0.01)),
        ("lr = 1e-3", Comparison(LR, "==", 1e-3)),
        ("lr > -.5", Comparison(LR, ">", -0.5)),
        ("1e-4 < lr <= 0.01", All((Comparison(LR, ">", 1e-4), Comparison(LR, "<=", 0.01)))),
        ('optimizer == "adam"', Comparison(OPTIMIZER, "==", "adam")),
        ("optimizer == adam", Comparison(OPTIMIZER, "==", "adam")),
        ("adam != optimizer", Comparison(OPTIMIZER, "!=", "adam")),
        ('optimizer == "none"', Comparison(OPTIMIZER, "==", "none")),
        ("optimizer == none", Comparison(OPTIMIZER, "==", None)),
        ("optimizer == true", Comparison(OPTIMIZER, "==", True)),
        (r'optimizer == "a \"b\" c"', Comparison(OPTIMIZER, "==", 'a "b" c')),
        (
            "optimizer in [sgd, adam]",
            AnyOf((Comparison(OPTIMIZER, "==", "sgd"), Comparison(OPTIMIZER, "==", "adam"))),
        ),
        ("optimizer not in (sgd)", All((Comparison(OPTIMIZER, "!=", "sgd"),))),
        ("'batch size' >= 64", Comparison(Field(FieldKind.PARAM, "batch size"), ">=", 64)),
        ("`batch size` >= 64", Comparison(Field(FieldKind.PARAM, "batch size"), ">=", 64)),
        ("größe < 3", Comparison(Field(FieldKind.PARAM, "größe"), "<", 3)),
        ("state == complete", Comparison(Field(FieldKind.STATE), "==", "complete")),
        ("state == failed", Comparison(Field(FieldKind.STATE), "==", "failed")),
        ("state == fail", Comparison(Field(FieldKind.STATE), "==", "failed")),
        ("params.state > 1", Comparison(Field(FieldKind.PARAM, "state"), ">", 1)),
        ("value <= 0.1", Comparison(Field(FieldKind.VALUE), "<=", 0.1)),
        ("speed > 3", Comparison(Field(FieldKind.VALUE, index=1), ">", 3)),
        ("values.speed > 3", Comparison(Field(FieldKind.VALUE, index=1), ">", 3)),
        ("val/loss < 1", Comparison(Field(FieldKind.METRIC, "val/loss"), "<", 1)),
        ("duration > 1h30m", Comparison(Field(FieldKind.DURATION), ">", 5400.0)),
        ("duration > 90", Comparison(Field(FieldKind.DURATION), ">", 90)),
        ("failure == error", Comparison(Field(FieldKind.FAILURE), "==", "error")),
        ("feasible", Comparison(Field(FieldKind.FEASIBLE), "==", True)),
        ("NOT feasible", Not(Comparison(Field(FieldKind.FEASIBLE), "==", True))),
        ("  ", EVERYTHING),
    ],
)
def test_a_text_means(text: str, meaning: object) -> None:
    assert parse(text, NAMES) == meaning


def test_and_binds_closer_than_or_and_not_closer_than_both() -> None:
    a, b, c = (Comparison(Field(FieldKind.NUMBER), "==", n) for n in (1, 2, 3))
    assert parse("number == 1 or not number == 2 and number == 3", NAMES) == AnyOf(
        (a, All((Not(b), c)))
    )
    assert parse("(number == 1 or number == 2) and number == 3", NAMES) == All((AnyOf((a, b)), c))


@pytest.mark.parametrize(
    ("text", "problem", "at"),
    [
        ("lrr < 1", "there is no 'lrr', did you mean 'lr'?", "lrr"),
        ("lr < 1 and momentum > 0", "There are: number, state", "momentum"),
        ("state == completed", "no state 'completed', did you mean 'complete'?", "completed"),
        ("state < 3", "nothing is less or more than `3`", "3"),
        ("lr < adam", "nothing is less or more than `adam`", "adam"),
        ("lr == adam", "lr is a number, and `adam` is not", "adam"),
        ("lr > nan", "nothing is less or more than `nan`", "nan"),
        ("lr <", "expected a value here", ""),
        ("lr", "expected a comparison here", ""),
        ("lr < 1 lr > 0", "expected `and`, `or` or the end here", "lr"),
        ("(lr < 1", "expected `)`", ""),
        ("1 < 2", "a comparison needs a name on one side", "2"),
        ('optimizer == "adam', "the quote is not closed", '"adam'),
        ("lr < 1; drop table trials", "';' means nothing here", ";"),
        ("optimizer in adam", "expected a list here", "adam"),
        ("optimizer in [adam", "expected `,` or `]` here", ""),
        ("duration > 3x", "'3x' is not a duration: write 90s", "3x"),
        ("feasible == 1", "`feasible` is true or false", "1"),
        ("(" * 60 + "lr < 1" + ")" * 60, "nested too deeply", "("),
        (f"lr in [{','.join(['1'] * 201)}]", "at most 200 comparisons", "lr"),
        ("lr < 1 and" + " " * 3_000, "at most 2,000 characters", "l"),
    ],
)
def test_a_text_without_meaning_is_answered_with_the_place_and_what_there_is(
    text: str, problem: str, at: str
) -> None:
    with pytest.raises(FilterError) as raised:
        parse(text, NAMES)
    error = raised.value
    assert problem in error.problem
    assert error.text[error.start : error.end] == at
    assert problem in str(error)


@given(st.text(alphabet="lr<>=!()[],.'\"` 01eandortsi\\;\0é\n", max_size=40))
def test_any_text_is_understood_or_refused_with_a_place_in_it(text: str) -> None:
    meaning = meaning_or_error(text)
    if isinstance(meaning, FilterError):
        assert meaning.text == text
        assert 0 <= meaning.start <= meaning.end <= len(text)
    else:
        assert isinstance(meaning, Filter)


def meaning_or_error(text: str) -> Filter | FilterError:
    try:
        return parse(text, NAMES)
    except FilterError as error:
        return error


@pytest.mark.parametrize(
    ("actual", "op", "wanted", "so"),
    [
        (None, "==", None, True),
        (None, "!=", None, False),
        (0.1, "!=", None, True),
        (None, "!=", 0.1, False),
        (None, "<", 0.1, False),
        (math.nan, "==", math.nan, True),
        (math.nan, "!=", 0.1, True),
        (math.nan, ">", 0.1, False),
        (math.inf, ">", 1e308, True),
        (True, "==", 1, False),
        ("16", "==", 16, False),
        ("16", "!=", 16, True),
        ("b", ">", "a", False),
        (16, ">=", 16.0, True),
    ],
)
def test_a_comparison_holds(actual: object, op: str, wanted: object, so: bool) -> None:
    assert holds(actual, op, wanted) is so  # type: ignore[arg-type]
