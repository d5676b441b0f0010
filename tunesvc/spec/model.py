"""The frozen, validated `StudySpec` and its parts.

Owns the names, types and defaults of study.yaml, and the range of each value. Rules between several
values are in `spec.checks`; files, lines and YAML are in `spec.yaml.document`. Imports neither
Optuna nor the database.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Strict,
    Tag,
    field_validator,
    model_validator,
)

from tunesvc.spec.frozen_dict import FrozenDict
from tunesvc.spec.goals import Goal
from tunesvc.spec.text import MAX_NAME, check_json, check_name, check_text
from tunesvc.spec.units import parse_bytes, parse_duration_s
from tunesvc.util import formatting

T = TypeVar("T")

Scalar = bool | int | float | str | None
ParamValue = Scalar

PARALLELISM_MAX = 2**31 - 1
MAX_EXACT = 2**53
"""Optuna and the database store a parameter as a double, which is exact for integers up to here."""


def _scalar(value: object) -> object:
    if not isinstance(value, Scalar):
        # pydantic reports ValueError only
        raise ValueError("must be text, a number, true, false or null")  # noqa: TRY004
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"needs a finite number, found {value}")
    return value


def _choice(value: object) -> object:
    """Check one value of a categorical parameter; lists become tuples at every level."""
    if isinstance(value, (list, tuple)):
        return tuple(_choice(item) for item in value)
    if not isinstance(value, Scalar):
        text = "must be text, a number, true, false, null or a list of those"
        raise ValueError(text)  # noqa: TRY004 as above
    checked = _scalar(value)
    return check_text(checked) if isinstance(checked, str) else checked


def as_choice(value: Any) -> Scalar:
    """Return the scalar that the search uses for a choice: a list's JSON text. See
    `spec.choices`."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def _json(value: JsonValue) -> JsonValue:
    check_json(value)
    return value


Text = Annotated[str, AfterValidator(check_text)]
"""Text that the database can hold."""
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(check_name)]
"""Text that can be listed and typed: no control characters, no bidirectional overrides."""
Value = Annotated[bool | int | float | Text | None, BeforeValidator(_scalar)]
"""A scalar that JSON and the database can hold."""
Choice = Annotated[bool | int | float | str | tuple[Any, ...] | None, BeforeValidator(_choice)]
"""A scalar, or a list of choices."""
Json = Annotated[JsonValue, AfterValidator(_json)]
Tuple = Annotated[tuple[T, ...], Strict(False)]
"""A tuple that may be given as a list."""
Frozen = Annotated[Mapping[Name, T], AfterValidator(FrozenDict)]
"""A mapping from names that cannot be changed."""
Duration = Annotated[float, BeforeValidator(parse_duration_s), Field(gt=0)]
"""Seconds; written as a number of seconds or as `90s`, `15m`, `12h`, `3d`, `1h30m`."""
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
"""Bytes; written as a number of bytes or as `512MB`, `4GB`, `1.5GiB`."""


class SpecModel(BaseModel):
    """A piece of the spec: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )


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


def _one_or_several(written: object) -> object:
    """Parse one value or several here: pydantic would try both and report errors of both."""
    if not isinstance(written, (list, tuple)):
        return _scalar(written)
    return tuple(as_choice(_choice(value)) for value in written)


WhenValues = Annotated[Scalar | tuple[Scalar, ...], BeforeValidator(_one_or_several)]
When = Frozen[WhenValues]
"""Parent's name -> the value, or values, under which this parameter exists."""

_WHEN = Field(
    None,
    description="Exists only if each named parameter has the given value, or one of the values.",
)


class FloatParameter(SpecModel):
    """A real number between `min` and `max`, both included."""

    type: Literal["float"]
    min: float = Field(description="The least value.")
    max: float = Field(description="The greatest value.")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: float | None = Field(None, gt=0, description="Only `min + k * step`.")
    when: When | None = _WHEN

    @model_validator(mode="after")
    def _bounds(self) -> FloatParameter:
        _check_bounds(self.min, self.max, self.log, self.step)
        return self


