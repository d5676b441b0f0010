"""Figures of a study and their data, for the dashboard, `tune report` and notebooks.

Reads through `queries` only. A `Reader` reads the data that several figures share only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from tunesvc.charts import distribution, lineage_tree, parameters, progress, tradeoff
from tunesvc.charts.chart import Chart
from tunesvc.charts.cost_chart import best_by_cost
from tunesvc.charts.effects.dependence_chart import dependence
from tunesvc.charts.effects.interaction_chart import interactions
from tunesvc.db.engine.database import Database
from tunesvc.queries.cost.outlook import get_outlook
from tunesvc.queries.cost.spending import EffortUnit, amounts_by_trial, spent_until
from tunesvc.queries.fitted_model import get_surface, importance_shares
from tunesvc.queries.operations.timeline import list_spans
from tunesvc.queries.rows import Objective, StudyView
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.population_tree import get_tree
from tunesvc.queries.trials.trial_results import Results, get_results
from tunesvc.queries.trials.tried_parameters import (
    CompletedTrials,
    select_best,
    select_evenly,
)
from tunesvc.search.analysis.importance import Share
from tunesvc.search.analysis.interaction_effects import interaction_effects
from tunesvc.search.analysis.model_surface import ModelSurface
from tunesvc.search.analysis.partial_dependence import joint_dependence, partial_dependences

T = TypeVar("T")

_CURVE_POINTS = 6_000
"""Approximate number of points in all curves together."""
_BEST_MAX = 4_000
"""Most trials in figures of parameters: the best, and an even sample of the others."""
_EVENLY_MAX = 4_000
"""Most trials for importances: an even sample of all."""


class FigureKind(StrEnum):
    """Kinds of figures, in the order in which a page shows them."""

    PARETO = "pareto"
    HYPERVOLUME = "hypervolume"
    LINEAGE = "lineage"
    HISTORY = "history"
    COST = "cost"
    CURVES = "curves"
    PARALLEL = "parallel"
    IMPORTANCE = "importance"
    INTERACTIONS = "interactions"
    DEPENDENCE = "dependence"
    CONTOUR = "contour"
    SLICE = "slice"
    RANK = "rank"
    CORRELATIONS = "correlations"
    DISTRIBUTION = "distribution"
    TIMELINE = "timeline"

    @property
    def has_objective(self) -> bool:
        """True if it shows one of the objectives."""
        return self not in (
            FigureKind.PARETO,
            FigureKind.HYPERVOLUME,
            FigureKind.LINEAGE,
            FigureKind.COST,
            FigureKind.TIMELINE,
        )

    @property
    def has_pair(self) -> bool:
        """True if it shows two parameters."""
        return self in (FigureKind.CONTOUR, FigureKind.RANK)

    @property
    def has_axes(self) -> bool:
        """True if its axes may be logarithmic."""
        return self not in (
            FigureKind.PARALLEL,
            FigureKind.CORRELATIONS,
            FigureKind.IMPORTANCE,
            FigureKind.INTERACTIONS,
            FigureKind.LINEAGE,
            FigureKind.TIMELINE,
        )

    @property
    def is_wide(self) -> bool:
        """True if it needs the whole width of the page."""
        return self in (
            FigureKind.LINEAGE,
            FigureKind.PARALLEL,
            FigureKind.DEPENDENCE,
            FigureKind.SLICE,
            FigureKind.TIMELINE,
        )


@dataclass(frozen=True, slots=True)
class FigureOptions:
    """Options of a figure."""

    objective: int = 0
    parameters: tuple[str, ...] = ()
    """Parameters to show: a pair of them, by default the two most important, or any number."""
    deviation: bool = False
    """For the contour: show the model's deviation instead of its mean."""
    states: tuple[str, ...] = ()
    """States of the trials to show; all with a value if empty."""
    metric: str = ""
    """For learning curves: metric to show instead of the objective."""
    pair: bool = False
    """True for the partial dependence on both of two parameters together."""


def kinds_of(view: StudyView) -> tuple[FigureKind, ...]:
    """Return the kinds of figures that a study has."""
    excluded: set[FigureKind] = set()
    if len(view.objectives) == 1:
        excluded.add(FigureKind.PARETO)
    if len(view.objectives) != 2:
        excluded.add(FigureKind.HYPERVOLUME)
    if len(view.objectives) > 1:
        excluded.add(FigureKind.COST)
    excluded |= _OF_PARAMETERS if view.has_population else {FigureKind.LINEAGE}
    return tuple(kind for kind in FigureKind if kind not in excluded)


