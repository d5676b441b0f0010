"""Figures of a study, under Optuna's names. Imports Plotly when a figure is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesvc.db.engine.database import Database
from tunesvc.errors import TuneError
from tunesvc.queries.rows import StudyView
from tunesvc.queries.studies import get_study
from tunesvc.util.suggestions import suggest

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Plots:
    """Figures of one study, drawn from its current state: `study.plots.optimization_history()`.

    Each method returns a Plotly figure, which a notebook shows by itself in its light or dark
    theme, and raises `TuneError` with the reason while there is nothing to draw. `objective` is an
    index, from 0.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    def optimization_history(self, *, objective: int = 0) -> go.Figure:
        """Values by trial, and the best so far."""
        return self._draw("history", objective)

    def intermediate_values(self, *, objective: int = 0) -> go.Figure:
        """Learning curves."""
        return self._draw("curves", objective)

    def parallel_coordinate(
        self,
        params: Sequence[str] = (),
        *,
        objective: int = 0,
    ) -> go.Figure:
        """Trials as lines through their parameters, or through `params`."""
        return self._draw("parallel", objective, params)

    def param_importances(self, *, objective: int = 0) -> go.Figure:
        """Share of each parameter in the differences of the objective."""
        return self._draw("importance", objective)

    def interactions(self, *, objective: int = 0) -> go.Figure:
        """Typical effect of each parameter, and of pairs beyond the sum of both."""
        return self._draw("interactions", objective)

    def partial_dependence(
        self,
        params: Sequence[str] = (),
        *,
        pair: bool = False,
        objective: int = 0,
    ) -> go.Figure:
        """The model's mean along each parameter over all others, or along each of `params`.

        With the band of its uncertainty (95 %), and curves of single configurations. `pair`: over
        two parameters together, the two most important without `params`.
        """
        return self._draw("dependence", objective, params, pair=pair)

    def cost(self) -> go.Figure:
        """The best value by what the study has cost, or by hours without prices."""
        return self._draw("cost", 0)

    def contour(self, params: Sequence[str] = (), *, objective: int = 0) -> go.Figure:
        """The model's mean over two parameters; over the two most important without `params`."""
        return self._draw("contour", objective, params)

    def slice(self, params: Sequence[str] = (), *, objective: int = 0) -> go.Figure:
        """Values by each parameter, or by each of `params`."""
        return self._draw("slice", objective, params)

    def rank(self, params: Sequence[str] = (), *, objective: int = 0) -> go.Figure:
        """Ranks of trials over two parameters; over the two most important without `params`."""
        return self._draw("rank", objective, params)

    def edf(self, *, objective: int = 0) -> go.Figure:
        """Distribution of values."""
        return self._draw("distribution", objective)

    def correlations(self, *, objective: int = 0) -> go.Figure:
        """Rank correlations between parameters and the objective."""
        return self._draw("correlations", objective)

    def timeline(self) -> go.Figure:
        """Attempts by worker over time."""
        return self._draw("timeline", 0)

    def pareto_front(self) -> go.Figure:
        """The Pareto front of several objectives."""
        return self._draw("pareto", 0)

    def hypervolume_history(self) -> go.Figure:
        """The dominated hypervolume by trial, of two objectives."""
        return self._draw("hypervolume", 0)

    def _draw(
        self,
        kind: str,
        objective: int,
        params: Sequence[str] = (),
        *,
        pair: bool = False,
    ) -> go.Figure:
        from tunesvc import charts

        view = get_study(self._database, self._name)
        if not 0 <= objective < len(view.objectives):
            raise ValueError(
                f"no objective {objective}: there are {len(view.objectives)}, counted from 0",
            )
        if kind not in charts.kinds_of(view):
            count = len(view.objectives)
            raise TuneError(
                f"no figure of that kind for a study of {count} objective{'s' * (count > 1)}",
            )
        _check_names(view, params)
        reader = charts.Reader(self._database, view)
        options = charts.FigureOptions(objective, tuple(params), pair=pair)
        chart = charts.draw(charts.FigureKind(kind), reader, options)
        if chart.figure is None:
            raise TuneError(f"{chart.title}: {chart.note}")
        return charts.on_any_background(chart.figure)


def _check_names(view: StudyView, params: Sequence[str]) -> None:
    known = params if view.spec is None else view.spec.parameters
    for name in params:
        if name not in known:
            hint = suggest(name, known)
            raise ValueError(f"study {view.name!r} has no parameter {name!r}{hint}")
