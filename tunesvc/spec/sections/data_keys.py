"""Keys of `data`: source, split and steps of preparation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    Field,
    Tag,
    field_validator,
    model_validator,
)

from tunesvc.spec.sections.components import NamedComponent
from tunesvc.spec.sections.field_types import Name, SpecModel, Text, Tuple, WrittenText, text_or
from tunesvc.util.paths import is_url


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
    """Split of the rows into a part to train on, one to validate on and one to test on, which no
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
        "test part is the same in all of them, and so are parts and folds by `time`. `tune watch` "
        "compares on folds of another draw.",
    )

    @model_validator(mode="after")
    def _fits(self) -> DataSplit:
        if self.validation + self.test >= 1:
            raise ValueError("`validation` and `test` leave nothing to train on: their sum is 1")
        ways = {"stratify": self.stratify, "group": self.group, "time": self.time}
        if len(given := [name for name, way in ways.items() if way]) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} exclude each other")
        return self


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
        WrittenText | Annotated[Tuple[Text], Field(min_length=1), Tag("list")],
        text_or("list", list, tuple),
    ] = Field(description="The name of a feature service, or a list of `view:feature`.")

    def __str__(self) -> str:
        named = self.features if isinstance(self.features, str) else ", ".join(self.features)
        return f"{named} of {self.feast}"


def is_function(source: str) -> bool:
    """Return True for `module:function`, and False for a path or URL."""
    module, colon, name = source.partition(":")
    return bool(colon) and not is_url(source) and name.isidentifier() and bool(module)


class Data(SpecModel):
    """Data that is prepared once and given to every trial as `trial.data`."""

    source: Annotated[
        WrittenText | Annotated[FeatureStore, Tag("mapping")],
        text_or("mapping", Mapping, SpecModel),
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
