"""Charts over time: optimisation history, learning curves, timeline of workers. Pure."""

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
    category_axis,
    count_axis,
    describe_selection,
    figure,
    label,
    notes,
    points,
    showing,
    whole,
)
from tunesvc.charts.curves import curve_axes, curve_columns, joined_curves, with_values
from tunesvc.db.schema.states import STATES_SHOWN
from tunesvc.queries.operations.timeline import SPANS, Span
from tunesvc.queries.rows import Objective, ReportCurve
from tunesvc.queries.trials.trial_results import Results, subsample

_FAILED = 1_000
"""Most marks of failed trials."""
CURVES = 300
"""Most learning curves in one chart."""


def history(
    objective: Objective,
    results: Results,
    index: int = 0,
    states: Collection[str] = (),
) -> Chart:
    """Draw each trial's value by number, failed trials as marks, and the best so far.

    Args:
        objective: Objective to draw.
        results: All trials of the study.
        index: Index of the objective among the values.
        states: States of the trials to draw; all if empty.
    """
    title = f"History of {objective.name}"
    losses = results.losses(objective, index)
    shown = results.best_rows(results.with_value(index, states), losses, POINTS)
    failed = np.flatnonzero(results.of_state("failed"))
    if states and "failed" not in states:
        failed = failed[:0]
    if not len(shown) and not len(failed):
        return Chart(title, None, NOTHING)
    complete = results.of_state("complete")[shown]
    pruned = results.of_state("pruned")[shown]
    feasible = results.feasible[shown]
    good = shown[complete & feasible]
    infeasible = shown[complete & ~feasible]
    best = incumbents(objective, results, index)
    numbers = results.numbers
    history_figure = figure(
        _points("complete", results, good, index, COLOURS["complete"]),
        _points("infeasible", results, infeasible, index, COLOURS["infeasible"]),
        _points("pruned", results, shown[pruned], index, COLOURS["pruned"], "x"),
        _failed(results, failed),
        _best_line(numbers, best),
        xaxis=count_axis("trial", numbers, range=_number_range(numbers)),
        yaxis=axis(objective.name, results.values[shown, index]),
        yaxis2={
            "overlaying": "y",
            "range": [0, 1],
            "visible": False,
            "fixedrange": True,
        },
    )
    selection = describe_selection(
        len(shown) + len(failed),
        len(results),
        int(pruned.sum()),
    )
    return Chart(
        title,
        history_figure,
        notes(selection, f"{len(failed):,} failed: the marks below" if len(failed) else ""),
        columns={
            "trial": numbers[shown],
            objective.name: results.values[shown, index],
            "state": [STATES_SHOWN[code] for code in results.states[shown]],
            "feasible": np.where(feasible, "yes", "no"),
            "best so far": best[shown],
        },
    )


def _number_range(numbers: np.ndarray) -> list[float]:
    """Return the range of the axis up to the last trial, even if that has no value."""
    last = float(numbers.max(initial=0))
    return [-0.02 * max(last, 10.0), last + 0.02 * max(last, 10.0)]


def _points(
    name: str,
    results: Results,
    rows: np.ndarray,
    index: int,
    colour: str,
    symbol: str = "circle",
) -> go.Scatter:
    return points(
        results.numbers[rows],
        results.values[rows, index],
        mode="markers",
        name=name,
        visible=bool(len(rows)),
        marker={"color": colour, "size": 6, "opacity": 0.75, "symbol": symbol},
        hovertemplate=f"trial %{{x}}, {name}: %{{y:.5g}}<extra></extra>",
    )


def _failed(results: Results, rows: np.ndarray) -> go.Scatter:
    """Return marks at the lower edge: failed trials have no value."""
    rows = rows[subsample(results.numbers[rows], _FAILED)]
    return points(
        results.numbers[rows],
        np.full(len(rows), 0.015, dtype=np.float32),
        mode="markers",
        name="failed",
        yaxis="y2",
        visible=bool(len(rows)),
        marker={"color": COLOURS["failed"], "size": 7, "symbol": "triangle-up"},
        hovertemplate="trial %{x} failed<extra></extra>",
    )


def _best_line(numbers: np.ndarray, best: np.ndarray) -> go.Scatter:
    shown = improvements(best)
    shown[-1:] |= np.isfinite(best[-1:])
    return go.Scatter(
        x=whole(numbers[shown]),
        y=best[shown],
        mode="lines",
        name="best so far",
        line={"color": COLOURS["best"], "width": 2.5, "shape": "hv"},
        hovertemplate="best %{y:.5g}<extra></extra>",
    )


def improvements(best: np.ndarray) -> np.ndarray:
    """Return a mask of the trials that improved the best value: a few dozen of 100,000."""
    mask: np.ndarray = np.isfinite(best) & (np.diff(best, prepend=np.nan) != 0)
    return mask


def incumbents(objective: Objective, results: Results, index: int = 0) -> np.ndarray:
    """Return the best value so far at every trial; NaN before the first candidate."""
    is_candidate = results.candidates() & results.done(index)
    losses = np.where(is_candidate, results.losses(objective, index), np.inf)
    best = np.minimum.accumulate(losses)
    best = np.where(np.isfinite(best), best, np.nan)
    return best * objective.orientation


def select_curves(
    objective: Objective,
    results: Results,
    index: int = 0,
    limit: int = CURVES,
    states: Collection[str] = (),
) -> list[int]:
    """Return the numbers of trials to draw learning curves of.

    These are the running ones, the best, and an even sample of the others.
    """
    losses = np.where(results.candidates(), results.losses(objective, index), np.inf)
    # Running trials count as the best, so that they are selected.
    losses = np.where(results.in_states(["running", "interrupted"]), -np.inf, losses)
    has_curve = results.in_states(states) & ~np.isnan(results.steps)
    rows = results.best_rows(has_curve, losses, limit)
    numbers: list[int] = results.numbers[rows].tolist()
    return numbers


