from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from tunesvc.search.samplers.gp.acquisitions.region import TrustRegion
from tunesvc.search.samplers.gp.model.domain import Domain

DOMAIN = Domain(
    {
        "lr": FloatDistribution(1e-5, 1.0, log=True),
        "width": IntDistribution(8, 1024, log=True),
        "opt": CategoricalDistribution(["sgd", "adam"]),
        "momentum": FloatDistribution(0.0, 1.0),
    }
)


CONFIGURATIONS: list[dict[str, Any]] = [
    {"lr": 1e-3, "width": 32, "opt": "adam"},
    {"lr": 1e-2, "width": 64, "opt": "adam"},
    {"lr": 2e-3, "width": 48, "opt": "sgd", "momentum": 0.8},
    {"lr": 4e-3, "width": 40, "opt": "sgd", "momentum": 0.9},
]
DOMAIN.learn_conditions(
    [
        create_trial(
            params=params,
            distributions={name: DOMAIN.distributions[name] for name in params},
            value=0.0,
        )
        for params in CONFIGURATIONS
    ]
)


def observed() -> np.ndarray:
    return np.stack([DOMAIN.encode(params) for params in CONFIGURATIONS])


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1.0))
def test_points_lie_in_the_box_of_those_observed(seed: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    region = TrustRegion(DOMAIN, observed())
    points = np.vstack([region.random(20, rng), region.near(observed(), 5, width, rng)])
    for params in map(DOMAIN.decode, points):
        assert 1e-3 * 0.999 <= params["lr"] <= 1e-2 * 1.001
        assert 32 <= params["width"] <= 64
        assert 0.8 - 1e-9 <= params["momentum"] <= 0.9 + 1e-9 or params["opt"] == "adam"


def test_points_cover_the_box() -> None:
    drawn = TrustRegion(DOMAIN, observed()).random(300, np.random.default_rng(0))
    rates = [params["lr"] for params in map(DOMAIN.decode, drawn)]
    assert min(rates) < 1.2e-3
    assert max(rates) > 8e-3
    assert {params["opt"] for params in map(DOMAIN.decode, drawn)} == {"sgd", "adam"}


def test_a_box_of_one_point_is_that_point() -> None:
    point = observed()[:1]
    region = TrustRegion(DOMAIN, point)
    assert (region.random(5, np.random.default_rng(0)) == point).all()
