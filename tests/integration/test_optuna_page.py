"""The page for Optuna's users: its objective runs as it is, and its loop stores trials here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import tunesvc
from tests.acceptance.test_optuna_examples import EXAMPLES
from tunesvc.db.engine.database import Database

PAGE = (Path(__file__).parents[2] / "docs" / "optuna.md").read_text()
OBJECTIVE, LOOP = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.usefixtures("local_ray")
def test_the_objective_runs_as_it_is(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "digits.py").write_text(OBJECTIVE)
    (study,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    written = yaml.safe_load(study) | {"budget": 2, "parallelism": 1}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(written))
    found = tunesvc.run(
        tmp_path / "study.yaml",
        database_url=database_url,
        enqueue=[{"alpha": 0.001, "penalty": "l2"}],
    )
    assert found.trials[0].params == {"penalty": "l2", "alpha": 0.001}
    assert found.best_value > 0.8


def test_the_loop_stores_trials(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_DATABASE_URL", database.url)
    exec(compile(LOOP, "optuna.md", "exec"), {})  # noqa: S102
    assert len(tunesvc.load_study("kept").trials) == 3


def test_the_page_names_each_example_that_is_run() -> None:
    assert all(f"`{name.rpartition('/')[2]}`" in PAGE or f"`{name}`" in PAGE for name in EXAMPLES)
