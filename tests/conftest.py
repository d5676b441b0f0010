"""Postgres for the tests: one real embedded server per session, and databases of one test each.

And one local Ray per session, from `tests.support.ray_fixtures`. A run of all tests is two such sessions at
once, which share nothing but the machine.
"""

from __future__ import annotations

import compileall
import gc
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings

import tunesvc
from tests.support.database_pool import DatabasePool
from tests.support.ray_fixtures import local_ray  # noqa: F401  # a fixture: its name is its use
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.engine.database import Database, open_database

# No deadline on a busy machine, and the same examples in every run: more of them would find nothing new the next time.
settings.register_profile("tests", parent=settings.get_profile("ci"), max_examples=50)
settings.load_profile("tests")

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


def pytest_collection_finish() -> None:
    """Exempt what is there now from garbage collection: workers collect between attempts, which
    takes a quarter of a second in a process that has imported everything and collected all tests."""
    gc.collect()
    gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test whose docstring names a fault of docs/reliability.md bears the mark `fault`:

    `pytest -m fault`.
    """
    named = FAULT_NUMBERS.search(getattr(getattr(item, "function", None), "__doc__", None) or "")
    if named is not None:
        item.add_marker(pytest.mark.fault(*map(int, re.findall(r"\d+", named[1]))))


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
def databases(postgres: EmbeddedServer) -> DatabasePool:
    """Databases of the session's server, for one test or module at a time."""
    return DatabasePool(postgres.url)


@pytest.fixture
def database_url(databases: DatabasePool) -> Iterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    with databases.migrated() as url:
        yield url


@pytest.fixture
def empty_url(databases: DatabasePool) -> Iterator[str]:
    """The URL of a database without any table."""
    with databases.empty() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database of this test's own."""
    with open_database(database_url, migrate=False) as database:
        yield database


@pytest.fixture(scope="module")
def shared_database(databases: DatabasePool) -> Iterator[Database]:
    """A migrated database for all tests of a module, for suites whose every test makes a study
    of its own."""
    with databases.migrated() as url, open_database(url) as database:
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
