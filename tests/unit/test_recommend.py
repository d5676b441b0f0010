"""Which trial is recommended, and which one is called lucky beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.problems import PROBLEMS, Problem
from benchmarks.searchers import space_of
from tunesvc.runtime.confirm import choose
from tunesvc.search.analysis.noise_evidence import _squares
from tunesvc.search.analysis.recommend import ranked, recommend
from tunesvc.search.samplers.gp.model.domain import ABSENT
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, Posterior
from tunesvc.search.samplers.gp.model.repeats import Repeats
from tunesvc.search.tracking.objectives import is_candidate
from tunesvc.spec.goals import Goal


def trial(number: int, x: float, value: float) -> FrozenTrial:
    made = create_trial(
        state=TrialState.COMPLETE,
        values=[value],
        params={"x": x},
        distributions={"x": FloatDistribution(0, 1)},
    )
    made.number = number
    return made


def bowl(noise: float) -> list[FrozenTrial]:
    rng = np.random.default_rng(0)
    return [
        trial(i, float(x), (x - 0.3) ** 2 + noise * rng.normal())
        for i, x in enumerate(np.linspace(0, 1, 40))
    ]


def test_a_lucky_draw_is_not_recommended_and_named() -> None:
    trials = [*bowl(0.01), trial(40, 0.9, -0.05)]
    recommendation = recommend(trials, "minimize")
    assert recommendation is not None
    assert abs(trials[recommendation.number].params["x"] - 0.3) < 0.15
    assert recommendation.luckiest == 40
    assert recommendation.is_apart


def test_a_lucky_trial_beside_the_recommended_one_is_indistinguishable_from_it() -> None:
    recommendation = recommend([*bowl(0.1), trial(40, 0.21, -0.5)], "minimize")
    assert recommendation is not None
    assert (recommendation.number, recommendation.luckiest) == (12, 40)
    assert not recommendation.is_apart
    assert recommendation.luck == "but the two cannot be told apart"


def test_of_equal_values_none_is_luckier() -> None:
    """Errors of small test sets tie often; the first of them would look like a better one."""
    trials = [
        trial(i, x, round((x - 0.3) ** 2, 1)) for i, x in enumerate(np.linspace(0, 1, 40).tolist())
    ]
    recommendation = recommend(trials, "minimize")
    assert recommendation is not None
    assert trials[recommendation.number].value == 0.0
    assert recommendation.luckiest == recommendation.number


def test_a_lucky_seed_is_not_taken_for_a_good_configuration() -> None:
    """Every fourth trial has an easy split, and those far from the best are more often among
    them."""
    easy = [number % 4 == 0 for number in range(40)]
    places = [
        0.9 + 0.002 * number if is_easy else 0.1 + 0.01 * number
        for number, is_easy in enumerate(easy)
    ]
    values = [abs(x - 0.3) - 1.0 * is_easy for x, is_easy in zip(places, easy, strict=True)]
    trials = [
        trial(number, x, value)
        for number, (x, value) in enumerate(zip(places, values, strict=True))
    ]
    trials += [
        trial(40, 0.3, -1.0),
        trial(41, 0.9, 0.6),
        trial(42, 0.95, 0.65),
    ]  # what tells the two apart
    blind, recommendation = recommend(trials, "minimize"), recommend(trials, "minimize", 4)
    assert blind is not None
    assert recommendation is not None
    assert abs(trials[blind.number].params["x"] - 0.3) > 0.5
    assert abs(trials[recommendation.number].params["x"] - 0.3) < 0.05
    assert abs(recommendation.mean - np.mean([0.0, 0.0, 0.0, -1.0])) < 0.3  # over all seeds alike


def test_finalists_are_those_that_are_believed_to_be_best_and_the_luckiest() -> None:
    lucky = [trial(40 + k, 0.9 + 0.02 * k, value) for k, value in enumerate([0.002, -0.05])]
    trials = [*bowl(0.01), *lucky, trial(42, 0.3, 0.004)]
    finalists = choose(trials, "minimize", 5)
    assert finalists[1].number == 41, "people ask about the best observed value"
    assert all(abs(one.params["x"] - 0.3) < 0.2 for one in finalists if one.number != 41)
    assert choose(trials, "minimize", 1)[0].number == ranked(trials, "minimize")[0]


def test_of_few_trials_finalists_are_the_best_observed() -> None:
    trials = [trial(number, number / 8, abs(number - 3.0)) for number in range(8)]
    assert [one.number for one in choose([*trials, trial(8, 3 / 8, 0.5)], "minimize", 3)] == [
        3,
        2,
        4,
    ]


NOISY = {
    "heavy-tail",
    "lucky-tail",
    "noise-that-grows",
    *(f"bowl-with-noise-{noise}" for noise in ("0.01", "0.05", "0.2")),
}


def random_trials(problem: Problem, count: int, seed: int, factor: float) -> list[FrozenTrial]:
    """Trials of a random search; every value is multiplied by a factor."""
    space = space_of(problem.parameters)
    sampler, rng = optuna.samplers.RandomSampler(seed=seed), np.random.default_rng(seed)
    unused: Any = None
    trials = []
    for number in range(count):
        params: dict[str, Any] = {}
        for name, kind in space.distributions.items():
            if space.active(name, params):
                params[name] = sampler.sample_independent(unused, unused, name, kind)
        value = problem.observe(problem.truth(params), params, rng)
        made = create_trial(
            state=TrialState.COMPLETE if np.isfinite(value) else TrialState.FAIL,
            values=[factor * value] if np.isfinite(value) else None,
            params=params,
            distributions={name: space.distributions[name] for name in params},
        )
        made.number = number
        trials.append(made)
    return trials


def assert_best_observed(trials: list[FrozenTrial], goal: Goal) -> None:
    values = [trial.values[0] for trial in trials if is_candidate(trial)]
    found = recommend(trials, goal)
    assert found is not None
    assert trials[found.number].values[0] == (max if goal == "maximize" else min)(values)
    assert found.luckiest == found.number


TRICKY = [
    ("needle-2d", 13, 60, 1.0),
    ("plateau-with-a-hole", 18, 100, -1e-3),
    ("penalty-of-1e+30", 11, 60, -1.0),
    ("rastrigin-4d", 13, 60, 1e6),
    ("integers-to-2^8", 12, 40, 1.0),
]
"""The model would call the best of these a lucky draw: it sees noise where a function is rough."""


@pytest.mark.parametrize(("name", "seed", "count", "factor"), TRICKY)
def test_where_there_is_no_noise_the_best_observed_is_recommended(
    name: str, seed: int, count: int, factor: float
) -> None:
    trials = random_trials(PROBLEMS[name], count, seed, factor)
    assert_best_observed(trials, "minimize" if factor > 0 else "maximize")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROBLEMS.keys() - NOISY))
def test_no_shape_without_noise_makes_it_doubt_the_best_observed(name: str) -> None:
    for seed, count in ((100, 15), (101, 40), (102, 100)):
        trials = random_trials(PROBLEMS[name], count, seed, 1.0)
        if any(map(is_candidate, trials)):
            assert_best_observed(trials, "minimize")


@pytest.mark.parametrize("penalty", [1e3, 1e100, 1e307])
def test_a_penalty_moves_nothing(penalty: float) -> None:
    trials = bowl(0.0)
    for number in range(40, 55):
        trials.append(trial(number, number / 55, penalty))
    found = recommend(trials, "minimize")
    assert found is not None
    assert (found.number, found.luckiest, found.describe()) == (12, 12, "")


def test_repeats_that_agree_prove_that_there_is_no_noise() -> None:
    trials = [*bowl(0.1), trial(40, 0.21, -0.5)]
    doubtful, certain = recommend(trials, "minimize"), [*trials, trial(41, 0.21, -0.5)]
    assert doubtful is not None
    assert (doubtful.number, doubtful.luckiest) == (12, 40)
    found = recommend(certain, "minimize")
    assert found is not None
    assert (found.number, found.luckiest, found.describe()) == (40, 40, "")


def test_repeats_that_differ_prove_noise_however_little_there_is_to_see() -> None:
    trials = [*bowl(0.0)[:12], trial(12, 0.1, -1.0), trial(13, 0.1, 0.5), trial(14, 0.1, 0.6)]
    found = recommend(trials, "minimize")
    assert found is not None
    assert found.luckiest == 12
    assert found.deviation is not None


def test_advice_on_seeds_is_given_where_they_decide_more_than_the_parameters() -> None:
    rng = np.random.default_rng(3)
    places = [float(x) for x in rng.random(24)] * 2

    def advised(noise: float, shared_blocks: int | None = None, count: int = 48) -> str:
        trials = [trial(i, x, x + noise * rng.normal()) for i, x in enumerate(places[:count])]
        answer = recommend(trials, "minimize", shared_blocks)
        return "" if answer is None else answer.advise_seeds("mine")

    assert "`evaluation: {repeats: 5, per_trial: 1}` and `warm_start: [mine]`" in advised(2.0)
    assert advised(0.05) == advised(0.0) == ""
    assert advised(2.0, shared_blocks=4) == "", "they are shared already"
    assert advised(2.0, count=39) == "", "too little to say"


def test_one_repeat_that_agrees_proves_nothing() -> None:
    """Accuracies on a small test set are equal by chance."""
    points = np.array([[0.1], [0.1], [0.4], [0.7]])
    assert Repeats.of(points, np.array([0.5, 0.5, 1.0, 2.0])).agree is None
    twice = np.vstack([points, [[0.4]]])
    assert Repeats.of(twice, np.array([0.5, 0.5, 1.0, 2.0, 1.0])).agree is True
    assert Repeats.of(twice, np.array([0.5, 0.5, 1.0, 2.0, 1.1])).agree is False


def test_evidence_of_noise_measures_distances_as_the_model_does() -> None:
    """An absent parameter is no place on its axis."""
    points = np.array([[0.0, 0.2, ABSENT], [1.0, ABSENT, 0.7], [0.0, 0.9, ABSENT]])
    known = Hyperparameters(np.ones(3), 1.0, 0.0, 0.0)
    posterior = Posterior(known, np.array([2, 0, 0]), points, np.zeros(3), np.zeros(3))
    squares = _squares(points, np.array([True, False, False])).sum(axis=2)
    for place, point in enumerate(points):
        assert np.sqrt(squares[place]) == pytest.approx(posterior.distances(point, points))
