"""Requests that a study accepts."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from tests.support.specs import make_spec
from tunesvc.cli.commands.control import parse_widening
from tunesvc.coordinator.spec_changes import differences, extended, paralleled, wider
from tunesvc.errors import SpecError


def test_extending_adds_to_the_limits_that_the_budget_has() -> None:
    spec = make_spec(budget={"trials": 10, "wall": 60.0})
    grown = extended(spec, {"trials": 5, "wall": 30.0})
    assert (grown.budget.trials, grown.budget.wall, grown.budget.gpu_hours) == (15, 90.0, None)


def test_a_limit_that_the_budget_has_not_stays_absent() -> None:
    assert extended(make_spec(), {"gpu_hours": 3.0, "trials": 1}).budget.gpu_hours is None


def test_an_extension_that_would_change_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="no limit on trials.*one on wall"):
        extended(make_spec(budget={"wall": 60.0}), {"trials": 5})


@pytest.mark.parametrize(
    "more", [{}, {"trails": 3}, {"trials": 0}, {"trials": -1}, {"trials": True}, {"trials": "5"}]
)
def test_an_extension_that_makes_no_sense_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="extend"):
        extended(make_spec(), more)


def test_half_a_trial_is_refused() -> None:
    with pytest.raises(SpecError, match="extend"):
        extended(make_spec(), {"trials": 1.5})


@pytest.mark.parametrize("trials", [3, None])
def test_parallelism_is_a_number_or_as_many_as_fit(trials: int | None) -> None:
    assert paralleled(make_spec(), {"trials": trials}).parallelism == trials


@pytest.mark.parametrize("trials", [0, -1, True, 1.5, "3", 2**31])
def test_another_parallelism_is_refused(trials: object) -> None:
    with pytest.raises(SpecError, match="parallelism"):
        paralleled(make_spec(), {"trials": trials})


CHOICES = {
    "x": {"type": "float", "min": 0.1, "max": 1.0, "log": True},
    "c": {"type": "categorical", "values": ["a", 1]},
}


def test_ranges_grow_and_choices_are_added() -> None:
    spec = make_spec(parameters=CHOICES)
    grown = wider(spec, {"parameters": {"x": {"max": 10}, "c": {"values": ["a", "b", 1]}}})
    assert (grown.parameters["x"].min, grown.parameters["x"].max) == (0.1, 10.0)  # type: ignore[union-attr]
    assert differences(spec, grown) == "x 0.1…1 -> 0.1…10; c [a, 1] -> [a, 1, b]"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "takes parameters by name"),
        ({"y": {"max": 2}}, "no parameter 'y'; there are: x, c"),
        ({"x": {"max": 0.5}}, "may grow, not shrink"),
        ({"x": {"min": 0.0}}, "above 0"),
        ({"x": {"log": False}}, "takes max and min"),
        ({"x": {"max": "big"}}, "widen x"),
        ({"x": {"max": 1.0}}, "nothing becomes wider"),
        ({"c": {"values": [1.0]}}, "must be distinct"),
        ({"c": {"values": "b"}}, "list of choices"),
        ({"c": {"min": 3}}, "takes values"),
        ({"c": {"values": ["a"]}}, "nothing becomes wider"),
    ],
)
def test_what_would_not_be_wider_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        wider(make_spec(parameters=CHOICES), {"parameters": change})


def test_a_widening_is_written_as_ranges_and_choices() -> None:
    written = ["lr=1e-5..", "n=..64", "x=-1..1.5", "c+=relu", "c+=3"]
    assert parse_widening(written) == {
        "lr": {"min": 1e-5},
        "n": {"max": 64},
        "x": {"min": -1, "max": 1.5},
        "c": {"values": ["relu", 3]},
    }
    for wrong in ("lr", "lr=3", "=1..2", "lr=..", "+=a"):
        with pytest.raises(typer.BadParameter, match="MIN..MAX"):
            parse_widening([wrong])
