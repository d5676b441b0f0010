"""Ray Train inside a trial's gang, on a cluster of several logical nodes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesvc
from tests.frameworks.test_studies import reported
from tests.support.processes import processes
from tests.support.ray_clusters import Drivers, Elsewhere, RayCluster

OBJECTIVES = Path(__file__).parent.parent / "objectives"
STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Elsewhere]:
    """Three nodes of one CPU."""
    process = Elsewhere(RayCluster)
    for _ in range(3):
        process.call("add_node", 1)
    yield process
    process.call("shutdown")
    process.end()


@pytest.mark.timeout(600)  # each of three attempts starts five processes
def test_a_trial_survives_a_worker_of_ray_train_and_another_is_pruned(
    cluster: Elsewhere, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    shutil.copy(OBJECTIVES / "torch_gang.py", tmp_path)
    shutil.copy(STUDIES / "data_parallel.py", tmp_path)
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    spec = {
        "name": "gang",
        "entrypoint": "torch_gang:train",
        "metric": "error",
        "cluster": cluster.call("address"),
        "data": {
            "source": "torch_gang:digits",
            "target": "y",
            "split": {"validation": 0.25},
            "steps": [{"apply": "standardize"}],
        },
        "parameters": {"lr": {"values": [0.3, 1e-9]}},
        "resources": {"cpu": 1, "workers": 2, "strategy": "STRICT_SPREAD"},
        "sampler": "grid",
        "pruner": {"name": "threshold", "upper": 0.8},
        "budget": {"trials": 2},
        "parallelism": 1,
        "environment": {"env": {"OMP_NUM_THREADS": "1"}},
    }
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(spec))
    study = tunesvc.run(file, database_url=database_url)

    trials = {trial.params["lr"]: trial for trial in study.trials}
    killed, pruned = trials[0.3], trials[1e-9]
    assert (killed.state, pruned.state) == ("complete", "pruned"), study.logs(killed.number)
    steps = reported(study, killed.number)
    counted = [step for _, step, superseded in steps if not superseded]
    assert counted == list(range(6)), "each step once, over both attempts"
    assert {attempt for attempt, *_ in steps} == {1, 2}
    assert min(step for attempt, step, _ in steps if attempt == 2) > 0, "it did not start over"
    assert len(reported(study, pruned.number)) < 6
    assert "Traceback" not in study.logs(pruned.number), "a stop is no error"
    assert "[rank 1]" in study.logs(killed.number)

    watcher = Elsewhere(Drivers)
    assert watcher.call("groups", cluster.call("address")) == []
    watcher.end()
    deadline = time.monotonic() + 20
    while left := [one for one in processes() if "ray::Ray" in one.command]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
