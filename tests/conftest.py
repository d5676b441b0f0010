"""Postgres for the tests: one real embedded server per session, one migrated template, one clone of
it per test.

And one local Ray per session, from `tests.support.ray_fixtures`. A run of all tests is two such sessions at
once, which share nothing but the machine.
"""

from __future__ import annotations

import compileall
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from hypothesis import settings

import tunesvc
from tests.support.ray_fixtures import local_ray  # noqa: F401  # a fixture: its name is its use
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.engine.database import Database, open_database

settings.load_profile("ci")  # no deadline on a busy machine, and the same examples in every run

FAULT_NUMBERS = re.compile(r"\bFaults? ((?:\d+(?:, | and )?)+)")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers for all tests; none where files are named, since starting them would take
    longer than it saves."""
    return 2 if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once, for all programs that the tests start; each would compile it for
    half a second where PYTHONDONTWRITEBYTECODE keeps the first from writing down what it
    compiled."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(tunesvc.__file__).parent, quiet=2)


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test whose docstring names a fault of docs/reliability.md bears the mark `fault`:

    `pytest -m fault`.
    """
    named = FAULT_NUMBERS.search(getattr(getattr(item, "function", None), "__doc__", None) or "")
    if named is not None:
        item.add_marker(pytest.mark.fault(*map(int, re.findall(r"\d+", named[1]))))


_TEMPLATE = "template_tunesvc"
_NUMBERS = count(1)


@pytest.fixture(scope="session")
def tune_home() -> Iterator[Path]:
    """A data directory that the server's account can enter, which pytest's own directories
    (0700) are not."""
    home = Path(tempfile.mkdtemp(prefix="tunesvc-tests-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres(tune_home: Path) -> Iterator[EmbeddedServer]:
    """The session's server. It does without fsync: no test asks it to survive a power cut."""
    server = EmbeddedServer(tune_home, settings={"fsync": "off", "max_connections": "200"})
    yield server
    server.close()


@pytest.fixture(scope="session")
def template(postgres: EmbeddedServer) -> str:
    """The name of a database that was migrated once, for cloning."""
    _run(postgres, f"CREATE DATABASE {_TEMPLATE}")
    open_database(_url(postgres, _TEMPLATE)).close()
    return _TEMPLATE


@pytest.fixture
def database_url(postgres: EmbeddedServer, template: str) -> Iterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    with _database(postgres, f"TEMPLATE {template} STRATEGY WAL_LOG") as url:
        yield url


@pytest.fixture
def empty_url(postgres: EmbeddedServer) -> Iterator[str]:
    """The URL of a database without any table."""
    with _database(postgres, "") as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database of this test's own."""
    with open_database(database_url, migrate=False) as database:
        yield database


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedServer, template: str) -> Iterator[Database]:
    """A migrated database for all tests of a module, for suites whose every test makes a study
    of its own."""
    with (
        _database(postgres, f"TEMPLATE {template} STRATEGY WAL_LOG") as url,
        open_database(url) as database,
    ):
        yield database


@pytest.fixture
def set_away(postgres: EmbeddedServer, database: Database) -> Callable[[bool], None]:
    """Have the server refuse this test's database and cut its connections, or take it again."""
    name = database.engine.url.database
    admin = sa.create_engine(postgres.url.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def set_away(away: bool) -> None:
        with admin.connect() as connection:
            connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not away}"))
            if away:
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
                    ),
                    {"name": name},
                )
        admin.dispose()

    return set_away


@contextmanager
def _database(postgres: EmbeddedServer, options: str) -> Iterator[str]:
    name = f"test_{next(_NUMBERS)}"
    _run(postgres, f"CREATE DATABASE {name} {options}")
    try:
        yield _url(postgres, name)
    finally:
        _run(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _url(postgres: EmbeddedServer, name: str) -> str:
    return postgres.url.set(database=name).render_as_string(hide_password=False)


def _run(postgres: EmbeddedServer, statement: str) -> None:
    url: sa.URL = postgres.url
    connection = psycopg2.connect(
        host=url.query["host"],
        port=url.query["port"],
        user=url.username,
        password=url.password,
        dbname="postgres",
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()
