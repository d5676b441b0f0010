"""Charts of parameters: parallel coordinates, slices, contours, ranks, importance, correlations.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from tunesvc.charts.chart import (
    COLOUR_BAR,
    COLOURS,
    NOTHING,
    SCALE,
    Chart,
    axis,
    category_axis,
    describe_selection,
    figure,
    heatmap,
    label,
    notes,
    points,
    showing,
    spans_decades,
    whole,
)
from tunesvc.charts.parallel import AxisScale, ChoiceGroup, parallel_axes
from tunesvc.queries.rows import Objective
from tunesvc.queries.trials.tried_parameters import CompletedTrials, Parameter
from tunesvc.search.analysis.importance import TRIALS_MIN, Share
from tunesvc.search.analysis.model_surface import Slice1D, Slice2D

LINES = 400
"""Most lines in parallel coordinates."""
SLICED = 4_000
"""Most points in the slice plot."""
SLICES = 8
"""Most parameters in one slice plot or in parallel coordinates."""
TOO_FEW = f"It takes {TRIALS_MIN} complete trials."
_SHADES = 8
"""Number of colours of lines, from the best value to the worst."""
_DARKENING = [[0, "#b9c8ff"], [1, "#2747c7"]]


def _empty_chart(title: str, tried: CompletedTrials, least: int = 1) -> Chart | None:
    """Return a chart with the reason why it is empty; None if there is something to draw."""
    if not len(tried):
        return Chart(title, None, NOTHING)
    if not tried.parameters:
        return Chart(title, None, "The trials have no parameters.")
    if len(tried.parameters) < least:
        return Chart(title, None, "It takes two parameters.")
    return None


def _table(tried: CompletedTrials, parameters: Sequence[Parameter]) -> dict[str, Any]:
    table: dict[str, Any] = {"trial": tried.numbers, tried.objective.name: tried.values}
    for parameter in parameters:
        table[parameter.name] = [parameter.text(value) for value in parameter.values]
    return table


def _describe_trials(tried: CompletedTrials) -> str:
    return describe_selection(len(tried), tried.total, int(tried.pruned.sum()))


def parallel(tried: CompletedTrials) -> Chart:
    """Draw each trial as a line through its parameters to its value, the best on top."""
    title = f"Parallel coordinates to {tried.objective.name}"
    if (empty := _empty_chart(title, tried)) is not None:
        return empty
    order = np.argsort(-tried.losses, kind="stable")
    shown = tried.parameters[:SLICES]
    result = number_axis(tried.values[order])
    scales = [
        ("trial", number_axis(tried.numbers[order].astype(float), False)),
        *((one.name, parameter_axis(one, order)) for one in shown),
        (tried.objective.name, result),
    ]
    groups = _group_by_shade(result, tried.objective.maximize)
    return Chart(
        title,
        parallel_axes(scales, tried.numbers[order], groups),
        notes(
            _describe_trials(tried),
            showing(len(shown), len(tried.parameters), "parameters"),
            "drag a box over an axis to select",
        ),
        wide=True,
        columns=_table(tried, shown),
    )


def _group_by_shade(result: AxisScale, maximize: bool) -> list[ChoiceGroup]:
    """Group trials by their value, the best last. Each shade is one trace."""
    heights = result.heights(result.positions)
    losses = 1.0 - heights if maximize else heights
    shades = np.minimum((losses * _SHADES).astype(int), _SHADES - 1)
    colours = sample_colorscale(SCALE, np.linspace(0, 1, _SHADES).tolist())
    groups = []
    for shade in reversed(range(_SHADES)):
        rows = np.flatnonzero(shades == shade)
        if len(rows):
            groups.append(ChoiceGroup(f"shade {shade}", rows, colours[shade]))
    return groups


def slices(
    tried: CompletedTrials,
    cuts: Mapping[str, Slice1D] | None = None,
    at: int | None = None,
) -> Chart:
    """Draw the objective over each single parameter; darker points are later trials.

    Args:
        tried: Trials to draw.
        cuts: The model along each parameter.
        at: Number of the trial through which the cuts go.
    """
    title = f"{tried.objective.name} by parameter"
    if (empty := _empty_chart(title, tried)) is not None:
        return empty
    shown = tried.parameters[:SLICES]
    rows = math.ceil(len(shown) / 4)
    columns = math.ceil(len(shown) / rows)
    chart = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    y_axis = axis("", tried.values)
    for i, parameter in enumerate(shown):
        cell = {"row": i // columns + 1, "col": i % columns + 1}
        cut = (cuts or {}).get(parameter.name)
        for trace in _band(parameter, cut) if cut is not None else ():
            chart.add_trace(trace, **cell)
        chart.add_trace(_slice(tried, parameter), **cell)
        chart.update_xaxes(x_axis(parameter), **cell)
        y_title = label(tried.objective.name) if i % columns == 0 else ""
        chart.update_yaxes({**y_axis, "title": {"text": y_title}}, **cell)
    chart.update_layout(figure().layout)
    chart.update_layout(height=90 + 250 * rows, showlegend=False)
    crosses = ", crosses were pruned" if tried.pruned.any() else ""
    band = "line and band: the model, ± 2 deviations"
    return Chart(
        title,
        chart,
        notes(
            _describe_trials(tried),
            showing(len(shown), len(tried.parameters), "parameters"),
            f"darker came later{crosses}",
            f"{band}, all else as in trial {at}" if cuts else "",
        ),
        wide=True,
        columns=_table(tried, shown),
    )


def _slice(tried: CompletedTrials, parameter: Parameter) -> go.Scatter | go.Scattergl:
    has = ~np.isnan(parameter.values)
    return points(
        column(parameter, has),
        tried.values[has],
        tried.numbers[has],
        mode="markers",
        hovertemplate="trial %{customdata}<br>%{x}: %{y:.5g}<extra></extra>",
        marker={
            "size": 5,
            "color": whole(tried.numbers[has]),
            "colorscale": _DARKENING,
            **_symbols(tried.pruned[has]),
        },
    )


def _symbols(pruned: np.ndarray) -> dict[str, Any]:
    return {"symbol": np.where(pruned, "x", "circle").tolist()} if pruned.any() else {}


def _band(parameter: Parameter, cut: Slice1D) -> tuple[go.Scatter, ...]:
    """Return the model's mean with two deviations: a line with a band, or marks for choices."""
    mean = cut.mean.astype(np.float32)
    width = (2 * cut.deviation).astype(np.float32)
    if parameter.choices:
        names = [label(place, 20) for place in cut.places]
        return (_choice_marks(names, mean, width),)
    x = np.array(cut.places, dtype=float)
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return (
        go.Scatter(x=x, y=mean - width, **hidden),
        go.Scatter(
            x=x,
            y=mean + width,
            fill="tonexty",
            fillcolor="rgba(18,165,148,.18)",
            **hidden,
        ),
        go.Scatter(
            x=x,
            y=mean,
            mode="lines",
            line={"color": COLOURS["best"], "width": 2},
            hovertemplate="%{x:.4g}: %{y:.5g}<extra>model</extra>",
        ),
    )


