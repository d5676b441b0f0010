"""Servers watch a family on real Ray: drift, a re-tune, a kill in it, a promotion, a rollback."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import create_engine, text

from tests.support.command_line import Tune
from tests.support.ray_fixtures import address_of_local_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OBJECTIVE = """
    import time
    import numpy as np

    def train(x, trial):
        time.sleep(0.3)
        X, y = trial.data.validation
        return float((x - np.asarray(X)[:, 0].mean()) ** 2)
"""
PATIENCE_S = 400.0


class Hook:
    """A small HTTP server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        posted = self.posted

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                posted.append(json.loads(self.rfile.read(length)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def kinds(self) -> dict[int, str]:
        """Kinds of promotions by id: one that a dying server has posted may come again."""
        return {one["id"]: one["promotion"]["kind"] for one in self.posted}


class Servers:
    """Servers on one database and one cluster."""

    def __init__(self, host: Tune) -> None:
        self.host = host
        self.running: list[subprocess.Popen[str]] = []
        self.token = ""

    def start(self) -> str:
        """Start one; return its address."""
        address = address_of_local_ray()
        server = self.host.start("serve", "--port", "0", "--json", "--cluster", address)
        self.running.append(server)
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        self.token = said["token"] or self.token
        return str(said["url"])

    def kill(self) -> None:
        """Kill all."""
        for server in self.running:
            os.killpg(server.pid, signal.SIGKILL)
            server.communicate()
        self.running.clear()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def servers(
    tmp_path: Path, tune_home: Path, database_url: str, local_ray: None
) -> Iterator[Servers]:
    (tmp_path / "host").mkdir()
    variables = {"TUNE_DATABASE_URL": database_url, "no_proxy": "127.0.0.1"}
    made = Servers(Tune(tmp_path / "host", tune_home, **variables))
    yield made
    made.kill()


def write_data(path: Path, mean: float, seed: int) -> None:
    """Replace the data by others, as a whole."""
    rng = np.random.default_rng(seed)
    table = {"a": rng.normal(mean, 1.0, 300), "y": rng.integers(0, 2, 300)}
    pd.DataFrame(table).to_csv(path.with_suffix(".new"), index=False)
    path.with_suffix(".new").replace(path)


def wait_for(done: Callable[[], object], describe: Callable[[], object]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until_s, describe()
        time.sleep(0.5)


def test_servers_watch_through_kills_and_promote_once(
    servers: Servers, hook: Hook, tmp_path: Path, database_url: str
) -> None:
    data = tmp_path / "rows.csv"
    write_data(data, 0.0, seed=0)
    first_url = servers.start()
    servers.start()
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    tune = Tune(
        tmp_path / "work", tmp_path / "home", TUNE_SERVER=first_url, TUNE_TOKEN=servers.token
    )
    tune.write("shop.py", OBJECTIVE)
    tune.write(
        "study.yaml",
        f"""
        name: shop
        entrypoint: shop:train
        metric: error
        parameters: {{x: {{min: -5.0, max: 5.0}}}}
        budget: 8
        parallelism: 2
        seed: 1
        sampler: tpe
        data: {{source: {data}, target: y}}
        watch: {{budget: 10, on_promote: "http://127.0.0.1:{hook.server.server_port}/"}}
        """,
    )
    shown = tune("watch", "study.yaml", "--every", "1m")
    assert "look at shop every 1m 00s, with snapshot" in shown
    with create_engine(database_url).begin() as connection:
        connection.execute(text("UPDATE watches SET interval_s = 2"))

    def watch() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(tune.here("champion", "ls", "--json"))["watches"][0]
        return found

    def outcome() -> str:
        return str(watch()["outcome"])

    wait_for(lambda: outcome() == "first" or watch()["problem"], watch)
    assert watch()["problem"] == ""
    write_data(data, 0.0, seed=1)
    wait_for(lambda: outcome() == "steady", watch)

    write_data(data, 3.0, seed=2)
    wait_for(lambda: watch()["waits_for"].startswith("shop@"), watch)
    servers.kill()
    tune.env["TUNE_SERVER"] = servers.start()
    servers.start()
    write_data(data, 3.2, seed=3)  # in the middle of the look
    wait_for(lambda: outcome() == "promoted", watch)
    servers.kill()
    tune.env["TUNE_SERVER"] = servers.start()
    wait_for(lambda: not watch()["waits_for"] and outcome() in ("kept", "unchanged"), watch)

    history = json.loads(tune.here("champion", "show", "shop", "--json"))["champions"]
    kinds = [one["kind"] for one in reversed(history)]
    assert kinds[:2] == ["first", "challenge"]
    assert kinds.count("challenge") <= 2
    versions = [one["configuration"]["data_version"] for one in history]
    assert len(versions) == len(set(versions)), "one decision for a version"
    tune.here("champion", "rollback", "shop", "--reason", "complaints")
    wait_for(lambda: "rollback" in hook.kinds.values(), lambda: hook.posted)
    wait_for(lambda: outcome() == "declined", watch)
    assert "continues" not in tune.here("champion", "unwatch", "shop")
    assert json.loads(tune.here("champion", "ls", "--json"))["watches"] == []
    assert set(hook.kinds.values()) == {"first", "challenge", "rollback"}
