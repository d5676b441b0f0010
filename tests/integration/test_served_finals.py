"""Final runs on real servers: the numbers of a local run, also if client and server die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tunesvc
from tests.support.servers import servers_of, wait_until
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.sending import send_study
from tunesvc.db.engine.database import Database
from tunesvc.spec.yaml.document import parse

OBJECTIVES = Path(__file__).parent.parent / "objectives"
SPEC: dict[str, Any] = {
    "entrypoint": "on_models:classify",
    "evaluation": {"scoring": ["roc_auc", "accuracy"]},
    "parameters": {"x": {"min": -3.0, "max": 3.0}},
    "budget": 2,
    "parallelism": 1,
    "seed": 4,
    "resources": {"cpu": 1},
    "data": {
        "source": "on_models:flowers",
        "target": "kind",
        "split": {"validation": 0.2, "test": 0.2},
        "steps": [{"columns": "numeric", "apply": "standardize"}],
    },
}


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(480)  # two servers and a local run start a Ray each
def test_a_server_gives_the_numbers_of_a_local_run_although_client_and_server_die(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 1: the server is killed between the model and its record, the client before."""
    for variable in ("TUNE_SERVER", "TUNE_TOKEN", "TUNE_ARTIFACTS", "TUNE_CHECKPOINTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "on_models.py").write_text((OBJECTIVES / "on_models.py").read_text())
    client = LocalClient(database, "ada")
    with servers_of(database, tmp_path, None) as servers:
        server = servers.start(TUNE_FAILPOINT="stored:kill")
        send_study(client, parse(json.dumps({"name": "there", **SPEC})), folder)
        servers.wait_until_finished("there")
        command = [sys.executable, "-m", "tunesvc", "best", "there", "--test", "--json"]
        environment = os.environ | {"TUNE_SERVER": server.url, "TUNE_TOKEN": _token(server.log)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        tested = json.loads(done.stdout)
        command = [sys.executable, "-m", "tunesvc", "apply", "there", "--train"]
        follower = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        wait_until(lambda: "there:apply" in client.studies.names("there"))
        follower.kill()
        follower.wait()
        wait_until(lambda: server.process.poll() is not None)
        assert client.insights.model("there", 0) is None
        servers.start()
        wait_until(lambda: client.insights.model("there", 0) is not None)
    stored = client.insights.model("there")
    assert stored is not None
    file = folder / "study.yaml"
    file.write_text(json.dumps({"name": "here", **SPEC}))
    here = tunesvc.run(file, database_url=database.url)
    result, model = here.test(), here.apply()
    assert result is not None
    assert model is not None
    assert (tested["trial"], tested["test"], tested["error"], tested["scores"]) == (
        result.trial,
        result.test,
        result.error,
        result.scores,
    )
    assert stored.metadata.test == model.metadata.test
    assert stored.metadata.params == model.metadata.params
    rows = {"a": 3.0, "b": 1.0, "c": 0.0}
    there = tunesvc.load_model("there")
    assert there.predict_proba(rows).tolist() == model.predict_proba(rows).tolist()


def _token(log: str) -> str:
    """Return the token that the first start of a server prints."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"event"')]
    token: str = lines[0]["token"]
    return token