def learning_curves(
    objective: Objective,
    results: Results,
    curves: Sequence[ReportCurve],
    best: int | None,
) -> Chart:
    """Draw curves by step: the best trial's on top, pruned ones faded.

    Args:
        objective: Objective of the curves.
        results: All trials of the study.
        curves: Curves to draw, see `select_curves`.
        best: Number of the best trial.
    """
    kind = "Learning curves" if objective.step == "step" else f"Values by {objective.step}"
    title = f"{kind} of {objective.name}"
    shown = with_values(curves)
    if not shown:
        hint = "curves appear for objectives that call trial.report()"
        return Chart(title, None, f"No trial has reported yet; {hint}.")
    groups = _group_by_state(results, shown, best)
    traces = [_curve_trace(state, groups[state]) for state in _OPACITY if state in groups]
    reported = int((~np.isnan(results.steps)).sum())
    running = int(results.of_state("running").sum())
    interrupted = int(results.of_state("interrupted").sum())
    return Chart(
        title,
        figure(*traces, **curve_axes(objective, shown)),
        notes(
            showing(len(shown), max(reported, len(shown)), "curves"),
            f"{running:,} running" if running else "",
            f"{interrupted:,} interrupted" if interrupted else "",
        ),
        columns=curve_columns(objective, shown),
    )


def _group_by_state(
    results: Results,
    curves: Sequence[ReportCurve],
    best: int | None,
) -> dict[str, list[ReportCurve]]:
    """Return curves by their trial's state, or `best`; unknown states count as running."""
    states = dict(zip(results.numbers.tolist(), results.states.tolist(), strict=True))
    groups: dict[str, list[ReportCurve]] = {}
    for curve in curves:
        code = states.get(curve.trial_number)
        state = "running" if code is None else STATES_SHOWN[code]
        if state not in _OPACITY:
            state = "running"
        if curve.trial_number == best:
            state = "best"
        groups.setdefault(state, []).append(curve)
    return groups


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
"""Opacity by state, in drawing order."""


def _curve_trace(kind: str, curves: Sequence[ReportCurve]) -> go.Scatter:
    colour = COLOURS[kind]
    return joined_curves(
        kind,
        curves,
        opacity=_OPACITY[kind],
        line={"color": colour, "width": 3 if kind == "best" else 1.2},
        marker={"color": colour},
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
    """Draw the trials of each worker over time. Gaps in a lane are idle time."""
    title = "Timeline of workers"
    if not spans:
        return Chart(title, None, "No attempt has started yet.")
    lanes = sorted({(span.node, span.lane) for span in spans})
    names = {lane: f"{label(lane[0], 30)} · {lane[1] + 1}" for lane in lanes}
    by_state: dict[str, list[Span]] = {}
    for span in spans:
        by_state.setdefault(span.state, []).append(span)
    states = [state for state in _BAR_COLOURS if state in by_state]
    timeline_figure = figure(
        *(_bars(state, by_state[state], names) for state in states),
        height=min(900, 120 + 34 * len(lanes)),
        barmode="overlay",
        xaxis=axis("UTC", type="date"),
        yaxis=category_axis("", list(reversed(names.values()))),
    )
    plural = "s" if len(lanes) > 1 else ""
    return Chart(
        title,
        timeline_figure,
        notes(
            f"the newest {SPANS:,} attempts" if len(spans) >= SPANS else "",
            f"{len(lanes)} worker{plural}, idle {idle_share(spans):.0%} of the time",
        ),
        wide=True,
        columns={
            "trial": [span.trial_number for span in spans],
            "attempt": [span.attempt for span in spans],
            "state": [str(span.state) for span in spans],
            "worker": [f"{span.node} · {span.lane + 1}" for span in spans],
            "from": [_format_time(span.started_at) for span in spans],
            "until": [_format_time(span.ended_at) for span in spans],
        },
    )


def idle_share(spans: Sequence[Span]) -> float:
    """Return the idle share of all workers' time from the first start to the last end."""
    first = min(span.started_at for span in spans)
    last = max(span.ended_at for span in spans)
    workers = len({(span.node, span.lane) for span in spans})
    available_s = (last - first).total_seconds() * workers
    busy_s = sum((span.ended_at - span.started_at).total_seconds() for span in spans)
    return max(0.0, 1.0 - busy_s / available_s) if available_s > 0 else 0.0


def _format_time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _bars(
    state: str,
    spans: Sequence[Span],
    names: Mapping[tuple[str, int], str],
) -> go.Bar:
    # Plotly measures bars on a date axis in milliseconds.
    starts_ms = np.array([span.started_at.timestamp() * 1000 for span in spans])
    lasted_s = np.array([(span.ended_at - span.started_at).total_seconds() for span in spans])
    messages = [label(span.message or "", 100) for span in spans]
    has_messages = any(messages)
    text_line = "<br>%{text}" if has_messages else ""
    return go.Bar(
        orientation="h",
        name=state,
        width=0.72,
        base=starts_ms,
        x=np.maximum(1.0, lasted_s * 1000),
        y=[names[span.node, span.lane] for span in spans],
        customdata=np.array([span.trial_number for span in spans], dtype=np.int32),
        meta={"trials": "customdata", "moments": "base"},
        marker={"color": _BAR_COLOURS[state], "line": {"width": 0}},
        text=messages if has_messages else None,
        textposition="none",
        hovertemplate=f"<b>trial %{{customdata}}</b> {state}<br>%{{y}}{text_line}<extra></extra>",
    )
