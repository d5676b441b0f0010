from __future__ import annotations

import numpy as np
import pytest

from tunesvc.search.samplers.gp.acquisitions.hypervolume import (
    Boxes,
    HypervolumeImprovement,
    log_shortfall,
    non_dominated,
    shortfall,
    volume,
)


def front_of(points: int, objectives: int) -> np.ndarray:
    """Random points of which some dominate others, some are equal, and some share coordinates."""
    values = np.round(np.random.default_rng(objectives).random((points, objectives)), 1)
    return np.vstack([values, values[:2]])


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_boxes_fill_what_is_not_dominated_without_overlap(objectives: int) -> None:
    front, reference = front_of(12, objectives), np.full(objectives, 0.95)
    boxes = Boxes.of(front, reference)
    drawn = np.random.default_rng(0).random((2_000, objectives)) * 0.95
    in_boxes = ((drawn[:, None] >= boxes.lower) & (drawn[:, None] < boxes.upper)).all(axis=2)
    is_dominated = (front[None] <= drawn[:, None]).all(axis=2).any(axis=1)
    assert (in_boxes.sum(axis=1) == np.where(is_dominated, 0, 1)).all()
    assert volume(front, reference) == pytest.approx(
        0.95**objectives * is_dominated.mean(), abs=0.03
    )


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_the_expected_improvement_is_that_of_drawn_values(objectives: int) -> None:
    front, reference = front_of(6, objectives), np.full(objectives, 0.95)
    rng = np.random.default_rng(1)
    means, deviations = rng.random((3, objectives)), np.full((3, objectives), 0.3)
    known = HypervolumeImprovement(front, reference).log_value(means, deviations)
    before = volume(front, reference)
    for mean, deviation, log_value in zip(means, deviations, known, strict=True):
        drawn = rng.normal(mean, deviation, (400, objectives))
        gains = [volume(np.vstack([front, y]), reference) - before for y in drawn]
        error = np.std(gains) / np.sqrt(len(gains))
        assert np.exp(log_value) == pytest.approx(np.mean(gains), abs=4 * error)


def test_it_has_a_slope_where_it_is_too_small_for_a_number() -> None:
    improvement = HypervolumeImprovement(np.zeros((1, 2)), np.ones(2))
    means = np.array([[3.0, 3.0], [3.0, 30.0], [30.0, 30.0], [31.0, 31.0], [1e5, 1e5]])
    values = improvement.log_value(means, np.full((5, 2), 0.05))
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()


def test_the_shortfall_of_a_normal_variable() -> None:
    ends, mean, deviation = np.array([-np.inf, -9.0, -1.0, 0.0, 2.0]), np.zeros(5), np.full(5, 0.5)
    drawn = np.random.default_rng(0).normal(0.0, 0.5, 100_000)
    expected = [np.maximum(end - drawn, 0.0).mean() for end in ends]
    assert shortfall(ends, mean, deviation) == pytest.approx(np.array(expected), abs=0.005)
    logs = log_shortfall(ends[1:], mean[1:], deviation[1:])
    assert np.exp(logs) == pytest.approx(shortfall(ends, mean, deviation)[1:], rel=1e-9)


def test_of_equal_points_one_is_on_the_front() -> None:
    values = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0], [1.0, 3.0]])
    assert non_dominated(values).tolist() == [True, True, False, False, False]
