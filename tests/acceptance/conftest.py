"""`tune` in two places: on a database, where commands run studies themselves, and on a server.

A test that uses `tune`, `ran` or `desk` runs in both. `local_tune` and `remote_tune` are for what only one
of them has; `test_places.py` lists the commands of which that is true.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import pytest

from tests.support.accounts import serving_accounts
from tests.support.command_line import Tune, prepared
from tests.support.ray_fixtures import address_of_local_ray
from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.people.accounts import TokenKind
from tunesvc.util.user import whoami
from tunesvc.web import DashboardServer

PLACES = ["local", pytest.param("server", marks=pytest.mark.slow)]


@pytest.fixture
def local_tune(tmp_path: Path, database_url: str, tune_home: Path) -> Tune:
    """`tune` on a database of its own; it starts a Ray of its own where it needs one."""
    return prepared(Tune(tmp_path, tune_home, TUNE_DATABASE_URL=database_url))


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: Database,
    tune_home: Path,
    local_ray: None,
) -> Iterator[dict[str, str]]:
    """The environment of people that reach a server: a process that uses the session's Ray."""
    host = Tune(tmp_path_factory.mktemp("host"), tune_home, TUNE_DATABASE_URL=shared_database.url)
    serving = host.start("serve", "--port", "0", "--json", "--cluster", address_of_local_ray())
    try:
        assert serving.stdout is not None
        said = json.loads(serving.stdout.readline())
        yield {"TUNE_SERVER": said["url"], "TUNE_TOKEN": said["token"]}
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=60)


@pytest.fixture
def remote_tune(tmp_path: Path, server: dict[str, str]) -> Iterator[Tune]:
    """`tune` with nothing but the address of a server and a token; its studies are deleted."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "work").mkdir()
    tune = prepared(Tune(tmp_path / "work", home, **server))
    yield tune
    tune.erase()


@pytest.fixture(params=PLACES)
def tune(request: pytest.FixtureRequest) -> Tune:
    """`tune` in either place."""
    name = "local_tune" if request.param == "local" else "remote_tune"
    found: Tune = request.getfixturevalue(name)
    return found


@pytest.fixture
def joins(request: pytest.FixtureRequest, local_ray: None) -> None:
    """Have `tune` join the session's Ray as it would a cluster, which takes less time."""
    name = "tune" if "tune" in request.fixturenames else "local_tune"
    request.getfixturevalue(name).env["RAY_ADDRESS"] = address_of_local_ray()


@pytest.fixture(scope="module")
def ran_once(
    tmp_path_factory: pytest.TempPathFactory, shared_database: Database, tune_home: Path
) -> Tune:
    """`tune` after it ran the study `bowl` to its end."""
    folder = tmp_path_factory.mktemp("ran")
    made = prepared(Tune(folder, tune_home, TUNE_DATABASE_URL=shared_database.url))
    made.write("events.jsonl", made("run", "bowl.yaml", "--json"))
    return made


@pytest.fixture(scope="module", params=PLACES)
def ran(
    request: pytest.FixtureRequest, ran_once: Tune, shared_database: Database
) -> Iterator[Tune]:
    """`tune` on the database where the study `bowl` ran, or on a server of it, for tests that
    change nothing but its tags and notes."""
    if request.param == "local":
        yield ran_once
        return
    with DashboardServer(shared_database, port=0) as server:
        remote = copy(ran_once)
        remote.env = {**ran_once.env, "TUNE_SERVER": server.url, "TUNE_TOKEN": server.new_token()}
        del remote.env["TUNE_DATABASE_URL"]
        yield remote


@pytest.fixture(params=PLACES)
def desk(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Iterator[Tune]:
    """`tune` of an administrator, on a database with accounts or on a server of it that runs no
    trials; commands run in this process."""
    user = whoami()
    with database.engine.begin() as connection:
        user_id = accounts.add_user(connection, user, is_admin=True)
        token = accounts.create_token(connection, user_id, TokenKind.TOKEN).secret
    if request.param == "local":
        yield prepared(Tune(tmp_path, tmp_path, TUNE_DATABASE_URL=database.url))
        return
    with serving_accounts(database) as (server, _):
        yield prepared(Tune(tmp_path, tmp_path, TUNE_SERVER=server.url, TUNE_TOKEN=token))
