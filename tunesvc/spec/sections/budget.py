"""Budgets, prices, and the rule that ends a study early."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from tunesvc.spec.sections.field_types import Duration, SpecModel
from tunesvc.spec.text import check_name
from tunesvc.util import formatting


class StopWhen(SpecModel):
    """An early end, although budget is left: a study ends when it expects little further
    improvement."""

    improvement_below: float = Field(
        gt=0,
        description="The least expected improvement for which the study continues.",
    )
    per: Literal["trial", "hour", "gpu_hour", "cost"] = Field(
        "trial",
        description="Unit of that improvement: per trial, per hour of the study, per GPU hour, or "
        "per unit of `cost`.",
    )
    after: int = Field(20, ge=4, description="Finished trials before it applies.")


class Budget(SpecModel):
    """Limits on what a study may spend. The first limit that is reached ends it."""

    trials: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="Total trials: never one more.",
    )
    wall: Duration | None = Field(
        None,
        description="Time in which a coordinator is running the study.",
    )
    gpu_hours: float | None = Field(
        None,
        gt=0,
        description="GPUs requested × hours held, over all attempts.",
    )
    cost: float | None = Field(
        None,
        gt=0,
        description="Cost of all attempts by the prices in the study's `cost`.",
    )
    stop_when: StopWhen | None = Field(
        None,
        description="An early end, when the expected improvement is small.",
    )

    @property
    def limits(self) -> dict[str, Any]:
        """The limits by name, None if there is none."""
        return {
            "trials": self.trials,
            "wall": self.wall,
            "gpu_hours": self.gpu_hours,
            "cost": self.cost,
        }

    @model_validator(mode="after")
    def _bounded(self) -> Budget:
        if all(limit is None for limit in self.limits.values()):
            raise ValueError("a budget needs `trials`, `wall`, `gpu_hours` or `cost`")
        return self


class Prices(SpecModel):
    """Prices of resources for each hour that an attempt holds them, used or not."""

    gpu_hour: float = Field(0.0, ge=0, description="Price of one GPU for an hour.")
    cpu_hour: float = Field(0.0, ge=0, description="Price of one core for an hour.")
    currency: Annotated[str, AfterValidator(check_name)] = Field(
        "",
        max_length=12,
        description="Its name, such as `EUR`, shown with amounts.",
    )

    def cost(self, cpu_hours: float, gpu_hours: float) -> float:
        """Return the cost of so many hours of one core and of one GPU."""
        return self.cpu_hour * cpu_hours + self.gpu_hour * gpu_hours

    def format(self, amount: float) -> str:
        """Format an amount with the currency, such as `4.20 EUR`."""
        return formatting.money(amount, self.currency)
