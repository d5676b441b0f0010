"""Postgres roles: the service's runs studies and cannot change the schema; a reader only reads."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database, connect, open_database
from tunesvc.db.privileges import SECRET_TABLES, RoleKind, grant_privileges
from tunesvc.errors import DatabaseError
from tunesvc.queries.studies import list_studies

DENIED = "permission denied|must be owner"


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A new role without privileges; it asks for no password on the tests' socket."""
    name = f"Role {uuid4().hex[:8]}"
    execute(database, f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'x'")
    yield name
    execute(database, f'DROP OWNED BY "{name}"')
    execute(database, f'DROP ROLE "{name}"')


def execute(database: Database, statement: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(statement))


def url_of(database: Database, role: str) -> str:
    url = database.engine.url.set(username=role, password="x")
    return url.render_as_string(hide_password=False)


def test_the_services_role_runs_a_study_and_changes_no_schema(
    database: Database, role: str
) -> None:
    grant_privileges(database, role, RoleKind.SERVICE)
    with open_database(url_of(database, role)) as own:
        study = Simulation(own, make_spec(budget={"trials": 3}))
        study.run()
        assert study.states() == {"complete": 3}
        for statement in ("DROP TABLE reports", "ALTER TABLE trials ADD COLUMN x int"):
            with pytest.raises(sa.exc.ProgrammingError, match=DENIED):
                execute(own, statement)
        with pytest.raises(sa.exc.ProgrammingError, match=DENIED):
            execute(own, "UPDATE tunesvc_version SET version_num = '0001'")


def test_a_reader_reads_studies_but_no_secrets_and_writes_nothing(
    database: Database, role: str
) -> None:
    Simulation(database, make_spec(budget={"trials": 3})).run()
    grant_privileges(database, role, RoleKind.SERVICE)
    grant_privileges(database, role, RoleKind.READER)  # the later one counts
    with open_database(url_of(database, role)) as own:
        (study,) = list_studies(own, 10)
        assert study.counts.complete == 3
        for statement in (
            "DELETE FROM trials",
            "UPDATE studies SET note = 'x'",
            *(f"SELECT count(*) FROM {table}" for table in SECRET_TABLES),
        ):
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                execute(own, statement)


def test_an_older_schema_is_not_upgraded_by_the_services_role(
    database: Database, role: str
) -> None:
    grant_privileges(database, role, RoleKind.SERVICE)
    execute(database, "UPDATE tunesvc_version SET version_num = '0008'")
    with pytest.raises(DatabaseError, match="run `tune db upgrade` as the owner of its tables"):
        open_database(url_of(database, role))


def test_a_role_that_does_not_exist_is_named_with_the_remedy(database: Database) -> None:
    with pytest.raises(DatabaseError, match=r'"nobody-here" does not exist.*CREATE ROLE'):
        grant_privileges(database, "nobody-here", RoleKind.READER)
    with connect(database.engine.url.render_as_string(hide_password=False)) as same:
        assert list_studies(same, 10) == ()
