"""`train.tune(...)` as people use it: a script of its own, a real Postgres, a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import json
from typing import Annotated
from ray import tune as ray_tune
from tunesvc import Choice, Float, Int, StudyFailed, Trial, tunable

SCALE = 10.0  # a global travels with the function

@tunable(metric="loss", sampler="random", seed=1, parallelism=2, resources={"cpu": 0.5})
def train(
    lr: Annotated[float, Float(1e-4, 1.0, log=True)],
    layers: Annotated[int, Int(1, 4)] = 2,
    solver: Annotated[str, Choice("sgd", "adam")] = "sgd",
    momentum: Annotated[float, Float(0.1, 0.9, when={"solver": "sgd"})] = 0.0,
    epochs: int = 3,
    *,
    trial: Trial,
) -> float:
    assert (momentum == 0.0) == (solver == "adam")
    for epoch in range(epochs):
        trial.report(epoch, loss=lr + SCALE / (1 + epoch))
    return lr * layers

def by_config(config):
    ray_tune.report({"score": config["model"]["width"] * config["factor"]})

SPACE = {"model": {"width": ray_tune.choice([1, 2, 3])}, "factor": 2.0}
GOAL = {"name": "score", "goal": "maximize", "take": "best"}

def told(study):
    return [[trial.state, trial.params, trial.values[0]] for trial in study.trials]

def broken(lr):
    return lr * undefined_name

def failing():
    parameters = {"lr": {"min": 0.0, "max": 1.0}}
    try:
        tunable(parameters=parameters, resources={"cpu": 0.5}, parallelism=1)(broken).tune(trials=3)
    except StudyFailed as error:
        return [str(error), str(error.__cause__), error.number]

if __name__ == "__main__":
    mine = train.tune(name="decorated", trials=8)
    ray = tunable(metric=GOAL, parameters=SPACE, sampler="random", resources={"cpu": 0.5})(by_config).tune(trials=4)
    print(json.dumps({"plain": train(lr=0.5, solver="adam"), "mine": told(mine), "ray": told(ray), "failed": failing()}))
"""


def test_a_decorated_function_and_one_for_ray_tune_are_tuned_from_a_script(
    database_url: str, tune_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "RAY_"))}
    env = {**kept, "TUNE_DATABASE_URL": database_url, "TUNE_HOME": str(tune_home)}
    line = [sys.executable, "script.py"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    assert said["plain"] == 1.0
    assert len(said["mine"]) == 8
    for state, params, loss in said["mine"]:
        assert state == "complete"
        assert ("momentum" in params) == (params["solver"] == "sgd")
        assert loss == params["lr"] * params["layers"]
    assert [score for _, _, score in said["ray"]] == [params["model/width"] * 2.0 for _, params, _ in said["ray"]]
    assert len(said["ray"]) == 4

    text, cause, number = said["failed"]
    assert "study 'broken' failed: every trial failed" in text
    assert "NameError: name 'undefined_name' is not defined" in cause
    assert number == 0
