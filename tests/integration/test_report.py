"""A study as a report to send, and its figures by name."""

from __future__ import annotations

import re

import optuna.visualization
import plotly.graph_objects as go
import pytest

from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc import charts
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.errors import TuneError
from tunesvc.plots import Plots
from tunesvc.queries.studies import get_study_by_id
from tunesvc.study import Study

HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'


def report(database: Database, study_id: int) -> str:
    return charts.report(database, get_study_by_id(database, study_id))


def titles(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_a_report_has_all_that_a_colleague_asks_for(shared_database: Database) -> None:
    html = report(shared_database, fill(shared_database, name="whole", running=0))
    found = titles(html)
    wanted = [
        "In short",
        "Best loss by hours of trials",
        "Parameters to take",
        "Health",
        "History of loss",
        "Best trials",
        "How it was searched",
        "Study file",
    ]
    assert [title for title in found if title in wanted] == wanted
    assert re.search(r"<pre>x: 0\.\d+\nn: \d\n</pre>", html)
    assert re.search(r"<dt>optuna</dt><dd>\d", html)
    assert "<pre>name: whole\n" in html, (
        "the study was made without a file, so what its spec says stands there"
    )


def test_a_report_loads_nothing_and_nothing_of_a_study_acts_in_it(
    shared_database: Database,
) -> None:
    """Fault 37."""
    html = report(shared_database, fill(shared_database, name=HOSTILE, description=HOSTILE))
    assert "default-src 'none'" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", html)
    without_ours = re.sub(r"<script>.*?</script>", "", html, count=2, flags=re.S)
    assert "<script>alert" not in without_ours
    assert "<img" not in without_ours


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_report_of_a_study_without_trials_says_so(
    shared_database: Database, objectives: int
) -> None:
    metrics = [{"name": f"m{i}"} for i in range(objectives)]
    with shared_database.engine.begin() as connection:
        made = study_records.create(
            connection, make_spec(name=f"empty{objectives}", metrics=metrics)
        )
    html = report(shared_database, made.study_id)
    assert "No trial is complete and feasible yet." in html
    assert "Best trials" not in titles(html)


def test_figures_are_there_by_name(shared_database: Database) -> None:
    fill(shared_database, name="drawn", running=0)
    study = Study("drawn", shared_database)
    assert isinstance(study.plots.optimization_history(), go.Figure)
    assert isinstance(study.plots.slice(), go.Figure)
    with pytest.raises(TuneError, match="no figure of that kind for a study of 1 objective"):
        study.plots.pareto_front()
    with pytest.raises(ValueError, match="counted from 0"):
        study.plots.optimization_history(objective=1)
    assert isinstance(study.plots.edf(), go.Figure)
    assert study.health.checks


def test_every_figure_of_optuna_has_its_name() -> None:
    """But for one: how far a study is from its end by the terminator that Optuna has."""
    names = {name.removeprefix("plot_") for name in optuna.visualization.__all__ if "plot_" in name}
    assert names - set(dir(Plots)) == {"terminator_improvement"}


def test_a_figure_shows_the_parameters_that_are_asked_for(shared_database: Database) -> None:
    fill(shared_database, name="asked", running=0)
    plots = Study("asked", shared_database).plots
    assert list(plots.parallel_coordinate(["n"]).layout.xaxis.ticktext) == ["trial", "n", "loss"]
    assert "xaxis2" not in plots.slice(["x"]).layout
    with pytest.raises(ValueError, match="no parameter 'N', did you mean `n`"):
        plots.slice(["N"])


def test_a_figure_is_readable_on_white_and_on_black(shared_database: Database) -> None:
    fill(shared_database, name="coloured", running=0)
    layout = Study("coloured", shared_database).plots.slice().layout
    assert layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert layout.font.color == "#7b7f87"
    assert layout.xaxis.gridcolor == layout.yaxis2.gridcolor == "rgba(128,128,128,.3)"


def test_a_figure_of_nothing_says_why(shared_database: Database) -> None:
    with shared_database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="nothing"))
    with pytest.raises(TuneError, match="No trial"):
        Study("nothing", shared_database).plots.optimization_history()
