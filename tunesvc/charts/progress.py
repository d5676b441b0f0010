"""Charts over time: the optimisation history, learning curves, and the timeline of workers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import (
    COLOURS,
    NOTHING,
    POINTS,
    Chart,
    axis,
    count_axis,
    drawn_of,
    figure,
    label,
    notes,
    points,
    showing,
    whole,
)
from tunesvc.db.schema.states import STATES_SHOWN
from tunesvc.queries.operations.timeline import SPANS, Span
from tunesvc.queries.rows import Objective, ReportCurve
from tunesvc.queries.trials.trial_results import Results, subsample, subsample_best

_FAILED = 1_000
"""Marks of failed trials, at most."""
CURVES = 300
"""Learning curves in one chart, at most."""


def history(
    objective: Objective,
    results: Results,
    index: int = 0,
    states: Collection[str] = (),
) -> Chart:
    """Every trial by number: its value, or where it was stopped or failed; and the best so far.

    Args:
        objective: what is drawn.
        results: all trials of the study.
        index: the objective's place among the values.
        states: of the trials that are drawn; all without them.
    """
    title = f"History of {objective.name}"
    places = np.flatnonzero(results.drawable(index, states))
    failed = np.flatnonzero(results.of_state("failed")) if not states or "failed" in states else places[:0]
    if not len(places) and not len(failed):
        return Chart(title, None, NOTHING)
    costs = results.losses(objective, index)
    shown = places[subsample_best(costs[places], results.numbers[places], POINTS)]
    complete, pruned = (
        results.of_state("complete")[shown],
        results.of_state("pruned")[shown],
    )
    feasible = results.feasible[shown]
    candidates = np.flatnonzero(results.candidates() & results.done(index))
    drawn = figure(
        _points(
            "complete",
            results,
            shown[complete & feasible],
            index,
            COLOURS["complete"],
        ),
        _points(
            "infeasible",
            results,
            shown[complete & ~feasible],
            index,
            COLOURS["infeasible"],
        ),
        _points("pruned", results, shown[pruned], index, COLOURS["pruned"], "x"),
        _failed(results, failed),
        _best_so_far(objective, results, candidates, index),
        xaxis={
            **count_axis("trial", results.numbers),
            "range": _whole_range(results.numbers),
        },
        yaxis=axis(objective.name, results.values[shown, index]),
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )
    return Chart(
        title,
        drawn,
        notes(
            drawn_of(len(shown) + len(failed), len(results), int(pruned.sum())),
            f"{len(failed):,} failed: the marks below" if len(failed) else "",
        ),
        columns={
            "trial": results.numbers[shown],
            objective.name: results.values[shown, index],
            "state": [STATES_SHOWN[code] for code in results.states[shown]],
            "feasible": np.where(feasible, "yes", "no"),
            "best so far": _records(objective, results, index)[shown],
        },
    )


def _whole_range(numbers: np.ndarray) -> list[float]:
    """To the last trial, whatever became of it."""
    last = float(numbers.max(initial=0))
    return [-0.02 * max(last, 10.0), last + 0.02 * max(last, 10.0)]


def _points(
    name: str,
    results: Results,
    places: np.ndarray,
    index: int,
    colour: str,
    symbol: str = "circle",
) -> go.Scatter:
    return points(
        results.numbers[places],
        results.values[places, index],
        mode="markers",
        name=name,
        visible=bool(len(places)),
        marker={"color": colour, "size": 6, "opacity": 0.75, "symbol": symbol},
        hovertemplate=f"trial %{{x}}, {name}: %{{y:.5g}}<extra></extra>",
    )


def _failed(results: Results, places: np.ndarray) -> go.Scatter:
    """Marks at the lower edge: a failed trial has no value."""
    places = places[subsample(results.numbers[places], _FAILED)]
    return points(
        results.numbers[places],
        np.full(len(places), 0.015, dtype=np.float32),
        mode="markers",
        name="failed",
        yaxis="y2",
        visible=bool(len(places)),
        marker={"color": COLOURS["failed"], "size": 7, "symbol": "triangle-up"},
        hovertemplate="trial %{x} failed<extra></extra>",
    )


def _best_so_far(
    objective: Objective,
    results: Results,
    places: np.ndarray,
    index: int,
) -> go.Scatter:
    values = results.values[places, index]
    best = np.maximum.accumulate(values) if objective.maximize else np.minimum.accumulate(values)
    # only where it changes, and at the end: a study of 100,000 trials has a few dozen such points
    kept = np.flatnonzero(np.diff(best, prepend=np.nan) != 0)
    numbers, best = results.numbers[places[kept]], best[kept]
    if len(numbers):  # it holds until the last trial, whatever became of that
        numbers, best = np.append(numbers, results.numbers[-1]), np.append(best, best[-1])
    return go.Scatter(
        x=whole(numbers),
        y=best,
        mode="lines",
        name="best so far",
        line={"color": COLOURS["best"], "width": 2.5, "shape": "hv"},
        hovertemplate="best %{y:.5g}<extra></extra>",
    )


def _records(objective: Objective, results: Results, index: int) -> np.ndarray:
    """The best so far, of every trial; NaN before the first candidate."""
    costs = np.where(
        results.done(index) & results.feasible,
        results.losses(objective, index),
        np.inf,
    )
    best = np.minimum.accumulate(costs)
    best = np.where(np.isfinite(best), best, np.nan)
    return -best if objective.maximize else best


def choose_curves(
    objective: Objective,
    results: Results,
    index: int = 0,
    limit: int = CURVES,
    states: Collection[str] = (),
) -> list[int]:
    """Numbers of the trials whose learning curves are worth drawing: the best, those that run, an even choice."""
    tried = np.flatnonzero(results.in_states(states) & ~np.isnan(results.steps))
    costs = np.where(results.candidates(), results.losses(objective, index), np.inf)
    costs = np.where(results.in_states(["running", "interrupted"]), -np.inf, costs)[tried]
    return [int(number) for number in results.numbers[tried[subsample_best(costs, results.numbers[tried], limit)]]]


def learning_curves(
    objective: Objective,
    results: Results,
    curves: Sequence[ReportCurve],
    best: int | None,
) -> Chart:
    """Curves by step: the best trial's on top, pruned ones faded.

    Args:
        objective: what the curves are of.
        results: all trials of the study.
        curves: those to draw, see `choose_curves`.
        best: the best trial's number.
    """
    title = f"Learning curves of {objective.name}"
    drawn = [curve for curve in curves if any(point.value is not None for point in curve.points)]
    if not drawn:
        return Chart(
            title,
            None,
            "No trial has reported yet; curves appear for objectives that call trial.report().",
        )
    states = {state: set(results.numbers[results.of_state(state)].tolist()) for state in _OPACITY if state != "best"}
    groups: dict[str, list[ReportCurve]] = {}
    for curve in drawn:
        kinds = [state for state, numbers in states.items() if curve.trial_number in numbers]
        kind = "best" if curve.trial_number == best else (kinds or ["running"])[0]
        groups.setdefault(kind, []).append(curve)
    order = [kind for kind in _OPACITY if kind in groups]
    flat = [(curve.trial_number, point.step, point.value) for curve in drawn for point in curve.points]
    numbers, steps, values = (np.array(column, dtype=float) for column in zip(*flat, strict=True))
    chart = figure(
        *(_curve_trace(kind, groups[kind]) for kind in order),
        xaxis=count_axis("step", steps),
        yaxis=axis(objective.name, values),
    )
    reported = int((~np.isnan(results.steps)).sum())
    return Chart(
        title,
        chart,
        notes(
            showing(len(drawn), max(reported, len(drawn)), "curves"),
            *(f"{len(states[state]):,} {state}" for state in ("running", "interrupted") if states[state]),
        ),
        columns={
            "trial": whole(numbers),
            "step": steps.astype(np.int64),
            objective.name: values,
        },
    )


_OPACITY = {
    "stopped": 0.45,
    "failed": 0.5,
    "pruned": 0.45,
    "paused": 0.45,
    "complete": 0.6,
    "waiting": 0.6,
    "interrupted": 0.6,
    "running": 0.9,
    "best": 1.0,
}
"""In the order in which they are drawn."""


def _curve_trace(kind: str, curves: Sequence[ReportCurve]) -> go.Scatter:
    """All curves of a kind as one trace, with gaps between: one trace per curve would be slow."""
    x: list[float] = []
    y: list[float] = []
    numbers: list[int] = []
    for curve in curves:
        for point in curve.points:
            x.append(point.step)
            y.append(np.nan if point.value is None else point.value)
        x.append(np.nan)
        y.append(np.nan)
        numbers += [curve.trial_number] * (len(curve.points) + 1)
    lonely = all(len(curve.points) == 1 for curve in curves)
    return go.Scatter(
        x=np.array(x, dtype=np.float32),
        y=np.array(y),
        customdata=np.array(numbers, dtype=np.int32),
        meta={"trials": "customdata"},
        mode="markers" if lonely else "lines",
        name=kind,
        opacity=_OPACITY[kind],
        connectgaps=False,
        line={"color": COLOURS[kind], "width": 3 if kind == "best" else 1.2},
        marker={"color": COLOURS[kind]},
        hovertemplate="trial %{customdata}, step %{x}: %{y:.5g}<extra></extra>",
    )


_BAR_COLOURS: Mapping[str, str] = {
    "finished": COLOURS["complete"],
    "pruned": COLOURS["pruned"],
    "paused": COLOURS["paused"],
    "failed": COLOURS["failed"],
    "lost": "#b3261e",
    "interrupted": COLOURS["interrupted"],
    "running": COLOURS["running"],
    "opened": COLOURS["waiting"],
}


def timeline(spans: Sequence[Span]) -> Chart:
    """When which worker ran which trial: a lane for each, whose gaps are idle time."""
    title = "Timeline of workers"
    if not spans:
        return Chart(title, None, "No attempt has started yet.")
    lanes = sorted({(span.node, span.lane) for span in spans})
    names = {lane: f"{label(lane[0], 30)} · {lane[1] + 1}" for lane in lanes}
    states = [state for state in _BAR_COLOURS if any(span.state == state for span in spans)]
    chart = figure(
        *(_bars(state, [span for span in spans if span.state == state], names) for state in states),
        height=min(900, 120 + 34 * len(lanes)),
        barmode="overlay",
        xaxis={**axis("UTC"), "type": "date"},
        yaxis={
            **axis(""),
            "type": "category",
            "categoryarray": [*names.values()][::-1],
            "categoryorder": "array",
        },
    )
    idle = idle_share(spans)
    return Chart(
        title,
        chart,
        notes(
            f"the newest {SPANS:,} attempts" if len(spans) >= SPANS else "",
            f"{len(lanes)} worker{'s' if len(lanes) > 1 else ''}, idle {idle:.0%} of the time",
        ),
        wide=True,
        columns={
            "trial": [span.trial_number for span in spans],
            "attempt": [span.attempt for span in spans],
            "state": [str(span.state) for span in spans],
            "worker": [f"{span.node} · {span.lane + 1}" for span in spans],
            "from": [_moment(span.started_at) for span in spans],
            "until": [_moment(span.ended_at) for span in spans],
        },
    )


def idle_share(spans: Sequence[Span]) -> float:
    """Share of the time between the first start and the last end in which workers had nothing to do, all together."""
    first, last = (
        min(span.started_at for span in spans),
        max(span.ended_at for span in spans),
    )
    there = (last - first).total_seconds() * len({(span.node, span.lane) for span in spans})
    busy = sum((span.ended_at - span.started_at).total_seconds() for span in spans)
    return max(0.0, 1.0 - busy / there) if there > 0 else 0.0


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _bars(
    state: str,
    spans: Sequence[Span],
    names: Mapping[tuple[str, int], str],
) -> go.Bar:
    starts = np.array([span.started_at.timestamp() * 1000 for span in spans])
    # Plotly measures bars on a date axis in milliseconds
    lengths = np.array([max(1.0, (span.ended_at - span.started_at).total_seconds() * 1000) for span in spans])
    messages = [label(span.message or "", 100) for span in spans]
    told = {"text": messages} if any(messages) else {}
    return go.Bar(
        orientation="h",
        name=state,
        width=0.72,
        base=starts,
        x=lengths,
        y=[names[span.node, span.lane] for span in spans],
        customdata=np.array([span.trial_number for span in spans], dtype=np.int32),
        meta={"trials": "customdata", "moments": "base"},
        marker={"color": _BAR_COLOURS[state], "line": {"width": 0}},
        **told,
        textposition="none",
        hovertemplate=f"<b>trial %{{customdata}}</b> {state}<br>%{{y}}{'<br>%{text}' if told else ''}<extra></extra>",
    )
