"""The snippets of docs/trackers.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.integration.test_loggers import sender
from tests.support import stored_studies
from tunesvc.db.engine.database import Database
from tunesvc.runtime.imported_searchers import machine_check
from tunesvc.runtime.named_loggers import make_logger
from tunesvc.spec.yaml.document import parse

PAGE = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_study_file_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text("def main(lr): ...\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    spec = parse(YAML[0], extra_check=machine_check(tmp_path))
    assert [logger.name for logger in spec.loggers] == ["tensorboard", "wandb", "mlflow"]


def test_the_decorated_function_names_a_logger(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(PYTHON[0])
    names: dict[str, object] = {"__name__": "snippet"}
    exec(compile(PYTHON[0], file, "exec"), names)  # noqa: S102
    spec = names["train"].spec(trials=3)  # type: ignore[attr-defined]
    assert [logger.name for logger in spec.loggers] == ["tensorboard"]


def test_a_logger_of_ones_own_gets_the_trials(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "csv_logger.py").write_text(PYTHON[1])
    monkeypatch.chdir(tmp_path)
    text = "name: a\nentrypoint: m:f\nmetric: loss\nparameters: {x: {min: 0, max: 1}}\nbudget: 1\n"
    entry = parse(text + YAML[1]).loggers[0]
    stored_studies.fill(database, 3, running=1, name="live")
    sender(database, make_logger(entry, tmp_path)).send_new()
    rows = (tmp_path / "all.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in rows] == [
        ["trial-0", "complete", "6"],
        ["trial-1", "complete", "6"],
    ]
