"""Folds, repeats and seeds of trials, where a study's trials may share a few in turns.

An effect of a fold or seed on all trials alike (an easy validation split, a lucky start) can then
be separated from the effect of parameters. Statistics calls them blocks.
"""

from __future__ import annotations

import numpy as np

SEED = "tunesvc:seed"
"""System attribute of a trial that must be trained with this seed, whatever its number."""
_SEEDS = 2**32
_APART = 1_000_003
"""Distance between the training seeds of studies with consecutive seeds of their own."""


def training_seed(study_seed: int, number: int, shared: int | None) -> int:
    """Return the seed of a trial: a new one for each, or one of `shared` consecutive ones."""
    if shared is None:
        return (study_seed * _APART + number) % _SEEDS
    return study_seed * _APART % (_SEEDS - shared) + number % shared


def groups(numbers: np.ndarray, shared: int | None) -> np.ndarray:
    """Return equal numbers for trials that share their blocks; shape (trials,), as `numbers`.

    Trials transferred from other studies have negative numbers, and seeds of their own.
    """
    return numbers if shared is None else np.where(numbers < 0, numbers, numbers % shared)


def turn(number: int, shared: int | None) -> int:
    """Return a counter of which every second value meets every seed.

    Each round of seeds starts one later.
    """
    return number if shared is None else number % shared + number // shared
