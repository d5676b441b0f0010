"""Results that the installed Ray Tune has written, imported and continued from the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.command_line import Tune

pytestmark = pytest.mark.slow

SCRIPT = """
from pathlib import Path
from ray import tune
from ray.tune.schedulers import ASHAScheduler

def train(config):
    model = config["model"]
    for step in range(8):
        if step == 2 and model["act"] == "broken":
            raise RuntimeError("no such activation")
        error = (model["lr"] - 0.03) ** 2 + 1 / (1 + step)
        tune.report({"loss": error, "acc": float("nan"), "size": {"layers": len(config["layers"])}})

tuner = tune.Tuner(
    train,
    param_space={
        "model": {"lr": tune.loguniform(1e-3, 1e-1), "act": tune.grid_search(["relu", "broken"])},
        "layers": tune.choice([[8, 8], [16]]),
        "data": Path("digits"),
        "epochs": 8,
    },
    tune_config=tune.TuneConfig(
        metric="loss", mode="min", num_samples=3,
        scheduler=ASHAScheduler(max_t=8, grace_period=2, reduction_factor=2),
    ),
    run_config=tune.RunConfig(name="before", storage_path=str(Path("results").absolute())),
)
if __name__ == "__main__":
    tuner.fit()
"""


def test_real_results_become_a_study_that_a_new_one_learns_from(local_tune: Tune) -> None:
    tune = local_tune
    (tune.folder / "tuner.py").write_text(SCRIPT)
    subprocess.run([sys.executable, "tuner.py"], cwd=tune.folder, env=tune.env, check=True)
    assert "--minimize loss" in tune("import", "results/before", code=2)
    tune("import", "results/before", "--space", "tuner.py", "--out", "study.yaml")
    trials = json.loads(tune("trials", "before", "--json"))
    states = [trial["state"] for trial in trials]
    assert len(trials) == 6
    assert {"complete", "failed"} <= set(states) <= {"complete", "failed", "pruned"}
    assert {trial["params"]["layers"] for trial in trials} <= {"[8, 8]", "[16]"}
    text = (tune.folder / "study.yaml").read_text()
    assert "warm_start:\n- before" in text
    assert "entrypoint: tuner.py:train" in text
    assert "give these trials another `--name`" in tune(
        "import", "results/before", "--space", "tuner.py", code=5
    )
    tune("run", "study.yaml", "--trials", "4", "--quiet")
    assert "trials from before" in tune("explain", "before-2")
