"""Figures of studies: pure functions from the rows of `queries` to Plotly, and HTML pages of them.

    chart             parts that all figures share
    curves            learning curves as traces, axes and tables
    progress          history, learning curves, timeline
    parameters        parallel coordinates, slices, contours, ranks, importance, correlations
    effects           what single parameters and pairs do, by the model
    cost_chart        best value by cost
    distribution      distribution of values
    tradeoff          several objectives
    lineage_tree      tree of a population
    study_comparison  curves of several trials or studies
    figures           the figures of a study, and their data
    page              one HTML document
    report            report of a study
    svg               small drawings without scripts

Imports neither SQL nor Ray.
"""

from tunesvc.charts.chart import Chart, on_any_background
from tunesvc.charts.cost_chart import best_by_cost
from tunesvc.charts.distribution import edf
from tunesvc.charts.effects.dependence_chart import dependence
from tunesvc.charts.effects.interaction_chart import interactions
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
from tunesvc.charts.predictions_chart import predictions
from tunesvc.charts.progress import history, learning_curves, select_curves, timeline
from tunesvc.charts.report import report
from tunesvc.charts.study_comparison import best_so_far, compared_curves, peer_curves
from tunesvc.charts.tradeoff import front_of, hypervolume, pareto

__all__ = [
    "Chart",
    "FigureKind",
    "FigureOptions",
    "Reader",
    "best_by_cost",
    "best_so_far",
    "compared_curves",
    "contour",
    "correlations",
    "dependence",
    "draw",
    "edf",
    "front_of",
    "history",
    "hypervolume",
    "importance",
    "interactions",
    "kinds_of",
    "learning_curves",
    "on_any_background",
    "page",
    "parallel",
    "pareto",
    "peer_curves",
    "predictions",
    "rank",
    "report",
    "select_curves",
    "slices",
    "timeline",
]
