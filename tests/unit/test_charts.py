"""Charts from columns: what is drawn, what is left out, and that names cannot act."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tunesvc import charts
from tunesvc.charts.chart import count_axis, spans_decades
from tunesvc.charts.page import Card, CodeBlock, Sentences, TableBlock
from tunesvc.charts.parameters import number_axis, parameter_axis, spearman
from tunesvc.charts.progress import idle_share
from tunesvc.db.schema.states import AttemptState
from tunesvc.db.schema.tables import TRIAL_STATES
from tunesvc.queries.cost.spending import EffortUnit
from tunesvc.queries.operations.timeline import Span, assign_lanes
from tunesvc.queries.rows import Objective, Point, ReportCurve
from tunesvc.queries.trials.trial_results import Results
from tunesvc.queries.trials.tried_parameters import CompletedTrials, Parameter
from tunesvc.search.analysis.importance import Share
from tunesvc.search.analysis.interaction_effects import InteractionEffects
from tunesvc.search.analysis.model_surface import Slice1D, Slice2D
from tunesvc.search.analysis.partial_dependence import PartialDependence
from tunesvc.spec import Prices

ERROR = Objective("val_error", "minimize")
SPEED = Objective("speed", "maximize")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'
STATES = {
    letter: TRIAL_STATES.index(state) for letter, state in zip("wrcpf", TRIAL_STATES, strict=True)
}


def study(
    *values: float | Sequence[float], states: str = "", feasible: Sequence[bool] = ()
) -> Results:
    """Trials with these values, by number; complete ones, or as the first letters of their
    states say."""
    n = len(values)
    columns = np.array(
        [[one] if isinstance(one, (int, float)) else list(one) for one in values], dtype=float
    )
    return Results(
        np.arange(n),
        np.array([STATES[letter] for letter in states or "c" * n], dtype=np.int8),
        columns.reshape(n, -1) if n else np.zeros((0, 1)),
        np.array(feasible or [True] * n, dtype=bool),
        np.full(n, 3.0),
        np.arange(n, dtype=float),
    )


def number(name: str, *values: float, log: bool = False) -> Parameter:
    return Parameter(name, np.array(values, dtype=float), (), log, 0.0001, 1.0)


def choice(name: str, choices: tuple[str, ...], *places: float) -> Parameter:
    return Parameter(name, np.array(places, dtype=float), choices, False, 0.0, len(choices) - 1.0)


def tried(
    values: Sequence[float], *parameters: Parameter, objective: Objective = ERROR
) -> CompletedTrials:
    pruned = np.zeros(len(values), dtype=bool)
    return CompletedTrials(
        objective,
        np.arange(len(values)),
        np.array(values, dtype=float),
        parameters,
        len(values),
        pruned,
    )


def span(
    trial: int, start: float, end: float, state: AttemptState = AttemptState.FINISHED, **how: Any
) -> Span:
    at = [NOON + timedelta(seconds=one) for one in (start, end)]
    base = {"node": "box", "pid": 1, "message": None, **how}
    return Span(trial, 1, state, base["node"], base["pid"], *at, base["message"])


def curve(trial: int, *values: float | None) -> ReportCurve:
    return ReportCurve(
        trial, tuple(Point(step, value, {}, 1, NOON) for step, value in enumerate(values))
    )


def trace(chart: charts.Chart, name: str) -> Any:
    assert chart.figure is not None
    return next(one for one in chart.figure.data if one.name == name)


def sent(chart: charts.Chart) -> dict[str, Any]:
    """The figure as a browser gets it."""
    assert chart.figure is not None
    found: dict[str, Any] = json.loads(chart.figure.to_json())
    return found


def test_the_history_follows_the_best_so_far() -> None:
    chart = charts.history(ERROR, study(0.5, 0.7, 0.2, math.nan, states="cccp"))
    line = trace(chart, "best so far")
    assert list(zip(line.x, line.y, strict=True)) == [(0, 0.5), (2, 0.2), (3, 0.2)]
    assert chart.rows()[2] == (2, 0.2, "complete", "yes", 0.2)


def test_the_history_shows_what_became_of_every_trial() -> None:
    results = study(0.5, 0.7, math.nan, 0.2, math.nan, states="cpfcr")
    chart = charts.history(ERROR, results)
    assert [list(trace(chart, name).x) for name in ("complete", "pruned", "failed")] == [
        [0, 3],
        [1],
        [2],
    ]
    assert chart.figure is not None
    assert chart.figure.layout.xaxis.range[1] >= 4, "to the last trial"
    assert chart.note == ("4 of 5 trials, 1 pruned, at its last value · 1 failed: the marks below")


def test_one_choice_of_states_holds_for_every_figure() -> None:
    results = study(0.5, 0.7, 0.9, states="cpf")
    chart = charts.history(ERROR, results, states=("complete",))
    assert chart.columns["trial"] == [0]
    assert chart.note == "1 of 3 trials"
    assert charts.edf(ERROR, results, states=("pruned",)).rows() == [(0.7, 1.0)]
    assert charts.select_curves(ERROR, results, states=("complete", "failed")) == [0, 2]


def test_the_best_so_far_rises_when_more_is_better() -> None:
    chart = charts.history(Objective("acc", "maximize"), study(0.5, 0.7, 0.2))
    assert list(trace(chart, "best so far").y) == [0.5, 0.7, 0.7]


def test_an_infeasible_trial_is_drawn_but_never_best() -> None:
    chart = charts.history(ERROR, study(0.5, 0.1, feasible=(True, False)))
    assert set(trace(chart, "best so far").y) == {0.5}
    assert list(trace(chart, "infeasible").y) == [0.1]


def test_values_that_are_no_numbers_are_not_drawn() -> None:
    chart = charts.history(ERROR, study(math.nan, math.inf, 0.3))
    assert list(trace(chart, "complete").y) == [0.3]


@pytest.mark.parametrize(
    "chart",
    [
        charts.history(ERROR, study()),
        charts.learning_curves(ERROR, study(), [], None),
        charts.parallel(tried([])),
        charts.parallel(tried([0.1])),
        charts.slices(tried([])),
        charts.contour(tried([0.1], number("x", 0.5)), None),
        charts.contour(tried([0.1], number("x", 0.5), number("y", 0.5)), None),
        charts.rank(tried([0.1], number("x", 0.5))),
        charts.correlations(tried([0.1], choice("c", ("a", "b"), 0))),
        charts.importance((), ERROR),
        charts.interactions(ERROR, None),
        charts.dependence(ERROR, ()),
        charts.best_by_cost(ERROR, EffortUnit(), np.ones(2), np.full(2, np.nan)),
        charts.edf(ERROR, study()),
        charts.pareto([ERROR, SPEED], study(), np.zeros(0, dtype=bool)),
        charts.hypervolume([ERROR, SPEED], study()),
        charts.timeline([]),
    ],
    ids=lambda chart: chart.title,
)
def test_with_nothing_to_draw_a_chart_says_why(chart: charts.Chart) -> None:
    assert chart.figure is None
    assert chart.note.endswith(".")
    assert chart.note in charts.page("empty", [chart])
    assert len(chart) == 0


def test_ticks_of_a_few_steps_are_whole_numbers() -> None:
    assert count_axis("step", [1, 2, 3])["dtick"] == 1
    assert "dtick" not in count_axis("step", [1, 300])


def test_the_best_curve_is_drawn_last_and_pruned_ones_are_faded() -> None:
    results = study(0.1, 0.3, math.nan, states="ccp")
    chart = charts.learning_curves(
        ERROR, results, [curve(0, 0.5, 0.1), curve(1, 0.6, None), curve(2, 0.9)], best=0
    )
    assert chart.figure is not None
    assert [one.name for one in chart.figure.data] == ["pruned", "complete", "best"]
    assert chart.figure.data[0].opacity < chart.figure.data[1].opacity
    assert chart.rows()[0] == (0, 0, 0.5)


def test_the_best_curves_and_those_that_run_are_always_among_those_chosen() -> None:
    values = [abs(trial - 500) + 1.0 for trial in range(1000)]
    results = study(*values, states="r" * 5 + "c" * 995)
    numbers = charts.select_curves(ERROR, results, limit=100)
    assert len(numbers) == 100
    assert {*range(5), *range(493, 508)} <= set(numbers)


def test_a_large_study_is_drawn_in_part_and_says_so() -> None:
    chart = charts.history(ERROR, study(*np.linspace(1, 2, 9_000)))
    assert chart.note == "4,000 of 9,000 trials"
    assert chart.figure is not None
    assert chart.figure.data[0].y.min() == 1.0, "the best is among them"
    assert len(chart.figure.to_json()) < 110_000, "few bytes"


def test_points_say_which_trial_they_are() -> None:
    x, y = number("x", 0.1, math.nan, 0.3), number("y", 0.2, 0.2, 0.4)
    for chart in (charts.rank(tried([1, 2, 3], x, y)), charts.slices(tried([1, 2, 3], x))):
        assert chart.figure is not None
        assert list(chart.figure.data[0].customdata) == [0, 2], (
            "the one without the parameter is left out"
        )
        assert chart.figure.data[0].meta == {"trials": "customdata"}


def test_lines_end_at_the_value_and_the_best_is_drawn_last() -> None:
    chart = charts.parallel(tried([0.5, 0.1, 0.9], number("x", 0.1, 0.2, 0.3)))
    assert chart.figure is not None
    assert list(chart.figure.layout.xaxis.ticktext) == ["trial", "x", "val_error"]
    *lines, ticks = chart.figure.data
    assert [one.customdata[0] for one in lines] == [2, 0, 1]
    assert list(lines[0].y[:3]) == [1.0, 1.0, 1.0], "of trial, x and value the largest"
    assert ticks.mode == "text"


def test_choices_are_cells_and_numbers_contours() -> None:
    plane = Slice2D(("a", "b"), (0.2, 0.8), np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2)))
    chart = charts.contour(
        tried([1, 2], choice("c", ("a", "b"), 0, 1), number("y", 0.1, 0.3)), plane, 7
    )
    assert chart.figure is not None
    assert chart.figure.data[0].type == "heatmap"
    assert (
        charts.importance((), ERROR).note
        == charts.contour(tried([1], number("x", 1), number("y", 1)), None).note
    )


def test_the_model_is_drawn_as_a_line_with_a_band_and_over_choices_as_marks() -> None:
    cut = Slice1D((0.1, 0.5, 0.9), np.array([1.0, 0.5, 1.0]), np.array([0.1, 0.0, 0.1]))
    marks = Slice1D(("a", "b"), np.array([1.0, 0.5]), np.array([0.1, 0.2]))
    these = tried([1, 2], number("x", 0.1, 0.3), choice("c", ("a", "b"), 0, 1))
    chart = charts.slices(these, {"x": cut, "c": marks}, at=7)
    assert chart.figure is not None
    low, high, mean, _, over, _ = chart.figure.data
    assert [low.y[0], mean.y[0], high.y[0]] == pytest.approx([0.8, 1.0, 1.2])
    assert list(over.error_y.array) == pytest.approx([0.2, 0.4])
    assert "all else as in trial 7" in chart.note


def test_a_contour_shows_what_is_expected_or_how_unsure_that_is() -> None:
    plane = Slice2D(
        (0.1, 0.9),
        (0.2, 0.8),
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[0.1, 0.2], [0.3, 0.4]]),
    )
    these = tried([1, 2], number("x", 0.1, 0.3), number("y", 0.1, 0.3))
    for deviation, first in ((False, 1.0), (True, 0.1)):
        chart = charts.contour(these, plane, 7, deviation=deviation)
        assert chart.figure is not None
        assert chart.figure.data[0].z[0][0] == pytest.approx(first)


def test_ranks_are_the_same_whatever_the_scale() -> None:
    x, y = number("x", 0.1, 0.2, 0.3), number("y", 0.1, 0.2, 0.3)
    tables = [
        charts.rank(tried(values, x, y)).columns["rank"] for values in ([1, 2, 3], [1, 1e3, 1e9])
    ]
    assert list(tables[0]) == list(tables[1]) == [1, 2, 3]
    assert list(charts.rank(tried([1, 2, 3], x, y, objective=SPEED)).columns["rank"]) == [3, 2, 1]


def test_correlations_are_of_ranks_and_of_those_that_have_both() -> None:
    assert spearman(np.array([1.0, 2, 3, math.nan]), np.array([1.0, 100, 1e6, 0])) == pytest.approx(
        1.0
    )
    assert math.isnan(spearman(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))
    chart = charts.correlations(
        tried([3, 2, 1], number("x", 0.1, 0.2, 0.3), choice("c", ("a", "b"), 0, 1, 0))
    )
    assert chart.rows()[0] == ("x", 1.0, -1.0)
    assert "1 that are not numbers are left out" in chart.note


def test_importances_have_whiskers() -> None:
    chart = charts.importance([Share("x", 0.75, 0.5, 0.8), Share("y", 0.25, 0.2, 0.5)], ERROR)
    assert chart.figure is not None
    bars = chart.figure.data[0]
    assert list(bars.y) == ["y", "x"], "the most important on top"
    assert list(bars.error_x.array) == pytest.approx([0.25, 0.05])
    assert chart.rows()[0] == ("x", 0.75, 0.5, 0.8)


def test_the_distribution_counts_what_is_at_least_as_good() -> None:
    assert charts.edf(ERROR, study(3, 1, 2, 4)).rows() == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert charts.edf(SPEED, study(3, 1, 2, 4)).rows()[0] == (4, 0.25)
    assert len(charts.edf(ERROR, study(*range(2_000)))) == 400


def test_a_conditional_parameter_is_set_apart_where_it_is_absent() -> None:
    scale = number_axis(np.array([0.5, math.nan, 1.0]))
    assert scale.texts[0] == "absent"
    assert scale.positions[1] < min(scale.positions[0], scale.positions[2])
    named = parameter_axis(choice("c", ("sgd", "adam"), 1, math.nan))
    assert (named.texts, list(named.positions)) == (["absent", "sgd", "adam"], [1.0, -1.0])


def test_numbers_that_span_decades_get_a_logarithmic_axis() -> None:
    assert list(number_axis(np.array([0.001, 0.001, 1.0])).positions) == [-3.0, -3.0, 0.0]
    assert not spans_decades([0.02, 0.4, 0.5, 0.6, 1.0]), "uniform, with a low draw by chance"
    assert not spans_decades([0.0, 100.0])
    assert not spans_decades([math.nan])


def test_a_parameter_that_is_searched_on_a_logarithmic_scale_is_drawn_on_one() -> None:
    values = (0.0001, 0.08, 0.09, 0.1)
    for log, kind in ((True, "log"), (False, "linear")):
        chart = charts.slices(tried([1, 1, 1, 1], number("lr", *values, log=log)))
        assert chart.figure is not None
        assert chart.figure.layout.xaxis.type == kind
    assert list(number_axis(np.array([0.0001, 0.1]), log=True).positions) == pytest.approx([-4, -1])


def test_all_equal_values_still_make_an_axis() -> None:
    assert list(number_axis(np.array([2.0, 2.0])).positions) == [2.0, 2.0]


def test_the_front_of_two_objectives_stands_out() -> None:
    results = study((0.1, 5.0), (0.2, 9.0), (0.3, 1.0))
    front = charts.front_of([ERROR, SPEED], results)
    chart = charts.pareto([ERROR, SPEED], results, front)
    assert list(trace(chart, "Pareto front").x) == [0.1, 0.2]
    assert chart.note == "2 of 3 trials are beaten by no other"


def test_three_objectives_become_parallel_axes() -> None:
    results = study((0.1, 5.0, 1.0), (0.2, 9.0, 2.0))
    objectives = [ERROR, SPEED, Objective("size", "minimize")]
    chart = charts.pareto(objectives, results, charts.front_of(objectives, results))
    assert chart.figure is not None
    assert len(chart.figure.layout.xaxis.ticktext) == 4, "and the trial"


def test_the_dominated_area_only_grows() -> None:
    results = study((4.0, 1.0), (3.0, 3.0), (3.5, 2.0), (1.0, 4.0), (9.0, 0.0))
    chart = charts.hypervolume([ERROR, SPEED], results)
    # up to 9 and 0: 5*1; then (3, 3) adds 6*3-5; (3.5, 2) is dominated; (1, 4) adds 2*4+6*1
    assert chart.rows() == [(0, 5.0), (1, 18.0), (3, 32.0), (4, 32.0)]


def test_bars_lie_on_their_workers_lanes_whose_gaps_are_idle() -> None:
    spans = assign_lanes(
        [
            span(0, 0, 10, pid=1),
            span(1, 0, 4, pid=2),
            span(2, 6, 10, pid=2),
            span(3, 10, 20, AttemptState.RUNNING, pid=3),
            span(4, 0, 20, node="other"),
        ]
    )
    assert {(one.trial_number): (one.node, one.lane) for one in spans} == {
        0: ("box", 0),
        1: ("box", 1),
        2: ("box", 1),
        3: ("box", 0),
        4: ("other", 0),
    }
    assert idle_share(spans) == pytest.approx(12 / 60)
    chart = charts.timeline(spans)
    assert chart.note == "3 workers, idle 20% of the time"
    assert list(trace(chart, "running").x) == [10_000.0]


def test_names_and_messages_from_a_study_cannot_act_in_the_page() -> None:
    objective = Objective(HOSTILE, "minimize")
    these = tried(
        [0.1, 0.2, 0.3], number(HOSTILE, 0.1, 0.2, 0.3), choice("c", (HOSTILE, "b"), 0, 1, 0)
    )
    these = replace(these, objective=objective)
    ones = np.ones(2)
    along = PartialDependence(HOSTILE, (HOSTILE, "b"), ones, ones, ones, ones[None], 0.5)
    html = charts.page(
        HOSTILE,
        [
            charts.history(objective, study(0.1, 0.2)),
            charts.parallel(these),
            charts.slices(these),
            charts.rank(these),
            charts.correlations(these),
            charts.timeline(assign_lanes([span(0, 0, 1, message=HOSTILE, node=HOSTILE)])),
            charts.importance([Share(HOSTILE, 1.0, 1.0, 1.0)], objective),
            charts.interactions(objective, InteractionEffects((HOSTILE, "c"), np.eye(2))),
            charts.dependence(objective, [(these.parameters[1], along)], 9, 1),
            charts.best_by_cost(
                objective, EffortUnit(Prices(currency="<b>")), np.arange(2.0), np.ones(2)
            ),
            Card(
                HOSTILE,
                [
                    Sentences([(HOSTILE, HOSTILE)]),
                    CodeBlock(HOSTILE),
                    TableBlock([HOSTILE], [[HOSTILE]]),
                ],
                HOSTILE,
            ),
        ],
        badge=HOSTILE,
        about=HOSTILE,
        facts={HOSTILE: HOSTILE},
    )
    study_part = re.sub(
        r"<script>.*?</script>", "", html, count=2, flags=re.S
    )  # Plotly, and what prints
    assert "<img" not in study_part
    assert "<script>alert" not in study_part


def test_a_page_is_self_contained_and_may_load_nothing() -> None:
    html = charts.page("digits", [charts.history(ERROR, study(0.5))])
    assert "default-src 'none'" in html
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", html)


def test_columns_travel_as_typed_arrays() -> None:
    points = sent(charts.history(ERROR, study(0.5, 0.25)))["data"][0]
    assert points["x"]["dtype"] == "i4"
    assert points["y"]["dtype"] == "f8"
