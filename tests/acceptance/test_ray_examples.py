"""Scripts for Ray Tune with one changed import: `tune` is ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray.tune

from tests.support.command_line import Tune

EXAMPLES = Path(ray.tune.__file__).parent / "examples"
ONE_IMPORT = re.compile(r"^from ray import tune$", re.MULTILINE)
pytestmark = pytest.mark.slow

CONTINUED = """
import json, sys
from tunesvc import ray_tune as tune

def train(config):
    for step in range(3):
        tune.report({"loss": config["x"] ** 2 + 1 / (1 + step)})

def tuner(make, *first, samples):
    return make(
        *first,
        train,
        param_space={"x": tune.uniform(-1, 1)},
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=samples, max_concurrent_trials=2),
        run_config=tune.RunConfig(name="again"),
    )

first, second = (tuner(tune.Tuner, samples=3).fit() for _ in range(2))
path = f"/somewhere/{first.experiment_path}"
more = tuner(tune.Tuner.restore, path, samples=5).fit()
print(json.dumps({
    "names": [first.experiment_path, second.experiment_path, more.experiment_path],
    "counts": [len(first), len(second), len(more)],
    "kept": [first[0].config, more[0].config],
    "known": [tune.Tuner.can_restore(path), tune.Tuner.can_restore("/somewhere/else")],
}))
"""

RESTARTED = """
import json
from tunesvc import ray_tune as tune

class Counter(tune.Callback):
    names = []

    def on_trial_error(self, trial, **info):
        self.names.append(trial.trial_id)

    def on_experiment_end(self, trials, **info):
        self.names.append("end")

def train(config, fails=False):
    if fails and config["x"] > 0:
        raise RuntimeError("no")
    tune.report({"loss": config["x"]})

failing = tune.Tuner(
    tune.with_parameters(train, fails=True),
    param_space={"x": tune.choice([-1, 1])},
    tune_config=tune.TuneConfig(
        metric="loss", mode="min", num_samples=2,
        search_alg=tune.search.BasicVariantGenerator(points_to_evaluate=[{"x": 1}, {"x": -1}]),
    ),
    run_config=tune.RunConfig(name="failing", callbacks=[Counter()]),
).fit()
plain = tune.Tuner.restore("failing", train).fit()
mended = tune.Tuner.restore("failing", train, restart_errored=True).fit()
print(json.dumps({
    "called": Counter.names,
    "xs": [result.config["x"] for result in mended],
    "counts": [len(failing), len(plain), len(mended)],
    "errors": [failing.num_errors, mended.num_errors],
}))
"""


def run(tune: Tune, script: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=tune.env,
        cwd=tune.folder,
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "async_hyperband_example",
        "custom_checkpointing_with_callback",
        "custom_func_checkpointing",
        "hyperband_example",
        "hyperband_function_example",
        "logging_example",
        "optuna_example",
        "optuna_multiobjective_example",
        "pbt_function",
        "tune_basic_example",
    ],
)
def test_an_example_of_rays_wheel_runs(name: str, local_tune: Tune, tmp_path: Path) -> None:
    written = (EXAMPLES / f"{name}.py").read_text()
    text, count = ONE_IMPORT.subn("from tunesvc import ray_tune as tune", written)
    assert count == 1
    script = tmp_path / f"{name}.py"
    script.write_text(text)
    assert "est hyperparameters" in run(local_tune, script, "--smoke-test")


def test_a_name_that_is_taken_gets_a_number_and_restore_continues(
    local_tune: Tune, tmp_path: Path
) -> None:
    script = tmp_path / "continued.py"
    script.write_text(CONTINUED)
    found = json.loads(run(local_tune, script).splitlines()[-1])
    assert found["names"] == ["again", "again-2", "again"]
    assert found["counts"] == [3, 3, 5]
    assert found["kept"][0] == found["kept"][1]
    assert found["known"] == [True, False]


def test_a_folder_alone_restores_and_failed_parameters_are_tried_again(
    local_tune: Tune, tmp_path: Path
) -> None:
    script = tmp_path / "restarted.py"
    script.write_text(RESTARTED)
    found = json.loads(run(local_tune, script).splitlines()[-1])
    assert found == {
        "called": ["failing-0", "end"],
        "xs": [1, -1, 1],
        "counts": [2, 2, 3],
        "errors": [1, 1],
    }


def test_the_script_of_the_guide_runs(local_tune: Tune, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ray-tune.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    script = tmp_path / "guide.py"
    script.write_text(block)
    assert "{'x': 0." in run(local_tune, script)
    assert (tmp_path / "first.html").exists()
