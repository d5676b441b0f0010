"""Makes, fits and uses the transformer of a study's data, by scikit-learn.

Runs in the preparation's process.
"""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from tunesvc.errors import DataError
from tunesvc.preparation.feature_frame import is_categorical, is_numeric
from tunesvc.spec.sections.data_keys import Data, DataStep, Transformer
from tunesvc.util.suggestions import suggest

Load = Callable[[str], Any]

_NAMED: dict[str, Callable[..., Any]] = {
    "standardize": StandardScaler,
    "normalize": MinMaxScaler,
    "impute": SimpleImputer,
    "encode": OneHotEncoder,
    "ordinal": OrdinalEncoder,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "encode": {"handle_unknown": "ignore", "sparse_output": False},
    "ordinal": {"handle_unknown": "use_encoded_value", "unknown_value": -1},
}


def make_transformer(data: Data, schema: pa.Schema, load: Load) -> Any:
    """Return an unfitted transformer for the features of a schema.

    Raises:
        DataError: a step names a column that is not there or has another type, or refuses its
            options.
    """
    if data.transformer is not None:
        return _instance(data.transformer, load, {})
    steps = []
    seen: dict[str, int] = {}
    for number, step in enumerate(data.steps):
        columns = _columns_of(step, schema, number)
        for name in columns:
            if name in seen:
                raise DataError(
                    f"steps {seen[name]} and {number} both have column {name!r}: name it in one, "
                    "and list its transformers there in `apply`"
                )
            seen[name] = number
        if columns:
            chain = make_pipeline(*(_transformer(one, load) for one in step.apply))
            steps.append((f"step{number}", chain, columns))
    if not steps:
        return Pipeline([("keep", "passthrough")])
    return ColumnTransformer(steps, remainder="passthrough", verbose_feature_names_out=False)


def fit(transformer: Any, frame: pd.DataFrame, target: Any) -> None:
    """Fit a transformer on the training part.

    Raises:
        DataError: it cannot be fitted.
    """
    _quietly(lambda: transformer.fit(frame, target), "cannot be fitted")


def transform(transformer: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the transformed rows, with names, as numbers of one type where all are numbers.

    Raises:
        DataError: they cannot be transformed.
    """
    result = _quietly(lambda: transformer.transform(frame), "cannot be used")
    if hasattr(result, "toarray"):
        result = result.toarray()
    if not isinstance(result, pd.DataFrame):
        result = pd.DataFrame(np.asarray(result), columns=_names(transformer, frame, result))
    result.columns = pd.Index([str(name) for name in result.columns])
    if twice := result.columns[result.columns.duplicated()].tolist():
        raise DataError(f"the transformer returns two columns {twice[0]!r}: give them other names")
    return _of_one_type(result.infer_objects())


def transform_rows(transformer: Any, frame: pd.DataFrame, *, by_row: bool) -> pd.DataFrame:
    """Return the transformed rows; with `by_row` each is transformed alone."""
    if not by_row:
        return transform(transformer, frame)
    rows = [transform(transformer, frame.iloc[[row]]) for row in range(len(frame))]
    return pd.concat(rows, ignore_index=True)


def dump(transformer: Any) -> bytes:
    """Return a fitted transformer as bytes.

    Raises:
        DataError: it holds what cannot be stored, such as a lambda.
    """
    try:
        return pickle.dumps(transformer, protocol=5)
    except Exception as error:  # objects may raise anything
        raise DataError(
            f"the fitted transformer cannot be stored: {error}. Use functions and classes of a "
            "module in place of lambdas"
        ) from error


def _columns_of(step: DataStep, schema: pa.Schema, number: int) -> list[str]:
    if not isinstance(step.columns, str):
        for name in step.columns:
            if name not in schema.names:
                hint = suggest(name, schema.names)
                raise DataError(f"data.steps[{number}]: there is no feature {name!r}{hint}")
        listed = list(step.columns)
    else:
        listed = [field.name for field in schema if _is_of_kind(field.type, step.columns)]
    for name in listed:
        _check_kind(name, schema.field(name).type, step, number)
    return listed


def _check_kind(name: str, kind: pa.DataType, step: DataStep, number: int) -> None:
    """Refuse text where the first transformer that minds computes with numbers."""
    for one in step.apply:
        if one.is_imported or one.name in ("encode", "ordinal"):
            return
        if one.name in ("standardize", "normalize") and not is_numeric(kind):
            raise DataError(
                f"data.steps[{number}]: `{one.name}` needs numbers, and column {name!r} is "
                f"{kind}: encode it, or leave it out"
            )


def _is_of_kind(kind: pa.DataType, columns: str) -> bool:
    is_meant = columns in ("numeric", "all") and is_numeric(kind)
    return is_meant or (columns in ("categorical", "all") and is_categorical(kind))


def _transformer(named: Transformer, load: Load) -> Any:
    if named.is_imported:
        return _instance(named.name, load, named.options)
    return _made(named.name, _NAMED[named.name], _DEFAULTS.get(named.name, {}) | named.options)


def _instance(import_path: str, load: Load, options: dict[str, Any]) -> Any:
    """Return a transformer: what is named itself, or what the named class or function returns."""
    found = load(import_path)
    made = _made(import_path, found, options) if _is_maker(found) else found
    if not hasattr(made, "fit") or not hasattr(made, "transform"):
        raise DataError(
            f"{import_path!r} is no transformer: it needs the methods `fit` and `transform` of "
            "scikit-learn"
        )
    return made


def _is_maker(found: Any) -> bool:
    return inspect.isclass(found) or not hasattr(found, "fit")


def _made(name: str, make: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return make(**options)
    except Exception as error:
        raise DataError(f"{name!r} refuses its options: {error}") from error


def _quietly(call: Callable[[], Any], failing: str) -> Any:
    """Call a transformer; its warnings are about rows that the statistics report, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except DataError:
        raise
    except Exception as error:  # transformers may raise anything
        text = " ".join(str(error).split())[:500]
        raise DataError(f"the transformer {failing}: {type(error).__name__}: {text}") from error


def _names(transformer: Any, frame: pd.DataFrame, result: Any) -> list[str]:
    try:
        return [str(name) for name in transformer.get_feature_names_out()]
    except Exception:  # noqa: BLE001  # optional in scikit-learn; any transformer may lack it
        width = np.asarray(result).shape[1]
        if width == frame.shape[1]:
            return [str(name) for name in frame.columns]
        return [f"x{number}" for number in range(width)]


def _of_one_type(frame: pd.DataFrame) -> pd.DataFrame:
    kinds = [kind for kind in frame.dtypes if isinstance(kind, np.dtype) and kind.kind in "biuf"]
    if len(kinds) < len(frame.columns) or not kinds:
        return frame
    common = np.result_type(np.float32, *kinds) if len(set(kinds)) > 1 else kinds[0]
    return frame.astype(np.float64 if common.kind == "b" else common)
