"""Partial dependence by the model: known means on every kind of parameter, and their band."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from tunesvc.search.analysis.model_surface import ModelSurface, learn
from tunesvc.search.analysis.partial_dependence import (
    joint_dependence,
    partial_dependence,
    partial_dependences,
)

KINDS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "layers": IntDistribution(1, 8),
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
    "momentum": FloatDistribution(0.0, 1.0),
}


def truth(params: dict[str, Any]) -> float:
    value = (math.log10(params["lr"]) + 2) ** 2 + 0.1 * (params["layers"] - 3) ** 2
    value += {"sgd": 1.0, "adam": 0.0}[params["optimizer"]]
    return 5.0 + value + params.get("momentum", 0.5) - 0.5


def surface(value: Callable[[dict[str, Any]], float] = truth, trials: int = 90) -> ModelSurface:
    rng = np.random.default_rng(1)
    made = []
    for number in range(trials):
        params: dict[str, Any] = {
            "lr": float(10 ** rng.uniform(-4, 0)),
            "layers": int(rng.integers(1, 9)),
            "optimizer": str(rng.choice(["sgd", "adam"])),
        }
        if params["optimizer"] == "sgd":
            params["momentum"] = float(rng.random())
        kinds = {name: KINDS[name] for name in params}
        made.append(create_trial(params=params, distributions=kinds, value=value(params)))
        made[-1].number = number
    learned = learn(made, "minimize")
    assert learned is not None
    return learned


@pytest.fixture(scope="module")
def fitted() -> ModelSurface:
    return surface()


OTHERS = {
    # by hand: the means of the other terms over their ranges
    "lr": 5 + 0.1 * np.mean([(n - 3) ** 2 for n in range(1, 9)]) + 0.5,
    "layers": 5 + 4 / 3 + 0.5,
    "optimizer": 5 + 4 / 3 + 0.1 * np.mean([(n - 3) ** 2 for n in range(1, 9)]),
    "momentum": 5 + 4 / 3 + 0.1 * np.mean([(n - 3) ** 2 for n in range(1, 9)]) + 1,
}
OWN: dict[str, Callable[[Any], float]] = {
    "lr": lambda lr: (math.log10(lr) + 2) ** 2,
    "layers": lambda layers: 0.1 * (layers - 3) ** 2,
    "optimizer": lambda name: {"sgd": 1.0, "adam": 0.0}[name],
    "momentum": lambda momentum: momentum - 0.5,
}


@pytest.mark.parametrize("name", list(OWN))
def test_the_mean_over_the_other_parameters_is_that_by_hand(
    fitted: ModelSurface, name: str
) -> None:
    found = partial_dependence(fitted, name)
    assert found is not None
    expected = [OTHERS[name] + OWN[name](place) for place in found.places]
    # 64 configurations stand for all
    assert found.mean - np.mean(found.mean) == pytest.approx(
        np.array(expected) - np.mean(expected), abs=0.3
    )
    assert np.mean(found.mean) == pytest.approx(np.mean(expected), abs=0.5)
    assert (found.low <= found.high).all()
    assert found.curves.shape[1] == len(found.places)


def test_places_are_on_each_parameters_scale(fitted: ModelSurface) -> None:
    found = {one.name: one for one in partial_dependences(fitted, fitted.names)}
    logs = np.diff(np.log(found["lr"].places))
    assert logs == pytest.approx(np.full(len(logs), logs[0]))
    assert found["layers"].places == tuple(range(1, 9))
    assert found["optimizer"].places == ("sgd", "adam")


def test_a_conditional_parameter_is_averaged_where_it_exists(fitted: ModelSurface) -> None:
    momentum, lr = (partial_dependence(fitted, name) for name in ("momentum", "lr"))
    assert momentum is not None
    assert lr is not None
    assert momentum.share == pytest.approx(0.5, abs=0.1)
    assert lr.share == 1.0


def test_the_largest_come_first_and_equal_models_give_equal_numbers(fitted: ModelSurface) -> None:
    first, *_ = found = partial_dependences(fitted, fitted.names)
    assert len(found) == 4
    assert first.name == "lr"
    again = partial_dependence(fitted, "lr")
    assert again is not None
    assert (again.mean == first.mean).all()
    assert (again.low == first.low).all()
    assert partial_dependence(fitted, "unknown") is None


def test_a_pair_is_averaged_over_all_others(fitted: ModelSurface) -> None:
    plane = joint_dependence(fitted, "lr", "optimizer")
    assert plane is not None
    assert plane.second == ("sgd", "adam")
    assert plane.mean.shape == plane.deviation.shape == (2, len(plane.first))
    expected = np.array(
        [[OWN["lr"](lr) + OWN["optimizer"](name) for lr in plane.first] for name in plane.second]
    )
    assert plane.mean - plane.mean.mean() == pytest.approx(expected - expected.mean(), abs=0.5)
    together = joint_dependence(fitted, "momentum", "optimizer")
    assert together is not None, "where momentum exists"
    assert joint_dependence(fitted, "lr", "lr") is None


def test_the_band_is_wider_with_fewer_trials() -> None:
    few, many = (partial_dependence(surface(trials=count), "lr") for count in (15, 90))
    assert few is not None
    assert many is not None
    assert (few.high - few.low).mean() > (many.high - many.low).mean()
