"""Keys of how trials run: resources, retries, limits, checkpoints, environment."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from tunesvc.spec.frozen_dict import FrozenDict
from tunesvc.spec.sections.field_types import Bytes, Duration, Frozen, SpecModel, Text, Tuple

Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
"""Ray's ways to place the bundles of a placement group."""


class Resources(SpecModel):
    """Resources that one worker of a trial requests from the cluster."""

    cpu: float = Field(1, ge=0, description="Cores; may be a fraction.")
    gpu: float = Field(
        0,
        ge=0,
        description="May be a fraction below 1, or a whole number.",
    )
    memory: Bytes | None = Field(None, description="Bytes, such as `4GB`.")
    custom: Frozen[float] = Field(
        default_factory=FrozenDict,
        description="Custom resources of the cluster.",
    )
    workers: int = Field(
        1,
        ge=1,
        description="Number of workers of a trial, each with these resources, reserved together (a "
        "gang).",
    )
    strategy: Strategy = Field(
        "PACK",
        description="Where the workers of a gang are placed, in Ray's words: `PACK`, on few nodes; "
        "`SPREAD`, on many; `STRICT_PACK`, on one node; `STRICT_SPREAD`, each on its own node.",
    )

    @field_validator("gpu")
    @classmethod
    def _fraction_or_whole(cls, gpu: float) -> float:
        if gpu > 1 and gpu != int(gpu):
            raise ValueError(
                "more than one GPU must be a whole number: a fraction shares a single device",
            )
        return gpu

    @model_validator(mode="after")
    def _places_several(self) -> Resources:
        if self.workers == 1 and self.strategy != "PACK":
            raise ValueError(
                f"`strategy: {self.strategy}` places the workers of a gang, and a trial has one: "
                "add `workers: N`, or leave `strategy` out"
            )
        return self


class Retries(SpecModel):
    """Number of retries of a trial, counted separately for each class of failure."""

    lost: int = Field(3, ge=0, description="The worker's process died.")
    stalled: int = Field(
        3,
        ge=0,
        description="The worker sent no heartbeat for `limits.stall`.",
    )
    node: int = Field(10, ge=0, description="The worker's node went away.")
    preempted: int = Field(100, ge=0, description="The worker's node was taken back.")
    host_oom: int = Field(
        1,
        ge=0,
        description="It ran out of main memory, perhaps because of other processes on its node.",
    )
    gpu_oom: int = Field(0, ge=0, description="It ran out of GPU memory.")
    error: int = Field(0, ge=0, description="The objective raised.")
    nan: int = Field(0, ge=0, description="The result is not a number, or infinite.")
    timeout: int = Field(0, ge=0, description="It ran longer than `limits.wall`.")
    silence: int = Field(
        0,
        ge=0,
        description="It did not report for `limits.silence`.",
    )


class Limits(SpecModel):
    """Limits that end an attempt that does not end by itself, and a study in which every trial
    fails."""

    wall: Duration | None = Field(None, description="The longest that one attempt may take.")
    silence: Duration | None = Field(None, description="The longest without a report.")
    stall: Duration = Field(
        600.0,
        ge=15,
        description="The longest time without a heartbeat of a worker, frozen or unreachable.",
    )
    grace: Duration = Field(
        10.0,
        description="From the request to stop until the worker is killed.",
    )
    orphan: Duration = Field(
        3600.0,
        description="How long workers on a shared cluster continue without a coordinator.",
    )
    failures: int = Field(
        8,
        ge=1,
        description="A run ends when so many trials have failed and none has a result. `nan` and "
        "`gpu_oom` do not count: the sampler learns from them which regions to avoid.",
    )


class Keep(SpecModel):
    """Number of checkpoints kept for each trial; `tune checkpoint` copies the best one."""

    best: int = Field(
        1,
        ge=0,
        description="Number kept with the best values of the first metric.",
    )
    last: int = Field(
        1,
        ge=1,
        description="Number kept of the newest; a retried trial continues from the last one.",
    )


class Environment(SpecModel):
    """Environment of a worker's process, besides the code."""

    env: Frozen[Text] = Field(default_factory=FrozenDict, description="Environment variables.")
    pip: Tuple[Text] = Field((), description="Requirements installed for the workers.")
    isolation: Literal["reuse", "process"] = Field(
        "reuse",
        description="`reuse`: trials share a warm process in turns. `process`: each has a new one"
        " and runs in its main thread, where it may handle signals. A program of `command` is a"
        " process anyway; each trial with several `workers` has a new process, and a thread of it.",
    )
