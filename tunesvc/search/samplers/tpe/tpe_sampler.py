"""TPE with proposals that cost the same after 10,000 trials as after 500, and come with reasons."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason, RecentEntries
from tunesvc.search.samplers.tpe.parzen import (
    NARROW_FROM,
    Parzen,
    weights_by_age,
    weights_of_sample,
)
from tunesvc.search.samplers.tpe.tpe_history import (
    Array,
    Space,
    Split,
    TPEHistory,
)
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.finished import (
    changes_of,
    forecasts_in,
    resumed_in,
)
from tunesvc.space.search_space import canonical
from tunesvc.util.optuna_internals import cached_trials, id_of, set_system_attr, storage_of
from tunesvc.util.optuna_keys import RELATIVE_PARAMS

Numbers = np.ndarray[Any, np.dtype[np.int_]]
Row = tuple[float, ...]

VERSION = "tpe 4"
"""Version; it changes when the same seed and history give another proposal."""
HISTORY = 400
"""Default number of modelled trials: from 100 on, kernels have their smallest width."""
_NEAREST = 3
_SHARED_LENGTH = 2045
"""Most characters of an attribute in Optuna's relational storage."""


@dataclass(frozen=True, slots=True)
class _Draw:
    """Values that were drawn jointly."""

    space: Space
    point: Mapping[str, float]
    view: Split
    running: int
    log_ratio: float
    prior: float


@dataclass(slots=True)
class _ProposedTrial:
    finished: int = 0
    draws: list[_Draw] = field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """Cached data of one study."""

    forecasts: object
    """See `finished.forecasts_in`."""
    history: TPEHistory
    state: tuple[int, int | None] = 0, None
    """Number of trials and of changes when the study was last read."""
    running: dict[tuple[str, ...], dict[int, tuple[FrozenTrial, Row]]] = field(default_factory=dict)
    """Running trials by parameters and by number, each as it was when it was read."""
    densities: dict[str, tuple[Split, Space, Parzen]] = field(default_factory=dict)
    """Densities of good and of finished bad trials, shared by several asks."""

    def running_points(
        self,
        trials: Sequence[FrozenTrial],
        space: Space,
    ) -> tuple[Array, Numbers]:
        """Return running trials with all of these parameters as points, and their numbers."""
        names = tuple(space)
        known, cached, rows = self.running.get(names, {}), {}, {}
        for trial in trials:
            found = known.get(trial.number)
            if found is not None and found[0] is trial:
                cached[trial.number], rows[trial.number] = found, found[1]
            elif (row := _row(trial, space)) is not None:
                rows[trial.number] = row
                if all(name in trial.params for name in names):  # else it may still change
                    cached[trial.number] = trial, row
        self.running[names] = cached
        points = np.array(list(rows.values())).reshape(-1, len(names))
        return points, np.array(list(rows), dtype=int)

    def good_density(self, view: Split, space: Space, is_aged: bool) -> Parzen:
        """Return the density of the good trials; with `is_aged` older ones count less."""

        def make() -> Parzen:
            good, _ = view.good.table(space)
            weights = weights_by_age(len(good)) if is_aged else np.ones(len(good))
            return Parzen(good, space, weights)

        return self._shared("likely", view, space, make)

    def bad_density(
        self,
        view: Split,
        space: Space,
        running_points: tuple[Array, Numbers],
        running: int,
    ) -> Parzen:
        """Return the density of the bad trials and of the running ones.

        If the finished trials are a sample with kernels of smallest width, their density is shared
        by all asks until a trial finishes, and the running ones are added. Else it equals Optuna's.
        """
        ended, others = view.bad.table(space), view.finished - len(view.good)
        if others > len(view.bad) and len(ended[0]) >= NARROW_FROM:
            of = len(ended[0]) * others // len(view.bad)
            shared = self._shared(
                "unlikely",
                view,
                space,
                lambda: Parzen(
                    ended[0],
                    space,
                    weights_of_sample(len(ended[0]), of),
                    of,
                ),
            )
            return shared.also(running_points[0]) if running else shared
        bad = _merge(ended, running_points)
        of = len(bad) * (others + running) // max(len(view.bad) + running, 1)
        return Parzen(bad, space, weights_of_sample(len(bad), of), of)

    def _shared(
        self,
        which: str,
        view: Split,
        space: Space,
        make: Callable[[], Parzen],
    ) -> Parzen:
        """Return a density, made again only for another split or space than before."""
        cached = self.densities.get(which)
        if cached is None or cached[0] is not view or cached[1] != space:
            cached = self.densities[which] = view, space, make()
        return cached[2]


