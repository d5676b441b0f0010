"""Which trial is recommended, and which one is called lucky beside it."""

from __future__ import annotations

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.runtime.confirm import choose
from tunesvc.search.analysis.recommend import ranked, recommend


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