def _choice_marks(names: list[str], mean: np.ndarray, width: np.ndarray) -> go.Scatter:
    colour = COLOURS["best"]
    return go.Scatter(
        x=names,
        y=mean,
        mode="markers",
        marker={
            "symbol": "line-ew",
            "size": 18,
            "line": {"width": 3, "color": colour},
        },
        error_y={"type": "data", "array": width, "color": colour, "thickness": 1.5},
        hovertemplate="%{x}: %{y:.5g} ± %{error_y.array:.2g}<extra>model</extra>",
    )


def contour(
    tried: CompletedTrials,
    plane: Slice2D | None,
    at: int | None = None,
    *,
    deviation: bool = False,
) -> Chart:
    """Draw the model's mean over two parameters, with the trials.

    Args:
        tried: Trials with two parameters.
        plane: The model over the two parameters; None without a model.
        at: Number of the trial through which the plane goes; None for a mean over all else.
        deviation: Draw the model's deviation instead of its mean.
    """
    title = f"{tried.objective.name} over two parameters"
    if (empty := _empty_chart(title, tried, least=2)) is not None:
        return empty
    if plane is None:
        return Chart(title, None, TOO_FEW)
    first, second = tried.parameters[:2]
    look = _deviation_look(plane) if deviation else _mean_look(plane, tried.objective)
    trace = {
        "x": _ticks(first, plane.first),
        "y": _ticks(second, plane.second),
        "colorbar": COLOUR_BAR,
        **look,
    }
    what = "how unsure the model is (one deviation)" if deviation else "what the model expects"
    others = "mean over all other parameters" if at is None else f"all else as in trial {at}"
    return Chart(
        title,
        figure(
            _surface(trace, first, second),
            _pairs(tried, first, second, ring=True),
            xaxis=x_axis(first),
            yaxis=x_axis(second),
        ),
        notes(f"{what}, {others}", _describe_trials(tried)),
        columns=_table(tried, (first, second)),
    )


