"""Objectives of a study, and constraints on its outcomes."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    model_validator,
)

from tunesvc.spec.goals import Goal
from tunesvc.spec.sections.field_types import Name, SpecModel


class Metric(SpecModel):
    """One number that the objective reports and the study optimises."""

    name: Name = Field(description="The name used in `report(step, NAME=...)`.")
    goal: Goal = Field("minimize", description="Direction: minimize if less is better.")
    target: float | None = Field(
        None,
        description="The study ends when a trial reaches this value.",
    )
    take: Literal["last", "best"] = Field(
        "last",
        description="The value of a trial's curve that is its result, if none is returned.",
    )


class Constraint(SpecModel):
    """A bound on a reported metric that a trial must keep to count as feasible."""

    metric: Name = Field(description="A metric that the objective reports or returns.")
    min: float | None = Field(None, description="The least feasible value.")
    max: float | None = Field(None, description="The greatest feasible value.")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Constraint:
        if self.min is None and self.max is None:
            raise ValueError("a constraint needs `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` ({self.min:g}) is greater than `max` ({self.max:g})")
        return self
