"""Reads features from a Feast repository, as they were at the time of each row of entities.

Runs in the preparation's process. Imports Feast, of the extra `tunesvc[feast]`, when it reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesvc.errors import DataError
from tunesvc.preparation.table_source import (
    SourceTable,
    digest_inputs,
    digest_table,
    read_files,
)
from tunesvc.spec.sections.data_keys import FeatureStore
from tunesvc.util.suggestions import suggest

TIME = "event_timestamp"
"""Feast's name of the column with the time of each row."""
_ROW = "tunesvc_row"
"""Column with the number of each row, since Feast returns rows in another order."""


def read_features(source: FeatureStore, folder: Path) -> SourceTable:
    """Return the rows of entities with their features, in the order of the entities' files.

    Raises:
        DataError: Feast or the repository is not there, or cannot serve these rows.
    """
    entities = read_files(source.entities, folder, digest_inputs(source.entities, folder)).table
    if TIME not in entities.column_names:
        hint = suggest(TIME, entities.column_names)
        raise DataError(f"{source.entities} has no column {TIME!r}, the time of each row{hint}")
    store = _open(folder / source.feast)
    numbered = entities.append_column(_ROW, pa.array(range(entities.num_rows)))
    try:
        joined = store.get_historical_features(
            entity_df=numbered.to_pandas(),
            features=_requested(store, source),
        ).to_arrow()
        keys = {entity.join_key for entity in store.list_entities()}
    except Exception as error:  # Feast's stores have exceptions of their own
        raise DataError(f"{source}: {_describe(error, source.entities)}") from error
    if joined.num_rows != entities.num_rows:
        raise DataError(
            f"{source} returned {joined.num_rows} rows for {entities.num_rows} of "
            f"{source.entities}: its features are not unique for an entity and a time"
        )
    table = joined.sort_by(_ROW).drop_columns([_ROW]).replace_schema_metadata(None)
    identifying = tuple(name for name in table.column_names if name in {*keys, TIME})
    return SourceTable(table, (digest_table(str(source), table),), None, identifying)


def _open(repository: Path) -> Any:
    try:
        import feast
    except ModuleNotFoundError:
        raise DataError("a feature store needs Feast: `pip install 'tunesvc[feast]'`") from None
    if not (repository / "feature_store.yaml").is_file():
        raise DataError(
            f"source: {repository} has no `feature_store.yaml`: name the folder of a Feast "
            "repository, from the study file's folder"
        )
    try:
        return feast.FeatureStore(str(repository))
    except Exception as error:
        raise DataError(f"the Feast repository {repository}: {error}") from error


def _requested(store: Any, source: FeatureStore) -> Any:
    if isinstance(source.features, str):
        return store.get_feature_service(source.features)
    return list(source.features)


def _describe(error: Exception, entities: str) -> str:
    """Return an error's first line; a bare name is a column that Feast looked for."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, KeyError) and " " not in text:
        return f"{entities} has no column {text}, a key of these features"
    return text or type(error).__name__