def _mean_look(plane: Slice2D, objective: Objective) -> dict[str, Any]:
    return {
        "z": plane.mean.astype(np.float32),
        "customdata": plane.deviation.astype(np.float32),
        "colorscale": SCALE,
        "reversescale": objective.maximize,
        "hovertemplate": "%{x}, %{y}<br>%{z:.5g} ± %{customdata:.2g}<extra>model</extra>",
    }


def _deviation_look(plane: Slice2D) -> dict[str, Any]:
    return {
        "z": plane.deviation.astype(np.float32),
        "customdata": plane.mean.astype(np.float32),
        "colorscale": [[0, "#f3f5f9"], [1, "#c98a1b"]],
        "reversescale": False,
        "hovertemplate": "%{x}, %{y}<br>%{customdata:.5g} ± %{z:.2g}<extra>model</extra>",
    }


def _surface(
    trace: Mapping[str, Any],
    first: Parameter,
    second: Parameter,
) -> go.Contour | go.Heatmap:
    """Return contours for two numbers; with choices, separate cells, as nothing lies between."""
    if first.choices or second.choices:
        return go.Heatmap(
            **trace,
            xgap=3 if first.choices else 0,
            ygap=3 if second.choices else 0,
        )
    lines = {"width": 0.4, "color": "rgba(255,255,255,.5)"}
    return go.Contour(
        **trace,
        ncontours=18,
        contours={"coloring": "heatmap"},
        line=lines,
    )


def rank(tried: CompletedTrials) -> Chart:
    """Draw trials over two parameters, coloured by their rank.

    Ranks show the region of good trials independently of the values' scale.
    """
    title = f"Rank of {tried.objective.name} over two parameters"
    if (empty := _empty_chart(title, tried, least=2)) is not None:
        return empty
    first, second = tried.parameters[:2]
    ranks = _ranks(tried.losses)
    shades: dict[str, Any] = {
        "color": (ranks / max(len(ranks) - 1, 1)).astype(np.float32),
        "colorscale": SCALE,
        "cmin": 0,
        "cmax": 1,
        "colorbar": {**COLOUR_BAR, "tickvals": [0, 1], "ticktext": ["best", "worst"]},
    }
    return Chart(
        title,
        figure(
            _pairs(tried, first, second, **shades),
            xaxis=x_axis(first),
            yaxis=x_axis(second),
        ),
        _describe_trials(tried),
        columns={**_table(tried, (first, second)), "rank": ranks.astype(int) + 1},
    )


def _pairs(
    tried: CompletedTrials,
    first: Parameter,
    second: Parameter,
    *,
    ring: bool = False,
    **marker: Any,
) -> Any:
    has = ~np.isnan(first.values) & ~np.isnan(second.values)
    if "color" in marker:
        marker["color"] = marker["color"][has]
    look: dict[str, Any] = {"size": 6}
    if ring:
        outline = {"width": 0.8, "color": "#fff"}
        look = {"size": 4, "color": "rgba(20,26,38,.65)", "line": outline}
    return points(
        column(first, has),
        column(second, has),
        tried.numbers[has],
        mode="markers",
        marker={**look, **_symbols(tried.pruned[has]), **marker},
        hovertemplate="trial %{customdata}<br>%{x}, %{y}<extra></extra>",
        showlegend=False,
    )


