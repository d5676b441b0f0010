"""Predicted values split among parameters."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from tunesvc.search.analysis.attribution import EXACT_MAX, attribute, shapley
from tunesvc.search.analysis.model_surface import ModelSurface, learn


def trials(
    count: int, kinds: dict[str, BaseDistribution], value: Any, seed: int = 0
) -> list[FrozenTrial]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        params: dict[str, Any] = {}
        for name, kind in kinds.items():
            if name == "momentum" and params.get("optimizer") != "sgd":
                continue
            if isinstance(kind, CategoricalDistribution):
                params[name] = kind.choices[rng.integers(len(kind.choices))]
            else:
                params[name] = float(rng.random())
        trial = create_trial(
            params=params, distributions={n: kinds[n] for n in params}, value=value(params)
        )
        trial.number = number
        made.append(trial)
    return made


def floats(count: int) -> dict[str, BaseDistribution]:
    return {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(count)}


def model(found: list[FrozenTrial]) -> ModelSurface:
    learned = learn(found, "minimize")
    assert learned is not None
    return learned


@given(st.integers(1, 5), st.integers(0, 1000))
def test_shares_are_those_of_all_orders(players: int, seed: int) -> None:
    table = np.random.default_rng(seed).normal(size=2**players)

    def worth(sets: np.ndarray) -> np.ndarray:
        return table[(sets * 2 ** np.arange(players)).sum(axis=1)]

    expected = np.zeros(players)
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        joined = np.zeros(players, dtype=bool)
        for player in order:
            before = worth(joined[None])[0]
            joined[player] = True
            expected[player] += (worth(joined[None])[0] - before) / len(orders)
    assert shapley(worth, players) == pytest.approx(expected)


@given(st.integers(EXACT_MAX + 1, 14), st.integers(0, 1000))
@settings(max_examples=20)
def test_sampled_shares_add_up_and_a_sum_is_split_into_its_terms(players: int, seed: int) -> None:
    terms = np.random.default_rng(seed).normal(size=players)
    found = shapley(lambda sets: sets @ terms, players)
    assert found == pytest.approx(terms)
    product = shapley(lambda sets: (1 + sets * terms).prod(axis=1), players, seed)
    assert product.sum() == pytest.approx((1 + terms).prod() - 1)


@pytest.mark.parametrize("count", [3, EXACT_MAX + 2])
def test_parts_add_up_to_the_prediction_less_the_average(count: int) -> None:
    found = trials(40, floats(count), lambda p: 1 + (p["x0"] - 0.3) ** 2 + 0.5 * p["x1"])
    attribution = attribute(model(found), found[7].params)
    assert attribution.reference + sum(part.amount for part in attribution.parts) == pytest.approx(
        attribution.predicted
    )
    assert attribution.deviation > 0
    assert attribute(model(found), found[7].params) == attribution, "the same for the same model"


@pytest.mark.parametrize("count", [3, EXACT_MAX + 2])
def test_parts_add_up_to_the_difference_from_another_trial(count: int) -> None:
    found = trials(40, floats(count), lambda p: 1 + (p["x0"] - 0.3) ** 2 + 0.5 * p["x1"])
    learned = model(found)
    here, there = found[7].params, found[11].params
    attribution = attribute(learned, here, there)
    assert attribution.reference == pytest.approx(attribute(learned, there).predicted)
    assert attribution.predicted == pytest.approx(attribute(learned, here).predicted)
    assert sum(part.amount for part in attribution.parts) == pytest.approx(
        attribution.predicted - attribution.reference
    )


def test_a_parameter_that_both_trials_share_has_no_effect() -> None:
    found = trials(40, floats(3), lambda p: 1 + p["x0"] * p["x1"])
    here = found[7].params
    amounts = attribute(model(found), here, {**found[11].params, "x1": here["x1"]})
    assert [part.amount for part in amounts.parts if part.name == "x1"] == [0.0]
    same = attribute(model(found), here, here)
    assert all(part.amount == 0.0 for part in same.parts)


def test_a_parameter_that_does_nothing_gets_next_to_nothing() -> None:
    found = trials(60, floats(3), lambda p: 1 + 3 * p["x0"])
    high = attribute(model(found), {"x0": 1.0, "x1": 0.9, "x2": 0.1})
    assert high.parts[0].name == "x0"
    assert high.parts[0].amount > 0.5, "it made the trial bad"
    assert all(abs(part.amount) < 0.15 for part in high.parts[1:])
    low = attribute(model(found), {"x0": 0.0, "x1": 0.9, "x2": 0.1})
    assert low.parts[0].amount < -0.5


def test_a_parameter_that_the_trial_does_not_have_is_described_as_absent() -> None:
    kinds: dict[str, BaseDistribution] = {
        "optimizer": CategoricalDistribution(["sgd", "adam"]),
        "momentum": FloatDistribution(0.0, 1.0),
        "x": FloatDistribution(0.0, 1.0),
    }
    found = trials(
        60,
        kinds,
        lambda p: 1 + p["x"] + (p.get("momentum", 0.0) if p["optimizer"] == "sgd" else 2.0),
    )
    without = attribute(model(found), {"optimizer": "adam", "x": 0.5})
    parts = {part.name: part for part in without.parts}
    assert not parts["momentum"].exists
    assert parts["optimizer"].amount > 0.3
    assert abs(parts["momentum"].amount) < parts["optimizer"].amount
