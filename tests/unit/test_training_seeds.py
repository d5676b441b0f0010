"""Which trials share a training seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.search.training_seeds import groups, training_seed, turn

STUDY_SEEDS = st.integers(0, 2**32 - 1)
SHARED = st.integers(1, 1_000)


@given(STUDY_SEEDS, st.integers(0, 10_000))
def test_each_trial_has_a_seed_of_its_own(study_seed: int, first: int) -> None:
    seeds = [training_seed(study_seed, number, None) for number in range(first, first + 50)]
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**32 for seed in seeds)


@given(STUDY_SEEDS, SHARED, st.integers(0, 10_000))
def test_shared_blocks_come_in_turns_and_number_the_folds(
    study_seed: int, shared: int, first: int
) -> None:
    """Any round of trials meets each seed once, and each fold: that is what `trial.seed % folds`
    is."""
    a_round = [training_seed(study_seed, number, shared) for number in range(first, first + shared)]
    assert len(set(a_round)) == shared
    assert {seed % shared for seed in a_round} == set(range(shared))
    assert all(0 <= seed < 2**32 for seed in a_round)
    assert training_seed(study_seed, first + shared, shared) == a_round[0]


@given(STUDY_SEEDS, SHARED, st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_group_is_a_seed(study_seed: int, shared: int, one: int, other: int) -> None:
    one_group, other_group = groups(np.array([one, other]), shared)
    equal = training_seed(study_seed, one, shared) == training_seed(study_seed, other, shared)
    assert (one_group == other_group) == equal


def test_what_other_studies_lend_has_seeds_of_its_own() -> None:
    assert groups(np.array([-2, -1, 0, 1, 2, 3]), 3).tolist() == [-2, -1, 0, 1, 2, 0]
    assert groups(np.array([-1, 0, 7]), None).tolist() == [-1, 0, 7]


@given(st.integers(1, 50))
def test_every_second_trial_meets_every_seed(shared: int) -> None:
    met = {(turn(number, shared) % 2, number % shared) for number in range(2 * shared)}
    assert len(met) == 2 * shared
