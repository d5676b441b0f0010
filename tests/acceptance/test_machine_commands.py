"""Commands that work on this machine: on files, on its database, on its programs."""

from __future__ import annotations

import json
import re

from tests.support.command_line import HOSTILE, Tune, write_study


def test_a_wrong_study_file_is_named_with_its_line(local_tune: Tune) -> None:
    write_study(local_tune, "wrong", "train", "paralelism: 3")
    output = local_tune.here("validate", "wrong.yaml", code=2)
    assert "did you mean `parallelism`" in output
    assert re.search(r"wrong\.yaml:\d+", output)


def test_the_database_is_looked_after(local_tune: Tune) -> None:
    assert json.loads(local_tune.here("db", "status", "--json"))["studies"] == 0
    assert "up to date" in local_tune.here("db", "upgrade")
    local_tune("db", "backup", "all.dump")
    local_tune.here("db", "restore", "all.dump")


def test_a_database_that_is_not_there_is_an_error_in_a_line(local_tune: Tune) -> None:
    output = local_tune("ls", "--database-url", "postgresql://nobody:secret@127.0.0.1:1/x", code=7)
    assert "secret" not in output
    assert output.startswith("error: ")


def test_doctor_finds_this_machine_fit(local_tune: Tune) -> None:
    findings = {finding["name"]: finding for finding in json.loads(local_tune("doctor", "--json"))}
    assert findings["Postgres"]["verdict"] == "ok"
    assert findings["Ray"]["verdict"] == "ok"


def test_preview_draws_configurations_that_the_space_allows(local_tune: Tune) -> None:
    shown = json.loads(local_tune.here("preview", "bowl.yaml", "--json", "--samples", "20"))
    assert len(shown["samples"]) == 20
    assert all(
        0 <= params["x"] <= 1 and params["kind"] in ("plain", HOSTILE)
        for params in shown["samples"]
    )


def test_a_starter_is_written_and_valid(local_tune: Tune) -> None:
    local_tune.here("init", "fresh")
    (study_file,) = (local_tune.folder / "fresh").glob("*.yaml")
    assert "is fine: study starter" in local_tune.here("validate", str(study_file))


def test_the_schema_is_a_json_schema(local_tune: Tune) -> None:
    assert "properties" in json.loads(local_tune.here("schema"))
