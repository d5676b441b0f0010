"""Keys of `search`: populations and schedules."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import (
    Field,
    model_validator,
)

from tunesvc.spec.sections.field_types import Choice, Frozen, SpecModel, Tuple


class Stage(SpecModel):
    """A range of steps that is trained with the same parameters."""

    until: int = Field(ge=1, description="Its last step.")
    parameters: Frozen[Choice] = Field(description="Values by name.")


class Search(SpecModel):
    """A search whose trials continue each other's training, in place of `sampler` and `pruner`.

    `pbt` is population-based training (Jaderberg et al. 2017), `pb2` its form that selects
    parameters by a Gaussian process (Parker-Holder et al. 2020); `schedule` trains with parameters
    that change at given steps, as `tune best --schedule` writes them. The objective saves a
    checkpoint at every `interval`, and continues from `trial.restored()`."""

    method: Literal["pbt", "pb2", "schedule"] = Field(description="How it searches.")
    population: int | None = Field(
        None,
        ge=1,
        le=1_000,
        description="Members that train side by side, or in turns: 16; of a schedule 1.",
    )
    interval: int | None = Field(
        None,
        ge=1,
        description="Steps between two comparisons of a member with the others. Needed by `pbt` and"
        " `pb2`.",
    )
    steps: int | None = Field(
        None,
        ge=1,
        description="The last step: a trial that reaches it is complete. Needed by `pbt` and `pb2`"
        ".",
    )
    quantile: float = Field(
        0.25,
        gt=0,
        le=0.5,
        description="Share of the members that is replaced by copies of as many of the best.",
    )
    resample: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Of `pbt`: probability with which a copy resamples a parameter.",
    )
    factor: float = Field(
        1.2,
        gt=1,
        description="Of `pbt`: a copy multiplies or divides the other numbers by it.",
    )
    stages: Tuple[Stage] = Field((), description="Of `schedule`: ranges of steps, in order.")

    @model_validator(mode="after")
    def _fits(self) -> Search:
        is_schedule = self.method == "schedule"
        foreign = {"interval", "steps", "quantile"} if is_schedule else {"stages"}
        if self.method != "pbt":
            foreign |= {"resample", "factor"}
        for name in sorted(foreign):
            if getattr(self, name) != Search.model_fields[name].default:
                raise ValueError(f"`method: {self.method}` has no `{name}`: leave it out")
        if is_schedule:
            self._check_stages()
            return self
        if self.interval is None or self.steps is None:
            text = "needs `interval`, the steps between two comparisons, and `steps`, the last one"
            raise ValueError(f"`method: {self.method}` {text}")
        if self.interval >= self.steps:
            text = f"`interval` ({self.interval}) is not below `steps` ({self.steps})"
            raise ValueError(f"{text}: no member would ever be compared")
        if self.members < 2:
            raise ValueError("a `population` of 1 has no member to copy: use 2 or more, such as 16")
        return self

    def _check_stages(self) -> None:
        ends = [stage.until for stage in self.stages]
        if not ends:
            text = "`method: schedule` needs `stages`, such as `tune best --schedule` writes"
            raise ValueError(text)
        if ends != sorted(set(ends)):
            raise ValueError("each stage's `until` is above that of the stage before")

    @property
    def members(self) -> int:
        """Number of members."""
        if self.population is not None:
            return self.population
        return 1 if self.method == "schedule" else 16

    @property
    def last_step(self) -> int:
        """The step with which a member's training is complete."""
        return self.stages[-1].until if self.steps is None else self.steps

    def next_stop(self, after: int) -> int:
        """Return the step at which a member pauses that continues after a step; -1: from zero."""
        if self.interval is None:
            return next((one.until for one in self.stages if one.until > after), self.last_step)
        return min(self.last_step, (max(after, 0) // self.interval + 1) * self.interval)

    def stop_at(self, step: int) -> int:
        """Return the last stop at or before a step; 0 before the first one."""
        if self.interval is None:
            return max((one.until for one in self.stages if one.until <= step), default=0)
        return max(step, 0) // self.interval * self.interval

    def stage_after(self, step: int) -> Stage:
        """Return the stage of a schedule that follows a step."""
        return next((one for one in self.stages if one.until > step), self.stages[-1])

    @property
    def trials_max(self) -> int:
        """Trials that suffice if no trial fails: each stop at most replaces every member."""
        stops = len(self.stages) or math.ceil(self.last_step / (self.interval or 1))
        return self.members * stops

    @property
    def end_reason(self) -> str:
        """Reason of the study's end once nothing of it is left to train."""
        return f"all {self.members} members have reached the end of their training"
