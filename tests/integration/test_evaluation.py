"""Folds and repeats as steps of trials: simulated workers, programs, and real Ray."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

import tunesvc
from tests.support.jobs_and_events import make_job, make_launch
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.attempt_state.launch_blocks import blocks_of
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import BadReport, Pruned
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.attempt.block_runner import run_blocks
from tunesvc.execution.executor import Finished, Launch, Lost, Payload, Reported
from tunesvc.execution.objectives.command import run_command
from tunesvc.execution.worker.outbox import Outbox
from tunesvc.spec import Evaluation

Steps = list[tuple[float, Payload]]

STEPS_MAX = 5_000
REPEATS = {"repeats": 4}
OBJECTIVES = Path(__file__).parent.parent / "objectives"


def trials_of(simulation: Simulation) -> Sequence[FrozenTrial]:
    storage = PgStorage(simulation.database)
    return storage.get_all_trials(simulation.record.study_id, deepcopy=False)


def on_blocks(launch: Launch, losses: Mapping[int, float]) -> Steps:
    steps: Steps = [
        (1.0, Reported(block.step, {"loss": losses[block.index], "size": 2.0 * block.index}))
        for block in launch.blocks
    ]
    return [*steps, (0.0, Finished({"loss": -1.0}))]


def until_reported(simulation: Simulation, coordinator: Coordinator, step: int) -> None:
    for _ in range(STEPS_MAX):
        if simulation.sql(f"SELECT 1 FROM reports WHERE step = {step}"):
            return
        assert coordinator.step() is None
    raise AssertionError("did not come so far")


def test_the_value_is_the_mean_and_its_standard_error_is_stored(database: Database) -> None:
    spec = make_spec(evaluation=REPEATS, budget={"trials": 2})
    simulation = Simulation(database, spec, lambda one: on_blocks(one, {0: 1, 1: 2, 2: 3, 3: 6}))
    simulation.run()
    for trial in trials_of(simulation):
        assert trial.values == [3.0]
        assert trial.intermediate_values == {0: 1.0, 1: 2.0, 2: 3.0, 3: 6.0}
        assert trial.user_attrs["standard_error"] == pytest.approx(1.0801, abs=1e-4)
        assert trial.user_attrs["size"] == 3.0


def test_a_lost_attempt_resumes_at_the_first_repeat_without_a_value(database: Database) -> None:
    evaluated: Counter[tuple[int, int]] = Counter()

    def script(launch: Launch) -> Steps:
        steps = on_blocks(launch, {0: 1, 1: 2, 2: 3, 3: 6})
        kept = [*steps[:2], (0.5, Lost("killed"))] if launch.attempt.number == 1 else steps
        for _, payload in kept:
            if isinstance(payload, Reported):
                evaluated[launch.trial_number, payload.step] += 1
        return kept

    simulation = Simulation(database, make_spec(evaluation=REPEATS), script)
    simulation.run()
    assert evaluated == {(trial, step): 1 for trial in range(10) for step in range(4)}
    assert {t.value for t in trials_of(simulation)} == {3.0}


def test_poor_trials_stop_after_their_first_repeat(database: Database) -> None:
    def script(launch: Launch) -> Steps:
        base = 0.1 if launch.trial_number < 5 else 0.9
        wobble = {0: 0.01, 1: 0.0, 2: 0.02, 3: 0.01}
        return on_blocks(
            launch, {k: base + one * (1 + launch.trial_number % 3) for k, one in wobble.items()}
        )

    spec = make_spec(evaluation=REPEATS, pruner={"name": "auto"}, parallelism=1)
    simulation = Simulation(database, spec, script)
    simulation.run()
    trials = trials_of(simulation)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5 + ["PRUNED"] * 5
    assert all(len(trial.intermediate_values) < 4 for trial in trials[5:])
    (reason,) = simulation.sql("SELECT reason FROM decisions WHERE kind = 'prune' LIMIT 1")[0]
    assert "after 1 of 4 repeats" in reason
    assert all(0.8 < (trial.value or 0) < 1 for trial in trials[5:]), "the forecast of their mean"


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "retried"])
def test_a_repeat_that_is_no_number_is_evaluated_again(database: Database, is_killed: bool) -> None:
    evaluated: list[list[int]] = []

    def script(launch: Launch) -> Steps:
        evaluated.append([block.step for block in launch.blocks])
        if launch.attempt.number > 1:
            return on_blocks(launch, {0: 1, 1: 2, 2: 3, 3: 6})
        outcome = Lost("killed") if is_killed else Finished({"loss": math.nan})
        return [
            (1.0, Reported(0, {"loss": 1.0})),
            (1.0, Reported(1, {"loss": math.nan})),
            (0.5, outcome),
        ]

    spec = make_spec(evaluation=REPEATS, budget={"trials": 1}, retries={"nan": 1})
    simulation = Simulation(database, spec, script)
    simulation.run()
    (trial,) = trials_of(simulation)
    assert evaluated == [[0, 1, 2, 3], [1, 2, 3]]
    assert trial.values == [3.0]
    assert trial.intermediate_values == {0: 1.0, 1: 2.0, 2: 3.0, 3: 6.0}


def test_a_coordinator_resumes_at_a_repeat_that_is_no_number(database: Database) -> None:
    evaluated: list[list[int]] = []

    def script(launch: Launch) -> Steps:
        evaluated.append([block.step for block in launch.blocks])
        values = {0: 1.0, 1: 2.0, 2: 3.0, 3: 6.0}
        if launch.attempt.number > 1:
            return on_blocks(launch, values)
        return [
            (1.0, Reported(0, {"loss": 1.0})),
            (1.0, Reported(1, {"loss": math.nan})),
            (3600.0, Finished({"loss": math.nan})),
        ]

    spec = make_spec(evaluation=REPEATS, budget={"trials": 1})
    simulation = Simulation(database, spec, script)
    until_reported(simulation, simulation.start(), 1)
    simulation.crash()
    simulation.run()
    (trial,) = trials_of(simulation)
    assert evaluated == [[0, 1, 2, 3], [1, 2, 3]]
    assert trial.values == [3.0]


def test_a_takeover_keeps_the_forecast_of_a_stopped_trial(database: Database) -> None:
    """The first repeat is the easiest: its value alone would lead the sampler astray."""

    def script(launch: Launch) -> Steps:
        base = 0.1 if launch.trial_number < 5 else 0.9
        wobble = 0.01 * (1 + launch.trial_number % 3)
        steps = on_blocks(launch, {step: base + step + (step % 2) * wobble for step in range(4)})
        if launch.trial_number < 5:
            return steps
        return [steps[0], (3600.0, Finished({"loss": 1.0}))]

    spec = make_spec(
        evaluation=REPEATS, pruner={"name": "auto"}, parallelism=1, budget={"trials": 6}
    )
    simulation = Simulation(database, spec, script)
    simulation.share_cluster().obedient = False
    coordinator = simulation.start()
    for _ in range(STEPS_MAX):
        if simulation.sql("SELECT 1 FROM attempts WHERE stop_cause = 'prune'"):
            break
        assert coordinator.step() is None
    simulation.crash()
    simulation.run()
    trial = trials_of(simulation)[5]
    assert trial.state.name == "PRUNED"
    assert trial.value == pytest.approx(0.9 + 1.5, abs=0.1)


# --- in a worker ----------------------------------------------------------------------------------


def attempt_of(folder: Path, evaluation: Evaluation, **job: Any) -> Attempt:
    spec = make_spec(evaluation=evaluation.model_dump())
    launch = replace(make_launch(7, x=0.5), blocks=tuple(blocks_of(spec, 7)))
    made = make_job(folder, evaluation=evaluation, **job)
    return Attempt(made, launch, WorkerInfo("here", 1), Outbox())


def reports_of(attempt: Attempt) -> list[Reported]:
    assert isinstance(attempt.events, Outbox)
    return [payload for _, payload in attempt.events.take(0) if isinstance(payload, Reported)]


def test_a_program_runs_once_for_each_repeat(tmp_path: Path) -> None:
    script = 'echo "{\\"loss\\": $TUNE_FOLD}" > $TUNE_REPORTS; echo $TUNE_SEED >> seeds'
    attempt = attempt_of(tmp_path, Evaluation(repeats=3), command=("sh", "-c", script))
    os.chdir(tmp_path)
    assert run_blocks(run_command, attempt) == {"loss": 2.0}
    assert [(one.step, one.metrics) for one in reports_of(attempt)] == [
        (0, {"loss": 0.0}),
        (1, {"loss": 1.0}),
        (2, {"loss": 2.0}),
    ]
    assert len(set((tmp_path / "seeds").read_text().split())) == 3


def test_reports_and_checkpoints_within_a_fold_are_refused(tmp_path: Path) -> None:
    attempt = attempt_of(tmp_path, Evaluation(repeats=3))

    def reports(one: Attempt) -> Mapping[str, float]:
        one.trial().report(0, loss=1.0)
        return {}

    def checkpoints(one: Attempt) -> Mapping[str, float]:
        one.trial().checkpoint(tmp_path)
        return {}

    with pytest.raises(
        BadReport, match=r"trial.report\(\) does not go with `evaluation`, whose rep"
    ):
        run_blocks(reports, attempt)
    with pytest.raises(BadReport, match=r"trial.checkpoint\(\) does not go with"):
        run_blocks(checkpoints, attempt)
    with pytest.raises(BadReport, match="repeat 0 has no value of loss: return it"):
        run_blocks(lambda one: {}, attempt)


def test_a_trial_ends_between_folds_when_it_is_asked_to(tmp_path: Path) -> None:
    attempt = attempt_of(tmp_path, Evaluation(repeats=3))
    called = []

    def stop_in_the_second(one: Attempt) -> Mapping[str, float]:
        called.append(one.trial().fold)
        if len(called) == 2:
            one.stop()
        return {"loss": 1.0}

    with pytest.raises(Pruned, match="trial 7 stops after step 1"):
        run_blocks(stop_in_the_second, attempt)
    assert called == [0, 1]
    assert len(reports_of(attempt)) == 2


def test_a_fold_that_is_no_number_ends_the_trial(tmp_path: Path) -> None:
    attempt = attempt_of(tmp_path, Evaluation(repeats=3))
    run_blocks(lambda one: {"loss": float("nan")}, attempt)
    assert len(reports_of(attempt)) == 1


# --- on Ray ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("local_ray")
def test_a_killed_worker_costs_no_fold_on_ray(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1 kills its worker in its third fold, before that has a value."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    shutil.copy(OBJECTIVES / "on_folds.py", tmp_path)
    study = tunesvc.run(
        write(tmp_path, {"entrypoint": "on_folds:train", "retries": {"lost": 2}}),
        database_url=database_url,
    )
    lines = (tmp_path / "finished_folds").read_text().split()
    assert Counter(lines) == {f"{trial}/{fold}": 1 for trial in range(3) for fold in range(3)}
    trials = study.optuna().trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert [sorted(trial.intermediate_values) for trial in trials] == [[0, 1, 2]] * 3
    assert (tmp_path / "killed").exists()
    assert len({trial.user_attrs["rows"] for trial in trials}) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("form", ["process", "command"])
def test_folds_in_processes_on_ray(
    form: str, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    shutil.copy(OBJECTIVES / "on_folds.py", tmp_path)
    (tmp_path / "killed").touch()
    keys: dict[str, Any] = {
        "process": {
            "entrypoint": "on_folds:train",
            "environment": {"isolation": "process"},
        },
        "command": {"command": [sys.executable, "on_folds.py"]},
    }[form]
    study = tunesvc.run(write(tmp_path, keys), database_url=database_url)
    lines = (tmp_path / "finished_folds").read_text().split()
    assert Counter(lines) == {f"{trial}/{fold}": 1 for trial in range(3) for fold in range(3)}
    assert [trial.state.name for trial in study.optuna().trials] == ["COMPLETE"] * 3


def write(folder: Path, keys: Mapping[str, Any]) -> Path:
    path = folder / "study.yaml"
    described = {
        "name": "folds",
        "metric": "error",
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
        "budget": 3,
        "parallelism": 1,
        "data": {
            "source": "on_folds:people",
            "target": "bought",
            "steps": [{"apply": "standardize"}],
        },
        "evaluation": {"folds": 3},
        **keys,
    }
    path.write_text(json.dumps(described))
    return path
