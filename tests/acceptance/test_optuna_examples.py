"""Optuna's published examples as entrypoints, unmodified; `OPTUNA_EXAMPLES` names their folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Tune

FOLDER = os.environ.get("OPTUNA_EXAMPLES")
TRIALS = 3
MAXIMIZED = [
    "basic/pruning",
    "sklearn/sklearn_simple",
    "xgboost/xgboost_simple",
    "xgboost/xgboost_integration",
    "lightgbm/lightgbm_simple",
    "lightgbm/lightgbm_integration",
    "catboost/catboost_simple",
    "catboost/catboost_pruning",
    "faq/enqueue_trial",
]
MINIMIZED = [
    "basic/quadratic",
    "basic/quadratic_constraint",
    "faq/max_trials_callback",
    "samplers/simulated_annealing_sampler",
    "samplers/warm_starting_cma",
    "pruners/wilcoxon_pruner_tsp_sa",
]
SEVERAL = {
    "basic/quadratic_multi_objective": ("minimize", "maximize"),
    "multi_objective/quadratic_simple": ("minimize", "minimize"),
}
EXAMPLES = {
    **dict.fromkeys(MAXIMIZED, ("maximize",)),
    **dict.fromkeys(MINIMIZED, ("minimize",)),
    **SEVERAL,
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOLDER is None, reason="OPTUNA_EXAMPLES names no folder"),
]


@pytest.fixture(scope="module")
def examples() -> Path:
    return Path(FOLDER or "")


def write(example: Path, goals: tuple[str, ...], folder: Path) -> None:
    shutil.copy(example, folder)
    function = "sphere" if example.stem == "warm_starting_cma" else "objective"
    study = {
        "name": example.stem,
        "entrypoint": f"{example.name}:{function}",
        "metrics": [{"name": f"value{n}", "goal": goal} for n, goal in enumerate(goals)],
        "budget": {"trials": TRIALS},
        "parallelism": 1,
    }
    (folder / f"{example.stem}.yaml").write_text(json.dumps(study))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_optuna_runs(name: str, examples: Path, local_tune: Tune) -> None:
    for module in ("xgboost", "lightgbm", "catboost"):
        if name.startswith(module):
            pytest.importorskip(module)
    example = examples / f"{name}.py"
    write(example, EXAMPLES[name], local_tune.folder)
    local_tune("run", f"{example.stem}.yaml", "--quiet")
    trials = json.loads(local_tune.here("trials", example.stem, "--json"))
    states = [trial["state"] for trial in trials]
    assert len(states) == TRIALS
    assert set(states) <= {"complete", "pruned"}, local_tune.here("show", example.stem, "0")