class TPESampler(BaseSampler):
    """Tree-structured Parzen estimator, multivariate, with a bounded history.

    The good trials are split off as by Optuna's TPE, from all that have finished. A bounded number
    of the others is modelled: the latest, and an even sample of the earlier ones, weighted by what
    it represents. Up to that number, proposals are those of Optuna's
    `TPESampler(multivariate=True, group=True, constant_liar=True)` with the same seed, up to
    rounding.

    Learns from completed and pruned trials, from constraints (`optuna.Trial.set_constraint`), and
    from trials that failed because of their parameters. Bergstra et al. 2011
    (https://papers.nips.cc/paper/4443) and 2013 (http://proceedings.mlr.press/v28/bergstra13.pdf);
    Falkner et al. 2018 (BOHB) for the multivariate form.

    Args:
        seed: of the random numbers.
        n_startup_trials: trials are drawn at random until this many have finished.
        n_ei_candidates: points drawn from the good trials' density, of which the best is proposed.
        multivariate: model parameters jointly, not one by one.
        group: parameters that always occur together form a group with its own density, which
            suits conditional spaces and changes nothing for others. Without it, only parameters
            that all trials have are modelled jointly.
        constant_liar: running trials count as bad ones, so that parallel trials differ.
        history: finished trials that are modelled, at least 100. Also the most running ones.

    Raises:
        ValueError: an option is out of its range.
    """

    repeatable = True

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        multivariate: bool = True,
        group: bool = True,
        constant_liar: bool = True,
        history: int = HISTORY,
    ) -> None:
        if n_startup_trials < 0:
            text = f"n_startup_trials ({n_startup_trials}) is a number of trials: at least 0"
            raise ValueError(text)
        if n_ei_candidates < 1:
            text = f"n_ei_candidates ({n_ei_candidates}) is a number of points: at least 1"
            raise ValueError(text)
        if history < 100:
            raise ValueError(f"history ({history}) is the number of trials to model: at least 100")
        self._rng = np.random.RandomState(seed)
        self._random = RandomSampler(seed)
        self._n_startup_trials = n_startup_trials
        self._n_ei_candidates = n_ei_candidates
        self._multivariate = multivariate
        self._group = group
        self._constant_liar = constant_liar
        self._history = history
        self._forget()

    def reseed_rng(self) -> None:
        self._rng.seed()
        self._random.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._proposed.pop(trial.number, None)

    @locked
    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> Space:
        if not self._multivariate:
            return {}
        return {name: kind for space in self._spaces(study) for name, kind in space.items()}

    @locked
    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: Space,
    ) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for space in self._parts(study, search_space):
            params.update(self._sample(study, trial, space) or {})
        if params and self._constant_liar:
            self._share(study, trial, params)
        return params

    @locked
    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        drawn = self._sample(study, trial, {param_name: param_distribution})
        if drawn is None:
            return self._random.sample_independent(
                study,
                trial,
                param_name,
                param_distribution,
            )
        return drawn[param_name]

    def explain(self, number: int) -> Reason | None:
        """Return the reason for a trial's parameters; None for a trial of long ago.

        The phase is `start` while trials are drawn at random, `explore` if the proposal comes from
        the prior rather than from the neighbourhood of a good trial, `exploit` otherwise.
        """
        proposed = self._proposed.get(number)
        if proposed is None:
            return None
        details: dict[str, Any] = {
            "sampler": "tpe",
            "version": VERSION,
            "finished": proposed.finished,
        }
        if not proposed.draws:
            text = f"start: drawn at random, until {self._n_startup_trials} trials have finished"
            return Reason(text, {"phase": "start", **details})
        return _reason(proposed.draws, details)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what the next ask computes again from the study."""
        derived = ("_studies", "_asked")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._studies: WeakKeyDictionary[BaseStorage, dict[int, _Known]] = WeakKeyDictionary()
        self._proposed: RecentEntries[_ProposedTrial] = RecentEntries()

    def _known(self, study: Study, trials: Sequence[FrozenTrial]) -> _Known:
        """Return the cached data of a study, built again when forecasts have changed.

        That is rare enough to be cheap, and makes the data independent of the order in which trials
        ended: after a restart it is the same.
        """
        known = self._studies.setdefault(storage_of(study), {})
        study_id, forecasts = id_of(study), forecasts_in(study)
        found = known.get(study_id)
        if found is None or found.forecasts != forecasts:
            history = TPEHistory(study.directions, self._history)
            found = known[study_id] = _Known(forecasts, history)
        state = len(trials), changes_of(study)
        # An ask calls this three times, and nothing changes meanwhile.
        if state[1] is None or found.state != state:
            found.history.update(trials, resumed_in(study))
            found.state = state
        return found

    def _spaces(self, study: Study) -> list[Space]:
        """Return the groups that are drawn jointly, in an order that does not depend on hashes."""
        history = self._known(study, cached_trials(study)).history
        groups = history.groups if self._group else [history.common or {}]
        spaces = []
        for group in groups:
            kinds = sorted(group.items())
            spaces.append({name: kind for name, kind in kinds if not kind.single()})
        return spaces

    def _parts(self, study: Study, search_space: Space) -> list[Space]:
        """Split a space into groups that are drawn jointly.

        The space may be older than the groups, or cut by `PartialFixedSampler`.
        """
        names = [list(space) for space in self._spaces(study)]
        known = {name for group in names for name in group}
        names.append([name for name in search_space if name not in known])
        parts = [_restrict(search_space, group) for group in names]
        return [part for part in parts if part]

    def _sample(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Space,
    ) -> dict[str, Any] | None:
        """Return the best of some candidates by name; None before there is enough to model."""
        # The cached running trials may lack parameters that were set meanwhile.
        is_fresh = self._constant_liar
        trials = study.get_trials(deepcopy=False) if is_fresh else cached_trials(study)
        known = self._known(study, trials)
        history = known.history
        proposed = self._remember(trial.number, history.completed_or_pruned)
        if history.completed_or_pruned < self._n_startup_trials:
            return None
        view = history.view()
        running = history.running(trials) if self._constant_liar else []
        others = [other for other in running if other.number != trial.number]
        likely = known.good_density(
            view,
            space,
            is_aged=len(study.directions) == 1,
        )
        unlikely = known.bad_density(
            view,
            space,
            known.running_points(others, space),
            len(others),
        )
        candidates = likely.sample(self._rng, self._n_ei_candidates)
        density, prior = likely.log_density(candidates)
        ratio = density - unlikely.log_density(candidates)[0]
        best = int(np.argmax(ratio))
        point = {name: float(value) for name, value in zip(space, candidates[best], strict=True)}
        proposed.draws.append(
            _Draw(
                space,
                point,
                view,
                len(others),
                float(ratio[best]),
                float(prior[best]),
            )
        )
        params = {}
        for name, kind in space.items():
            params[name] = canonical(kind, kind.to_external_repr(point[name]))
        return params

    def _remember(self, number: int, finished: int) -> _ProposedTrial:
        if number not in self._proposed:
            self._proposed[number] = _ProposedTrial()
        self._proposed[number].finished = finished
        return self._proposed[number]

    def _share(
        self,
        study: Study,
        trial: FrozenTrial,
        params: Mapping[str, Any],
    ) -> None:
        """Share the trial's parameters with other processes before they are set one by one."""
        text = json.dumps(params)
        for part, start in enumerate(range(0, len(text), _SHARED_LENGTH)):
            shared = text[start : start + _SHARED_LENGTH]
            set_system_attr(study, trial, f"{RELATIVE_PARAMS}:{part}", shared)


