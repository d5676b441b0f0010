"""Previews of a study, before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.specs import make_spec
from tunesvc.preview import Preview, describe_size, preview
from tunesvc.space.search_space import Space


def look(**changes: Any) -> Preview:
    return preview(make_spec(**changes))


def test_samples_hold_active_parameters_and_are_the_same_each_time() -> None:
    parameters = {
        "kind": {"type": "categorical", "values": ["a", "b"]},
        "x": {"type": "float", "min": 0.0, "max": 1.0, "when": {"kind": "a"}},
    }
    spec = make_spec(parameters=parameters, seed=3)
    shown = preview(spec, samples=20)
    assert shown == preview(spec, samples=20)
    assert len(shown.samples) == 20
    assert {("x" in params) == (params["kind"] == "a") for params in shown.samples} == {True}
    assert all(Space(spec.parameters).select(params) == params for params in shown.samples)


def test_a_finite_space_is_counted_and_compared_with_the_budget() -> None:
    n = {"n": {"type": "int", "min": 1, "max": 8}}
    assert (look(parameters=n).size, look(parameters=n).exhaustible) == (8, True)
    assert not look(parameters=n, budget={"trials": 7}).exhaustible
    assert look().size is None


def test_an_objective_that_asks_for_its_parameters_shows_no_samples() -> None:
    assert (look(parameters={}).samples, look(parameters={}).size) == ((), None)


@pytest.mark.parametrize(
    ("changes", "gpu_hours", "wall_s", "reason"),
    [
        ({}, 0.0, None, "asks for no GPU"),
        ({"resources": {"gpu": 1}}, None, None, "nothing bounds the GPU hours"),
        ({"resources": {"gpu": 1}, "budget": {"gpu_hours": 2}}, 2.0, None, "`budget.gpu_hours`"),
        # 10 trials of an hour on 2 × 0.5 GPU; 4 at a time are 3 rounds
        (
            {"resources": {"gpu": 0.5, "workers": 2}, "limits": {"wall": 3590, "grace": 10}},
            10.0,
            3 * 3600.0,
            "10 trials of `limits.wall`",
        ),
        (
            {"resources": {"gpu": 1}, "budget": {"wall": "1h"}},
            4.0,
            3600.0,
            "`budget.wall`, with 4 trials at a time",
        ),
        (
            {"resources": {"gpu": 1}, "budget": {"wall": "1h"}, "parallelism": None},
            None,
            3600.0,
            "nothing bounds",
        ),
        (
            {
                "resources": {"gpu": 1},
                "budget": {"trials": 2, "wall": "9h"},
                "limits": {"wall": 3590, "grace": 10},
            },
            2.0,
            3600.0,
            "2 trials of `limits.wall`",
        ),
    ],
)
def test_the_worst_cost_is_what_the_tightest_limit_allows(
    changes: dict[str, Any], gpu_hours: float | None, wall_s: float | None, reason: str
) -> None:
    cost = look(**changes).cost
    assert (cost.gpu_hours, cost.wall_s) == (gpu_hours, wall_s)
    assert reason in cost.reason


def test_a_size_of_hundreds_of_digits_can_be_read() -> None:
    wide = {f"p{i}": {"type": "int", "min": 1, "max": 10} for i in range(500)}
    spec = make_spec(parameters=wide)
    assert describe_size(spec, preview(spec)) == "500 parameters, about 1.0e+500 configurations"


def test_no_promise_is_made_where_noise_is_declared() -> None:
    few = {"n": {"type": "int", "min": 1, "max": 8}}
    assert "tries them all" in describe_size(make_spec(parameters=few), look(parameters=few))
    assert not look(parameters=few, seeds=3).exhaustible
