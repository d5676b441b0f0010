"""Keys of `evaluation`: folds, repeats and scorers."""

from __future__ import annotations

import math
from typing import Any

from pydantic import (
    Field,
    model_validator,
)

from tunesvc.spec.sections.field_types import Name, SpecModel, Tuple


class Evaluation(SpecModel):
    """Evaluation of a trial: once, on each fold of the data, or with each of several seeds.

    The trial's value is the mean; each fold or repeat is a step, after which poor trials stop.
    """

    folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description="Number of folds of all rows but the test part, by `stratify`, `group` or "
        "`time` of `data: split`; needs `data`.",
    )
    repeats: int | None = Field(
        None,
        ge=2,
        le=1_000,
        description="Instead of `folds`: number of training seeds, equal for all trials.",
    )
    per_trial: int | None = Field(
        None,
        ge=1,
        description="Number of folds or repeats that each trial evaluates, in turns; by default "
        "all of them.",
    )

    scoring: Tuple[Name] = Field(
        (),
        description="Names of scikit-learn's scorers, of which more is better. The objective then "
        "returns the fitted model, which is scored on the validation part; `metric` is one of them,"
        " the first when left out.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Evaluation:
        if self.folds is not None and self.repeats is not None:
            raise ValueError("write either `folds` or `repeats`, not both")
        if not (self.has_blocks or self.scoring) or (self.per_trial and not self.has_blocks):
            raise ValueError("needs `folds` or `repeats`, such as `{folds: 5}`")
        if self.per_trial is not None and self.per_trial > self.count:
            raise ValueError(f"`per_trial` ({self.per_trial}) is above {self.count}, all there are")
        return self

    @property
    def has_blocks(self) -> bool:
        """True if there are folds or repeats; statistics calls them blocks."""
        return self.folds is not None or self.repeats is not None

    @property
    def count(self) -> int:
        """Number of folds or repeats; 1 without."""
        return self.folds or self.repeats or 1

    @property
    def steps(self) -> int:
        """Number of folds or repeats that a trial evaluates."""
        return self.per_trial or self.count

    @property
    def is_stepwise(self) -> bool:
        """True if folds or repeats are a trial's steps; a trial with one may report its own."""
        return self.steps > 1

    @property
    def turns(self) -> int:
        """Number of trials in a row of which no two evaluate the same folds or repeats."""
        return self.count // math.gcd(self.count, self.steps)

    @property
    def noun(self) -> str:
        """Name of a step in messages, in the plural."""
        return "repeats" if self.folds is None else "folds"

    def block_indices(self, number: int) -> tuple[int, ...]:
        """Return the numbers of a trial's folds or repeats, in the order of its steps.

        It is the same for all trials if each evaluates all of them.
        """
        first = number * self.steps
        return tuple((first + step) % self.count for step in range(self.steps))


def migrate_seeds(spec: dict[str, Any]) -> None:
    """Replace `seeds: N`, which specs of earlier versions have, by its evaluation."""
    seeds = spec.pop("seeds", None)
    if seeds is not None:
        spec["evaluation"] = {"repeats": seeds, "per_trial": 1}
