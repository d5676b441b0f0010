"""Keys of `watch`: re-tunes and promotions."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from tunesvc.spec.sections.budget import Budget
from tunesvc.spec.sections.field_types import SpecModel, Text


class Watch(SpecModel):
    """Options of `tune watch`, which keeps the study's champion fresh when the data change."""

    budget: Budget | None = Field(
        None,
        description="Budget of a re-tune; half of the study's by default.",
    )
    level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Bound on the probability of a re-tune for data that have not drifted, and "
        "level of the test that a challenger is better.",
    )
    distance: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Least change of a column that counts, from 0 to 1: the distance of Kolmogorov "
        "and Smirnov for numbers, the total variation for categories.",
    )
    folds: int = Field(
        5,
        ge=3,
        le=100,
        description="Number of folds on which champion and challenger are compared.",
    )
    on_promote: Text | None = Field(
        None,
        min_length=1,
        description="A command, which gets each promotion as JSON on standard input; or a URL, "
        "which it is posted to, with secrets as variables of the environment: "
        "`https://host/hook?token=$HOOK_TOKEN`.",
    )
    registry: Literal["mlflow"] | None = Field(
        None,
        description="Where each promotion becomes a run.",
    )
