"""What a study is: the frozen, validated `StudySpec` and its parts.

Owns the names, types, defaults and cross-checks of study.yaml; knows nothing of files, lines or YAML (see
`tunesvc.spec.document`), of Optuna (see `tunesvc.space`) or of the database.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tunesvc.spec.units import parse_bytes, parse_duration_s

Scalar = bool | int | float | str | None
ParamValue = Scalar
Goal = Literal["minimize", "maximize"]

Duration = Annotated[float, BeforeValidator(parse_duration_s), Field(gt=0)]
"""Seconds; written as a number of seconds or as `90s`, `15m`, `12h`, `3d`, `1h30m`."""
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
"""Bytes; written as a number of bytes or as `512MB`, `4GB`, `1.5GiB`."""


class Part(BaseModel):
    """A piece of the spec: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Metric(Part):
    """One number that the objective reports and the study optimises."""

    name: str = Field(min_length=1, max_length=200, description="The name used in `report(step, NAME=...)`.")
    goal: Goal = Field("minimize", description="Whether less or more is better.")
    target: float | None = Field(None, description="The study ends when a trial reaches this value.")
    take: Literal["last", "best"] = Field(
        "last", description="Which value of a trial's curve is its result, when none is returned."
    )


class Constraint(Part):
    """A bound on a reported metric that a trial must keep to count as feasible."""

    metric: str = Field(min_length=1, description="A metric that the objective reports or returns.")
    min: float | None = Field(None, description="The least feasible value.")
    max: float | None = Field(None, description="The greatest feasible value.")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Constraint:
        if self.min is None and self.max is None:
            raise ValueError("a constraint needs `min`, `max` or both")
        return self


When = Mapping[str, Scalar | tuple[Scalar, ...]]
"""Parameter name -> the value, or the values, under which this parameter exists."""

_WHEN = Field(
    None,
    description="This parameter exists only when each named parameter has the given value, or one of the values.",
)


class FloatParameter(Part):
    """A real number between `min` and `max`, both included."""

    type: Literal["float"]
    min: float
    max: float
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: float | None = Field(None, gt=0, description="Only `min + k * step`.")
    when: When | None = _WHEN

    @model_validator(mode="after")
    def _bounds(self) -> FloatParameter:
        _check_bounds(self.min, self.max, self.log, self.step)
        return self


class IntParameter(Part):
    """A whole number between `min` and `max`, both included."""

    type: Literal["int"]
    min: int
    max: int
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: int | None = Field(None, gt=0, description="Only `min + k * step`.")
    when: When | None = _WHEN

    @model_validator(mode="after")
    def _bounds(self) -> IntParameter:
        _check_bounds(self.min, self.max, self.log, self.step)
        return self


class CategoricalParameter(Part):
    """One of a few unordered values."""

    type: Literal["categorical"] = "categorical"
    values: tuple[Scalar, ...] = Field(min_length=1)
    when: When | None = _WHEN

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        if len({(type(v), v) for v in values}) != len(values):
            raise ValueError("the values must be distinct")
        return values


Parameter = Annotated[FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="type")]


class Sampler(BaseModel):
    """Which sampler proposes; every other key is handed to it as an option."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str = "auto"
    seed: int | None = Field(None, ge=0, lt=2**32)

    @property
    def options(self) -> dict[str, Any]:
        """The sampler's own keyword arguments."""
        return dict(self.__pydantic_extra__ or {})


class Pruner(BaseModel):
    """Which pruner stops poor trials; every other key is handed to it as an option."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str = "none"

    @property
    def options(self) -> dict[str, Any]:
        """The pruner's own keyword arguments."""
        return dict(self.__pydantic_extra__ or {})


class Budget(Part):
    """How much a study may spend. The first limit that is reached ends it."""

    trials: int | None = Field(None, ge=1, description="Trials in all: never one more.")
    wall: Duration | None = Field(None, description="Time in which a coordinator is running the study.")
    gpu_hours: float | None = Field(None, gt=0, description="GPUs requested × hours held, over all attempts.")

    @model_validator(mode="after")
    def _bounded(self) -> Budget:
        if self.trials is None and self.wall is None and self.gpu_hours is None:
            raise ValueError("a budget needs `trials`, `wall` or `gpu_hours`")
        return self


