"""A study in a notebook's cell: a few lines of HTML with a drawing, light, and without scripts.

Colours are the notebook's own, so that it reads in light and dark. Pure, but for what it is handed.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.util.formatting import duration, number, parameter

_WIDTH, _HEIGHT = 420, 72


def card(study: StudyView, best: Sequence[TrialRow], course: Sequence[float]) -> str:
    """HTML of a study.

    Args:
        study: which.
        best: the trial to take, or the first trials of the front.
        course: the best value so far, at even distances; empty where there is none.
    """
    reason = f": {study.reason}" if study.reason else ""
    counts = study.counts
    told = [
        f"{counts.complete:,} complete",
        f"{counts.pruned:,} pruned",
        f"{counts.failed:,} failed",
    ]
    told += [f"{counts.stopped:,} stopped"] * bool(counts.stopped)
    told += [f"{counts.running:,} running"] * bool(counts.running)
    told += [f"{counts.interrupted:,} interrupted"] * bool(counts.interrupted)
    told += [duration(study.active_s)] * bool(study.active_s)
    return (
        f'<div style="font: 14px/1.5 system-ui, sans-serif; max-width: 560px">'
        f"<div><strong>{_text(study.name)}</strong> {_text(study.state)}{_text(reason)}</div>"
        f'<div style="opacity: .75">{_text(" · ".join(told))}</div>'
        f"{_drawing(study, course)}{_best(study, best)}</div>"
    )


def _drawing(study: StudyView, course: Sequence[float]) -> str:
    values = [value for value in course if math.isfinite(value)]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{i * _WIDTH / (len(values) - 1):.1f},{(high - value) / span * _HEIGHT:.1f}" for i, value in enumerate(values)
    )
    name = study.objectives[0].name
    label = f"Best {name} so far, from {number(values[0])} to {number(values[-1])}"
    return (
        f'<svg viewBox="-2 -2 {_WIDTH + 4} {_HEIGHT + 4}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{_text(label)}" style="display: block; margin: 6px 0; max-width: 100%">'
        f"<title>{_text(label)}</title>"
        f'<polyline points="{points}" fill="none" stroke="#12a594" stroke-width="2"/></svg>'
    )


def _best(study: StudyView, best: Sequence[TrialRow]) -> str:
    if not best:
        return "<div>No trial is complete and feasible yet.</div>"
    return "<table>" + "".join(f"<tr>{_row(study, trial)}</tr>" for trial in best) + "</table>"


def _row(study: StudyView, trial: TrialRow) -> str:
    names = (objective.name for objective in study.objectives)
    values = {name: number(value) for name, value in zip(names, trial.values or (), strict=False)}
    params = {name: parameter(value) for name, value in trial.params.items()}
    cells = [f"trial {trial.number}", _pairs(values), _pairs(params)]
    return "".join(f'<td style="text-align: left">{cell}</td>' for cell in cells)


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{_text(name)} = {_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    return html.escape(str(value))
