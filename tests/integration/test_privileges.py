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
from tunesvc.db.schema import service_tables
from tunesvc.db.schema.migrations import VERSION_TABLE
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


SECRET_COLUMNS = {"digest", "url", "body", "address"}
"""Names of columns that hold a secret, a digest of one, or an answer that may hold one."""
HARMLESS = {"snapshots.digest", "agent_jobs.digest", "audit.address", "nodes.address"}
"""Digests of content that is no secret, and addresses of requests and nodes."""


def test_every_table_with_a_secret_is_one_that_a_reader_does_not_see() -> None:
    """A table of a later migration has to be listed, or its column named otherwise."""
    with_secrets = {
        table.name
        for table in service_tables.metadata.sorted_tables
        for column in table.columns
        if column.name in SECRET_COLUMNS and f"{table.name}.{column.name}" not in HARMLESS
    }
    assert with_secrets == SECRET_TABLES


def test_no_role_can_do_more_than_it_is_for_to_any_table(database: Database, role: str) -> None:
    """All tables, those of later migrations too."""
    tables = [*service_tables.metadata.tables, VERSION_TABLE]
    for kind in RoleKind:
        grant_privileges(database, role, kind)
        with open_database(url_of(database, role)) as own:
            for table in tables:
                owned = (
                    "SELECT",
                    "INSERT",
                    "UPDATE",
                    "DELETE",
                    "TRUNCATE",
                    "REFERENCES",
                    "TRIGGER",
                )
                query = ", ".join(f"has_table_privilege('{table}', '{one}')" for one in owned)
                (row,) = own.rows(sa.text(f"SELECT {query}"))
                granted = {one for one, has in zip(owned, row, strict=True) if has}
                if kind is RoleKind.READER:
                    assert granted == (set() if table in SECRET_TABLES else {"SELECT"}), table
                elif table == VERSION_TABLE:
                    assert granted == {"SELECT"}
                else:
                    assert granted == {"SELECT", "INSERT", "UPDATE", "DELETE"}, table
            for change in (
                "DROP TABLE {}",
                "ALTER TABLE {} ADD COLUMN x int",
                "TRUNCATE {}",
                "ALTER TABLE {} DISABLE TRIGGER ALL",
                "CREATE TABLE IF NOT EXISTS x{} (x int)",
            ):
                with pytest.raises(sa.exc.ProgrammingError, match=DENIED):
                    execute(own, change.format("tokens"))


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