_OF_PARAMETERS = {
    FigureKind.IMPORTANCE,
    FigureKind.INTERACTIONS,
    FigureKind.DEPENDENCE,
    FigureKind.CONTOUR,
    FigureKind.RANK,
    FigureKind.CORRELATIONS,
}
"""Figures of values that parameters decide, which those of a population do not."""


class Reader:
    """Data of one study's figures, each read on its first use.

    Args:
        database: Database to read.
        view: The study.
        cached: Returns the cached value of a key, or makes it from its former value. If None,
            values are cached for the reader's lifetime.
    """

    def __init__(
        self,
        database: Database,
        view: StudyView,
        cached: Callable[[tuple[Any, ...], Callable[[Any], Any]], Any] | None = None,
    ) -> None:
        self._database = database
        self.view = view
        self._cache: dict[tuple[Any, ...], Any] = {}
        self._cached = cached or self._cached_here

    def results(self) -> Results:
        """Return all trials as columns."""

        def read(before: Results | None) -> Results:
            return get_results(self._database, self.view.study_id, before)

        return self._get(("results",), read)

    def best(self, index: int, states: tuple[str, ...] = ()) -> CompletedTrials:
        """Return the best trials in these states, and a sample of the others."""
        results = self.results()
        return self._get(
            ("best", index, states),
            lambda _: select_best(
                self._database,
                self.view,
                results,
                index,
                _BEST_MAX,
                states,
            ),
        )

    def evenly(self, index: int) -> CompletedTrials:
        """Return an even sample of complete trials."""
        results = self.results()
        return self._get(
            ("evenly", index),
            lambda _: select_evenly(
                self._database,
                self.view,
                results,
                index,
                _EVENLY_MAX,
            ),
        )

    def shares(self, index: int) -> Sequence[Share]:
        """Return the parameters' importances."""
        tried = self.evenly(index)
        return self._get(("shares", index), lambda _: importance_shares(tried))

    def surface(self, index: int) -> ModelSurface | None:
        """Return the model of an objective; None if there are no trials to fit it to."""
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
        """Return the best trials with only the most important parameters.

        Two parameters are ordered by importance, more of them as in the study.
        """
        tried = self.best(index, states)
        names = [parameter.name for parameter in tried.parameters]
        by_importance = sorted(self.shares(index), key=lambda share: -share.share)
        ranked = [share.name for share in by_importance]
        ranked += [name for name in names if name not in ranked]
        selected = ranked[:limit]
        if limit > 2:
            selected = [name for name in names if name in selected]
        return tried.with_parameters(selected)

    def curves(
        self,
        index: int = 0,
        states: tuple[str, ...] = (),
        metric: str = "",
    ) -> Chart:
        """Draw learning curves of some trials, by an objective or another metric."""
        objective = self.view.objectives[index]
        results = self.results()
        numbers = progress.select_curves(objective, results, index, states=states)
        curves = get_curves(
            self._database,
            self.view.study_id,
            numbers=numbers,
            max_points=max(10, _CURVE_POINTS // max(len(numbers), 1)),
        )
        best = results.best(objective, index)
        if metric or index:
            objective = replace(objective, name=metric or objective.name)
            curves = tuple(curve.of(objective.name) for curve in curves)
        return progress.learning_curves(objective, results, curves, best)

    def cost(self) -> Chart:
        """Draw the best value against what the study has cost."""
        results, objective = self.results(), self.view.objectives[0]
        amounts = amounts_by_trial(self._database, self.view)
        rows, spent = spent_until(
            results.numbers,
            results.ended_s,
            lambda number: amounts.get(number, 0.0),
        )
        losses = np.where(results.candidates(), results.losses(objective), np.inf)[rows]
        best = np.minimum.accumulate(losses) * objective.orientation
        return best_by_cost(
            objective,
            EffortUnit.of(self.view),
            spent,
            np.where(np.isfinite(best), best, np.nan),
            get_outlook(self.view, results),
        )

    def lineage(self) -> Chart:
        """Draw the tree of a population."""
        return lineage_tree.lineage(self.view.objectives[0], get_tree(self._database, self.view))

    def timeline(self) -> Chart:
        """Draw the newest attempts."""
        return progress.timeline(list_spans(self._database, self.view.study_id))

    def _get(self, key: tuple[Any, ...], make: Callable[[Any], T]) -> T:
        value: T = self._cached(key, make)
        return value

    def _cached_here(self, key: tuple[Any, ...], make: Callable[[Any], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make(None)
        return self._cache[key]


def draw(
    kind: FigureKind,
    reader: Reader,
    options: FigureOptions = FigureOptions(),  # frozen, so a safe default
) -> Chart:
    """Draw one figure of a study."""
    index = options.objective
    states = options.states
    objective: Objective = reader.view.objectives[index]
    match kind:
        case FigureKind.HISTORY:
            return progress.history(objective, reader.results(), index, states)
        case FigureKind.CURVES:
            return reader.curves(index, states, options.metric)
        case FigureKind.PARALLEL:
            return parameters.parallel(_limited(reader, options).subsample(parameters.LINES))
        case FigureKind.SLICE:
            return _slices(reader, options)
        case FigureKind.CONTOUR:
            return _contour(reader, options)
        case FigureKind.RANK:
            return parameters.rank(_pair(reader, options))
        case FigureKind.IMPORTANCE:
            return parameters.importance(reader.shares(index), objective)
        case FigureKind.INTERACTIONS:
            return _interactions(reader, options)
        case FigureKind.DEPENDENCE:
            return _dependence(reader, options)
        case FigureKind.COST:
            return reader.cost()
        case FigureKind.CORRELATIONS:
            return parameters.correlations(reader.best(index, states))
        case FigureKind.DISTRIBUTION:
            return distribution.edf(objective, reader.results(), index, states)
        case FigureKind.TIMELINE:
            return reader.timeline()
        case FigureKind.LINEAGE:
            return reader.lineage()
        case FigureKind.PARETO:
            front = tradeoff.front_of(reader.view.objectives, reader.results())
            return tradeoff.pareto(reader.view.objectives, reader.results(), front)
        case FigureKind.HYPERVOLUME:
            return tradeoff.hypervolume(reader.view.objectives, reader.results())


def _limited(reader: Reader, options: FigureOptions) -> CompletedTrials:
    """Return trials with at most as many parameters as fit side by side."""
    index = options.objective
    states = options.states
    tried = reader.best(index, states)
    if options.parameters:
        return tried.with_parameters(tuple(dict.fromkeys(options.parameters)))
    if len(tried.parameters) <= parameters.SLICES:
        return tried
    return reader.important(index, parameters.SLICES, states)


def _slices(reader: Reader, options: FigureOptions) -> Chart:
    tried = _limited(reader, options)
    shown = tried.subsample(parameters.SLICED // max(len(tried.parameters), 1))
    model = _model(reader, options)
    if model is None:
        return parameters.slices(shown)
    names = [one.name for one in shown.parameters if one.name in model.names]
    cuts = {name: model.cut(name) for name in names}
    return parameters.slices(shown, cuts, model.number)


def _pair(reader: Reader, options: FigureOptions) -> CompletedTrials:
    names = tuple(dict.fromkeys(options.parameters))[:2]
    if len(names) < 2:
        important = reader.important(options.objective, 2, options.states)
        names = tuple(parameter.name for parameter in important.parameters)
    return reader.best(options.objective, options.states).with_parameters(names)


def _model(reader: Reader, options: FigureOptions) -> ModelSurface | None:
    """Return the model; None while there are too few trials."""
    return reader.surface(options.objective) if len(reader.results()) else None


def _interactions(reader: Reader, options: FigureOptions) -> Chart:
    objective = reader.view.objectives[options.objective]
    model = _model(reader, options)
    if model is None:
        return interactions(objective, None)
    return interactions(objective, interaction_effects(model), len(model))


def _dependence(reader: Reader, options: FigureOptions) -> Chart:
    objective = reader.view.objectives[options.objective]
    model = _model(reader, options)
    if model is None:
        return dependence(objective, ())
    if options.pair:
        tried = _pair(reader, options)
        names = [one.name for one in tried.parameters]
        plane = joint_dependence(model, *names) if len(names) == 2 else None
        return parameters.contour(tried.subsample(500), plane)
    kinds = {one.name: one for one in reader.evenly(options.objective).parameters}
    selected = options.parameters
    if not selected:
        important = reader.important(options.objective, parameters.SLICES)
        selected = tuple(one.name for one in important.parameters)
    found = partial_dependences(model, [name for name in dict.fromkeys(selected) if name in kinds])
    shown = [(kinds[one.name], one) for one in found]
    return dependence(objective, shown, len(model), len(model.names))


def _contour(reader: Reader, options: FigureOptions) -> Chart:
    tried = _pair(reader, options)
    few = tried.subsample(500)
    model = _model(reader, options)
    if model is None:
        return parameters.contour(few, None, deviation=options.deviation)
    names = [parameter.name for parameter in tried.parameters]
    plane = None
    if len(names) == 2 and set(names) <= set(model.names):
        plane = model.plane(*names)
    return parameters.contour(few, plane, model.number, deviation=options.deviation)
