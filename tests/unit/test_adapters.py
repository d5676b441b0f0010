"""Every form of an objective, run in this process: its reports and its result."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
import pytest

from tests.support.jobs_and_events import make_job, make_launch
from tunesvc import Choice, Pruned, Trial
from tunesvc.errors import BadReport
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.executor import (
    STUDY,
    AttrSet,
    Checkpointed,
    Finished,
    Reported,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.execution.objectives.adapters import prepare
from tunesvc.execution.objectives.entrypoint import load
from tunesvc.execution.worker.batching import BatchSignal
from tunesvc.execution.worker.outbox import Outbox

MakeAttempt = Callable[..., Attempt]
BELL = BatchSignal()


@pytest.fixture
def attempt(tmp_path: Path) -> MakeAttempt:
    """Make an attempt with these parameters."""

    def make(
        params: dict[str, Any] | None = None, *, checkpoint: str | None = None, **job: Any
    ) -> Attempt:
        launch = make_launch(7, checkpoint=checkpoint, **(params or {}))
        made = Attempt(
            make_job(tmp_path, **job),
            launch,
            WorkerInfo("here", 1, ("0",)),
            Outbox(BELL),
            BELL.lock,
        )
        made._restore()
        return made

    return make


def outbox_of(attempt: Attempt) -> Outbox:
    assert isinstance(attempt.events, Outbox)
    return attempt.events


def payloads_of(attempt: Attempt, kind: type = object) -> list[Any]:
    return [payload for _, payload in outbox_of(attempt).take(0) if isinstance(payload, kind)]


def curve(attempt: Attempt) -> list[tuple[int, dict[str, float]]]:
    return [(report.step, dict(report.metrics)) for report in payloads_of(attempt, Reported)]


# --- by name
# ------------------------------------------------------------------------------------------


def test_parameters_come_by_name_and_the_trial_only_if_it_is_wanted(attempt: MakeAttempt) -> None:
    def train(lr: float, layers: int = 2, *, trial: Trial) -> float:
        trial.report(1, loss=lr)
        return lr * layers + trial.number

    asked = attempt({"lr": 0.5})
    assert prepare(train)(asked) == {"loss": 8.0}
    assert curve(asked) == [(1, {"loss": 0.5})]
    assert prepare(lambda lr: lr)(attempt({"lr": 0.5})) == {"loss": 0.5}


def test_any_parameters_fit_double_stars(attempt: MakeAttempt) -> None:
    assert prepare(lambda **params: sum(params.values()))(attempt({"a": 1, "b": 2})) == {
        "loss": 3.0
    }


def test_a_single_parameter_of_that_name_is_no_config(attempt: MakeAttempt) -> None:
    assert prepare(lambda lr: lr)(attempt({"lr": 0.25})) == {"loss": 0.25}
    assert prepare(lambda config: config["lr"])(attempt({"lr": 0.25})) == {"loss": 0.25}


def test_lists_come_as_tuples_where_the_choice_of_an_annotation_has_tuples(
    attempt: MakeAttempt,
) -> None:
    def train(
        layers: Annotated[tuple[int, ...], Choice((32, 16), (64, 32))], sizes: list[int]
    ) -> float:
        assert (layers, sizes) == ((64, 32), [1, 2])
        return 0.0

    assert prepare(train)(attempt({"layers": [64, 32], "sizes": [1, 2]})) == {"loss": 0.0}


def test_a_config_may_have_other_arguments_with_defaults_beside_it(attempt: MakeAttempt) -> None:
    def train(config: dict[str, float], data: object = None) -> float:
        assert data is None
        return config["x"]

    assert prepare(train)(attempt({"x": 0.5})) == {"loss": 0.5}
    with pytest.raises(EntrypointError, match="needs `lr`, which this trial does not have"):
        prepare(lambda lr, layers=2: lr)(attempt({"layers": 1}))


def test_a_wrapped_function_is_called_through_its_wrapper(attempt: MakeAttempt) -> None:
    def doubled(function: Callable[..., float]) -> Callable[..., float]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> float:
            return 2 * function(*args, **kwargs)

        return wrapper

    @doubled
    def train(lr: float) -> float:
        return lr

    assert prepare(train)(attempt({"lr": 1.5})) == {"loss": 3.0}


def test_a_parameter_too_many_or_too_few_is_named_with_a_remedy(attempt: MakeAttempt) -> None:
    def train(lr: float, layers: int) -> float:
        return lr * layers

    with pytest.raises(EntrypointError, match="needs `layers`, which this trial does not have"):
        prepare(train)(attempt({"lr": 0.5}))
    with pytest.raises(EntrypointError, match="does not take `momentum`: add it to the signature"):
        prepare(train)(attempt({"lr": 0.5, "layers": 1, "momentum": 0.9}))


# --- what comes back
# ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "metrics"),
    [
        (None, {}),
        (1, {"loss": 1.0}),
        ({"loss": 1, "ms": 2.5}, {"loss": 1.0, "ms": 2.5}),
        ((1, 2), {"loss": 1.0, "ms": 2.0}),
        ([1, 2], {"loss": 1.0, "ms": 2.0}),
    ],
)
def test_numbers_dicts_tuples_and_nothing_may_be_returned(
    attempt: MakeAttempt, returned: object, metrics: dict[str, float]
) -> None:
    assert prepare(lambda: returned)(attempt(metrics=("loss", "ms"))) == metrics


def test_what_a_returned_dict_holds_besides_numbers_becomes_attributes(
    attempt: MakeAttempt,
) -> None:
    result = {
        "loss": 1,
        "eval": {"ms": 2.5, "by": {"class": 3}},
        "note": "text",
        "ok": np.bool_(True),
        "sizes": (1, 2),
    }
    asked = attempt()
    assert prepare(lambda: result)(asked) == {"loss": 1.0, "eval/ms": 2.5, "eval/by/class": 3.0}
    attributes = [AttrSet("note", '"text"'), AttrSet("ok", "true"), AttrSet("sizes", "[1, 2]")]
    assert payloads_of(asked, AttrSet) == attributes


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"loss": "low"}, "metric loss is 'low'"),
        ({"loss": 1, "model": object()}, "metric model is <object"),
        ({"loss": 1, "sizes": [object()]}, "sizes is a list, which cannot be written as JSON"),
    ],
)
def test_a_result_that_can_be_neither_is_refused_by_name(
    attempt: MakeAttempt, result: dict[str, object], message: str
) -> None:
    with pytest.raises(BadReport, match=message):
        prepare(lambda: result)(attempt())


def test_an_attempt_has_a_folder_of_its_own_and_attributes(attempt: MakeAttempt) -> None:
    def train(*, trial: Trial) -> float:
        assert not list(trial.directory.iterdir())
        (trial.directory / "scratch").touch()
        trial.set_user_attr("sizes", np.arange(3))
        return 1.0

    first, second = attempt(), attempt()
    for asked in (first, second):
        prepare(train)(asked)
        assert payloads_of(asked, AttrSet) == [AttrSet("sizes", "[0, 1, 2]")]
    assert first.directory != second.directory
    with pytest.raises(BadReport, match="model is a object, which cannot be written as JSON"):
        first.trial().set_user_attr("model", object())


def test_a_plain_call_has_a_folder_too_that_goes_with_the_trial() -> None:
    trial = Trial()
    trial.set_user_attr("note", "discarded")
    folder = trial.directory
    assert folder.is_dir()
    del trial
    gc.collect()
    assert not folder.exists()


def test_as_many_values_as_metrics_are_needed(attempt: MakeAttempt) -> None:
    with pytest.raises(BadReport, match=r"3 values for 2 metrics \(loss, ms\)"):
        prepare(lambda: (1, 2, 3))(attempt(metrics=("loss", "ms")))


def test_each_yield_is_a_report_and_the_returned_value_the_result(attempt: MakeAttempt) -> None:
    def train(lr: float) -> Iterator[object]:
        yield lr
        yield {"loss": 2.0, "ms": 5}
        yield {"loss": 3.0, "step": 10}
        return 9.0

    asked = attempt({"lr": 1.0})
    assert prepare(train)(asked) == {"loss": 9.0}
    assert curve(asked) == [(0, {"loss": 1.0}), (1, {"loss": 2.0, "ms": 5.0}), (10, {"loss": 3.0})]


def test_a_stopped_generator_runs_its_finally(attempt: MakeAttempt) -> None:
    cleaned = []

    def train() -> Iterator[float]:
        try:
            while True:
                yield 1.0
        finally:
            cleaned.append(True)

    asked = attempt()
    asked.stop()
    with pytest.raises(Pruned):
        prepare(train)(asked)
    assert cleaned == [True]
    assert curve(asked) == [(0, {"loss": 1.0})]


# --- Optuna
# -----------------------------------------------------------------------------------------------


def optuna_objective(trial):
    x = trial.suggest_float("x", 0.0, 1.0)
    n = trial.suggest_int("n", 1, 4, log=True)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    trial.set_user_attr("note", {"n": n})
    for step in range(3):
        trial.report(x, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    assert trial.number == 7
    assert trial.params == {"x": x, "n": n, "kind": kind}
    assert isinstance(trial, optuna.trial.BaseTrial)
    return x


def test_an_optuna_objective_gets_the_values_that_the_study_declares(attempt: MakeAttempt) -> None:
    asked = attempt({"x": 0.5, "n": 2, "kind": "b"})
    assert prepare(optuna_objective)(asked) == {"loss": 0.5}
    assert [step for step, _ in curve(asked)] == [0, 1, 2]
    assert payloads_of(asked, AttrSet) == [AttrSet("note", '{"n": 2}')]


def test_an_optuna_objective_that_asks_for_what_is_not_declared_says_so(
    attempt: MakeAttempt,
) -> None:
    with pytest.raises(
        EntrypointError, match="asks for parameter `n`, which this trial does not have"
    ):
        prepare(optuna_objective)(attempt({"x": 0.5}))


def test_without_declared_parameters_the_sampler_is_asked_and_constants_are_not(
    attempt: MakeAttempt,
) -> None:
    asked = attempt({"kind": "a"}, define_by_run=True)
    asked.answer("x", 0.25)
    asked.answer("n", 3)
    assert prepare(optuna_params)(asked) == {"loss": 0.25}
    assert [question.name for question in payloads_of(asked, SuggestRequested)] == ["x", "n"]


def optuna_params(trial) -> float:
    assert trial.suggest_categorical("kind", ["a", "b"]) == "a"
    x = trial.suggest_float("x", 0.0, 1.0)
    assert trial.suggest_float("x", 0.0, 1.0) == x
    assert trial.suggest_int("n", 1, 4) == 3
    return float(x)


def test_an_optuna_objective_gets_the_request_to_prune(attempt: MakeAttempt) -> None:
    asked = attempt({"x": 0.5, "n": 2, "kind": "b"})
    asked.stop()
    with pytest.raises(optuna.TrialPruned):
        prepare(optuna_objective)(asked)
    assert [step for step, _ in curve(asked)] == [0]


@pytest.mark.parametrize(
    ("returned", "value"), [(True, 1.0), ("0.5", 0.5), (np.float32(0.25), 0.25), ("nan", math.nan)]
)
def test_results_are_read_as_optuna_reads_them(
    attempt: MakeAttempt, returned: object, value: float
) -> None:
    assert prepare(lambda trial: returned)(attempt())["loss"] == pytest.approx(value, nan_ok=True)


def test_an_annotation_or_a_study_without_parameters_tells_an_optuna_objective(
    attempt: MakeAttempt,
) -> None:
    def annotated(t: optuna.Trial, data: object = None) -> float:
        return t.suggest_float("x", 0.0, 1.0)

    def named_otherwise(t):
        return t.suggest_float("x", 0.0, 1.0)

    def quoted(t: "optuna.trial.BaseTrial"):  # noqa: UP037  # as written where annotations are not imported
        return t.suggest_float("x", 0.0, 1.0)

    checked_only: dict[
        str, Any
    ] = {}  # `Trial` was imported for type checkers, and is a name of ours too
    exec("def objective(t: 'Trial'): return t.suggest_float('x', 0.0, 1.0)", checked_only)  # noqa: S102
    for objective in (annotated, quoted, functools.partial(annotated, data=1)):
        assert prepare(objective)(attempt({"x": 0.5})) == {"loss": 0.5}
    for objective in (named_otherwise, checked_only["objective"]):
        asked = attempt(define_by_run=True)
        asked.answer("x", 0.25)
        assert prepare(objective)(asked) == {"loss": 0.25}


def test_choices_of_an_optuna_objective_may_be_lists_and_come_back_as_they_stand(
    attempt: MakeAttempt,
) -> None:
    choices = [(32, 16), [64, 32], {"a": 1}, np.int64(3)]

    def objective(trial):
        chosen = trial.suggest_categorical("units", choices)
        assert trial.params["units"] is not None
        return float(next(i for i, choice in enumerate(choices) if choice is chosen))

    for place, text in enumerate(["[32, 16]", "[64, 32]", '{"a": 1}', 3]):
        asked = attempt(define_by_run=True)
        asked.answer("units", text)
        assert prepare(objective)(asked) == {"loss": float(place)}
        (question,) = payloads_of(asked, SuggestRequested)
        assert json.loads(question.distribution)["attributes"]["choices"] == [
            "[32, 16]",
            "[64, 32]",
            '{"a": 1}',
            3,
        ]
    assert prepare(lambda trial: trial.suggest_categorical("units", choices)[0])(
        attempt({"units": [32, 16]})
    )
    with pytest.raises(
        TypeError, match="parameter 'units': a choice of type object cannot be stored"
    ):
        prepare(lambda trial: trial.suggest_categorical("units", [object()]))(
            attempt(define_by_run=True)
        )


def test_an_optuna_objective_reads_its_study_and_writes_to_its_own_trial(
    attempt: MakeAttempt, tmp_path: Path
) -> None:
    """Covers LightGBM's pruning callback, the upload of artifacts and Optuna's error
    evaluators."""
    (tmp_path / "model.txt").write_text("weights")
    store = optuna.artifacts.FileSystemArtifactStore(tmp_path)

    def objective(trial):
        assert trial.study.direction == optuna.study.StudyDirection.MAXIMIZE
        assert trial.study.study_name == "study"
        assert isinstance(trial, optuna.Trial)
        trial.set_constraint("memory", 0.5)
        assert trial.constraints == {"memory": 0.5}
        trial.storage.set_trial_system_attr(trial._trial_id, "cross_validation_scores", [0.1, 0.2])
        optuna.artifacts.upload_artifact(
            artifact_store=store, file_path=str(tmp_path / "model.txt"), study_or_trial=trial
        )
        trial.report("0.5", step=1.0)
        with pytest.raises(
            NotImplementedError, match="the study 'study' is run by its coordinator"
        ):
            trial.study.set_user_attr("note", 1)
        with pytest.raises(NotImplementedError, match="an objective cannot end its study"):
            trial.study.stop()
        with pytest.raises(ValueError, match="belong to the study"):
            trial.storage.set_trial_system_attr(trial._trial_id, "tunesvc:seed", 1)
        return 1.0

    asked = attempt(goals=("maximize",))
    assert prepare(objective)(asked) == {"loss": 1.0}
    assert curve(asked) == [(1, {"loss": 0.5})]
    memory, scores, artifact = payloads_of(asked, AttrSet)
    assert memory == AttrSet("constraints:memory", "0.5", "system")
    assert scores == AttrSet("cross_validation_scores", "[0.1, 0.2]", "system")
    assert artifact.kind == "system"
    assert artifact.name.startswith("artifacts:")


def test_other_trials_of_the_study_are_asked_for(attempt: MakeAttempt) -> None:
    earlier = optuna.trial.create_trial(value=0.125, user_attrs={"note": "first"})

    def objective(trial):
        best = trial.study.best_trial
        states = [one.state.name for one in trial.study.trials]
        assert states == ["COMPLETE", *["RUNNING"] * 7]
        assert (best.user_attrs, trial.study.user_attrs) == ({"note": "first"}, {"made": "here"})
        return trial.study.best_value

    running = [optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING) for _ in range(7)]
    trials = [earlier, *running]
    for number, trial in enumerate(trials):
        trial.number = number
    asked = attempt()
    answering = threading.Thread(target=answer_with, args=[asked, ({"made": "here"}, {}, trials)])
    answering.start()
    assert prepare(objective)(asked) == {"loss": 0.125}
    outbox_of(asked).put(Finished())
    answering.join()


def answer_with(attempt: Attempt, study: tuple[dict[str, Any], dict[str, Any], list[Any]]) -> None:
    """Answer each question for the study, until the attempt has ended."""
    seen = 0
    while True:
        for seq, payload in outbox_of(attempt).take(seen):
            seen = seq
            if isinstance(payload, StudyRequested):
                attempt.answer(STUDY, pickle.dumps(study))
            if isinstance(payload, Finished):
                return
        with BELL.lock:
            BELL.wait(lambda after=seen: outbox_of(attempt).count(after) > 0, lambda: True, 5.0)  # type: ignore[misc]


def test_a_positional_trial_annotated_as_ours_is_ours(attempt: MakeAttempt) -> None:
    def train(trial: Trial) -> float:
        trial.report(3, loss=0.5)
        return float(trial.params["lr"])  # type: ignore[arg-type]

    def under_another_name(me: Trial) -> float:
        return float(me.params["lr"])  # type: ignore[arg-type]

    asked = attempt({"lr": 0.1})
    assert prepare(train)(asked) == {"loss": 0.1}
    assert curve(asked) == [(3, {"loss": 0.5})]
    assert prepare(under_another_name)(attempt({"lr": 0.1})) == {"loss": 0.1}


# --- Ray Tune
# -----------------------------------------------------------------------------------------------


def ray_function(config) -> None:
    from ray.tune import Checkpoint, get_checkpoint, get_context, report

    start = 0
    if checkpoint := get_checkpoint():
        with checkpoint.as_directory() as folder:
            start = int(Path(folder, "state").read_text())
    assert get_context().get_trial_id() == "7.1"
    for i in range(start, start + 2):
        folder = Path(config["folder"]) / f"save{i}"
        folder.mkdir()
        (folder / "state").write_text(str(i + 1))
        metrics = {"loss": config["model"]["lr"] * i, "done": False}
        report(metrics, checkpoint=Checkpoint.from_directory(str(folder)))


def test_a_ray_tune_function_reports_iterations_from_one_and_resumes(
    attempt: MakeAttempt, tmp_path: Path
) -> None:
    first = attempt({"model/lr": 0.5, "folder": str(tmp_path)})
    assert prepare(ray_function)(first) == {}
    assert curve(first) == [(1, {"loss": 0.0}), (2, {"loss": 0.5})]
    saved = payloads_of(first, Checkpointed)
    assert [checkpoint.step for checkpoint in saved] == [1, 2]
    second = attempt({"model/lr": 0.5, "folder": str(tmp_path)}, checkpoint=saved[-1].path)
    prepare(ray_function)(second)
    assert curve(second) == [(3, {"loss": 1.0}), (4, {"loss": 1.5})]


def test_a_ray_tune_function_is_stopped_at_its_report(attempt: MakeAttempt, tmp_path: Path) -> None:
    asked = attempt({"model/lr": 0.5, "folder": str(tmp_path)})
    asked.stop()
    with pytest.raises(Pruned):
        prepare(ray_function)(asked)
    assert [step for step, _ in curve(asked)] == [1]


def test_the_metric_of_a_ray_tune_function_has_to_be_a_number(attempt: MakeAttempt) -> None:
    def train(config) -> None:
        from ray import tune

        tune.report({"loss": "low"})

    with pytest.raises(BadReport, match="metric loss is 'low'"):
        prepare(train)(attempt())


def test_a_ray_tune_function_works_in_a_directory_of_its_own(
    attempt: MakeAttempt, tmp_path: Path
) -> None:
    def train(config: dict[str, float]) -> None:
        from ray import tune

        assert not list(Path().iterdir())
        Path("state.txt").write_text(str(config["x"]))
        folder = tune.get_context().get_trial_dir()
        assert Path(folder) == Path.cwd()
        tune.report({"loss": config["x"]}, checkpoint=tune.Checkpoint.from_directory(folder))

    here = Path.cwd()
    for x in (0.25, 0.5):
        asked = attempt({"x": x}, checkpoint_root=str(tmp_path / str(x)))
        assert prepare(train)(asked) == {}
        assert Path.cwd() == here
        (saved,) = payloads_of(asked, Checkpointed)
        assert Path(saved.path, "state.txt").read_text() == str(x)


def test_a_ray_tune_function_ends_where_a_report_says_done_or_the_study_says_stop(
    attempt: MakeAttempt,
) -> None:
    ended = []

    def train(config: dict[str, Any]) -> dict[str, object]:
        from ray import tune

        assert "stop" not in config
        try:
            for step in range(10):
                with contextlib.suppress(Exception):
                    tune.report({"loss": step, "done": step == config["last"]})
        finally:
            ended.append(True)
        return {"loss": 99}

    asked = attempt({"last": 2})
    assert prepare(train)(asked) == {}
    assert [step for step, _ in curve(asked)] == [1, 2, 3]
    asked = attempt({"last": 99, "stop": {"training_iteration": 4}})
    assert prepare(train)(asked) == {}
    assert [step for step, _ in curve(asked)] == [1, 2, 3, 4]
    asked = attempt({"last": 99, "stop": {"loss": 1, "absent": 0}})
    assert prepare(train)(asked) == {}
    assert [step for step, _ in curve(asked)] == [1, 2]
    assert ended == [True] * 3


def test_a_ray_tune_function_whose_last_report_says_done_is_complete_though_it_was_asked_to_stop(
    attempt: MakeAttempt,
) -> None:
    def train(config: dict[str, Any]) -> None:
        from ray import tune

        tune.report({"loss": 1.0, "done": True})

    asked = attempt()
    asked.stop()
    assert prepare(train)(asked) == {}
    assert not asked.noticed_stop


def test_results_of_ray_tune_are_flattened_and_their_text_is_kept(attempt: MakeAttempt) -> None:
    def train(config: dict[str, Any]) -> dict[str, object]:
        from ray import tune

        for note in ("warm", "warm", "hot"):
            tune.report(
                {"eval": {"loss": 1}, "note": note, "confusion": [[1, 2]], "model": object()}
            )
        return {"eval": {"loss": 2}, "done": True}

    asked = attempt({"x": 1}, metrics=("eval/loss",))
    assert prepare(train)(asked) == {"eval/loss": 2.0}
    assert curve(asked) == [(step, {"eval/loss": 1.0}) for step in (1, 2, 3)]
    assert payloads_of(asked, AttrSet) == [AttrSet("note", '"warm"'), AttrSet("note", '"hot"')]


# --- entrypoints
# ----------------------------------------------------------------------------------------


def test_a_file_or_a_module_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "by_file.py").write_text(
        "class Model:\n    @staticmethod\n    def train(): return 5\n"
    )
    assert load("by_file.py:Model.train", tmp_path)() == 5


@pytest.mark.parametrize(
    ("entrypoint", "message"),
    [
        ("train", "not of the form `module:function`"),
        ("nowhere:train", "no module 'nowhere' in "),
        ("absent.py:train", "there is no file "),
        ("good.py:trian", "has no 'trian'; did you mean `train`?"),
        ("good.py:number", "is a int, not a function"),
        ("broken.py:train", "cannot be imported: ZeroDivisionError: division by zero"),
        (
            "needs.py:train",
            "cannot be imported: ModuleNotFoundError: No module named 'not_installed'",
        ),
    ],
)
def test_an_entrypoint_that_cannot_be_loaded_says_why(
    tmp_path: Path, entrypoint: str, message: str
) -> None:
    """Fault 40."""
    (tmp_path / "good.py").write_text("number = 1\ndef train(): return 5\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needs.py").write_text("import not_installed\n")
    with pytest.raises(EntrypointError) as raised:
        load(entrypoint, tmp_path)
    assert message in str(raised.value)


def test_the_forms_import_neither_ray_nor_optuna_before_they_are_needed() -> None:
    code = "import sys, tunesvc.execution.objectives.adapters; print([m for m in ('ray', 'optuna', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_optuna_trial_that_is_sent_to_another_process_is_refused_with_the_remedy(
    attempt: MakeAttempt,
) -> None:
    with pytest.raises(TypeError, match=r"hand `trial.tunesvc` over"):
        prepare(lambda trial: pickle.dumps(trial))(attempt())


def test_a_trial_that_is_sent_to_another_process_reports_into_its_attempt_until_that_ends(
    attempt: MakeAttempt,
) -> None:
    asked = attempt()
    sent = pickle.loads(pickle.dumps(asked.trial()))  # noqa: S301  # our own
    sent.report(0, loss=0.5)
    asked.stop()
    with pytest.raises(Pruned):
        sent.report(1, loss=0.25)
    assert asked.open_to_children().close() is None
    assert curve(asked) == [(0, {"loss": 0.5}), (1, {"loss": 0.25})]
    with pytest.raises(BadReport, match="the trial's attempt has ended"):
        sent.report(2, loss=0.125)