def _restrict(space: Space, names: Sequence[str]) -> Space:
    return {name: space[name] for name in names if name in space}


def _row(trial: FrozenTrial, space: Space) -> Row | None:
    """Return a running trial's set and shared parameters as a row; None if not all are known."""
    params = trial.params
    if any(name not in params for name in space):
        params = {**_shared(trial), **params}
        if any(name not in params for name in space):
            return None
    return tuple(kind.to_internal_repr(params[name]) for name, kind in space.items())


def _shared(trial: FrozenTrial) -> dict[str, Any]:
    text = ""
    for part in itertools.count():
        more = trial.system_attrs.get(f"{RELATIVE_PARAMS}:{part}")
        if more is None:
            break
        text += more
    try:
        shared: dict[str, Any] = json.loads(text) if text else {}
    except json.JSONDecodeError:  # another process is writing it
        return {}
    return shared


def _merge(one: tuple[Array, Numbers], other: tuple[Array, Numbers]) -> Array:
    """Return the points of both in order of their trials' numbers."""
    points, numbers = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    return np.asarray(points[np.argsort(numbers, kind="stable")])


def _reason(draws: Sequence[_Draw], details: Mapping[str, Any]) -> Reason:
    """Describe a proposal, over all groups of parameters that were drawn one after the other."""
    size = sum(len(draw.space) for draw in draws)
    prior = sum(draw.prior * len(draw.space) for draw in draws) / size
    log_ratio = sum(draw.log_ratio for draw in draws)
    last = draws[-1]
    phase = "explore" if prior > 0.5 else "exploit"
    nearest = _nearest(draws)
    good = len(last.view.good)
    best = "the best trial" if good == 1 else f"the {good} best trials"
    where = f"away from {best}" if phase == "explore" else f"close to {best}"
    times = _times_text(log_ratio)
    text = f"{phase}: {where} of {last.view.finished}; "
    text += f"among those its values are {times} as likely as among the others"
    return Reason(
        text,
        {
            "phase": phase,
            **details,
            "good": good,
            "bad": len(last.view.bad),
            "running": last.running,
            "acquisition": log_ratio,
            "prior": prior,
            "nearest": nearest,
        },
    )


