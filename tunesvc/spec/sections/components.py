"""Components by name or import path: samplers, pruners and loggers."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from tunesvc.spec.sections.field_types import Json, Name

OBJECT = "object"
"""Name of a sampler or pruner object from Python. Only its class is stored."""

CLASS_FORM = "write `module:Name` or `path/file.py:Name`, such as `optuna.samplers:QMCSampler`"


class NamedComponent(BaseModel):
    """A name; every other key is an option of the named component."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        strict=True,
        allow_inf_nan=False,
    )
    name: Name
    __pydantic_extra__: dict[str, Json] = Field(init=False)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments for the named component."""
        return dict(self.__pydantic_extra__)

    @property
    def is_imported(self) -> bool:
        """True if the name is that of a class to import, `module:Name`."""
        return ":" in self.name

    @property
    def is_foreign(self) -> bool:
        """True if its code is the user's: a class to import, or an object from Python."""
        return self.is_imported or self.name == OBJECT


class Sampler(NamedComponent):
    """The sampler that proposes trials; every other key is passed to it as an option."""

    name: Name = Field(
        "auto",
        description="Such as tpe, gp, random, qmc, cmaes, nsga2; for others see `class`.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="Overrides the study's seed for the sampler.",
    )


class Pruner(NamedComponent):
    """The pruner that stops poor trials; every other key is passed to it as an option. `auto` and
    `curve` take `chance`, `startup`, `min`, `audit`, `seed` and `resume`; `paired`, which `auto` is
    where folds or repeats are steps, takes `chance`, `startup`, `audit` and `seed`; `asha` takes
    `min`, `max`, `eta` and `form`, `stop` or `promote`; `hyperband` needs `max`; `patient` takes
    `patience` and `wrapped`, another pruner; the others take Optuna's options."""

    name: Name = Field(
        "auto",
        description="auto, curve, paired, asha, hyperband, median, percentile, threshold, "
        "patient, wilcoxon or none, for others see `class`; with several metrics auto, curve, "
        "paired, asha or none.",
    )


class Logger(NamedComponent):
    """A logger, which sends trials to a tracker; every other key is passed to it as an option.
    `mlflow` takes `tracking_uri` and `experiment`; `wandb` takes `project`, `entity`, `dir` and
    `mode`, `offline` or `online`; `tensorboard` takes `logdir`."""

    name: Name = Field(description="mlflow, wandb or tensorboard; for others see `class`.")
