"""A script with options, from `tune init` to its best trial."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.command_line import Tune

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")
SCRIPTS = {
    "page": re.findall(r"```python\n(.*?)```", PAGE.split("\n## A script with options\n")[1], re.S)[
        0
    ],
    "mnist": (ROOT / "tests" / "foreign" / "programs" / "mnist.py").read_text(encoding="utf-8"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("joins")
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_study_that_init_writes_runs(name: str, local_tune: Tune) -> None:
    (local_tune.folder / "train.py").write_text(SCRIPTS[name])
    (local_tune.folder / "study.yaml").unlink(missing_ok=True)
    local_tune.here("init", "train.py")
    local_tune.here("validate", "study.yaml")
    local_tune("run", "study.yaml", "--trials", "3")
    rows = json.loads(local_tune.here("trials", "train", "--json"))
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert all(row["last_value"] is not None for row in rows)
    assert {"lr", "batch_size", "optimizer"} <= rows[0]["params"].keys()