class IntParameter(SpecModel):
    """A whole number between `min` and `max`, both included."""

    type: Literal["int"]
    min: int = Field(ge=-MAX_EXACT, le=MAX_EXACT, description="The least value.")
    max: int = Field(ge=-MAX_EXACT, le=MAX_EXACT, description="The greatest value.")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: int | None = Field(None, gt=0, description="Only `min + k * step`.")
    when: When | None = _WHEN

    @model_validator(mode="after")
    def _bounds(self) -> IntParameter:
        _check_bounds(self.min, self.max, self.log, self.step)
        return self


class CategoricalParameter(SpecModel):
    """One of a few unordered values."""

    type: Literal["categorical"] = "categorical"
    values: Tuple[Choice] = Field(
        min_length=1,
        description="The choices: text, numbers, true, false, null, or lists of those.",
    )
    when: When | None = _WHEN

    @cached_property
    def choices(self) -> tuple[Scalar, ...]:
        """The values as the search uses them: a list as its JSON text."""
        return tuple(as_choice(value) for value in self.values)

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        first: dict[Scalar, Any] = {}
        for value in values:
            known = as_choice(value)
            if known in first:
                pair = f"{first[known]!r} and {value!r}"
                raise ValueError(f"the values must be distinct: {pair} are equal")
            first[known] = value
        return values


Parameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter,
    Field(discriminator="type"),
]


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


class Transformer(NamedComponent):
    """One transformer of scikit-learn; every other key is passed to it as an option."""

    name: Name = Field(
        description="standardize (z-score), normalize (0 to 1), impute, encode (one-hot), ordinal; "
        "for others see `class`.",
    )


class DataStep(SpecModel):
    """Transformers for some columns, one after the other, fitted on the training part alone. A
    column that no step names stays as it is."""

    columns: Literal["numeric", "categorical", "all"] | Tuple[Name] = Field(
        "numeric",
        description="Names of columns, or all that are numeric, categorical (text, true and false),"
        " or both.",
    )
    apply: Tuple[Transformer] = Field(
        min_length=1,
        description="Transformers in order: a name, or a mapping with options.",
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _kind_or_names(cls, written: object) -> object:
        if isinstance(written, str) and written not in _COLUMN_KINDS:
            raise ValueError(f"write a list of names, or one of {', '.join(_COLUMN_KINDS)}")
        return tuple(written) if isinstance(written, list) else written


_COLUMN_KINDS = ("numeric", "categorical", "all")


class DataSplit(SpecModel):
    """How rows are split into a part to train on, one to validate on and one to test on, which no
    trial gets. Fixed by the data and these keys."""

    validation: float = Field(0.2, gt=0, lt=1, description="Share of the rows to validate on.")
    test: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the rows that no trial gets; 0: none.",
    )
    stratify: bool = Field(False, description="Each part has the target's classes in proportion.")
    group: Name | None = Field(
        None,
        description="A column whose equal values stay in one part; it is no feature.",
    )
    time: Name | None = Field(
        None,
        description="A column to order the rows by: the last ones are the test part, those before "
        "them the validation part; it is no feature.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds the order of the rows.")
    draw: int = Field(
        0,
        ge=0,
        lt=2**16,
        description="Number of a random draw of the training and validation part, or of folds; the "
        "test part is the same in all of them. `tune watch` compares on folds of another draw.",
    )

    @model_validator(mode="after")
    def _fits(self) -> DataSplit:
        if self.validation + self.test >= 1:
            raise ValueError("`validation` and `test` leave nothing to train on: their sum is 1")
        ways = {"stratify": self.stratify, "group": self.group, "time": self.time}
        if len(given := [name for name, way in ways.items() if way]) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} exclude each other")
        return self


def _text_or(other: str, *types: type) -> Discriminator:
    """Select by its type the form in which a value is written, so that errors are about that."""
    return Discriminator(lambda written: other if isinstance(written, types) else "text")