class Resources(Part):
    """What one worker of a trial asks of the cluster."""

    cpu: float = Field(1, ge=0)
    gpu: float = Field(0, ge=0, description="May be a fraction below 1, or a whole number.")
    memory: Bytes | None = Field(None, description="Bytes, such as `4GB`.")
    custom: Mapping[str, float] = Field(default_factory=dict, description="Custom resources of the cluster.")
    workers: int = Field(1, ge=1, description="A gang: this many bundles of the request, placed together.")

    @field_validator("gpu")
    @classmethod
    def _fraction_or_whole(cls, gpu: float) -> float:
        if gpu > 1 and gpu != int(gpu):
            raise ValueError("more than one GPU must be a whole number: a fraction shares a single device")
        return gpu


class Retries(Part):
    """How often a trial may be run again, by the class of what ended its attempt."""

    lost: int = Field(3, ge=0, description="The worker or its node went away.")
    error: int = Field(0, ge=0, description="The objective raised.")
    timeout: int = Field(0, ge=0, description="A limit of `limits` was exceeded.")


class Limits(Part):
    """What ends an attempt that does not end by itself."""

    wall: Duration | None = Field(None, description="The longest that one attempt may take.")
    silence: Duration | None = Field(None, description="The longest without a report.")
    grace: Duration = Field(10.0, description="From the request to stop until the worker is killed.")


class Environment(Part):
    """What a worker's process needs besides the code."""

    env: Mapping[str, str] = Field(default_factory=dict, description="Environment variables.")
    pip: tuple[str, ...] = Field((), description="Requirements installed for the workers.")
    isolation: Literal["reuse", "process"] = Field(
        "reuse", description="Whether trials may follow each other in one warm process."
    )


class StudySpec(Part):
    """A study: what is searched, how a trial is run, and how much may be spent. Frozen and valid.

    Raises:
        pydantic.ValidationError: on construction, for anything that cannot be used.
    """

    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    tags: tuple[str, ...] = ()

    entrypoint: str | None = Field(None, description="`module:function`, found from the study file's folder.")
    command: tuple[str, ...] | None = Field(None, description="A program; `${name}` is a parameter's value.")

    metrics: tuple[Metric, ...] = Field(min_length=1)
    constraints: tuple[Constraint, ...] = ()
    parameters: Mapping[str, Parameter] = Field(default_factory=dict)
    constants: Mapping[str, Any] = Field(default_factory=dict)

    sampler: Sampler = Field(default_factory=Sampler)
    pruner: Pruner = Field(default_factory=Pruner)
    budget: Budget
    parallelism: int | None = Field(None, ge=1, description="Trials at a time; as many as fit when left out.")
    resources: Resources = Field(default_factory=Resources)
    retries: Retries = Field(default_factory=Retries)
    limits: Limits = Field(default_factory=Limits)
    environment: Environment = Field(default_factory=Environment)
    cluster: str | None = Field(None, description="Address of a Ray cluster; a local one when left out.")
    seed: int | None = Field(None, ge=0, lt=2**32, description="Seeds the sampler, and `trial.seed`.")

    @property
    def directions(self) -> tuple[Goal, ...]:
        """The goal of each metric, in order."""
        return tuple(metric.goal for metric in self.metrics)

    @property
    def define_by_run(self) -> bool:
        """Whether the objective itself declares its parameters, as in Optuna."""
        return not self.parameters


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("`min` and `max` must be finite")
    if low > high:
        raise ValueError(f"`min` ({low:g}) is greater than `max` ({high:g})")
    if log and low <= 0:
        raise ValueError(f"`log: true` needs a `min` above 0, not {low:g}")
    if log and step is not None:
        raise ValueError("`log` and `step` exclude each other")
