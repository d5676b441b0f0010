"""Lineage of trials that continue another trial's training: from which checkpoint each began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from optuna.trial import FrozenTrial

PARENT = "tunesvc:parent"
"""System attribute of a trial that began as a copy: {"trial", "step", "checkpoint"}."""


class Parent(NamedTuple):
    """Origin of a copy."""

    trial: int
    step: int
    """Step after which it continues."""
    checkpoint: str
    """Location of the checkpoint."""

    def stored(self) -> dict[str, int | str]:
        """Return the value of the attribute."""
        return {"trial": self.trial, "step": self.step, "checkpoint": self.checkpoint}


def parent_of(trial: FrozenTrial) -> Parent | None:
    """Return the origin of a trial; None if it began at step zero."""
    stored = trial.system_attrs.get(PARENT)
    return None if stored is None else Parent(**stored)


def ancestors(number: int, parents: Mapping[int, Parent]) -> list[int]:
    """Return a trial and its ancestors, the oldest first."""
    line = [number]
    while (parent := parents.get(line[-1])) is not None and parent.trial < line[-1]:
        line.append(parent.trial)
    return line[::-1]
