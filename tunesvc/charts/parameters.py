"""Charts of parameters: parallel coordinates, slices, pairs, contours, importance and correlations. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from tunesvc.charts.chart import (
    COLOURS,
    NOTHING,
    SCALE,
    Chart,
    axis,
    drawn_of,
    figure,
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
"""Lines in parallel coordinates, at most."""
SLICED = 4_000
"""Points in the slice plot, at most."""
SLICES = 8
"""Parameters in one slice plot or in parallel coordinates, at most."""
TOO_FEW = f"It takes {TRIALS_MIN} complete trials."
_SHADES = 8
"""Colours of lines from the best value to the worst."""
_DARKENING = [[0, "#b9c8ff"], [1, "#2747c7"]]


def _nothing(title: str, tried: CompletedTrials) -> Chart | None:
    """A chart that says why it is empty, if it is."""
    if not len(tried):
        return Chart(title, None, NOTHING)
    return None if tried.parameters else Chart(title, None, "The trials have no parameters.")


def _table(tried: CompletedTrials, parameters: Sequence[Parameter]) -> dict[str, Any]:
    return {
        "trial": tried.numbers,
        tried.objective.name: tried.values,
        **{one.name: [one.text(value) for value in one.values] for one in parameters},
    }


def parallel(tried: CompletedTrials) -> Chart:
    """Every trial a line through its parameters to its value; the best drawn last, on top."""
    title = f"Parallel coordinates to {tried.objective.name}"
    if (nothing := _nothing(title, tried)) is not None:
        return nothing
    order = np.argsort(-tried.losses, kind="stable")
    shown = tried.parameters[:SLICES]
    result = number_axis(tried.values[order])
    scales = [
        ("trial", number_axis(tried.numbers[order].astype(float), False)),
        *((one.name, parameter_axis(one, order)) for one in shown),
        (tried.objective.name, result),
    ]
    drawn = parallel_axes(
        scales,
        tried.numbers[order],
        _shaded(result, tried.objective.maximize),
    )
    return Chart(
        title,
        drawn,
        notes(
            drawn_of(len(tried), tried.there, int(tried.pruned.sum())),
            showing(len(shown), len(tried.parameters), "parameters"),
            "drag a box over an axis to select",
        ),
        wide=True,
        columns=_table(tried, shown),
    )


def _shaded(result: AxisScale, maximize: bool) -> list[ChoiceGroup]:
    """Trials by their value, the best last: each shade is one trace."""
    heights = result.heights(result.positions)
    badness = 1.0 - heights if maximize else heights
    shade = np.minimum((badness * _SHADES).astype(int), _SHADES - 1)
    colours = sample_colorscale(SCALE, np.linspace(0, 1, _SHADES).tolist())
    return [
        ChoiceGroup(f"shade {one}", np.flatnonzero(shade == one), colours[one])
        for one in range(_SHADES - 1, -1, -1)
        if (shade == one).any()
    ]


def slices(
    tried: CompletedTrials,
    cuts: Mapping[str, Slice1D] | None = None,
    at: int | None = None,
) -> Chart:
    """The objective over each parameter by itself; darker points came later.

    Args:
        tried: what is drawn.
        cuts: the model along parameters.
        at: the trial through which the cuts go.
    """
    title = f"{tried.objective.name} by parameter"
    if (nothing := _nothing(title, tried)) is not None:
        return nothing
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
        place = {"row": i // columns + 1, "col": i % columns + 1}
        cut = (cuts or {}).get(parameter.name)
        for trace in [
            *(_band(parameter, cut) if cut is not None else ()),
            _slice(tried, parameter),
        ]:
            chart.add_trace(trace, **place)
        chart.update_xaxes(x_axis(parameter), **place)
        titled = {"text": label(tried.objective.name) if i % columns == 0 else ""}
        chart.update_yaxes({**y_axis, "title": titled}, **place)
    chart.update_layout(figure().layout)
    chart.update_layout(height=90 + 250 * rows, showlegend=False)
    believed = f"line and band: the model, ± 2 deviations, all else as in trial {at}" if cuts else ""
    return Chart(
        title,
        chart,
        notes(
            drawn_of(len(tried), tried.there, int(tried.pruned.sum())),
            showing(len(shown), len(tried.parameters), "parameters"),
            "darker came later, crosses were pruned" if tried.pruned.any() else "darker came later",
            believed,
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
    x = [label(place, 20) for place in cut.places] if parameter.choices else np.array(cut.places, dtype=float)
    mean, spread = cut.mean.astype(np.float32), (2 * cut.deviation).astype(np.float32)
    if parameter.choices:
        bars = {"type": "data", "array": spread, "color": COLOURS["best"], "thickness": 1.5}
        mark = {
            "symbol": "line-ew",
            "size": 18,
            "line": {"width": 3, "color": COLOURS["best"]},
        }
        told = "%{x}: %{y:.5g} ± %{error_y.array:.2g}<extra>model</extra>"
        return (
            go.Scatter(
                x=x,
                y=mean,
                mode="markers",
                marker=mark,
                error_y=bars,
                hovertemplate=told,
            ),
        )
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return (
        go.Scatter(x=x, y=mean - spread, **hidden),
        go.Scatter(
            x=x,
            y=mean + spread,
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


def contour(
    tried: CompletedTrials,
    plane: Slice2D | None,
    at: int | None = None,
    *,
    deviation: bool = False,
) -> Chart:
    """The model's mean over two parameters, with the trials that were tried there.

    Args:
        tried: with two parameters.
        plane: the model over them; None without one.
        at: the trial through which the plane goes.
        deviation: draw how unsure the model is, instead.
    """
    title = f"{tried.objective.name} over two parameters"
    if (nothing := _nothing(title, tried)) is not None:
        return nothing
    if len(tried.parameters) < 2 or plane is None:
        few = len(tried.parameters) < 2
        return Chart(title, None, "It takes two parameters." if few else TOO_FEW)
    first, second = tried.parameters[:2]
    shown = {
        "x": _ends(first, plane.first),
        "y": _ends(second, plane.second),
        "z": (plane.deviation if deviation else plane.mean).astype(np.float32),
        "colorscale": [[0, "#f3f5f9"], [1, "#c98a1b"]] if deviation else SCALE,
        "reversescale": tried.objective.maximize and not deviation,
        "colorbar": {"thickness": 12, "outlinewidth": 0},
        "customdata": (plane.mean if deviation else plane.deviation).astype(np.float32),
        "hovertemplate": "%{x}, %{y}<br>"
        + ("%{customdata:.5g} ± %{z:.2g}" if deviation else "%{z:.5g} ± %{customdata:.2g}")
        + "<extra>model</extra>",
    }
    what = "how unsure the model is (one deviation)" if deviation else "what the model expects"
    return Chart(
        title,
        figure(
            _surface(shown, first, second),
            _pairs(tried, first, second, ring=True),
            xaxis=x_axis(first),
            yaxis=x_axis(second),
        ),
        notes(
            f"{what}, all else as in trial {at}",
            drawn_of(len(tried), tried.there, int(tried.pruned.sum())),
        ),
        columns=_table(tried, (first, second)),
    )


def _surface(
    shown: Mapping[str, Any],
    first: Parameter,
    second: Parameter,
) -> go.Contour | go.Heatmap:
    """Contours between numbers; between choices there is nothing, so each is a row or column of cells."""
    if first.choices or second.choices:
        return go.Heatmap(
            **shown,
            xgap=3 if first.choices else 0,
            ygap=3 if second.choices else 0,
        )
    lines = {"width": 0.4, "color": "rgba(255,255,255,.5)"}
    return go.Contour(**shown, ncontours=18, contours={"coloring": "heatmap"}, line=lines)


def rank(tried: CompletedTrials) -> Chart:
    """Trials over two parameters, coloured by their rank: which region holds the good ones, whatever the scale."""
    title = f"Rank of {tried.objective.name} over two parameters"
    if (nothing := _nothing(title, tried)) is not None:
        return nothing
    if len(tried.parameters) < 2:
        return Chart(title, None, "It takes two parameters.")
    first, second = tried.parameters[:2]
    ranks = _ranks(tried.losses)
    shades: dict[str, Any] = {
        "color": (ranks / max(len(ranks) - 1, 1)).astype(np.float32),
        "colorscale": SCALE,
        "cmin": 0,
        "cmax": 1,
        "colorbar": {
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": [0, 0.5, 1],
            "ticktext": ["best", "", "worst"],
        },
    }
    return Chart(
        title,
        figure(
            _pairs(tried, first, second, **shades),
            xaxis=x_axis(first),
            yaxis=x_axis(second),
        ),
        drawn_of(len(tried), tried.there, int(tried.pruned.sum())),
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
    look = {"size": 4, "color": "rgba(20,26,38,.65)", "line": {"width": 0.8, "color": "#fff"}} if ring else {"size": 6}
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
    """How much each parameter decides over whether a trial is among the best, with how sure that is."""
    title = f"Importance for {objective.name}"
    if not shares:
        return Chart(title, None, TOO_FEW)
    ordered = sorted(shares, key=lambda one: one.share)
    middle = np.array([one.share for one in ordered])
    ends = {
        "type": "data",
        "symmetric": False,
        "array": np.maximum(np.array([one.high for one in ordered]) - middle, 0.0),
        "arrayminus": np.maximum(middle - np.array([one.low for one in ordered]), 0.0),
        "thickness": 1.2,
        "width": 4,
        "color": COLOURS["pruned"],
    }
    trace = go.Bar(
        orientation="h",
        x=middle,
        y=[label(one.name, 30) for one in ordered],
        error_x=ends,
        marker={"color": COLOURS["complete"]},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    share_axis = {**axis(""), "tickformat": ".0%", "rangemode": "tozero"}
    return Chart(
        title,
        figure(
            trace,
            height=max(220, min(700, 90 + 26 * len(ordered))),
            xaxis=share_axis,
            yaxis={**axis(""), "type": "category"},
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
    """Rank correlations (Spearman) of numeric parameters and the objective, each with each."""
    title = f"Correlations with {tried.objective.name}"
    if (nothing := _nothing(title, tried)) is not None:
        return nothing
    numeric = [one for one in tried.parameters if not one.choices and one.low < one.high]
    names = [*(one.name for one in numeric), tried.objective.name]
    if len(names) < 2:
        return Chart(title, None, "No parameter is a number.")
    values = [*(one.values for one in numeric), tried.values]
    table = np.array([[spearman(a, b) for b in values] for a in values])
    shown = [label(name, 24) for name in names]
    trace = go.Heatmap(
        x=shown,
        y=shown,
        z=table.astype(np.float32),
        zmin=-1,
        zmax=1,
        colorscale=[[0, "#c2272d"], [0.5, "#f3f5f9"], [1, "#2f5fe0"]],
        colorbar={"thickness": 12, "outlinewidth": 0},
        texttemplate="%{z:.2f}" if len(names) <= 12 else None,
        hovertemplate="%{x}, %{y}: %{z:.2f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    chosen = len(tried.parameters) - len(numeric)
    down = {**axis(""), "type": "category", "autorange": "reversed"}
    return Chart(
        title,
        figure(
            trace,
            height=max(320, min(720, 120 + 30 * len(names))),
            xaxis={**axis(""), "type": "category"},
            yaxis=down,
        ),
        notes(
            "Spearman's",
            drawn_of(len(tried), tried.there, int(tried.pruned.sum())),
            f"{chosen} that are no numbers are left out" if chosen else "",
        ),
        columns={
            "": names,
            **{name: np.round(table[:, i], 3) for i, name in enumerate(names)},
        },
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks over the trials that have both; NaN where one of them does not vary."""
    has = ~np.isnan(a) & ~np.isnan(b)
    first, second = _ranks(a[has]), _ranks(b[has])
    if len(first) < 3 or first.std() == 0 or second.std() == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 0; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = (ends - (counts + 1) / 2)[group]
    return ranks


