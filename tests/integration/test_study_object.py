"""`tunesvc.Study`: everything that the command line does, as methods, on a real database with
simulated workers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import plotly.graph_objects as go
import pytest

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc import api
from tunesvc.db.engine.database import Database
from tunesvc.errors import SpecError, StudyNotFound, TuneError
from tunesvc.execution.executor import Executor, Finished, Launch, OutputLogged, Payload, Reported
from tunesvc.study import Study


def with_auc(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Three steps of two metrics, and a line of output."""
    x = float(launch.params["x"])  # type: ignore[arg-type]
    reports = [
        (1.0, Reported(step, {"loss": x + 1 / (1 + step), "auc": 1 - x})) for step in range(3)
    ]
    return [
        (0.0, OutputLogged("stdout", "hello\n")),
        *reports,
        (1.0, Finished({"loss": x, "auc": 1 - x})),
    ]


@pytest.fixture
def study(database: Database) -> Study:
    spec = make_spec(constants={"model/depth": 3, "epochs": 3}, seed=1)
    Simulation(database, spec, with_auc).run()
    return Study("test", database)


def test_the_best_parameters_are_what_the_objective_takes(study: Study) -> None:
    best = study.best_trial
    assert study.best_params == {"model": {"depth": 3}, "epochs": 3, **best.params}
    assert (
        study.best_value
        == best.value
        == min(trial.value for trial in study.trials if trial.value is not None)
    )
    assert [trial.number for trial in study.best_trials] == [best.number]


def test_a_study_without_results_says_so(database: Database) -> None:
    Simulation(database, make_spec())
    empty = Study("test", database)
    assert list(empty.best_trials) == []
    for name in ("best_trial", "best_params", "best_value"):
        with pytest.raises(TuneError, match="study 'test' has no complete, feasible trial yet"):
            getattr(empty, name)


def test_every_metric_has_its_curves(study: Study) -> None:
    auc = study.curves("auc")
    assert auc.shape == (3, 10)
    assert auc.index.name == "step"
    assert (auc.nunique() == 1).all(), "it is the same at each step"
    assert (study.curves().loc[0] > study.curves("loss").loc[2]).all()
    with pytest.raises(ValueError, match="no trial of study 'test' reported 'f1'"):
        study.curves("f1")


def test_trials_are_a_frame_and_each_has_its_output(study: Study) -> None:
    frame = study.trials_dataframe()
    assert len(frame) == 10
    assert {"value", "metrics.auc", "params.x"} <= set(frame.columns)
    assert study.logs(3) == "hello\n"
    assert study.trial(3).row.number == 3
    with pytest.raises(StudyNotFound, match="study 'test' has no trial 10"):
        study.trial(10)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "optimization_history",
            "intermediate_values",
            "parallel_coordinate",
            "param_importances",
            "contour",
        ),
        *("slice", "rank", "edf", "correlations", "interactions", "timeline", "partial_dependence"),
        "cost",
    ],
)
def test_figures_have_optunas_names(study: Study, name: str) -> None:
    try:
        assert isinstance(getattr(study.plots, name)(), go.Figure)
    except TuneError as error:
        assert "trials" in str(error)  # noqa: PT017 - too few, which is a reason and not a missing figure


def test_a_report_is_written(study: Study, tmp_path: Path) -> None:
    written = study.report(tmp_path / "report.html")
    assert written.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_requests_are_methods_and_are_recorded(study: Study) -> None:
    assert "trial 10 is next" in study.enqueue({"x": 0.5, "n": 3})
    assert "trial 11 is next" in study.enqueue(near=2)
    assert "trial 12 is next" in study.retry(0)
    assert "extended" in study.extend(trials=5, wall=None)
    assert "changed" in study.set_parallelism(2)
    assert "x" in study.widen({"x": {"max": 2.0}})
    assert study.tag("baseline", "paper") == ("baseline", "paper")
    assert study.tag(remove=["paper"]) == ("baseline",)
    study.note("looks good", number=3)
    assert study.trial(3).row.note == "looks good"
    spec = study.view.spec
    assert spec is not None
    assert (spec.budget.trials, spec.parallelism) == (18, 2)
    kinds = [request.kind for request in study.requests]
    assert {"enqueue", "retry", "extend", "parallelism", "widen"} <= set(kinds)


def test_a_request_that_makes_no_sense_is_refused_with_the_reason(study: Study) -> None:
    with pytest.raises(SpecError, match="the budget has no limit on wall"):
        study.extend(wall="2h")
    with pytest.raises(SpecError, match="there is no trial 99"):
        study.retry(99)
    with pytest.raises(ValueError, match="either `params` or `near`"):
        study.enqueue()


def test_a_study_of_a_function_is_confirmed_and_resumed_with_that_function(
    database: Database,
) -> None:
    Simulation(database, make_spec(entrypoint=None, seed=1), with_auc).run()
    study = Study("test", database)
    with pytest.raises(
        TuneError, match=r"confirm it there, `tunesvc.load_study\('test'\).confirm\(function="
    ):
        study.confirm()
    assert study.confirmation is None, "nothing was enqueued"
    study.extend(trials=1)
    in_python = "`tunesvc.load_study('test').resume(function=your_function)`"
    with pytest.raises(TuneError, match=re.escape(f"continue it there, {in_python}")):
        study.resume()
    assert study.request("enqueue", params={"x": 0.5}).endswith(f"; {in_python} continues it")


def test_objects_print_as_text(study: Study) -> None:
    shown = [str(value) for value in (study, study.recommendation, study.health)]
    assert not any("(" in text.split(":")[0] for text in shown), shown
    assert shown[1].startswith(f"trial {study.best_trial.number}: ")


def test_a_deleted_study_is_gone(study: Study) -> None:
    assert study.delete() == "deleted test"
    with pytest.raises(StudyNotFound, match="was deleted by"):
        _ = study.state


def test_several_objectives_have_a_front(database: Database) -> None:
    def both(launch: Launch) -> Iterable[tuple[float, Payload]]:
        x = float(launch.params["x"])  # type: ignore[arg-type]
        return [(1.0, Finished({"loss": x, "ms": 1 - x}))]

    Simulation(database, make_spec(metrics=[{"name": "loss"}, {"name": "ms"}], seed=1), both).run()
    study = Study("test", database)
    assert len(study.best_trials) == 10
    assert study.best_trial in study.best_trials
    assert isinstance(study.plots.pareto_front(), go.Figure)
    assert isinstance(study.plots.hypervolume_history(), go.Figure)


def test_first_configurations_are_enqueued_once_and_checked_before(database: Database) -> None:
    x = {"type": "float", "min": 0.0, "max": 1.0}
    spec = make_spec(parameters={"x": x}, name="first", entrypoint=None)

    def away(*_: object) -> Executor:
        raise TuneError("no executor here")

    def run(*points: dict[str, float], resume: bool = False) -> None:
        api.run(
            spec,
            function=lambda x: x,
            enqueue=points,
            resume=resume,
            database_url=database.url,
            make_executor=away,
            progress=False,
        )

    with pytest.raises(SpecError, match="x = 2.0 is outside"):
        run({"x": 0.25}, {"x": 2.0})
    assert not api.studies(database_url=database.url)
    for resume in (False, True):
        with pytest.raises(TuneError, match="no executor"):
            run({"x": 0.25}, {"x": 0.75}, resume=resume)
        study = Study("first", database)
        assert [(row.state, row.number) for row in study.trials] == [("waiting", 0), ("waiting", 1)]
