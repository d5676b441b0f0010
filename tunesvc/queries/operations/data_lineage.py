"""Studies by version of prepared data, and versions by study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import studies, study_attrs
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope

DATA_USED = "tunesvc:data"
"""System attribute of a study: what it used."""
ROWS_OF = "tunesvc:rows_of"
"""System attribute of a study that a watch made: the version whose rows it uses, whatever its
source gives by then."""


@dataclass(frozen=True, slots=True)
class DataUsed:
    """The prepared data of a study."""

    version: str
    source: str
    rows: Mapping[str, int]
    """Number of rows by part."""
    features: int
    warnings: tuple[str, ...] = ()
    test_rows: str = ""
    """Digest of the rows of the test part, see `DataManifest`; empty where it is not known."""
    validation_ratio: float = 0.0
    """Validation rows per training row, of folds their mean."""


@dataclass(frozen=True, slots=True)
class StudyOfData:
    """A study that used some data."""

    study_id: int
    name: str
    data: DataUsed


def get_data(database: Database, study_id: int) -> DataUsed | None:
    """Return the data that a study used; None if it has none, or has not begun."""
    row = next(iter(database.rows(_query().where(studies.c.study_id == study_id))), None)
    return None if row is None else _used(row.value)


def get_rows_of(database: Database, study_id: int) -> str:
    """Return the version whose rows a study uses; empty for those that its source gives."""
    query = sa.select(study_attrs.c.value).where(
        study_attrs.c.study_id == study_id,
        study_attrs.c.kind == "system",
        study_attrs.c.name == ROWS_OF,
    )
    row = next(iter(database.rows(query)), None)
    return "" if row is None else str(json.loads(row.value))


def list_studies_of_data(
    database: Database, scope: StudyScope = ALL_STUDIES
) -> tuple[StudyOfData, ...]:
    """Return the studies that used prepared data, by name."""
    rows = database.rows(_query().where(scope.condition()).order_by(studies.c.name))
    return tuple(StudyOfData(row.study_id, row.name, _used(row.value)) for row in rows)


def _query() -> sa.Select[tuple[int, str, str]]:
    return (
        sa.select(studies.c.study_id, studies.c.name, study_attrs.c.value)
        .join(study_attrs, study_attrs.c.study_id == studies.c.study_id)
        .where(study_attrs.c.kind == "system", study_attrs.c.name == DATA_USED)
    )


def _used(value: str) -> DataUsed:
    fields = json.loads(value)
    return DataUsed(**{**fields, "warnings": tuple(fields["warnings"])})
