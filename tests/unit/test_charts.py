"""Charts from rows: what is drawn, what is left out, and that names cannot act."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import optuna
import pytest

from tunesvc import charts
from tunesvc.charts.chart import sample, spans_decades
from tunesvc.charts.parameters import to_scale
from tunesvc.insights import AttemptRow, Curve, Objective, Point, TrialRow
from tunesvc.spec import ParamValue
from tunesvc.store.states import AttemptState

ERROR = Objective("val_error", "minimize")
SPEED = Objective("speed", "maximize")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'


def trial(
    number: int, *values: float, state: str = "complete", feasible: bool = True, **params: ParamValue
) -> TrialRow:
    return TrialRow(
        trial_id=number,
        number=number,
        state=state,
        values=values or None,
        params=params,
        feasible=feasible,
        last_step=3,
        last_value=0.1,
        attempts=1,
        failure=None,
        started_at=NOON,
        ended_at=NOON,
        duration_s=1.0,
    )


def attempt(trial_number: int, state: AttemptState = AttemptState.FINISHED, message: str | None = None) -> AttemptRow:
    return AttemptRow(
        trial_number=trial_number,
        number=1,
        state=state,
        opened_at=NOON,
        started_at=NOON,
        ended_at=None if state is AttemptState.RUNNING else NOON + timedelta(seconds=5),
        cpus=1,
        gpus=0,
        node="box",
        pid=1,
        devices=("0",),
        stop_cause=None,
        failure=None,
        message=message,
        traceback=None,
        checkpoint=None,
        checkpoint_step=None,
    )


def curve(number: int, *values: float | None) -> Curve:
    return Curve(number, tuple(Point(step, value, {}, 1, NOON) for step, value in enumerate(values)))


def trace(chart: charts.Chart, name: str) -> object:
    assert chart.figure is not None
    return next(one for one in chart.figure.data if one.name == name)


def test_the_history_follows_the_best_so_far() -> None:
    chart = charts.history(ERROR, [trial(0, 0.5), trial(1, 0.7), trial(2, 0.2), trial(3, state="pruned")])
    line = trace(chart, "best so far")
    assert list(zip(line.x, line.y, strict=True)) == [(0, 0.5), (2, 0.2)]  # type: ignore[attr-defined]
    assert chart.note == "1 pruned are not drawn"


def test_the_best_so_far_rises_when_more_is_better() -> None:
    chart = charts.history(Objective("acc", "maximize"), [trial(0, 0.5), trial(1, 0.7), trial(2, 0.2)])
    assert list(trace(chart, "best so far").y) == [0.5, 0.7, 0.7]  # type: ignore[attr-defined]


def test_an_infeasible_trial_is_drawn_but_never_best() -> None:
    chart = charts.history(ERROR, [trial(0, 0.5), trial(1, 0.1, feasible=False)])
    assert list(trace(chart, "best so far").y) == [0.5]  # type: ignore[attr-defined]
    assert list(trace(chart, "infeasible").y) == [0.1]  # type: ignore[attr-defined]


def test_values_that_are_no_numbers_are_not_drawn() -> None:
    chart = charts.history(ERROR, [trial(0, math.nan), trial(1, math.inf), trial(2, 0.3)])
    assert list(trace(chart, "feasible").y) == [0.3]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "chart",
    [
        charts.history(ERROR, []),
        charts.learning_curves(ERROR, [], [], None),
        charts.parallel(ERROR, []),
        charts.slices(ERROR, []),
        charts.importance(None, ERROR),
        charts.pareto([ERROR, SPEED], [], []),
        charts.timeline([]),
    ],
    ids=lambda chart: chart.title,
)
def test_with_nothing_to_draw_a_chart_says_why(chart: charts.Chart) -> None:
    assert chart.figure is None
    assert chart.note.endswith(".")
    assert chart.note in charts.page("empty", [chart])


def test_the_best_curve_is_drawn_last_and_pruned_ones_are_faded() -> None:
    trials = [trial(0, 0.1), trial(1, 0.3), trial(2, state="pruned")]
    chart = charts.learning_curves(ERROR, trials, [curve(0, 0.5, 0.1), curve(1, 0.6, 0.3), curve(2, 0.9)], best=0)
    assert chart.figure is not None
    assert [one.name for one in chart.figure.data] == ["pruned", "complete", "best"]
    assert chart.figure.data[0].opacity < chart.figure.data[1].opacity


def test_the_best_curves_are_always_among_those_chosen() -> None:
    trials = [trial(number, abs(number - 500) + 1.0) for number in range(1000)]
    numbers = charts.choose_curves(ERROR, trials, limit=100)
    assert len(numbers) == 100
    assert set(range(491, 510)) <= set(numbers)


def test_a_large_study_is_sampled_and_says_so() -> None:
    chart = charts.parallel(ERROR, [trial(number, float(number + 1), lr=0.1 + number) for number in range(3000)])
    assert chart.note.startswith("showing 1,000 of 3,000 trials")
    assert chart.figure is not None
    assert min(chart.figure.data[0].dimensions[1]["values"]) == 1.0, "the best is among them"


def test_a_conditional_parameter_is_set_apart_where_it_is_absent() -> None:
    scale = to_scale([0.5, None, 1.0])
    assert scale.texts[0] == "absent"
    assert scale.positions[1] < min(scale.positions[0], scale.positions[2])


def test_categories_and_booleans_are_named_on_their_axis() -> None:
    assert to_scale(["sgd", "adam", "sgd"]).texts == ["adam", "sgd"]
    assert to_scale([True, False, True]).texts == ["False", "True"]


def test_numbers_that_span_decades_get_a_logarithmic_axis() -> None:
    assert to_scale([0.001, 0.001, 1.0]).positions == [-3.0, -3.0, 0.0]
    assert not spans_decades([0.005, 0.4, 0.5, 0.6, 1.0]), "uniform, with a low draw by chance"
    assert not spans_decades([0.0, 100.0])
    assert not spans_decades([math.nan])


def test_a_parameter_that_is_searched_on_a_logarithmic_scale_is_drawn_on_one() -> None:
    trials = [trial(number, 0.1, lr=lr) for number, lr in enumerate((0.0001, 0.08, 0.09, 0.1))]
    for chart, kind in ((charts.slices(ERROR, trials, log={"lr"}), "log"), (charts.slices(ERROR, trials), "linear")):
        assert chart.figure is not None
        assert chart.figure.layout.xaxis.type == kind
    assert to_scale([0.0001, 0.1], log=True).positions == pytest.approx([-4, -1])


def test_all_equal_values_still_make_an_axis() -> None:
    assert to_scale([2, 2]).positions == [2.0, 2.0]


def test_a_sample_keeps_what_must_stay_in_order() -> None:
    drawn = sample(list(range(1000)), 50, lambda i: i % 100 == 0)
    assert drawn == sorted(drawn)
    assert {0, 100, 900} <= set(drawn)
    assert len(drawn) == 50


def test_the_front_of_two_objectives_stands_out() -> None:
    trials = [trial(0, 0.1, 5.0), trial(1, 0.2, 9.0), trial(2, 0.3, 1.0)]
    chart = charts.pareto([ERROR, SPEED], trials, trials[:2])
    assert list(trace(chart, "Pareto front").x) == [0.1, 0.2]  # type: ignore[attr-defined]
    assert chart.note == "2 of 3 trials are beaten by no other"


def test_three_objectives_become_parallel_axes() -> None:
    trials = [trial(0, 0.1, 5.0, 1.0), trial(1, 0.2, 9.0, 2.0)]
    chart = charts.pareto([ERROR, SPEED, Objective("size", "minimize")], trials, trials)
    assert chart.figure is not None
    assert len(chart.figure.data[0].dimensions) == 3


def test_bars_of_running_attempts_reach_until_now() -> None:
    chart = charts.timeline([attempt(0), attempt(1, AttemptState.RUNNING)], now=NOON + timedelta(seconds=60))
    assert list(trace(chart, "finished").x) == [5000.0]  # type: ignore[attr-defined]
    assert list(trace(chart, "running").x) == [60000.0]  # type: ignore[attr-defined]


def test_importance_finds_the_parameter_that_matters() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    assert charts.importances_of(study) is None
    study.optimize(lambda t: t.suggest_float("big", 0, 1) ** 2 + 0.01 * t.suggest_float("small", 0, 1), n_trials=60)
    shares = charts.importances_of(study)
    assert shares is not None
    assert shares["big"] > shares["small"]


def test_names_and_messages_from_a_study_cannot_act_in_the_page() -> None:
    objective = Objective(HOSTILE, "minimize")
    trials = [trial(number, 0.1 * (number + 1), **{HOSTILE: HOSTILE}) for number in range(3)]
    html = charts.page(
        HOSTILE,
        [
            charts.history(objective, trials),
            charts.parallel(objective, trials),
            charts.slices(objective, trials),
            charts.timeline([attempt(0, message=HOSTILE)]),
            charts.importance({HOSTILE: 1.0}, objective),
        ],
        badge=HOSTILE,
        about=HOSTILE,
        facts={HOSTILE: HOSTILE},
        table=(HOSTILE, [HOSTILE], [[HOSTILE]]),
    )
    study_part = re.sub(r"<script>.*?</script>", "", html, count=1, flags=re.S)
    assert "<img" not in study_part
    assert "<script>alert" not in study_part


def test_a_page_is_self_contained_and_may_load_nothing() -> None:
    html = charts.page("digits", [charts.history(ERROR, [trial(0, 0.5)])])
    assert "default-src 'none'" in html
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", html)


def test_a_page_holds_its_figures_as_plain_json() -> None:
    chart = charts.history(ERROR, [trial(0, float(np.float64(0.5)))])
    assert chart.figure is not None
    assert json.loads(chart.figure.to_json())["data"][0]["y"] == [0.5]
