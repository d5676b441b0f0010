"""The problems of the robustness benchmark, and its scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.comparison import worse_cases
from benchmarks.problems import PROBLEMS
from benchmarks.robustness import play, random_truths


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_configuration_of_a_problem_is_better_than_its_minimum(name: str) -> None:
    truths = random_truths(PROBLEMS[name], 20)
    assert math.isfinite(PROBLEMS[name].best)
    assert truths.min() >= PROBLEMS[name].best


def test_about_half_of_the_problems_are_held_out() -> None:
    held_out = sum(problem.held_out for problem in PROBLEMS.values())
    assert 0.4 < held_out / len(PROBLEMS) < 0.6


def test_ours_and_peers_play_the_same_problem() -> None:
    found = {sampler: play("seven-configurations", sampler, 0) for sampler in ("auto", "random")}
    assert found["auto"] == [0.0, 0.0], "seven trials are enough for seven configurations"
    assert found["random"][0] >= found["random"][1] >= 0.0


def test_a_sampler_is_compared_with_the_better_of_its_rivals_and_with_random_search() -> None:
    samplers = ("auto", "random", "optuna-tpe")
    found = np.array([[[0.2, 0.9], [0.1, 0.1]], [[0.5, 0.5], [0.5, 0.5]], [[0.1, 0.1], [0.3, 0.3]]])
    worst, behind = worse_cases("auto", samplers, found)
    assert (worst, behind) == ([0], [0])
