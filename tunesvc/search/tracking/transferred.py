"""Transferred trials: those of earlier studies, which a warm start shows to a sampler.

They have negative numbers, come before the study's own trials, and name the study that they are of.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

SOURCE = "tunesvc:source"
"""System attribute of a transferred trial: the name of its study."""


def source_of(trial: FrozenTrial) -> str | None:
    """Return the name of the study that a trial was transferred from; None for an own trial."""
    name: str | None = trial.system_attrs.get(SOURCE)
    return name


def split(
    trials: Sequence[FrozenTrial],
) -> tuple[Sequence[FrozenTrial], Sequence[FrozenTrial]]:
    """Return the transferred trials, and the study's own."""
    transferred = next(
        (place for place, trial in enumerate(trials) if trial.number >= 0),
        len(trials),
    )
    return (trials[:transferred], trials[transferred:]) if transferred else ((), trials)
