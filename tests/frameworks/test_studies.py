"""A study of each framework on a real worker and a real Postgres: one trial is pruned, and the worker
of the other is killed in mid-training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

import tunesvc

OBJECTIVES = Path(__file__).parent.parent / "objectives"
FULL = 300
"""Steps of a trial that is not pruned."""


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("framework", "ends"),
    [
        *(("lightgbm", ""), ("xgboost", ""), ("scikit_learn", ""), ("catboost", ""), ("torch", "")),
        *(("lightning", "ended in order"), ("transformers", "ended in order")),
        ("keras", "ended in order"),
    ],
)
def test_one_trial_is_pruned_and_another_survives_its_worker(
    framework: str,
    ends: str,
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip({"scikit_learn": "sklearn"}.get(framework, framework))
    shutil.copy(OBJECTIVES / "frameworks.py", tmp_path)
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    spec = {
        "name": framework.replace("_", "-"),
        "entrypoint": f"frameworks:{framework}",
        "metric": "loss",
        "parameters": {"scale": {"values": [1, 1000]}},
        "sampler": "grid",
        "pruner": {"name": "threshold", "upper": 100.0},
        "budget": {"trials": 2},
        "parallelism": 1,
        "resources": {"cpu": 1},
    }
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(spec))
    study = tunesvc.run(file, database_url=database_url)

    trials = {trial.params["scale"]: trial for trial in study.trials}
    killed, pruned = trials[1], trials[1000]
    assert (killed.state, pruned.state) == ("complete", "pruned"), study.logs(killed.number)
    steps = reported(study, pruned.number)
    assert [attempt for attempt, *_ in steps] == [1] * len(steps)
    assert 1 <= len(steps) < FULL
    printed = study.logs(pruned.number)
    assert "Traceback" not in printed
    assert ends in printed

    steps = reported(study, killed.number)
    assert {attempt for attempt, *_ in steps} == {1, 2}
    counted = [step for _, step, superseded in steps if not superseded]
    assert counted == list(range(1, 9)), "each step once, over both attempts"
    assert min(step for attempt, step, _ in steps if attempt == 2) > 1, "it did not start over"


@pytest.mark.usefixtures("local_ray")
def test_a_paused_trial_continues_where_it_was_paused(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no checkpoint but those that pauses make."""
    pytest.importorskip("lightgbm")
    shutil.copy(OBJECTIVES / "frameworks.py", tmp_path)
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    spec = {
        "name": "paused",
        "entrypoint": "frameworks:paused",
        "metric": "loss",
        "parameters": {"x": {"type": "float", "min": 0.0, "max": 1.0}},
        "sampler": {"name": "random", "seed": 1},
        "pruner": {"name": "asha", "min": 1, "max": 9, "eta": 3, "form": "promote"},
        "budget": {"trials": 9},
        "parallelism": 2,
        "resources": {"cpu": 1},
    }
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(spec))
    study = tunesvc.run(file, database_url=database_url)
    continued = 0
    for trial in study.trials:
        steps = reported(study, trial.number)
        assert [step for _, step, _ in steps] == list(range(1, len(steps) + 1)), "none twice"
        continued += len({attempt for attempt, *_ in steps}) > 1
    assert continued > 0
    assert {trial.state for trial in study.trials} == {"complete", "pruned"}


def reported(study: tunesvc.Study, number: int) -> list[tuple[int, int, bool]]:
    """Return a trial's attempts, steps and whether a later attempt replaced them."""
    query = sa.text("""SELECT attempt, step, superseded FROM reports JOIN trials t USING (trial_id)
                       WHERE t.number = :number ORDER BY attempt, step""")
    with study._database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"number": number})]  # type: ignore[misc]