_WrittenText = Annotated[str, Field(min_length=1), AfterValidator(check_text), Tag("text")]


class FeatureStore(SpecModel):
    """Features of a Feast repository, joined with rows of entities as they were at each row's
    time."""

    feast: Text = Field(
        min_length=1,
        description="The folder of the repository, which has `feature_store.yaml`.",
    )
    entities: Text = Field(
        min_length=1,
        description="CSV or Parquet files with the keys of entities, `event_timestamp`, and mostly "
        "the target. Keys and time are no features.",
    )
    features: Annotated[
        _WrittenText | Annotated[Tuple[Text], Field(min_length=1), Tag("list")],
        _text_or("list", list, tuple),
    ] = Field(description="The name of a feature service, or a list of `view:feature`.")

    def __str__(self) -> str:
        named = self.features if isinstance(self.features, str) else ", ".join(self.features)
        return f"{named} of {self.feast}"


class Data(SpecModel):
    """Data that is prepared once and given to every trial as `trial.data`."""

    source: Annotated[
        _WrittenText | Annotated[FeatureStore, Tag("mapping")],
        _text_or("mapping", Mapping, SpecModel),
    ] = Field(
        description="`module:function` that returns a table or `(X, y)`; or the path, pattern or "
        "URL of CSV or Parquet files; or a feature store.",
    )
    target: Name | None = Field(None, description="The column to predict.")
    drop: Tuple[Name] = Field((), description="Columns that are left out.")
    split: DataSplit = Field(
        default_factory=DataSplit, description="How rows are split into parts."
    )
    steps: Tuple[DataStep] = Field((), description="How columns are transformed.")
    transformer: Text | None = Field(
        None,
        description="In place of `steps`: the import path of a transformer of scikit-learn, such as"
        " a `ColumnTransformer`, or of a function that returns one.",
    )


class Evaluation(SpecModel):
    """How a trial is judged: once, on each fold of the data, or with each of several seeds.

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

    def blocks_of(self, number: int) -> tuple[int, ...]:
        """Return the folds or repeats of a trial, in the order of its steps.

        It is the same for all trials if each evaluates all of them.
        """
        first = number * self.steps
        return tuple((first + step) % self.count for step in range(self.steps))


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


Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
"""How Ray places the bundles of a placement group."""


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


def migrate_seeds(spec: dict[str, Any]) -> None:
    """Replace `seeds: N`, which specs of earlier versions have, by its evaluation."""
    seeds = spec.pop("seeds", None)
    if seeds is not None:
        spec["evaluation"] = {"repeats": seeds, "per_trial": 1}


class Watch(SpecModel):
    """How `tune watch` keeps the study's champion fresh when the data change."""

    budget: Budget | None = Field(
        None,
        description="Budget of a re-tune; half of the study's by default.",
    )
    level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Bound on the probability of a re-tune for data that have not drifted, and of a"
        " promotion of a challenger that is not better.",
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
        "which it is posted to.",
    )
    registry: Literal["mlflow"] | None = Field(
        None,
        description="Where each promotion becomes a run.",
    )


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
        description="How a trial is judged: on folds, with several seeds, by scorers.",
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
    def shared_seeds(self) -> int | None:
        """Number of sets of folds or repeats that trials have in turns; None if all are alike."""
        if self.evaluation is None or self.evaluation.turns == 1:
            return None
        return self.evaluation.turns

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
        """Names of the scorers that judge a trial's model; empty if the objective judges it."""
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


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"`min` ({low:g}) is greater than `max` ({high:g})")
    if not math.isfinite(high - low):
        raise ValueError(f"the range from {low:g} to {high:g} is too wide for a double")
    if log and low <= 0:
        raise ValueError(f"`log: true` needs a `min` above 0, not {low:g}")
    if log and step is not None:
        raise ValueError("`log` and `step` exclude each other")
    if step is not None and (high - low) / step > MAX_EXACT:
        raise ValueError(f"`step` ({step:g}) is too fine for the range from {low:g} to {high:g}")
