"""The Parzen estimator is Optuna's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights

from tunesvc.search.samplers.tpe.parzen import (
    LATEST,
    Array,
    Parzen,
    weights_by_age,
    weights_of_sample,
)

SPACE: dict[str, BaseDistribution] = {
    "float": FloatDistribution(-2, 3),
    "log": FloatDistribution(1e-5, 1, log=True),
    "step": FloatDistribution(0, 1, step=0.25),
    "int": IntDistribution(1, 9),
    "log_int": IntDistribution(1, 1_000, log=True),
    "choice": CategoricalDistribution(["a", "b", "c"]),
}


def observe(n: int, rng: np.random.Generator) -> Array:
    columns = [
        rng.uniform(-2, 3, n),
        np.exp(rng.uniform(np.log(1e-5), 0, n)),
        rng.integers(0, 5, n) * 0.25,
        rng.integers(1, 10, n),
        np.exp(rng.uniform(0, np.log(1_000), n)).round(),
        rng.integers(0, 3, n),
    ]
    return np.stack(columns, axis=1).astype(float)


def optunas(observations: Array) -> _ParzenEstimator:
    parameters = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)
    return _ParzenEstimator(
        {name: observations[:, i] for i, name in enumerate(SPACE)}, SPACE, parameters
    )


@settings(deadline=None)
@given(n=st.one_of(st.integers(0, 5), st.integers(6, 150)), seed=st.integers(0, 2**31))
def test_points_and_densities_are_those_of_optuna(n: int, seed: int) -> None:
    observations = observe(n, np.random.default_rng(seed))
    theirs, ours = optunas(observations), Parzen(observations, SPACE, weights_by_age(n))
    drawn = theirs.sample(np.random.RandomState(seed), 24)
    points = np.stack([drawn[name] for name in SPACE], axis=1)
    np.testing.assert_allclose(
        ours.sample(np.random.RandomState(seed), 24), points, rtol=1e-6, atol=1e-9
    )
    density, prior = ours.log_density(points)
    np.testing.assert_allclose(density, theirs.log_pdf(drawn), rtol=1e-6, atol=1e-6)
    assert ((prior > 0) & (prior <= 1)).all()


def test_without_observations_everything_is_the_prior() -> None:
    points = observe(5, np.random.default_rng(0))
    assert (
        Parzen(np.empty((0, len(SPACE))), SPACE, np.empty(0)).log_density(points)[1].tolist()
        == [1.0] * 5
    )


def test_a_point_far_from_every_observation_stems_from_the_prior() -> None:
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    cluster = np.full((100, 1), 0.1) + np.linspace(0, 0.01, 100)[:, None]
    _, prior = Parzen(cluster, space, np.ones(100)).log_density(np.array([[0.9], [0.1]]))
    assert prior[0] > 0.99
    assert prior[1] < 0.01


@settings(deadline=None)
@given(n=st.integers(0, 300), more=st.integers(0, 2_000))
def test_a_sample_weighs_what_it_stands_in_for(n: int, more: int) -> None:
    weights = weights_of_sample(n, n + more)
    assert len(weights) == n
    if n > LATEST:
        assert weights.sum() == pytest.approx(weights_by_age(n + more).sum())
    if not more:
        assert weights.tolist() == weights_by_age(n).tolist()


def test_a_sample_has_the_density_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    whole = observe(4_000, rng)
    sample = np.vstack([whole[:-LATEST:10], whole[-LATEST:]])
    points = observe(50, rng)
    full, _ = Parzen(whole, SPACE, weights_by_age(4_000)).log_density(points)
    thin, _ = Parzen(sample, SPACE, weights_of_sample(len(sample), 4_000), 4_000).log_density(
        points
    )
    forgetful, _ = Parzen(sample, SPACE, weights_by_age(len(sample))).log_density(points)
    assert np.abs(thin - full).mean() < np.abs(forgetful - full).mean()


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_what_is_added_to_many_kernels_counts_almost_as_if_it_had_been_there(
    n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ended, running, points = observe(400, rng), observe(n, rng), observe(50, rng)
    weights = weights_by_age(400)
    grown = Parzen(ended, SPACE, weights).also(running)
    whole = Parzen(np.vstack([ended, running]), SPACE, np.append(weights, np.ones(n)))
    assert grown.kernels == whole.kernels
    assert np.median(np.abs(grown.log_density(points)[0] - whole.log_density(points)[0])) < 0.01
    without = Parzen(ended, SPACE, weights).log_density(running)[0]
    assert (grown.log_density(running)[0] > without).all()


def test_with_what_is_added_it_is_a_density_still() -> None:
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "n": IntDistribution(0, 4)}
    rng = np.random.default_rng(1)
    ended = np.stack([rng.random(120), rng.integers(0, 5, 120)], axis=1)
    grown = Parzen(ended, space, np.ones(120)).also(np.array([[0.2, 3.0], [0.9, 0.0]]))
    x = (np.arange(2_000) + 0.5) / 2_000
    points = np.array([[one, n] for n in range(5) for one in x])
    assert np.exp(grown.log_density(points)[0]).sum() / 2_000 == pytest.approx(1.0, abs=1e-4)
    drawn = grown.sample(np.random.RandomState(1), 5_000)
    assert grown.kernels == 123
    assert ((drawn[:, 0] >= 0) & (drawn[:, 0] <= 1) & np.isin(drawn[:, 1], range(5))).all()
