"""A study in a notebook's cell: a few lines of HTML with a small drawing, without scripts.

Uses the notebook's own colours, so that it is readable in light and dark mode. Pure.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence

from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.util.formatting import duration, number, parameter

_WIDTH, _HEIGHT = 420, 72


def card(study: StudyView, best: Sequence[TrialRow], history: Sequence[float]) -> str:
    """Return the HTML of a study.

    Args:
        study: The study.
        best: The recommended trial, or the first trials of the front.
        history: The best value so far, at even distances; may be empty.
    """
    reason = f": {study.reason}" if study.reason else ""
    return (
        f'<div style="font: 14px/1.5 system-ui, sans-serif; max-width: 560px">'
        f"<div><strong>{_text(study.name)}</strong> {_text(study.state)}{_text(reason)}</div>"
        f'<div style="opacity: .75">{_text(" · ".join(_counts(study)))}</div>'
        f"{_drawing(study, history)}{_best(study, best)}</div>"
    )


def _counts(study: StudyView) -> Iterator[str]:
    counts = study.counts
    yield f"{counts.complete:,} complete"
    yield f"{counts.pruned:,} pruned"
    yield f"{counts.failed:,} failed"
    if counts.stopped:
        yield f"{counts.stopped:,} stopped"
    if counts.running:
        yield f"{counts.running:,} running"
    if counts.interrupted:
        yield f"{counts.interrupted:,} interrupted"
    if study.active_s:
        yield duration(study.active_s)


def _drawing(study: StudyView, history: Sequence[float]) -> str:
    values = [value for value in history if math.isfinite(value)]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    x_scale = _WIDTH / (len(values) - 1)
    y_scale = _HEIGHT / ((high - low) or 1.0)
    points = [f"{i * x_scale:.1f},{(high - value) * y_scale:.1f}" for i, value in enumerate(values)]
    name = study.objectives[0].name
    label = _text(f"Best {name} so far, from {number(values[0])} to {number(values[-1])}")
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    return (
        f'<svg viewBox="-2 -2 {_WIDTH + 4} {_HEIGHT + 4}" {size} role="img" aria-label="{label}" '
        'style="display: block; margin: 6px 0; max-width: 100%">'
        f"<title>{label}</title>"
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#12a594" stroke-width="2"/>'
        "</svg>"
    )


def _best(study: StudyView, best: Sequence[TrialRow]) -> str:
    if not best:
        return "<div>No trial is complete and feasible yet.</div>"
    rows = [f"<tr>{_row(study, trial)}</tr>" for trial in best]
    return f"<table>{''.join(rows)}</table>"


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
