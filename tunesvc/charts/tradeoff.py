"""Charts of several objectives: the Pareto front among all complete trials, and how far it has come. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import (
    COLOURS,
    NOTHING,
    Chart,
    axis,
    count_axis,
    figure,
    label,
    notes,
    points,
    showing,
    whole,
)
from tunesvc.charts.parallel import ChoiceGroup, parallel_axes
from tunesvc.charts.parameters import number_axis
from tunesvc.queries.rows import Objective
from tunesvc.queries.trials.trial_results import Results, subsample
from tunesvc.queries.trials.trial_table import pareto_mask

_POINTS = 3_000


def front_of(objectives: Sequence[Objective], results: Results) -> np.ndarray:
    """Which trials no other dominates; mask."""
    places = np.flatnonzero(results.candidates() & np.isfinite(results.values).all(axis=1))
    sign = np.array([-1.0 if objective.maximize else 1.0 for objective in objectives])
    found = np.zeros(len(results), dtype=bool)
    if len(places):
        found[places[pareto_mask(results.values[places] * sign)]] = True
    return found


def pareto(objectives: Sequence[Objective], results: Results, front: np.ndarray) -> Chart:
    """Trials by their objectives: two as a plane, more as parallel axes; the front stands out."""
    title = "Pareto front"
    done = results.of_state("complete") & np.isfinite(results.values).all(axis=1)
    if not done.any():
        return Chart(title, None, NOTHING)
    others = np.flatnonzero(done & ~front)
    others = others[subsample(results.numbers[others], _POINTS)]
    best = np.flatnonzero(front)
    draw = _plane if len(objectives) == 2 else _axes
    shown = np.concatenate([others, best])
    return Chart(
        title,
        draw(objectives, results, others, best),
        notes(
            f"{len(best)} of {int(done.sum()):,} trials are beaten by no other",
            showing(len(shown), int(done.sum())),
        ),
        wide=len(objectives) > 2,
        columns={
            "trial": results.numbers[shown],
            **{objective.name: results.values[shown, i] for i, objective in enumerate(objectives)},
            "front": ["yes" if one else "no" for one in front[shown]],
        },
    )


def _plane(
    objectives: Sequence[Objective],
    results: Results,
    others: np.ndarray,
    best: np.ndarray,
) -> go.Figure:
    best = best[np.lexsort(results.values[best].T[::-1])]
    shown = np.concatenate([others, best])
    return figure(
        _cloud("other trials", results, others, COLOURS["pruned"], 6, "markers"),
        _cloud("Pareto front", results, best, COLOURS["best"], 9, "lines+markers"),
        xaxis=axis(with_goal(objectives[0]), results.values[shown, 0]),
        yaxis=axis(with_goal(objectives[1]), results.values[shown, 1]),
    )


def _cloud(
    name: str,
    results: Results,
    places: np.ndarray,
    colour: str,
    size: int,
    mode: str,
) -> Any:
    return points(
        results.values[places, 0],
        results.values[places, 1],
        results.numbers[places],
        mode=mode,
        name=name,
        visible=bool(len(places)),
        marker={"color": colour, "size": size},
        line={"color": colour, "width": 1, "dash": "dot"},
        hovertemplate="trial %{customdata}<br>%{x:.5g}, %{y:.5g}<extra></extra>",
    )


def _axes(
    objectives: Sequence[Objective],
    results: Results,
    others: np.ndarray,
    best: np.ndarray,
) -> go.Figure:
    order = np.concatenate([others[subsample(results.numbers[others], 300)], best[:100]])
    scales = [
        ("trial", number_axis(results.numbers[order].astype(float), False)),
        *((with_goal(one), number_axis(results.values[order, i])) for i, one in enumerate(objectives)),
    ]
    is_best = np.isin(order, best)
    groups = [
        ChoiceGroup("other trials", np.flatnonzero(~is_best), COLOURS["pruned"]),
        ChoiceGroup("Pareto front", np.flatnonzero(is_best), COLOURS["best"]),
    ]
    return parallel_axes(scales, results.numbers[order], groups)


def hypervolume(objectives: Sequence[Objective], results: Results) -> Chart:
    """How much of the objectives' plane is dominated after each trial: the course of a study of two objectives."""
    title = "Hypervolume"
    if len(objectives) != 2:
        return Chart(title, None, "It is drawn for two objectives.")
    places = np.flatnonzero(results.candidates() & np.isfinite(results.values).all(axis=1))
    if not len(places):
        return Chart(title, None, NOTHING)
    sign = np.array([-1.0 if objective.maximize else 1.0 for objective in objectives])
    costs = results.values[places] * sign
    at, volumes = _course(costs)
    numbers = results.numbers[places[at]]
    trace = go.Scatter(
        x=whole(numbers),
        y=volumes,
        mode="lines",
        line={"color": COLOURS["best"], "width": 2.5, "shape": "hv"},
        hovertemplate="trial %{x}: %{y:.5g}<extra></extra>",
    )
    reference = costs.max(axis=0) * sign
    bound = ", ".join(f"{value:.4g}" for value in reference)
    return Chart(
        title,
        figure(trace, xaxis=count_axis("trial"), yaxis=axis("dominated area")),
        f"what is dominated, up to the worst values seen ({label(bound)})",
        columns={"trial": numbers, "dominated area": volumes},
    )


def _course(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the dominated area grew, and how large it was then."""
    reference = costs.max(axis=0)
    front: list[tuple[float, float]] = []
    at, volumes = [], []
    for i, (a, b) in enumerate(costs.tolist()):
        if any(one[0] <= a and one[1] <= b for one in front):
            continue
        front = sorted(
            [one for one in front if not (a <= one[0] and b <= one[1])] + [(a, b)],
        )
        ends = [one[0] for one in front[1:]] + [float(reference[0])]
        at.append(i)
        volumes.append(sum((end - one[0]) * (reference[1] - one[1]) for one, end in zip(front, ends, strict=True)))
    if at[-1] != len(costs) - 1:
        at.append(len(costs) - 1)
        volumes.append(volumes[-1])
    return np.array(at), np.array(volumes)


def with_goal(objective: Objective) -> str:
    """`val_error (minimize)`."""
    return f"{objective.name} ({objective.goal})"
