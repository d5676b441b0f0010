"""Studies as figures: pure functions from the rows of `queries` to Plotly, and one self-contained page.

    chart       what all share
    progress    history, learning curves, timeline
    parameters  parallel coordinates, slices, contours, ranks, importance, correlations
    spread      the distribution of values
    tradeoff    several objectives
    figures     which of them a study has, and what they are made of
    page        one HTML document
    report      a study's
    notebook    a study in a cell

Imports neither SQL nor Ray, and decides nothing.
"""

from tunesvc.charts.chart import Chart
from tunesvc.charts.distribution import edf
from tunesvc.charts.figures import FigureKind, FigureOptions, Reader, draw, kinds_of
from tunesvc.charts.page import page
from tunesvc.charts.parameters import (
    contour,
    correlations,
    importance,
    parallel,
    rank,
    slices,
)
from tunesvc.charts.progress import choose_curves, history, learning_curves, timeline
from tunesvc.charts.report import report
from tunesvc.charts.study_comparison import best_so_far, compared_curves, peer_curves
from tunesvc.charts.tradeoff import front_of, hypervolume, pareto

__all__ = [
    "Chart",
    "FigureKind",
    "FigureOptions",
    "Reader",
    "best_so_far",
    "choose_curves",
    "compared_curves",
    "contour",
    "correlations",
    "draw",
    "edf",
    "front_of",
    "history",
    "hypervolume",
    "importance",
    "kinds_of",
    "learning_curves",
    "page",
    "parallel",
    "pareto",
    "peer_curves",
    "rank",
    "report",
    "slices",
    "timeline",
]
