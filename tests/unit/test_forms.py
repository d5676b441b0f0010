"""Every way to write an objective, run in this process: what it reports and what it returns."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.executors import make_job, make_launch
from tunesvc import Pruned, Trial
from tunesvc.errors import BadReport
from tunesvc.execute.attempt import Attempt, Place
from tunesvc.execute.bell import Bell
from tunesvc.execute.entrypoint import load
from tunesvc.execute.executor import Asked, Attributed, Checkpointed, Reported
from tunesvc.execute.failures import EntrypointError
from tunesvc.execute.forms import prepare

MakeAttempt = Callable[..., Attempt]


@pytest.fixture
def attempt(tmp_path: Path) -> MakeAttempt:
    """Make an attempt with these parameters."""

    def make(params: dict[str, Any] | None = None, *, checkpoint: str | None = None, **job: Any) -> Attempt:
        launch = make_launch(7, checkpoint=checkpoint, **(params or {}))
        return Attempt(make_job(tmp_path, **job), launch, Place("here", 1, ("0",)), Bell())

    return make


def said(attempt: Attempt, kind: type = object) -> list[Any]:
    return [payload for _, payload in attempt.outbox.take(0) if isinstance(payload, kind)]


def curve(attempt: Attempt) -> list[tuple[int, dict[str, float]]]:
    return [(report.step, dict(report.metrics)) for report in said(attempt, Reported)]


# --- by name ------------------------------------------------------------------------------------------


def test_parameters_come_by_name_and_the_trial_only_if_it_is_wanted(attempt: MakeAttempt) -> None:
    def train(lr: float, layers: int = 2, *, trial: Trial) -> float:
        trial.report(1, loss=lr)
        return lr * layers + trial.number

    asked = attempt({"lr": 0.5})
    assert prepare(train)(asked) == {"loss": 8.0}
    assert curve(asked) == [(1, {"loss": 0.5})]
    assert prepare(lambda lr: lr)(attempt({"lr": 0.5})) == {"loss": 0.5}


def test_any_parameters_fit_double_stars(attempt: MakeAttempt) -> None:
    assert prepare(lambda **params: sum(params.values()))(attempt({"a": 1, "b": 2})) == {"loss": 3.0}


def test_a_single_parameter_of_that_name_is_no_config(attempt: MakeAttempt) -> None:
    assert prepare(lambda lr: lr)(attempt({"lr": 0.25})) == {"loss": 0.25}
    assert prepare(lambda config: config["lr"])(attempt({"lr": 0.25})) == {"loss": 0.25}


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


# --- what comes back ------------------------------------------------------------------------------------


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


# --- Optuna -----------------------------------------------------------------------------------------------


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
    assert said(asked, Attributed) == [Attributed("note", '{"n": 2}')]


def test_an_optuna_objective_that_asks_for_what_is_not_declared_says_so(attempt: MakeAttempt) -> None:
    with pytest.raises(EntrypointError, match="asks for parameter `n`, which this trial does not have"):
        prepare(optuna_objective)(attempt({"x": 0.5}))


def test_without_declared_parameters_the_sampler_is_asked_and_constants_are_not(attempt: MakeAttempt) -> None:
    asked = attempt({"kind": "a"}, define_by_run=True)
    asked.answer("x", 0.25)
    asked.answer("n", 3)
    assert prepare(optuna_params)(asked) == {"loss": 0.25}
    assert [question.name for question in said(asked, Asked)] == ["x", "n"]


def optuna_params(trial) -> float:
    assert trial.suggest_categorical("kind", ["a", "b"]) == "a"
    x = trial.suggest_float("x", 0.0, 1.0)
    assert trial.suggest_float("x", 0.0, 1.0) == x
    assert trial.suggest_int("n", 1, 4) == 3
    return float(x)


def test_an_optuna_objective_is_told_to_prune(attempt: MakeAttempt) -> None:
    asked = attempt({"x": 0.5, "n": 2, "kind": "b"})
    asked.stop()
    with pytest.raises(optuna.TrialPruned):
        prepare(optuna_objective)(asked)
    assert [step for step, _ in curve(asked)] == [0]


def test_a_positional_trial_annotated_as_ours_is_ours(attempt: MakeAttempt) -> None:
    def train(trial: Trial) -> float:
        trial.report(3, loss=0.5)
        return float(trial.params["lr"])  # type: ignore[arg-type]

    asked = attempt({"lr": 0.1})
    assert prepare(train)(asked) == {"loss": 0.1}
    assert curve(asked) == [(3, {"loss": 0.5})]


# --- Ray Tune -----------------------------------------------------------------------------------------------


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
        metrics = {"loss": config["model"]["lr"] * i, "note": "text is left out", "done": False}
        report(metrics, checkpoint=Checkpoint.from_directory(str(folder)))


def test_a_ray_tune_function_reports_iterations_from_one_and_resumes(attempt: MakeAttempt, tmp_path: Path) -> None:
    first = attempt({"model/lr": 0.5, "folder": str(tmp_path)})
    assert prepare(ray_function)(first) == {}
    assert curve(first) == [(1, {"loss": 0.0}), (2, {"loss": 0.5})]
    saved = said(first, Checkpointed)
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


# --- entrypoints ----------------------------------------------------------------------------------------


def test_a_file_or_a_module_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "by_file.py").write_text("class Model:\n    @staticmethod\n    def train(): return 5\n")
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
        ("needs.py:train", "cannot be imported: ModuleNotFoundError: No module named 'not_installed'"),
    ],
)
def test_an_entrypoint_that_cannot_be_loaded_says_why(tmp_path: Path, entrypoint: str, message: str) -> None:
    """Fault 40."""
    (tmp_path / "good.py").write_text("number = 1\ndef train(): return 5\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needs.py").write_text("import not_installed\n")
    with pytest.raises(EntrypointError) as raised:
        load(entrypoint, tmp_path)
    assert message in str(raised.value)


def test_the_forms_import_neither_ray_nor_optuna_before_they_are_needed() -> None:
    code = "import sys, tunesvc.execute.forms; print([m for m in ('ray', 'optuna', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