def importance(shares: Sequence[Share], objective: Objective) -> Chart:
    """Draw each parameter's share in separating the best trials from all, with intervals."""
    title = f"Importance for {objective.name}"
    if not shares:
        return Chart(title, None, TOO_FEW)
    ordered = sorted(shares, key=lambda one: one.share)
    middle = np.array([one.share for one in ordered])
    low = np.array([one.low for one in ordered])
    high = np.array([one.high for one in ordered])
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": np.maximum(high - middle, 0.0),
        "arrayminus": np.maximum(middle - low, 0.0),
        "thickness": 1.2,
        "width": 4,
        "color": COLOURS["pruned"],
    }
    trace = go.Bar(
        orientation="h",
        x=middle,
        y=[label(one.name, 30) for one in ordered],
        error_x=whiskers,
        marker={"color": COLOURS["complete"]},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    return Chart(
        title,
        figure(
            trace,
            height=max(220, min(700, 90 + 26 * len(ordered))),
            xaxis=axis("", tickformat=".0%", rangemode="tozero"),
            yaxis=axis("", type="category"),
        ),
        "what sets the best tenth apart from all trials · whiskers: 90 % of resampled studies",
        columns={
            "parameter": [one.name for one in reversed(ordered)],
            "share": [round(one.share, 4) for one in reversed(ordered)],
            "from": [round(one.low, 4) for one in reversed(ordered)],
            "to": [round(one.high, 4) for one in reversed(ordered)],
        },
    )


def correlations(tried: CompletedTrials) -> Chart:
    """Draw the rank correlations (Spearman) of numeric parameters and the objective."""
    title = f"Correlations with {tried.objective.name}"
    if (empty := _empty_chart(title, tried)) is not None:
        return empty
    numeric = [one for one in tried.parameters if not one.choices and one.low < one.high]
    names = [*(one.name for one in numeric), tried.objective.name]
    if len(names) < 2:
        return Chart(title, None, "No parameter is a number.")
    values = [*(one.values for one in numeric), tried.values]
    table = np.array([[spearman(a, b) for b in values] for a in values])
    omitted = len(tried.parameters) - len(numeric)
    return Chart(
        title,
        heatmap(
            names,
            table,
            texttemplate="%{z:.2f}",
            zmin=-1,
            zmax=1,
            colorscale=[[0, "#c2272d"], [0.5, "#f3f5f9"], [1, "#2f5fe0"]],
        ),
        notes(
            "Spearman's",
            _describe_trials(tried),
            f"{omitted} that are not numbers are left out" if omitted else "",
        ),
        columns={
            "": names,
            **{name: np.round(table[:, i], 3) for i, name in enumerate(names)},
        },
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation over trials that have both; NaN if one of them is constant."""
    has = ~np.isnan(a) & ~np.isnan(b)
    first = _ranks(a[has])
    second = _ranks(b[has])
    if len(first) < 3 or first.std() == 0 or second.std() == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0; equal values share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = (ends - (counts + 1) / 2)[group]
    return ranks


def column(parameter: Parameter, has: np.ndarray) -> Any:
    """Return a parameter's values for a figure's axis."""
    values = parameter.values[has]
    if not parameter.choices:
        return values.astype(np.float32)
    names = [label(name, 20) for name in parameter.choices]
    return [names[int(value)] for value in values]


def _ticks(parameter: Parameter, values: Sequence[Any]) -> Any:
    if parameter.choices:
        return [label(value, 20) for value in values]
    return np.array(values, dtype=np.float32)


def x_axis(parameter: Parameter) -> dict[str, Any]:
    """Return the axis of a parameter."""
    if parameter.choices:
        names = [label(name, 20) for name in parameter.choices]
        return category_axis(parameter.name, names)
    present = parameter.values[~np.isnan(parameter.values)]
    return axis(parameter.name, present, log=parameter.log)


_ABSENT = "absent"


def parameter_axis(
    parameter: Parameter,
    order: np.ndarray | slice = slice(None),
) -> AxisScale:
    """Return a parameter's values as positions, with a separate one for trials without it."""
    values = parameter.values[order]
    if not parameter.choices:
        return number_axis(values, parameter.log)
    ticks = [float(i) for i in range(len(parameter.choices))]
    texts = list(parameter.choices)
    absent = np.isnan(values)
    if absent.any():
        ticks, texts = [-1.0, *ticks], [_ABSENT, *texts]
    return AxisScale(np.where(absent, -1.0, values), ticks, texts)


def number_axis(values: np.ndarray, log: bool | None = None) -> AxisScale:
    """Return numbers as positions, with a separate one for NaN.

    `log` requests a logarithmic scale; None selects the clearer scale.
    """
    absent = ~np.isfinite(values)
    present = values[~absent]
    if not len(present):
        return AxisScale(np.zeros(len(values)), [0.0], [_ABSENT])
    log = spans_decades(present) if log is None else log and bool(present.min() > 0)
    scaled = np.log10(present) if log else present
    low = float(scaled.min())
    high = float(scaled.max())
    ticks = np.linspace(low, high, 5).tolist()
    distinct = np.unique(scaled)
    if len(distinct) <= 8 and (present == np.round(present)).all():
        # Few integers: a tick at each.
        ticks = distinct.tolist()
    texts = [f"{10**tick if log else tick:.3g}" for tick in ticks]
    below = low - 0.15 * ((high - low) or 1.0)
    positions = np.full(len(values), below)
    positions[~absent] = scaled
    if absent.any():
        ticks, texts = [below, *ticks], [_ABSENT, *texts]
    return AxisScale(positions, ticks, texts)
