"""The studies that we ship: every file is valid, and every objective really trains, called as a
plain function."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import optuna
import pytest

from tests.support.prepared_data import prepared_data
from tests.support.recording_channel import RecordingChannel
from tunesvc import Pruned, StudySpec, Trial
from tunesvc.evaluation.model_scores import score_model
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.executor import AttemptId, Job, Launch, Reported
from tunesvc.execution.objectives.adapters import prepare
from tunesvc.execution.worker.outbox import Outbox
from tunesvc.search.registry.component_check import check
from tunesvc.space.search_space import Space, sample
from tunesvc.spec.yaml.document import load
from tunesvc.trial import AssignedResources, RestoredState

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(STUDIES.glob("*.yaml"))


class Listener:
    """Takes reports and checkpoints, and asks the trial to stop after some steps."""

    def __init__(self, folder: Path, stop_after: int) -> None:
        self.reports: list[tuple[int, Mapping[str, float]]] = []
        self.saved: Path | None = None
        self._folder = folder
        self._stop_after = stop_after

    @property
    def stop_requested(self) -> bool:
        return len(self.reports) >= self._stop_after

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.reports.append((step, metrics))

    def checkpoint(self, path: Path, step: int | None) -> None:
        self.saved = Path(shutil.copy(path, self._folder))


@pytest.fixture(autouse=True)
def studies_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    for file in STUDIES.glob("*.py"):  # another test may have loaded a module of the same name
        monkeypatch.delitem(sys.modules, file.stem, raising=False)


def spec_of(name: str) -> StudySpec:
    return load(STUDIES / f"{name}.yaml").spec


def arguments(spec: StudySpec, seed: int = 0) -> dict[str, Any]:
    return {**sample(Space(spec.parameters), Random(seed)), **spec.constants}


def objective_of(spec: StudySpec) -> Any:
    module, _, function = (spec.entrypoint or "").partition(":")
    return getattr(importlib.import_module(module), function)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_study_file_is_valid_and_named_after_itself(path: Path) -> None:
    spec = load(path).spec
    check(spec)
    assert spec.name == path.stem.replace("_", "-")
    assert spec.description
    assert spec.budget.trials is not None


@pytest.mark.parametrize("name", ["digits", "boosting", "gpu"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_curve_starts_to_be_drawn_and_stops_on_request(
    name: str, seed: int, tmp_path: Path
) -> None:
    spec, listener = spec_of(name), Listener(tmp_path, stop_after=2)
    with pytest.raises(Pruned):
        objective_of(spec)(**arguments(spec, seed), trial=Trial(listener, seed=seed))
    assert [step for step, _ in listener.reports] == [1, 2]
    assert all(set(metrics) == {spec.metrics[0].name} for _, metrics in listener.reports)


def test_digits_continues_from_its_checkpoint(tmp_path: Path) -> None:
    spec, before, after = (
        spec_of("digits"),
        Listener(tmp_path, stop_after=10),
        Listener(tmp_path, stop_after=99),
    )
    train, params = objective_of(spec), arguments(spec) | {"epochs": 12}
    with pytest.raises(Pruned):
        train(**params, trial=Trial(before))
    error = train(**params, trial=Trial(after, restored=RestoredState(before.saved)))
    assert [step for step, _ in after.reports] == [10, 11, 12]
    assert error == after.reports[-1][1]["val_error"]


def test_digits_learns_well_below_three_percent_error_with_sensible_parameters() -> None:
    spec = spec_of("digits")
    params = {
        "lr": 0.003,
        "hidden": 128,
        "batch": 32,
        "alpha": 0.001,
        "activation": "relu",
        **spec.constants,
    }
    assert objective_of(spec)(**params, trial=Trial(seed=1)) < 0.03


def test_the_folds_are_five_and_differ() -> None:
    spec = spec_of("folds")
    errors = [objective_of(spec)(**arguments(spec), trial=Trial(seed=seed)) for seed in range(10)]
    assert errors[:5] == errors[5:]
    assert len(set(errors)) == spec.shared_blocks == 5


def test_lightgbm_continues_from_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    spec, before, after = (
        spec_of("lightgbm_digits"),
        RecordingChannel(tmp_path / "before", stop_after=3),
        RecordingChannel(tmp_path / "after"),
    )
    train, params = objective_of(spec), arguments(spec) | {"rounds": 5}
    metrics = tuple(metric.name for metric in spec.metrics)
    with pytest.raises(Pruned):
        train(**params, trial=Trial(before, metrics=metrics))
    restored = RestoredState(before.saved[3])
    loss = train(**params, trial=Trial(after, metrics=metrics, restored=restored))
    assert after.steps == [4, 5]
    assert after.reports[-1][1] == {"log_loss": loss}


def test_the_tradeoff_measures_all_its_metrics() -> None:
    spec = spec_of("tradeoff")
    measured = objective_of(spec)(**arguments(spec), trial=Trial())
    assert set(measured) == {metric.name for metric in spec.metrics}
    assert 0 < measured["val_error"] < 1
    assert measured["latency_ms"] > 0


def test_the_script_writes_json_lines_to_the_given_file(tmp_path: Path) -> None:
    spec, reports = spec_of("script"), tmp_path / "reports"
    values = {f"${{{name}}}": str(value) for name, value in arguments(spec).items()}
    _, *rest = (values.get(argument, argument) for argument in spec.command or ())
    environment = {**os.environ, "TUNE_REPORTS": str(reports)}
    subprocess.run([sys.executable, *rest], cwd=STUDIES, env=environment, check=True, timeout=120)
    lines = [json.loads(line) for line in reports.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(set(line) == {"step", spec.metrics[0].name} for line in lines)


def test_the_ray_tune_function_reports_and_checkpoints_as_it_is(tmp_path: Path) -> None:
    spec = spec_of("ray_function")
    job = Job("s", "key", (spec.metrics[0].name,), spec.resources, spec.environment, str(tmp_path))
    outbox = Outbox()
    attempt = Attempt(
        job,
        Launch(AttemptId(1, 1), 0, arguments(spec), seed=0),
        WorkerInfo("here", os.getpid()),
        outbox,
    )
    attempt.stop()
    with pytest.raises(Pruned):
        prepare(objective_of(spec))(attempt)
    reported = [p for _, p in outbox.take(0) if isinstance(p, Reported)]
    assert [(r.step, "val_error" in r.metrics) for r in reported] == [(1, True)]
    assert list(tmp_path.rglob("state.joblib"))


def test_the_optuna_objective_is_optunas() -> None:
    study = optuna.create_study()
    study.optimize(objective_of(spec_of("optuna_objective")), n_trials=2)
    assert all(0 <= trial.value < 1 for trial in study.trials)
    assert all(trial.intermediate_values for trial in study.trials)


def test_the_decorated_function_is_a_plain_function_and_a_study() -> None:
    from decorated import train

    assert 0 < train(lr=0.1, alpha=0.001) < 0.2
    spec = train.spec(trials=3)
    check(spec)
    assert set(spec.parameters) == {"lr", "alpha", "schedule"}


def test_the_cancer_study_has_five_folds_that_are_prepared_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    spec = spec_of("cancer")
    data, found = prepared_data(spec, STUDIES), []
    for fold in range(5):
        trial = Trial(resources=AssignedResources(open_data=partial(data.of_fold, fold)))
        features, _ = trial.data.train
        assert abs(np.mean(features, axis=0)).max() < 1e-6
        model = objective_of(spec)(cost=2.0, gamma=0.02, trial=trial)
        found.append(score_model(model, trial, spec.scoring, lambda *_: None)["roc_auc"])
    assert len(set(found)) > 1
    assert 0.98 < sum(found) / 5 < 1


def test_the_shop_study_learns_from_prepared_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    spec = spec_of("shop")
    trial = Trial(resources=AssignedResources(open_data=lambda: prepared_data(spec, STUDIES)))

    def accuracy(knots: int, degree: int) -> float:
        model = objective_of(spec)(cost=1.0, knots=knots, degree=degree, trial=trial)
        return score_model(model, trial, spec.scoring, lambda *_: None)["accuracy"]

    found = accuracy(12, 3)
    assert found > 0.75
    assert accuracy(2, 1) < found - 0.05
