"""Ray Tune search spaces as our parameters."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import numpy as np
import pytest
from ray import tune

from tunesvc.errors import SpecError
from tunesvc.execution.objectives.ray_tune_space import constants_of, from_ray, nested
from tunesvc.space.search_space import Space, sample
from tunesvc.spec import CategoricalParameter, FloatParameter, IntParameter
from tunesvc.spec.conditions import contains


@pytest.mark.parametrize(
    ("domain", "parameter"),
    [
        (tune.uniform(0, 1), FloatParameter(type="float", min=0.0, max=1.0)),
        (tune.quniform(0.2, 0.8, 0.2), FloatParameter(type="float", min=0.2, max=0.8, step=0.2)),
        (tune.loguniform(1e-4, 1.0), FloatParameter(type="float", min=1e-4, max=1.0, log=True)),
        (tune.randint(1, 10), IntParameter(type="int", min=1, max=9)),
        (tune.lograndint(1, 10), IntParameter(type="int", min=1, max=9, log=True)),
        (tune.qrandint(0, 10, 5), IntParameter(type="int", min=0, max=10, step=5)),
        (tune.choice(["a", 1, None]), CategoricalParameter(values=("a", 1, None))),
        (tune.choice(np.arange(2)), CategoricalParameter(values=(0, 1))),
        (tune.grid_search([16, 32]), CategoricalParameter(values=(16, 32))),
        (tune.choice([[64, 64], (128,)]), CategoricalParameter(values=((64, 64), (128,)))),
    ],
)
def test_a_domain_becomes_the_parameter_with_the_same_values(
    domain: object, parameter: object
) -> None:
    assert from_ray({"x": domain}) == {"x": parameter}


@pytest.mark.parametrize(
    "domain", [tune.quniform(0.2, 0.8, 0.2), tune.randint(1, 4), tune.qrandint(3, 10, 5)]
)
def test_what_ray_draws_is_in_our_parameter_and_what_we_draw_is_valid_for_ray(domain: Any) -> None:
    space = Space(from_ray({"x": domain}))
    assert all(
        contains(space.parameters["x"], round(domain.sample(random_state=seed), 9))
        for seed in range(50)
    )
    assert all(domain.is_valid(sample(space, Random(seed))["x"]) for seed in range(50))


def test_nested_spaces_are_named_by_path_and_nest_again() -> None:
    search_space = {"model": {"lr": tune.uniform(0, 1), "depth": 3}, "epochs": 10}
    assert list(from_ray(search_space)) == ["model/lr"]
    assert constants_of(search_space) == {"model/depth": 3, "epochs": 10}
    assert nested({"model/lr": 0.5, "model/depth": 3, "epochs": 10}) == {
        "model": {"lr": 0.5, "depth": 3},
        "epochs": 10,
    }


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        (tune.randn(10, 2), "randn has no bounds: use uniform, such as uniform(4, 16)"),
        (tune.qrandn(10, 2, 0.5), "randn has no bounds"),
        (tune.sample_from(lambda config: 1), "sample_from draws by code of its own"),
        (tune.qloguniform(1.0, 10.0, 0.5), "a log scale cannot be quantized"),
        (tune.choice([object()]), "a choice between objects cannot be stored"),
        (tune.choice([1, 1]), "the values must be distinct: 1 and 1 are equal"),
        ([tune.uniform(0, 1)], "a range within a list has no name"),
    ],
)
def test_a_domain_without_bounds_or_scalars_is_refused_by_name(domain: object, reason: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"parameter `x`: {reason}")):
        from_ray({"x": domain})
