from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from tunesvc.search.samplers.gp.acquisitions.acquisition import Incumbents, rows_of
from tunesvc.search.samplers.gp.acquisitions.imagined import imagine
from tunesvc.search.samplers.gp.gp_sampler import GPSampler
from tunesvc.search.samplers.gp.model.feasibility import Feasibility
from tunesvc.search.samplers.gp.model.gp_model import JITTER, Hyperparameters, Posterior

optuna.logging.set_verbosity(optuna.logging.ERROR)

UNIT = FloatDistribution(0.0, 1.0)
KNOWN = Hyperparameters(np.array([9.0]), signal=1.0, own=1e-4, noise=0.02)
OBSERVED = np.linspace(0.0, 0.6, 6)[:, None]
VALUES = np.sin(5 * OBSERVED[:, 0])
RUNNING = np.array([[0.7], [0.9], [0.93]])
PLACES = np.linspace(0.0, 1.0, 11)[:, None]


def posterior(points: np.ndarray, values: np.ndarray) -> Posterior:
    return Posterior(KNOWN, np.zeros(1), points, values, np.zeros(len(points)))


def beside() -> Posterior:
    """The posterior with running trials at expected values."""
    expected = posterior(OBSERVED, VALUES).mean(RUNNING)
    return posterior(np.vstack([OBSERVED, RUNNING]), np.concatenate([VALUES, expected]))


def test_values_are_drawn_jointly_given_the_others() -> None:
    """A posterior with the values of each draw, from the textbook's covariance, is the same."""
    normals = np.random.default_rng(0).standard_normal((3, 4))
    alone = posterior(OBSERVED, VALUES)
    mean, variance = alone.predict(RUNNING)
    expected = beside()
    covariance = expected._factor @ expected._factor.T
    of_running = covariance[6:, 6:] - covariance[6:, :6] @ np.linalg.solve(
        covariance[:6, :6], covariance[:6, 6:]
    )
    assert np.diag(of_running) == pytest.approx(variance + KNOWN.noise + JITTER)
    drawn = mean[:, None] + np.linalg.cholesky(of_running) @ normals
    imagined = expected.imagined(normals).mean(PLACES)
    for column, values in enumerate(drawn.T):
        told = posterior(np.vstack([OBSERVED, RUNNING]), np.concatenate([VALUES, values]))
        assert imagined[:, column] == pytest.approx(told.mean(PLACES), abs=1e-8)


def test_draws_of_nothing_unusual_are_expected_values() -> None:
    imagined = beside().imagined(np.zeros((3, 2))).mean(PLACES)
    assert imagined[:, 1] == pytest.approx(beside().mean(PLACES), abs=1e-9)


def test_each_draw_has_an_incumbent() -> None:
    points = np.array([[0.1], [0.1], [0.5], [0.9]])
    means = np.array([[1.0, 3.0], [1.0, 3.0], [2.0, np.inf], [3.0, 0.5]])
    found = Incumbents.of(points, means)
    assert list(found.best) == list(rows_of(points)[[0, 3]])
    assert found.best_mean.tolist() == [1.0, 0.5]
    assert found.second_mean.tolist() == [2.0, 3.0]  # of another point
    assert Incumbents.of(points[:2], means[:2]).second_mean.tolist() == [1.0, 3.0]


def test_many_proposals_at_once_do_not_collapse() -> None:
    """With expected values alone, most lie within 0.01 of another."""

    def ripples(params: dict[str, float]) -> float:
        z = 4 * (np.array(list(params.values())) - 0.36)
        return float((z**2 - 0.5 * np.cos(2 * np.pi * z)).sum())

    space: dict[str, BaseDistribution] = dict.fromkeys("abcd", UNIT)
    study = optuna.create_study(sampler=GPSampler(seed=0))
    for _ in range(20):
        trial = study.ask(space)
        study.tell(trial, ripples(trial.params))
    asked = np.array([list(study.ask(space).params.values()) for _ in range(16)])
    apart = np.linalg.norm(asked[:, None] - asked, axis=-1) + np.eye(16)
    assert (apart.min(axis=1) < 0.01).mean() < 0.4


def test_trials_that_are_asked_before_any_result_are_spread_evenly() -> None:
    space: dict[str, BaseDistribution] = {
        "c": CategoricalDistribution([f"c{i}" for i in range(30)]),
        "x": UNIT,
        "y": UNIT,
    }
    study = optuna.create_study(sampler=GPSampler(seed=3, search_space=space))
    asked = [study.ask(space).params for _ in range(64)]
    assert len({params["c"] for params in asked}) == 30
    for name in ("x", "y"):
        assert sorted(int(64 * params[name]) for params in asked) == list(range(64))
    cells = {(int(8 * params["x"]), int(8 * params["y"])) for params in asked}
    assert len(cells) > 50  # of 64; at random, 40


def test_a_running_trial_that_will_break_a_constraint_is_not_to_be_beaten() -> None:
    class Broken(Feasibility):
        def log_probability(self, points: np.ndarray) -> np.ndarray:
            return np.where(points[:, 0] > 0.8, -np.inf, 0.0)

    rng = np.random.default_rng(0)
    _, incumbents = imagine(beside(), OBSERVED[:2], RUNNING, Broken([], OBSERVED), rng)
    allowed = rows_of(np.vstack([OBSERVED[:2], RUNNING[:1]]))
    assert np.isin(incumbents.best, allowed).all()
    assert np.isin(incumbents.best, rows_of(RUNNING[:1])).any()
