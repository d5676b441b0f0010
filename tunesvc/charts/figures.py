"""Which figures a study has, and what each is made of: the same for the dashboard, `tune report` and notebooks.

Reads through `queries` only, each thing once: a `Reader` keeps what several figures share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from tunesvc.charts import distribution, parameters, progress, tradeoff
from tunesvc.charts.chart import Chart
from tunesvc.db.engine.database import Database
from tunesvc.queries.fitted_model import get_surface, importance_shares
from tunesvc.queries.operations.timeline import list_spans
from tunesvc.queries.rows import Objective, StudyView
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.trial_results import Results, get_results
from tunesvc.queries.trials.tried_parameters import (
    CompletedTrials,
    tried_best,
    tried_evenly,
)
from tunesvc.search.analysis.importance import TRIALS_MIN, Share
from tunesvc.search.analysis.model_surface import ModelSurface

T = TypeVar("T")

_CURVE_POINTS = 6_000
"""In all curves together, about."""
_TRIED = 4_000
"""Trials of figures of parameters, the best and an even choice of the others."""
_JUDGED = 4_000
"""Trials that importances are told from, an even choice of all."""


class FigureKind(StrEnum):
    """The figures, in the order in which a page shows them."""

    PARETO = "pareto"
    HYPERVOLUME = "hypervolume"
    HISTORY = "history"
    CURVES = "curves"
    PARALLEL = "parallel"
    IMPORTANCE = "importance"
    CONTOUR = "contour"
    SLICE = "slice"
    RANK = "rank"
    CORRELATIONS = "correlations"
    DISTRIBUTION = "distribution"
    TIMELINE = "timeline"

    @property
    def has_objective(self) -> bool:
        """Whether it is about one of the objectives."""
        return self not in (FigureKind.PARETO, FigureKind.HYPERVOLUME, FigureKind.TIMELINE)

    @property
    def has_pair(self) -> bool:
        """Whether it is about two parameters."""
        return self in (FigureKind.CONTOUR, FigureKind.RANK)

    @property
    def has_axes(self) -> bool:
        """Whether its axes may be logarithmic."""
        return self not in (
            FigureKind.PARALLEL,
            FigureKind.CORRELATIONS,
            FigureKind.IMPORTANCE,
            FigureKind.TIMELINE,
        )

    @property
    def is_wide(self) -> bool:
        """Whether it wants the whole width of the page."""
        return self in (FigureKind.PARALLEL, FigureKind.SLICE, FigureKind.TIMELINE)


@dataclass(frozen=True, slots=True)
class FigureOptions:
    """How a figure is to be drawn."""

    objective: int = 0
    parameters: tuple[str, ...] = ()
    """Of a pair; the two most important when empty."""
    deviation: bool = False
    """Of the contour: how unsure the model is, instead of what it expects."""
    states: tuple[str, ...] = ()
    """Of the trials that are drawn; all that have a value when empty."""
    metric: str = ""
    """Of learning curves: this one instead of the objective."""


def kinds_of(view: StudyView) -> tuple[FigureKind, ...]:
    """The figures that a study has."""
    count = len(view.objectives)
    left_out = {1: {FigureKind.PARETO, FigureKind.HYPERVOLUME}, 2: set()}.get(
        count,
        {FigureKind.HYPERVOLUME},
    )
    return tuple(kind for kind in FigureKind if kind not in left_out)


class Reader:
    """What figures of one study are made of, each read when it is first asked for.

    Args:
        database: where to read.
        view: the study.
        keep: hands out what is kept under a name, or makes it of what was kept before; here for the reader's life.
    """

    def __init__(
        self,
        database: Database,
        view: StudyView,
        keep: Callable[[tuple[Any, ...], Callable[[Any], Any]], Any] | None = None,
    ) -> None:
        self._database = database
        self.view = view
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._keep = keep or self._keep_here

    def results(self) -> Results:
        """All trials as columns."""

        def read(before: Results | None) -> Results:
            return get_results(self._database, self.view.study_id, before)

        return self._get(("results",), read)

    def best(self, index: int, states: tuple[str, ...] = ()) -> CompletedTrials:
        """The best trials of these states and some others."""
        results = self.results()
        return self._get(
            ("best", index, states),
            lambda _: tried_best(self._database, self.view, results, index, _TRIED, states),
        )

    def evenly(self, index: int) -> CompletedTrials:
        """An even choice of complete trials."""
        results = self.results()
        return self._get(
            ("evenly", index),
            lambda _: tried_evenly(self._database, self.view, results, index, _JUDGED),
        )

    def shares(self, index: int) -> Sequence[Share]:
        """Importances."""
        tried = self.evenly(index)
        return self._get(("shares", index), lambda _: importance_shares(tried))

    def surface(self, index: int) -> ModelSurface | None:
        """The model."""
        results = self.results()
        return self._get(
            ("surface", index),
            lambda _: get_surface(self._database, self.view, results, index),
        )

    def important(
        self,
        index: int,
        limit: int,
        states: tuple[str, ...] = (),
    ) -> CompletedTrials:
        """The best trials with the most important parameters alone: two by importance, more in their own order."""
        tried = self.best(index, states)
        ranked = [one.name for one in sorted(self.shares(index), key=lambda one: -one.share)]
        ranked += [one.name for one in tried.parameters if one.name not in ranked]
        if limit > 2:
            ranked = [one.name for one in tried.parameters if one.name in set(ranked[:limit])]
        return tried.only(ranked[:limit])

    def curves(
        self,
        index: int = 0,
        states: tuple[str, ...] = (),
        metric: str = "",
    ) -> Chart:
        """Learning curves of some trials, by one objective or another metric."""
        objective, results = self.view.objectives[index], self.results()
        numbers = progress.choose_curves(objective, results, index, states=states)
        each = max(10, _CURVE_POINTS // max(len(numbers), 1))
        found = get_curves(
            self._database,
            self.view.study_id,
            numbers=numbers,
            max_points=each,
        )
        best = results.best(objective, index)
        if metric or index:
            objective = replace(objective, name=metric or objective.name)
            found = tuple(curve.of(objective.name) for curve in found)
        return progress.learning_curves(objective, results, found, best)

    def timeline(self) -> Chart:
        """The newest attempts."""
        return progress.timeline(list_spans(self._database, self.view.study_id))

    def _get(self, name: tuple[Any, ...], make: Callable[[Any], T]) -> T:
        made: T = self._keep(name, make)
        return made

    def _keep_here(self, name: tuple[Any, ...], make: Callable[[Any], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make(None)
        return self._kept[name]


def draw(
    kind: FigureKind,
    reader: Reader,
    wanted: FigureOptions = FigureOptions(),
) -> Chart:  # frozen
    """One figure of a study."""
    index, states = wanted.objective, wanted.states
    objective: Objective = reader.view.objectives[index]
    match kind:
        case FigureKind.HISTORY:
            return progress.history(objective, reader.results(), index, states)
        case FigureKind.CURVES:
            return reader.curves(index, states, wanted.metric)
        case FigureKind.PARALLEL:
            return parameters.parallel(_limited(reader, wanted).fewer(parameters.LINES))
        case FigureKind.SLICE:
            return _slices(reader, wanted)
        case FigureKind.CONTOUR:
            return _contour(reader, wanted)
        case FigureKind.RANK:
            return parameters.rank(_pair(reader, wanted))
        case FigureKind.IMPORTANCE:
            return parameters.importance(reader.shares(index), objective)
        case FigureKind.CORRELATIONS:
            return parameters.correlations(reader.best(index, states))
        case FigureKind.DISTRIBUTION:
            return distribution.edf(objective, reader.results(), index, states)
        case FigureKind.TIMELINE:
            return reader.timeline()
        case FigureKind.PARETO:
            front = tradeoff.front_of(reader.view.objectives, reader.results())
            return tradeoff.pareto(reader.view.objectives, reader.results(), front)
        case FigureKind.HYPERVOLUME:
            return tradeoff.hypervolume(reader.view.objectives, reader.results())


def _limited(reader: Reader, wanted: FigureOptions) -> CompletedTrials:
    """With no more parameters than can be drawn side by side."""
    index, states = wanted.objective, wanted.states
    tried = reader.best(index, states)
    return tried if len(tried.parameters) <= parameters.SLICES else reader.important(index, parameters.SLICES, states)


def _slices(reader: Reader, wanted: FigureOptions) -> Chart:
    tried = _limited(reader, wanted)
    there = len(tried.parameters)
    shown = tried.fewer(parameters.SLICED // max(there, 1))
    model = _model(reader, wanted)
    if model is None:
        return parameters.slices(shown)
    cuts = {one.name: model.cut(one.name) for one in shown.parameters if one.name in model.names}
    return parameters.slices(shown, cuts, model.number)


def _pair(reader: Reader, wanted: FigureOptions) -> CompletedTrials:
    names = tuple(dict.fromkeys(wanted.parameters))[:2]
    if len(names) < 2:
        names = tuple(one.name for one in reader.important(wanted.objective, 2, wanted.states).parameters)
    return reader.best(wanted.objective, wanted.states).only(names)


def _model(reader: Reader, wanted: FigureOptions) -> ModelSurface | None:
    """The model, where it has learned from enough trials to say anything."""
    found = reader.surface(wanted.objective) if len(reader.results()) else None
    return found if found is not None and len(found) >= TRIALS_MIN else None


def _contour(reader: Reader, wanted: FigureOptions) -> Chart:
    tried = _pair(reader, wanted)
    model = _model(reader, wanted)
    names = [one.name for one in tried.parameters]
    plane = model.plane(*names) if model is not None and len(names) == 2 and set(names) <= set(model.names) else None
    at = model.number if model is not None else None
    return parameters.contour(tried.fewer(500), plane, at, deviation=wanted.deviation)
