"""The database and the study that a command reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesvc.db.engine.database import Database
    from tunesvc.queries.rows import StudyView


@contextmanager
def opened_study(name: str, database_url: str | None) -> Iterator[tuple[Database, StudyView]]:
    """Open the database, and read a study.

    Raises:
        StudyNotFound: there is no such study.
    """
    from tunesvc.db.engine.database import open_database
    from tunesvc.queries.studies import get_study

    with open_database(database_url) as database:
        yield database, get_study(database, name)
