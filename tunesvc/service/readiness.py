"""Readiness of a server: the reasons why it cannot do its work."""

from __future__ import annotations

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.schema import migrations
from tunesvc.errors import DatabaseError
from tunesvc.service.study_supervisor import StudySupervisor


def find_problems(database: Database, supervisor: StudySupervisor) -> list[str]:
    """Return why a server is not ready; nothing if it is."""
    problems = [_database_problem(database), supervisor.problem]
    return list(dict.fromkeys(filter(None, problems)))


def _database_problem(database: Database) -> str:
    try:
        with translate_unavailable(), database.engine.connect() as connection:
            migrations.check(connection)
    except DatabaseError as error:
        return str(error)
    return ""
