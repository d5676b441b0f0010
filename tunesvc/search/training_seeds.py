"""Which seed a trial is trained with, where a study's trials share a few of them in turns.

What a seed does to all trials alike (an easy validation split, a lucky fold) is then no noise: trials that share a seed
tell it apart from what their parameters do. In statistics the seeds are blocks.
"""

from __future__ import annotations

import numpy as np

SEED = "tunesvc:seed"
"""System attribute of a trial that is to be trained with this seed, whatever its number."""
_SEEDS = 2**32
_APART = 1_000_003
"""Studies whose seeds differ by one train with seeds so far apart."""


def training_seed(study_seed: int, number: int, shared: int | None) -> int:
    """The seed of a trial: another one for each, or one of the `shared`, which follow each other."""
    if shared is None:
        return (study_seed * _APART + number) % _SEEDS
    return study_seed * _APART % (_SEEDS - shared) + number % shared


def groups(numbers: np.ndarray, shared: int | None) -> np.ndarray:
    """Equal for trials that have a seed in common; shape (trials,), as `numbers`.

    Trials that other studies lend have negative numbers, and seeds of their own.
    """
    return numbers if shared is None else np.where(numbers < 0, numbers, numbers % shared)


def turn(number: int, shared: int | None) -> int:
    """Counts trials so that whoever takes every second one meets every seed: each round of seeds begins one later."""
    return number if shared is None else number % shared + number // shared
