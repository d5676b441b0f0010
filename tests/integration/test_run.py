"""Whole studies on real Ray and real Postgres, one for each form an objective may have."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import optuna
import pytest
import sqlalchemy as sa

import tunesvc
from tests.support.specs import make_spec
from tunesvc import Choice, Float, Trial, api, tunable
from tunesvc.errors import SpecError, StudyExists, StudyFailed, TuneError, UnsatisfiableRequest
from tunesvc.queries.checkpoint_files import find_best_checkpoint
from tunesvc.spec.yaml.document import StudyDocument

OBJECTIVES = Path(__file__).parent.parent / "objectives"

pytestmark = pytest.mark.usefixtures("local_ray")

RunStudy = Callable[..., tunesvc.Study]


@pytest.fixture
def run_study(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> RunStudy:
    """Write a study file beside the objectives and run it; each worker takes a second to start."""
    for module in ("plain.py", "broken.py"):
        shutil.copy(OBJECTIVES / module, tmp_path)
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))

    def run(function: str = "quadratic", *, resume: bool = False, **keys: Any) -> tunesvc.Study:
        spec = {
            "name": "study",
            "entrypoint": f"plain:{function}",
            "metric": "loss",
            "parameters": {"x": {"type": "float", "min": 0.0, "max": 1.0}},
            "sampler": {"name": "tpe", "seed": 1},
            "budget": {"trials": 4},
            "parallelism": 1,
        } | keys
        file = tmp_path / "study.yaml"
        file.write_text(
            json.dumps({key: value for key, value in spec.items() if value is not None})
        )
        return tunesvc.run(file, database_url=database_url, resume=resume)

    return run


def test_a_plain_function_with_reports_pruning_and_output(run_study: RunStudy) -> None:
    space = {"x": {"min": 0.0, "max": 1.0}, "n": {"type": "int", "min": 1, "max": 3}}
    study = run_study(
        parameters=space, budget=12, pruner={"name": "median", "n_startup_trials": 3}, parallelism=2
    )
    assert study.state == "finished"
    assert len(study.trials) == 12
    assert {trial.state for trial in study.trials} <= {"complete", "pruned"}
    assert study.best_trials
    assert study.best_trial.values[0] == pytest.approx((study.best_trial.params["x"] - 0.3) ** 2)  # type: ignore[operator]
    frame = study.trials_dataframe()
    assert len(frame) == 12
    assert study.optuna().best_value == study.best_trial.values[0]


def test_a_paused_trial_continues_from_its_checkpoint(run_study: RunStudy) -> None:
    """On real workers: each step is trained once, but for the one during which a trial was asked
    to pause."""
    pruner = {"name": "asha", "min": 1, "max": 9, "eta": 3, "form": "promote"}
    study = run_study("resumable", budget=9, pruner=pruner, parallelism=2)
    assert study.state == "finished"
    assert len(study.trials) == 9
    assert {trial.state for trial in study.trials} == {"complete", "pruned"}
    with study._database.engine.connect() as connection:
        ends = connection.execute(
            sa.text("SELECT state, count(*) FROM attempts GROUP BY state")
        ).all()
        retrained = connection.execute(
            sa.text("""SELECT 1 FROM attempts a JOIN attempts b ON b.trial_id = a.trial_id AND b.number = a.number + 1
                       JOIN reports r ON r.trial_id = b.trial_id AND r.attempt = b.number AND r.step <= a.checkpoint_step
                       WHERE a.state = 'paused'""")
        ).all()
        promoted = (
            connection.execute(sa.text("SELECT reason FROM decisions WHERE kind = 'promote'"))
            .scalars()
            .all()
        )
    assert {row.state for row in ends} == {"finished", "paused"}
    assert not retrained
    assert promoted
    assert all("resumes from step" in reason for reason in promoted)
    assert study.best_trials
    saved = find_best_checkpoint(study._database, study.view)
    assert (saved.trial_number, saved.step, Path(saved.path).read_text()) == (
        study.best_trial.number,
        9,
        "9",
    )


@pytest.mark.slow
def test_a_conditional_space(run_study: RunStudy) -> None:
    space = {
        "model": {"values": ["tree", "net"]},
        "depth": {"type": "int", "min": 1, "max": 9, "when": {"model": "tree"}},
        "lr": {"min": 0.001, "max": 1.0, "log": True, "when": {"model": "net"}},
    }
    study = run_study("conditional", parameters=space, budget=10)
    assert [trial.state for trial in study.trials] == ["complete"] * 10
    for trial in study.trials:
        assert set(trial.params) == (
            {"model", "depth"} if trial.params["model"] == "tree" else {"model", "lr"}
        )


@pytest.mark.slow
def test_several_metrics_with_a_constraint(run_study: RunStudy) -> None:
    study = run_study(
        "two_metrics",
        metric=None,
        metrics=[{"name": "loss"}, {"name": "ms", "goal": "minimize"}],
        constraints=[{"metric": "ms", "max": 8.0}],
        sampler={"name": "nsga2", "seed": 1},
        budget=10,
    )
    assert [trial.state for trial in study.trials] == ["complete"] * 10
    assert study.best_trials
    assert all(trial.values[1] <= 8.0 for trial in study.best_trials)


def test_a_generator_that_yields_metrics_and_whose_name_is_taken_then(run_study: RunStudy) -> None:
    study = run_study("epochs")
    assert [trial.last_step for trial in study.trials] == [3] * 4
    with pytest.raises(StudyExists, match="tune extend study"):
        run_study("epochs")


def test_an_optuna_objective_as_it_is(run_study: RunStudy) -> None:
    study = run_study("optuna_style", parameters=None, budget=6)
    assert {trial.state for trial in study.trials} <= {"complete", "pruned"}
    assert all(set(trial.params) == {"x", "kind"} for trial in study.trials)


def test_a_ray_tune_function_as_it_is(run_study: RunStudy) -> None:
    study = run_study(
        "ray_style", pruner={"name": "none"}
    )  # else a slow trial may be paused for good
    assert [trial.state for trial in study.trials] == ["complete"] * 4
    assert all(trial.values[0] == pytest.approx(trial.params["x"] + 0.25) for trial in study.trials)  # type: ignore[operator]


def test_a_program_that_writes_json_lines(run_study: RunStudy, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import json, os, sys\n"
        "x = float(sys.argv[1])\n"
        "with open(os.environ['TUNE_REPORTS'], 'w') as reports:\n"
        "    for step in range(3):\n"
        "        print(json.dumps({'step': step, 'loss': x + step}), file=reports, flush=True)\n"
        "print('done with', x)\n"
    )
    study = run_study(entrypoint=None, command=[sys.executable, "program.py", "${x}"])
    assert [trial.state for trial in study.trials] == ["complete"] * 4
    assert all(trial.values[0] == pytest.approx(trial.params["x"] + 2) for trial in study.trials)  # type: ignore[operator]


def test_the_decorator(database_url: str) -> None:
    @tunable(metric="loss", sampler={"name": "tpe", "seed": 1}, parallelism=1)
    def train(
        x: Annotated[float, Float(0.0, 1.0)],
        kind: Annotated[str, Choice("a", "b")] = "a",
        *,
        trial: Trial,
    ) -> float:
        trial.report(0, loss=x)
        return x if kind == "a" else x + 1

    assert train(0.25) == 0.25
    study = train.tune(trials=5, database_url=database_url)
    assert [trial.state for trial in study.trials] == ["complete"] * 5
    assert study.best_trials
    assert study.best_trial.values[0] == train(**study.best_trial.params)  # type: ignore[arg-type]


def test_a_killed_worker_costs_an_attempt_and_the_next_continues_from_the_checkpoint(
    run_study: RunStudy,
) -> None:
    """Fault 13."""
    study = run_study("killed_once", retries={"lost": 1}, budget=2)
    assert [trial.state for trial in study.trials] == ["complete"] * 2
    assert [trial.attempts for trial in study.trials] == [2, 2]
    assert [trial.last_step for trial in study.trials] == [3, 3]


def test_trials_that_hang_or_ignore_the_stop_are_ended_and_the_others_finish(
    run_study: RunStudy,
) -> None:
    """Faults 20 and 21."""
    study = run_study(
        "unruly", parallelism=4, limits={"wall": 2, "silence": 1, "grace": 0.5}, budget=4
    )
    assert [trial.state for trial in study.trials] == ["failed", "failed", "complete", "complete"]
    assert [trial.failure for trial in study.trials] == ["silence", "timeout", None, None]


@pytest.mark.slow  # test_ray_executor.py has it without a study
def test_half_a_gpu_each_lets_four_trials_share_two_devices(run_study: RunStudy) -> None:
    study = run_study("devices", parallelism=None, resources={"cpu": 0.5, "gpu": 0.5})
    trials = study.optuna().trials
    assert sorted(trial.user_attrs["device"] for trial in trials) == [0.0, 0.0, 1.0, 1.0]
    assert [trial.user_attrs["together"] for trial in trials] == [4.0] * 4


def test_a_request_that_can_never_be_met_says_what_there_is(
    run_study: RunStudy, database_url: str
) -> None:
    """Fault 17."""
    with pytest.raises(UnsatisfiableRequest, match=r"99.*GPU"):
        run_study("devices", resources={"gpu": 99})
    refused = tunesvc.load_study("study", database_url=database_url)
    assert (refused.state, "99 GPU" in refused.reason) == ("failed", True)
    assert run_study("epochs", resources={"gpu": 1}).state == "finished", (
        "a refused study must not keep its name"
    )


def test_a_run_that_is_interrupted_before_it_begins_says_so(
    run_study: RunStudy, database_url: str
) -> None:
    parameters = {"x": {"min": 0.0, "max": 1.0}, "n": {"type": "int", "min": 1, "max": 3}}
    assert not run_study(parameters=parameters).interrupted
    api.load_study("study", database_url=database_url).extend(trials=1)
    interrupt = threading.Event()
    interrupt.set()
    study = api.load_study("study", database_url=database_url).resume(interrupt=interrupt)
    assert study.interrupted
    assert len(study.trials) == 4


def test_an_entrypoint_that_cannot_be_imported_ends_the_study_which_may_be_mended_but_not_shrink(
    run_study: RunStudy, database_url: str
) -> None:
    """Fault 40."""
    with pytest.raises(StudyFailed, match="no_such_library"):
        run_study(entrypoint="broken:train")
    assert tunesvc.load_study("study", database_url=database_url).state == "failed"
    assert run_study("epochs", budget=12, resume=True).state == "finished"
    with pytest.raises(StudyExists, match="x: its range .* may grow, not shrink"):
        run_study("epochs", parameters={"x": {"min": 0.5, "max": 0.6}}, resume=True)


def test_seeds_that_trials_share_stay_as_they_are(run_study: RunStudy) -> None:
    """Else what is known of each would be held against trials that had another one."""
    run_study("epochs", seeds=3, seed=1, budget=4)
    with pytest.raises(StudyExists, match="has trials with other evaluation than"):
        run_study("epochs", seeds=4, seed=1, budget=8, resume=True)
    with pytest.raises(StudyExists, match="has trials with other seed than"):
        run_study("epochs", seeds=3, seed=2, budget=8, resume=True)
    assert run_study("epochs", seeds=3, seed=1, budget=8, resume=True).state == "finished"


def test_a_missing_function_is_refused_before_anything_is_started(run_study: RunStudy) -> None:
    """Fault 40."""
    with pytest.raises(SpecError, match="`plain.py` has no `quadratik`, did you mean `quadratic`"):
        run_study("quadratik")


def test_a_function_that_cannot_travel_is_refused_in_words(database_url: str) -> None:
    lock = threading.Lock()

    @tunable(metric="loss")
    def train(x: Annotated[float, Float(0.0, 1.0)]) -> float:
        with lock:
            return x

    with pytest.raises(TuneError, match=r"train cannot be sent to workers.*lock"):
        train.tune(trials=1, database_url=database_url)


def test_a_spec_made_by_hand_is_checked_like_a_file(database_url: str) -> None:
    with pytest.raises(SpecError, match="no_such_module"):
        tunesvc.run(make_spec(entrypoint="no_such_module.py:train"), database_url=database_url)


def test_the_storage_serves_plain_optuna(database_url: str) -> None:
    study = optuna.create_study(storage=tunesvc.storage(database_url), study_name="plain")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=5)
    assert tunesvc.load_study("plain", database_url=database_url).best_trials


def test_a_study_whose_folder_was_moved_is_refused_before_a_trial_starts_and_continues_in_the_new_one(
    database_url: str, tmp_path: Path
) -> None:
    folder, moved = tmp_path / "here", tmp_path / "there"
    folder.mkdir()
    shutil.copy(OBJECTIVES / "plain.py", folder)
    spec = make_spec(name="moves", entrypoint="plain:quadratic", budget={"trials": 1})
    assert len(tunesvc.run(StudyDocument(spec, "", folder), database_url=database_url).trials) == 1
    folder.rename(moved)
    api.load_study("moves", database_url=database_url).extend(trials=1)
    with pytest.raises(TuneError, match=rf"no folder {folder}.*tune resume moves --folder DIR"):
        api.load_study("moves", database_url=database_url).resume()
    with pytest.raises(TuneError, match=r"no `plain.py` in "):
        api.load_study("moves", database_url=database_url).resume(folder=tmp_path)
    study = api.load_study("moves", database_url=database_url).resume(folder=moved)
    assert [trial.state for trial in study.trials] == ["complete"] * 2
    (moved / "plain.py").unlink()
    with pytest.raises(TuneError, match=r"no `plain.py` in "):
        api.load_study("moves", database_url=database_url).resume()
