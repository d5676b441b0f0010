"""`train.tune(...)` as people use it: a script of its own, a real Postgres, a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.ray_fixtures import address_of_local_ray
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.attempt_events import list_attempts, list_logs
from tunesvc.queries.trials.trial_table import list_trials

SCRIPT = """
import json
from typing import Annotated
from ray import tune as ray_tune
from tunesvc import Choice, Float, Int, StudyFailed, Trial, tunable

SCALE = 10.0  # a global travels with the function

@tunable(metric="loss", sampler="random", seed=1, parallelism=1, resources={"cpu": 0.5})
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

def results(study):
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
    ray = tunable(metric=GOAL, parameters=SPACE, sampler="random", parallelism=1)(by_config).tune(trials=4)
    print(json.dumps({"plain": train(lr=0.5, solver="adam"), "mine": results(mine), "ray": results(ray), "failed": failing()}))
"""


@pytest.mark.usefixtures("local_ray")
def test_a_decorated_function_and_one_for_ray_tune_are_tuned_from_a_script(
    database_url: str, tune_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    joined = address_of_local_ray()
    printed = run_script(
        "script.py", folder=tmp_path, database_url=database_url, home=tune_home, RAY_ADDRESS=joined
    )
    said: dict[str, Any] = json.loads(printed.splitlines()[-1])

    assert said["plain"] == 1.0
    assert len(said["mine"]) == 8
    for state, params, loss in said["mine"]:
        assert state == "complete"
        assert ("momentum" in params) == (params["solver"] == "sgd")
        assert loss == params["lr"] * params["layers"]
    assert [score for _, _, score in said["ray"]] == [
        params["model/width"] * 2.0 for _, params, _ in said["ray"]
    ]
    assert len(said["ray"]) == 3  # each width once

    text, cause, number = said["failed"]
    assert "study 'broken' failed: every trial failed" in text
    assert "NameError: name 'undefined_name' is not defined" in text
    assert "NameError: name 'undefined_name' is not defined" in cause
    assert number == 0


AT_HOME = """
import argparse
import dataclasses
import enum
import linecache
import multiprocessing
import pickle
import sys
from typing import Annotated

sys.path.insert(0, "src")
import beside
import below
from tunesvc import Choice, tunable

@dataclasses.dataclass
class Sample:
    x: float

class Colour(enum.Enum):
    RED = 1

class Options:
    colour = Colour.RED  # no function names this class, but instances of it are pickled

SAMPLES = [Sample(1.0)]

def double(sample):
    return Sample(2 * sample.x)

CELL = '''
@tunable(metric="loss", sampler="grid", parallelism=1)
def fit(act: Annotated[str, Choice("pickles", "starts_pools", "parses", "raises")]):
    if act == "pickles":
        assert pickle.loads(pickle.dumps((SAMPLES, Options().colour))) == (SAMPLES, Colour.RED)
    if act == "starts_pools":
        for kind in ("fork", "spawn"):
            with multiprocessing.get_context(kind).Pool(1) as pool:
                assert pool.map(double, SAMPLES) == [Sample(2.0)], kind
    if act == "parses":
        print(argparse.ArgumentParser().parse_args(), argparse.ArgumentParser().prog)
    if act == "raises":
        raise ValueError("broken")  # as in a notebook
    return beside.VALUE + below.VALUE
'''

if __name__ == "__main__":
    linecache.cache["<cell 1>"] = len(CELL), None, CELL.splitlines(keepends=True), "<cell 1>"
    exec(compile(CELL, "<cell 1>", "exec"))
    fit.tune(trials=4)
"""


def test_an_objective_finds_in_the_worker_what_its_script_has(
    database: Database, database_url: str, tune_home: Path, tmp_path: Path
) -> None:
    files = {
        "scripts/script.py": AT_HOME,
        "scripts/beside.py": "VALUE = 1",
        "src/below.py": "VALUE = 2",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    run_script(
        "scripts/script.py",
        "--an-option",
        folder=tmp_path,
        database_url=database_url,
        home=tune_home,
    )

    study = get_study(database, "fit").study_id
    trials = {trial.params["act"]: trial for trial in list_trials(database, study)}
    failure = list_attempts(database, study, numbers=[trials["raises"].number])[0]
    assert failure.traceback is not None
    assert (
        'File "<cell 1>", line 13, in fit\n    raise ValueError("broken")  # as in a notebook'
        in failure.traceback
    )
    assert {act: trial.values for act, trial in trials.items() if act != "raises"} == {
        "pickles": (3.0,),
        "starts_pools": (3.0,),
        "parses": (3.0,),
    }
    logged = "".join(piece.text for piece in list_logs(database, study, trials["parses"].number))
    assert logged == "Namespace() script.py\n"


def run_script(*line: str, folder: Path, database_url: str, home: Path, **more: str) -> str:
    """Run a script as a user does; what it printed."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "RAY_"))
    }
    env = {**kept, "TUNE_DATABASE_URL": database_url, "TUNE_HOME": str(home), **more}
    done = subprocess.run(
        [sys.executable, *line],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
