"""The frozen, validated `StudySpec`. Its sections are in `sections`, one module for each subject.

Both own the names, types and defaults of study.yaml, and the range of each value. Rules between
several values are in `spec.checks`; files, lines and YAML are in `spec.yaml.document`. They import
neither Optuna nor the database.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from tunesvc.spec.frozen_dict import FrozenDict
from tunesvc.spec.goals import Goal
from tunesvc.spec.sections.budget import Budget, Prices
from tunesvc.spec.sections.components import Logger, Pruner, Sampler
from tunesvc.spec.sections.data_keys import Data
from tunesvc.spec.sections.evaluation_keys import Evaluation, migrate_seeds
from tunesvc.spec.sections.execution_keys import Environment, Keep, Limits, Resources, Retries
from tunesvc.spec.sections.field_types import Frozen, Json, Name, SpecModel, Text, Tuple
from tunesvc.spec.sections.objective import Constraint, Metric
from tunesvc.spec.sections.parameter_types import Parameter
from tunesvc.spec.sections.population_keys import Search
from tunesvc.spec.sections.watch_keys import Watch
from tunesvc.util import formatting

PARALLELISM_MAX = 2**31 - 1


class StudySpec(SpecModel):
    """A study: what is searched, how a trial runs, and how much may be spent. Frozen and valid.

    Raises:
        pydantic.ValidationError: on construction, for any invalid value.
    """

    name: Name = Field(description="The study's name in the database: one study per name.")
    description: Text = Field("", description="What it is about, for its readers.")
    tags: Tuple[Text] = Field((), description="Labels for finding it.")

    entrypoint: Text | None = Field(
        None,
        description="The objective: `module:function` or `path/file.py:function`, in this folder.",
    )
    command: Tuple[Text] | None = Field(
        None,
        min_length=1,
        description="Instead of `entrypoint`: a program and its arguments; `${name}` is a "
        "parameter's value, and `${--name}` an option: `--name=VALUE`, `--name` for true, left out "
        "for false.",
    )

    metrics: Tuple[Metric] = Field(
        min_length=1,
        description="Instead of `metric`: several, for a multi-objective study.",
    )
    constraints: Tuple[Constraint] = Field(
        (),
        description="Bounds that a trial must keep to be feasible.",
    )
    parameters: Frozen[Parameter] = Field(
        default_factory=FrozenDict,
        description="The search space: parameters by name.",
    )
    constants: Frozen[Json] = Field(
        default_factory=FrozenDict,
        description="Constant arguments, passed with the parameters.",
    )

    data: Data | None = Field(
        None,
        description="Data that is prepared once for all trials: `trial.data`.",
    )
    evaluation: Evaluation | None = Field(
        None,
        description="Evaluation of a trial: on folds, with several seeds, by scorers.",
    )
    warm_start: Tuple[Name] = Field(
        (),
        description="Earlier studies with a similar space, for the sampler to learn from.",
    )
    sampler: Sampler = Field(
        default_factory=Sampler,
        description="The sampler that proposes trials.",
    )
    pruner: Pruner = Field(
        default_factory=Pruner,
        description="The pruner that stops poor trials early.",
    )
    search: Search | None = Field(
        None,
        description="Population-based training, or a schedule; in place of `sampler` and `pruner`.",
    )
    budget: Budget = Field(
        description="How much may be spent; the first limit that is reached ends the study. Needed"
        " without `search`.",
    )
    parallelism: int | None = Field(
        None,
        ge=1,
        lt=PARALLELISM_MAX + 1,
        description="Trials at a time; as many as fit when left out.",
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="Resources that one trial requests.",
    )
    cost: Prices | None = Field(
        None,
        description="Prices, from which the cost of trials and of the study follows.",
    )
    retries: Retries = Field(
        default_factory=Retries,
        description="Retries of a trial, by class of failure.",
    )
    limits: Limits = Field(
        default_factory=Limits,
        description="Limits on an attempt, and on failures.",
    )
    keep: Keep = Field(
        default_factory=Keep,
        description="How many checkpoints of each trial are kept.",
    )
    environment: Environment = Field(
        default_factory=Environment,
        description="Environment of the workers' processes.",
    )
    loggers: Tuple[Logger] = Field(
        (),
        description="Trackers that get a run per trial, such as `[mlflow, tensorboard]`, or with "
        "options: `- mlflow: {tracking_uri: http://..., experiment: NAME}`.",
    )
    watch: Watch | None = Field(
        None,
        description="How `tune watch` keeps the champion fresh.",
    )
    cluster: Text | None = Field(
        None,
        description="Address of a Ray cluster; a local one when left out.",
    )
    agents: Literal["only", "also"] | None = Field(
        None,
        description="`only`: agents (`tune agent`) and programs that ask for trials run the study,"
        " and no Ray. `also`: they and Ray do. Left out, Ray does.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="Seeds the sampler, and `trial.seed`.",
    )

    @property
    def is_stepwise(self) -> bool:
        """True if folds or repeats are the steps of a trial, whose value is their mean."""
        return self.evaluation is not None and self.evaluation.is_stepwise

    def standard_error_of(self, metric: str) -> str:
        """Return the name of the metric with the standard error of an objective's mean."""
        return "standard_error" if len(self.metrics) == 1 else f"standard_error/{metric}"

    @property
    def shared_blocks(self) -> int | None:
        """Number of sets of folds or repeats that trials have in turns; None if all are alike."""
        if self.evaluation is None or self.evaluation.turns == 1:
            return None
        return self.evaluation.turns

    @property
    def shared_blocks_text(self) -> str:
        """The number of `shared_blocks` with its noun, such as `5 folds`; empty for None."""
        if self.evaluation is None or self.shared_blocks is None:
            return ""
        noun = "seeds" if self.evaluation.folds is None else "folds"
        of = "" if self.evaluation.steps == 1 else "sets of "
        return f"{self.shared_blocks} {of}{noun}"

    @model_validator(mode="before")
    @classmethod
    def _migrated(cls, stored: Any) -> Any:
        """Read specs that earlier versions have stored."""
        if isinstance(stored, dict) and "seeds" in stored and stored.get("evaluation") is None:
            stored = dict(stored)
            migrate_seeds(stored)
        return stored

    @property
    def directions(self) -> tuple[Goal, ...]:
        """The goal of each metric, in order."""
        return tuple(metric.goal for metric in self.metrics)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that each trial needs a value of: the objectives, then those of
        constraints."""
        names = [metric.name for metric in self.metrics]
        names += [constraint.metric for constraint in self.constraints]
        return tuple(dict.fromkeys(names))

    @property
    def scoring(self) -> tuple[str, ...]:
        """Names of the scorers of a trial's model; empty if the objective returns values."""
        return () if self.evaluation is None else self.evaluation.scoring

    @property
    def has_program(self) -> bool:
        """True if the study names its objective, so that any process can run it.

        One on agents only needs none: programs and people may ask for its trials.
        """
        return self.entrypoint is not None or self.command is not None or self.agents == "only"

    @property
    def resume_command(self) -> str:
        """Command that continues the study, in a shell or in Python."""
        return formatting.resume_command(self.name, has_program=self.has_program)

    @property
    def confirm_command(self) -> str:
        """Command that repeats its finalists, in a shell or in Python."""
        return formatting.confirm_command(self.name, has_program=self.has_program)

    @property
    def define_by_run(self) -> bool:
        """True if the objective declares its parameters itself, as in Optuna."""
        return not self.parameters