def _times_text(log_ratio: float) -> str:
    ratio = math.exp(min(log_ratio, 700))
    return "over 1,000 times" if ratio > 1_000 else f"{ratio:.3g} times"


def _nearest(draws: Sequence[_Draw]) -> list[dict[str, Any]]:
    """Return the modelled trials nearest to a proposal, by root mean square of ranges."""
    space = {name: kind for draw in draws for name, kind in draw.space.items()}
    point = {name: value for draw in draws for name, value in draw.point.items()}
    view = draws[-1].view
    columns = {}
    for name in space:
        parts = [view.bad.column(name), view.good.column(name)]
        columns[name] = np.concatenate(parts)
    numbers = np.concatenate([view.bad.numbers, view.good.numbers])
    rows = [_distances(kind, point[name], columns[name]) for name, kind in space.items()]
    distances = np.stack(rows)
    distances = np.sqrt(np.mean(distances**2, axis=0))
    nearest = np.lexsort((numbers, distances))[:_NEAREST]
    return [
        {
            "number": int(numbers[place]),
            "values": [value if math.isfinite(value) else None for value in _values(view, place)],
            "distance": float(distances[place]),
            "good": bool(place >= len(view.bad)),
        }
        for place in nearest
    ]


def _values(view: Split, place: int) -> Sequence[float]:
    seen = view.bad[place] if place < len(view.bad) else view.good[place - len(view.bad)]
    return seen.values or ()


def _distances(kind: BaseDistribution, value: float, others: Array) -> Array:
    """Return distances in parts of the range, 0 to 1; a missing parameter is 1 away."""
    if not isinstance(kind, FloatDistribution | IntDistribution):
        distances = (others != value).astype(float)
    elif kind.log:
        distances = np.abs(np.log(others / value)) / math.log(kind.high / kind.low)
    else:
        distances = np.abs(others - value) / (kind.high - kind.low)
    return np.where(np.isnan(others), 1.0, distances)
