"""The tree of a population: each trial a line from the step at which it began to its last. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tunesvc.charts.chart import COLOURS, Chart, count_axis, figure, label, notes, short, showing
from tunesvc.charts.chart import points as trial_points
from tunesvc.queries.rows import Objective
from tunesvc.queries.trials.population_tree import TreeBranch
from tunesvc.search.tracking.lineage import ancestors

SHOWN = 300
"""Most trials; then those on the way to a member that is complete or open come first."""
_ROW_PX, _HEIGHTS_PX = 16, (220, 1_400)
_GROUPS = {"complete": "complete", "pruned": "replaced", "failed": "failed", "stopped": "failed"}
"""State of a trial -> name of its lines."""
_LOOK: Mapping[str, Mapping[str, Any]] = {
    "replaced": {"color": COLOURS["pruned"], "width": 2},
    "failed": {"color": COLOURS["failed"], "width": 2},
    "open": {"color": COLOURS["running"], "width": 3},
    "complete": {"color": COLOURS["complete"], "width": 3},
    "best lineage": {"color": COLOURS["best"], "width": 5},
}

_Line = Sequence[float | None]


def lineage(objective: Objective, tree: Sequence[TreeBranch]) -> Chart:
    """Draw the tree, and the lineage of the best complete trial.

    Args:
        objective: the objective of the study.
        tree: all trials by number.
    """
    title = "Lineage"
    begun = [branch for branch in tree if branch.row.last_step is not None]
    if not begun:
        return Chart(title, None, "No trial has reported yet.")
    parents = {one.row.number: one.parent for one in tree if one.parent is not None}
    best = _best(objective, begun)
    line = [] if best is None else ancestors(best, parents)
    survivors = {
        number
        for one in begun
        if _group(one) in ("complete", "open")
        for number in ancestors(one.row.number, parents)
    }
    begun.sort(key=lambda one: one.row.number not in survivors)
    shown = {one.row.number: one for one in begun[:SHOWN]}
    rows = _rows_of(shown)
    drawing = figure(
        *_connections(shown, rows, line),
        *_stretches(shown, rows, line),
        _ends(objective, shown, rows),
        height=max(_HEIGHTS_PX[0], min(_HEIGHTS_PX[1], 90 + _ROW_PX * len(rows))),
        xaxis=count_axis("step", [0, *(one.row.last_step or 0 for one in begun)]),
        yaxis={
            "visible": False,
            "range": [len(rows) - 0.3, -0.7],
            "fixedrange": True,
        },
    )
    text = "" if best is None else f"best lineage: {' → '.join(map(str, line))}"
    return Chart(
        title,
        drawing,
        notes(text, showing(len(shown), len(begun))),
        wide=True,
        columns=_columns(objective, tree),
    )


def _best(objective: Objective, tree: Iterable[TreeBranch]) -> int | None:
    done = [(one.row.value, one.row.number) for one in tree if one.row.state == "complete"]
    orientation = objective.orientation
    losses = [(orientation * v, n) for v, n in done if v is not None and not math.isnan(v)]
    return min(losses)[1] if losses else None


def _group(branch: TreeBranch) -> str:
    return _GROUPS.get(branch.row.state, "open")


def _start(branch: TreeBranch) -> int:
    return 0 if branch.parent is None else branch.parent.step


def _rows_of(shown: Mapping[int, TreeBranch]) -> dict[int, int]:
    """Return a row for each trial: copies below their parent, the latest next to it."""
    children: dict[int | None, list[int]] = defaultdict(list)
    for number, branch in shown.items():
        parent = None if branch.parent is None else branch.parent.trial
        children[parent if parent in shown else None].append(number)
    order: list[int] = []
    waiting = sorted(children[None], reverse=True)
    while waiting:
        number = waiting.pop()
        order.append(number)
        waiting += sorted(children[number], key=lambda one: (_start(shown[one]), -one))
    return {number: row for row, number in enumerate(order)}


def _connections(
    shown: Mapping[int, TreeBranch],
    rows: Mapping[int, int],
    line: Sequence[int],
) -> Iterator[go.Scatter]:
    """Yield the vertical lines from parents to copies, those of the best lineage last."""
    on_line = set(pairwise(line))
    pairs = [
        (branch.parent.trial, number)
        for number, branch in shown.items()
        if branch.parent is not None and branch.parent.trial in rows
    ]
    for name, is_best in (("replaced", False), ("best lineage", True)):
        x: list[float | None] = []
        y: list[float | None] = []
        for parent, number in pairs:
            if ((parent, number) in on_line) == is_best:
                x += [_start(shown[number])] * 2 + [None]
                y += [rows[parent], rows[number], None]
        look = {**_LOOK[name], "width": 5 if is_best else 1}
        yield _lines(name, x, y, look, in_legend=False)


def _stretches(
    shown: Mapping[int, TreeBranch],
    rows: Mapping[int, int],
    line: Sequence[int],
) -> Iterator[go.Scatter]:
    """Yield the horizontal lines of trials, by group."""
    starts_of_next = {
        parent: _start(shown[number]) for parent, number in pairwise(line) if number in shown
    }
    for name, look in _LOOK.items():
        x: list[float | None] = []
        y: list[float | None] = []
        for number, branch in shown.items():
            end = branch.row.last_step or 0
            if name == "best lineage":
                if number not in line:
                    continue
                end = starts_of_next.get(number, end)
            elif _group(branch) != name:
                continue
            x += [_start(branch), end, None]
            y += [rows[number], rows[number], None]
        if x:
            yield _lines(name, x, y, look, in_legend=True)


def _lines(
    name: str,
    x: _Line,
    y: _Line,
    look: Mapping[str, Any],
    *,
    in_legend: bool,
) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=name,
        line=dict(look),
        hoverinfo="skip",
        showlegend=in_legend,
    )


def _ends(
    objective: Objective,
    shown: Mapping[int, TreeBranch],
    rows: Mapping[int, int],
) -> go.Scatter:
    """Return a point at the end of each trial, with its number, which opens it."""
    numbers = np.array(list(shown))
    branches = list(shown.values())
    return trial_points(
        np.array([one.row.last_step or 0 for one in branches], dtype=float),
        np.array([rows[number] for number in shown], dtype=float),
        numbers,
        mode="markers+text",
        name="trial",
        text=[str(number) for number in shown],
        textposition="middle right",
        textfont={"size": 10},
        marker={"size": 6, "color": [_LOOK[_group(one)]["color"] for one in branches]},
        hovertext=[_hover(objective, one) for one in branches],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )


def _hover(objective: Objective, branch: TreeBranch) -> str:
    row = branch.row
    parent = branch.parent
    began = "" if parent is None else f"copy of trial {parent.trial} at step {parent.step}"
    value = row.value if row.value is not None else row.last_value
    lines = [
        f"trial {row.number}, {row.state}",
        began,
        "" if value is None else f"{objective.name} {short(value)} at step {row.last_step}",
        *(f"{name} {short(given)}" for name, given in row.params.items()),
    ]
    return "<br>".join(label(line) for line in lines if line)


def _columns(objective: Objective, tree: Sequence[TreeBranch]) -> dict[str, Sequence[object]]:
    names = dict.fromkeys(name for branch in tree for name in branch.row.params)
    columns: dict[str, Sequence[object]] = {
        "trial": [one.row.number for one in tree],
        "parent": ["" if one.parent is None else one.parent.trial for one in tree],
        "from step": [_start(one) for one in tree],
        "to step": [one.row.last_step for one in tree],
        "state": [one.row.state for one in tree],
        objective.name: [one.row.last_value for one in tree],
    }
    for name in names:
        columns.setdefault(name, [one.row.params.get(name, "") for one in tree])
    return columns