def column(parameter: Parameter, has: np.ndarray) -> Any:
    """A parameter's values for a figure's axis."""
    values = parameter.values[has]
    if not parameter.choices:
        return values.astype(np.float32)
    names = [label(name, 20) for name in parameter.choices]
    return [names[int(value)] for value in values]


def _ends(parameter: Parameter, values: Sequence[Any]) -> Any:
    return [label(value, 20) for value in values] if parameter.choices else np.array(values, dtype=np.float32)


def x_axis(parameter: Parameter) -> dict[str, Any]:
    """The axis of a parameter."""
    if parameter.choices:
        names = [label(name, 20) for name in parameter.choices]
        return {
            **axis(parameter.name),
            "type": "category",
            "categoryorder": "array",
            "categoryarray": names,
        }
    there = parameter.values[~np.isnan(parameter.values)]
    return axis(parameter.name, there, log=parameter.log)


_ABSENT = "absent"


def parameter_axis(
    parameter: Parameter,
    order: np.ndarray | slice = slice(None),
) -> AxisScale:
    """A parameter as positions; where a trial does not have it, set apart."""
    values = parameter.values[order]
    if not parameter.choices:
        return number_axis(values, parameter.log)
    ticks, texts = (
        [float(i) for i in range(len(parameter.choices))],
        list(parameter.choices),
    )
    absent = np.isnan(values)
    if absent.any():
        ticks, texts = [-1.0, *ticks], [_ABSENT, *texts]
    return AxisScale(np.where(absent, -1.0, values), ticks, texts)


def number_axis(values: np.ndarray, log: bool | None = None) -> AxisScale:
    """Numbers as positions, NaN set apart. `log` None: logarithmic where that shows more."""
    absent = ~np.isfinite(values)
    there = values[~absent]
    if not len(there):
        return AxisScale(np.zeros(len(values)), [0.0], [_ABSENT])
    log = spans_decades(there) if log is None else log and bool(there.min() > 0)
    placed = np.log10(there) if log else there
    low, high = float(placed.min()), float(placed.max())
    few = np.unique(there)
    if len(few) <= 8 and (few == np.round(few)).all():
        ticks = [float(tick) for tick in (np.log10(few) if log else few)]
    else:
        ticks = [float(tick) for tick in np.linspace(low, high, 5)]
    texts = [f"{10**tick if log else tick:.3g}" for tick in ticks]
    below = low - 0.15 * ((high - low) or 1.0)
    positions = np.full(len(values), below)
    positions[~absent] = placed
    if absent.any():
        ticks, texts = [below, *ticks], [_ABSENT, *texts]
    return AxisScale(positions, ticks, texts)
