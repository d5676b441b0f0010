"""Charts of several objectives: the Pareto front and the hypervolume. Pure."""

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
from tunesvc.search.tracking.pareto import pareto_mask
from tunesvc.space.directions import orient_each

_POINTS = 3_000


def front_of(objectives: Sequence[Objective], results: Results) -> np.ndarray:
    """Return a mask of the trials that no other trial dominates."""
    rows = np.flatnonzero(results.candidates() & _is_finite(results))
    mask = np.zeros(len(results), dtype=bool)
    if len(rows):
        losses = results.values[rows] * orient_each([objective.goal for objective in objectives])
        mask[rows[pareto_mask(losses)]] = True
    return mask


def _is_finite(results: Results) -> np.ndarray:
    """Return a mask of the trials whose values are all finite."""
    mask: np.ndarray = np.isfinite(results.values).all(axis=1)
    return mask


def pareto(
    objectives: Sequence[Objective],
    results: Results,
    front: np.ndarray,
) -> Chart:
    """Draw trials by their objectives, with the front highlighted.

    Two objectives are a plane, more of them parallel axes.
    """
    title = "Pareto front"
    done = results.of_state("complete") & _is_finite(results)
    if not done.any():
        return Chart(title, None, NOTHING)
    others = results.even_rows(done & ~front, _POINTS)
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
            "front": np.where(front[shown], "yes", "no"),
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
    rows: np.ndarray,
    colour: str,
    size: int,
    mode: str,
) -> Any:
    return points(
        results.values[rows, 0],
        results.values[rows, 1],
        results.numbers[rows],
        mode=mode,
        name=name,
        visible=bool(len(rows)),
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
    scales = [("trial", number_axis(results.numbers[order].astype(float), False))]
    for i, objective in enumerate(objectives):
        scales.append((with_goal(objective), number_axis(results.values[order, i])))
    is_best = np.isin(order, best)
    groups = [
        ChoiceGroup("other trials", np.flatnonzero(~is_best), COLOURS["pruned"]),
        ChoiceGroup("Pareto front", np.flatnonzero(is_best), COLOURS["best"]),
    ]
    return parallel_axes(scales, results.numbers[order], groups)


def hypervolume(objectives: Sequence[Objective], results: Results) -> Chart:
    """Draw the area that is dominated after each trial of a study of two objectives."""
    title = "Hypervolume"
    if len(objectives) != 2:
        return Chart(title, None, "It is drawn for two objectives.")
    rows = np.flatnonzero(results.candidates() & _is_finite(results))
    if not len(rows):
        return Chart(title, None, NOTHING)
    orientation = orient_each([objective.goal for objective in objectives])
    losses = results.values[rows] * orientation
    indices, areas = _area_history(losses)
    numbers = results.numbers[rows[indices]]
    trace = go.Scatter(
        x=whole(numbers),
        y=areas,
        mode="lines",
        line={"color": COLOURS["best"], "width": 2.5, "shape": "hv"},
        hovertemplate="trial %{x}: %{y:.5g}<extra></extra>",
    )
    reference = losses.max(axis=0) * orientation
    bound = ", ".join(f"{value:.4g}" for value in reference)
    return Chart(
        title,
        figure(trace, xaxis=count_axis("trial"), yaxis=axis("dominated area")),
        f"the dominated area, up to the worst values ({label(bound)})",
        columns={"trial": numbers, "dominated area": areas},
    )


def _area_history(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices at which the dominated area grew, and the areas; shape (changes,) each."""
    reference_a, reference_b = losses.max(axis=0).tolist()
    front: list[tuple[float, float]] = []
    indices = []
    areas = []
    for i, (a, b) in enumerate(losses.tolist()):
        if any(other_a <= a and other_b <= b for other_a, other_b in front):
            continue
        front = [other for other in front if not (a <= other[0] and b <= other[1])]
        front = sorted([*front, (a, b)])
        # Sorted by `a`, the area is a sum of rectangles from the end back.
        end = reference_a
        area = 0.0
        for start, level in reversed(front):
            area += (end - start) * (reference_b - level)
            end = start
        indices.append(i)
        areas.append(area)
    if indices[-1] != len(losses) - 1:
        indices.append(len(losses) - 1)
        areas.append(areas[-1])
    return np.array(indices), np.array(areas)


def with_goal(objective: Objective) -> str:
    """Return the name with the goal: `val_error (minimize)`."""
    return f"{objective.name} ({objective.goal})"
