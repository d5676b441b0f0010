"""Studies as figures: pure functions from the rows of `insights` to Plotly, and one self-contained page.

Imports neither SQL nor Ray, and decides nothing.
"""

from tunesvc.charts.chart import Chart
from tunesvc.charts.page import page
from tunesvc.charts.parameters import importance, parallel, slices
from tunesvc.charts.progress import choose_curves, history, learning_curves, timeline
from tunesvc.charts.study import importances_of, study_page
from tunesvc.charts.tradeoff import pareto

__all__ = [
    "Chart",
    "choose_curves",
    "history",
    "importance",
    "importances_of",
    "learning_curves",
    "page",
    "parallel",
    "pareto",
    "slices",
    "study_page",
    "timeline",
]
