"""Effects of parameters and of pairs, by the model of a study."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from tunesvc.queries.explain.parameter_effects import describe_effects
from tunesvc.queries.rows import Objective
from tunesvc.search.analysis.interaction_effects import (
    PARAMETERS_MAX,
    InteractionEffects,
    interaction_effects,
)
from tunesvc.search.analysis.model_surface import ModelSurface, learn


def model(value: Callable[..., float], count: int = 3, trials: int = 80) -> ModelSurface:
    rng = np.random.default_rng(0)
    kinds = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(count)}
    made = []
    for number in range(trials):
        params = {name: float(rng.random()) for name in kinds}
        made.append(create_trial(params=params, distributions=kinds, value=value(**params)))
        made[-1].number = number
    learned = learn(made, "minimize")
    assert learned is not None
    return learned


def test_only_parameters_that_are_multiplied_act_together() -> None:
    effects = interaction_effects(model(lambda x0, x1, x2: 10 + 4 * x0 * x1 + x2))
    (first, second, most), *others = effects.pairs()
    assert {first, second} == {"x0", "x1"}
    # Of the product of two uniform variables, by hand: 4 / 12, with an own effect of 2 / sqrt(12).
    assert most == pytest.approx(4 / 12, rel=0.4)
    assert all(size < 0.15 * most for _, _, size in others)
    own = dict(zip(effects.names, np.diag(effects.sizes), strict=True))
    assert own["x0"] == pytest.approx(2 / 12**0.5, rel=0.4)
    assert own["x2"] == pytest.approx(1 / 12**0.5, rel=0.4)


def test_a_sum_has_no_interactions_and_the_same_model_the_same_effects() -> None:
    learned = model(lambda x0, x1, x2: 5 + x0 + x1 - x2)
    effects = interaction_effects(learned)
    assert max(size for _, _, size in effects.pairs()) < 0.05 * effects.sizes.max()
    assert (interaction_effects(learned).sizes == effects.sizes).all()


def test_pairs_are_taken_of_the_parameters_with_the_largest_effects() -> None:
    count = PARAMETERS_MAX + 2
    effects = interaction_effects(model(lambda **p: 9 + 3 * p["x9"] + p["x4"], count))
    assert effects.names[:2] == ("x9", "x4")
    assert effects.sizes.shape == (PARAMETERS_MAX, PARAMETERS_MAX)


def test_only_pairs_of_some_size_are_named() -> None:
    sizes = np.array([[1.0, 0.5, 0.1], [0.5, 0.4, 0.0], [0.1, 0.0, 0.2]])
    effects = InteractionEffects(("lr", "depth", "width"), sizes)
    assert list(describe_effects(Objective("loss", "minimize"), effects)) == [
        "By the model, parameters typically change loss by: lr 1, depth 0.4, width 0.2.",
        "Beyond that, pairs act together: lr and depth 0.5.",
    ]
    flat = InteractionEffects(("lr", "depth"), np.zeros((2, 2)))
    assert list(describe_effects(Objective("loss", "minimize"), flat)) == []
