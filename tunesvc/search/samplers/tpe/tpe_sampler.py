"""TPE whose proposals cost the same after 10,000 trials as after 500, and say what they rest on."""

from __future__ import annotations

import itertools
import json
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import LRUDict, Reason
from tunesvc.search.samplers.tpe.parzen import (
    NARROW_FROM,
    Parzen,
    weights_by_age,
    weights_of_sample,
)
from tunesvc.search.samplers.tpe.tpe_history import Array, Space, Split, TPEHistory
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.finished import changes_of, forecasts_in, resumed_in
from tunesvc.space.search_space import canonical

Numbers = np.ndarray[Any, np.dtype[np.int_]]
Row = tuple[float, ...]

VERSION = "tpe 4"
"""Changes when the same seed and history would give another proposal."""
HISTORY = 400
"""Finished trials that are modelled unless said otherwise: kernels are as narrow as they get from 100 on."""
_NEAREST = 3
_SHARED = "tpe:relative_params"
"""Optuna's own system attribute for what was drawn and is not set yet, so that both samplers can work on one study."""
_SHARED_LENGTH = 2045
"""Characters of an attribute that Optuna's relational storage holds."""


@dataclass(frozen=True, slots=True)
class _Draw:
    """Values that were drawn together."""

    space: Space
    point: Mapping[str, float]
    view: Split
    running: int
    log_ratio: float
    prior: float


@dataclass(slots=True)
class _AskedTrial:
    finished: int = 0
    draws: list[_Draw] = field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """Of one study."""

    forecasts: object
    """See `finished.forecasts_in`."""
    ranks: TPEHistory
    state: tuple[int, int | None] = 0, None
    """Trials and changes of the study when they were looked at."""
    running: dict[tuple[str, ...], dict[int, tuple[FrozenTrial, Row]]] = field(default_factory=dict)
    """By parameters, and by number: running trials that have them, each as it was when it was looked at."""
    densities: dict[str, tuple[Split, Space, Parzen]] = field(default_factory=dict)
    """Of the good trials, and of the others without those that run, which several asks share."""

    def lies(
        self,
        trials: Sequence[FrozenTrial],
        space: Space,
    ) -> tuple[Array, Numbers]:
        """Running trials as they are modelled: as points, as far as they have all of the parameters, and numbers."""
        names = tuple(space)
        known, kept, rows = self.running.get(names, {}), {}, {}
        for trial in trials:
            found = known.get(trial.number)
            if found is not None and found[0] is trial:
                kept[trial.number], rows[trial.number] = found, found[1]
            elif (row := _row(trial, space)) is not None:
                rows[trial.number] = row
                if all(name in trial.params for name in names):  # else somebody may still change it
                    kept[trial.number] = trial, row
        self.running[names] = kept
        return np.array(list(rows.values())).reshape(-1, len(names)), np.array(
            list(rows),
            dtype=int,
        )

    def likely_of(self, view: Split, space: Space, is_aged: bool) -> Parzen:
        """The density of the good trials; with `is_aged` older ones count less."""

        def make() -> Parzen:
            good, _ = view.good.table(space)
            weights = weights_by_age(len(good)) if is_aged else np.ones(len(good))
            return Parzen(good, space, weights)

        return self._shared("likely", view, space, make)

    def unlikely_of(
        self,
        view: Split,
        space: Space,
        lies: tuple[Array, Numbers],
        running: int,
    ) -> Parzen:
        """The density of the trials that are not good, and of those that run.

        Where what has ended is a sample with kernels as narrow as they get, it is computed once for all asks between
        which nothing ends, and those that run are added to it. Else it is Optuna's.
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
            return shared.also(lies[0]) if running else shared
        bad = _merged(ended, lies)
        of = len(bad) * (others + running) // max(len(view.bad) + running, 1)
        return Parzen(bad, space, weights_of_sample(len(bad), of), of)

    def _shared(
        self,
        which: str,
        view: Split,
        space: Space,
        make: Callable[[], Parzen],
    ) -> Parzen:
        """A density, made anew when another view or space is modelled than before."""
        kept = self.densities.get(which)
        if kept is None or kept[0] is not view or kept[1] != space:
            kept = self.densities[which] = view, space, make()
        return kept[2]


class TPESampler(BaseSampler):
    """Tree-structured Parzen estimator, multivariate, with a bounded history.

    The good trials are split off as Optuna's TPE does it, among all that ever finished. Of the others at most a fixed
    number is modelled: the latest, and an even sample of the older, which weighs what it stands in for. Below that
    number proposals are those of Optuna's `TPESampler(multivariate=True, group=True, constant_liar=True)` with the
    same seed, up to rounding.

    Learns from completed and pruned trials, from constraints (`optuna.Trial.set_constraint`), and from trials that
    failed because of their parameters. Bergstra et al. 2011 (https://papers.nips.cc/paper/4443) and 2013
    (http://proceedings.mlr.press/v28/bergstra13.pdf); Falkner et al. 2018 (BOHB) for the multivariate form.

    Args:
        seed: of the random numbers.
        n_startup_trials: this many trials have to finish before anything is modelled; until then it draws at random.
        n_ei_candidates: points drawn from the good trials' density, of which the best one is proposed.
        multivariate: model parameters jointly, not one by one.
        group: parameters that always occur together form a group with a density of its own, which suits conditional
            spaces and changes nothing for others. Without it only parameters that all trials have are modelled jointly.
        constant_liar: running trials count as bad ones, so that parallel trials keep away from each other.
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
            raise ValueError(f"n_startup_trials ({n_startup_trials}) is a number of trials: at least 0")
        if n_ei_candidates < 1:
            raise ValueError(f"n_ei_candidates ({n_ei_candidates}) is a number of points: at least 1")
        if history < 100:
            raise ValueError(f"history ({history}) is the number of trials to model: at least 100")
        self._rng = LazyRandomState(seed)
        self._random = RandomSampler(seed)
        self._n_startup_trials = n_startup_trials
        self._n_ei_candidates = n_ei_candidates
        self._multivariate = multivariate
        self._group = group
        self._constant_liar = constant_liar
        self._history = history
        self._forget()

    def reseed_rng(self) -> None:
        self._rng.rng.seed()
        self._random.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._asked.pop(trial.number, None)

    @locked
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
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
        """Why the trial of this number got its parameters; None for one of the long past.

        The phase is `start` while it drew at random, `explore` when the proposal rather stems from the prior than
        from the neighbourhood of a good trial, `exploit` otherwise.
        """
        asked = self._asked.get(number)
        if asked is None:
            return None
        details: dict[str, Any] = {
            "sampler": "tpe",
            "version": VERSION,
            "finished": asked.finished,
        }
        if not asked.draws:
            text = f"start: drawn at random, until {self._n_startup_trials} trials have finished"
            return Reason(text, {"phase": "start", **details})
        return _reason(asked.draws, details)

    def __getstate__(self) -> dict[str, Any]:
        """Without what the next ask learns again from the study."""
        derived = ("_studies", "_asked")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._studies: weakref.WeakKeyDictionary[BaseStorage, dict[int, _Known]] = weakref.WeakKeyDictionary()
        self._asked: LRUDict[_AskedTrial] = LRUDict()

    def _known(self, study: Study, trials: Sequence[FrozenTrial]) -> _Known:
        """What it knows of a study's trials, learned anew when pruned ones are forecast otherwise than before.

        That is rare enough to be cheap, and leaves nothing of the order in which they ended: a restart learns alike.
        """
        known, forecasts = (
            self._studies.setdefault(study._storage, {}),
            forecasts_in(study),
        )
        if study._study_id not in known or known[study._study_id].forecasts != forecasts:
            known[study._study_id] = _Known(
                forecasts,
                TPEHistory(study.directions, self._history),
            )
        found = known[study._study_id]
        state = len(trials), changes_of(study)
        if state[1] is None or found.state != state:  # an ask looks three times, and nothing ends meanwhile
            found.ranks.update(trials, resumed_in(study))
            found.state = state
        return found

    def _spaces(self, study: Study) -> list[Space]:
        """What is drawn jointly, in an order that does not depend on how names hash."""
        ranks = self._known(
            study,
            study._get_trials(deepcopy=False, use_cache=True),
        ).ranks
        groups = ranks.groups if self._group else [ranks.common or {}]
        sorted_groups = [dict(sorted(group.items())) for group in groups]
        return [{name: kind for name, kind in group.items() if not kind.single()} for group in sorted_groups]

    def _parts(self, study: Study, search_space: Space) -> list[Space]:
        """What of a space is drawn jointly; it may have been inferred long ago, or cut by `PartialFixedSampler`."""
        names = [list(space) for space in self._spaces(study)]
        known = {name for group in names for name in group}
        names.append([name for name in search_space if name not in known])
        parts = [{name: search_space[name] for name in group if name in search_space} for group in names]
        return [part for part in parts if part]

    def _sample(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Space,
    ) -> dict[str, Any] | None:
        """The best of some candidates, by name; None before there is enough to model."""
        trials = study._get_trials(deepcopy=False, use_cache=not self._constant_liar)
        known = self._known(study, trials)
        ranks = known.ranks
        asked = self._remember(trial.number, ranks.told)
        if ranks.told < self._n_startup_trials:
            return None
        view = ranks.view()
        running = ranks.running(trials) if self._constant_liar else []
        others = [other for other in running if other.number != trial.number]
        likely = known.likely_of(view, space, is_aged=len(study.directions) == 1)
        unlikely = known.unlikely_of(
            view,
            space,
            known.lies(others, space),
            len(others),
        )
        candidates = likely.sample(self._rng.rng, self._n_ei_candidates)
        density, prior = likely.log_density(candidates)
        ratio = density - unlikely.log_density(candidates)[0]
        best = int(np.argmax(ratio))
        point = {name: float(value) for name, value in zip(space, candidates[best], strict=True)}
        asked.draws.append(
            _Draw(
                space,
                point,
                view,
                len(others),
                float(ratio[best]),
                float(prior[best]),
            )
        )
        return {name: canonical(kind, kind.to_external_repr(point[name])) for name, kind in space.items()}

    def _remember(self, number: int, finished: int) -> _AskedTrial:
        if number not in self._asked:
            self._asked[number] = _AskedTrial()
        self._asked[number].finished = finished
        return self._asked[number]

    def _share(
        self,
        study: Study,
        trial: FrozenTrial,
        params: Mapping[str, Any],
    ) -> None:
        """Show other processes where this trial is going, before its parameters are set one by one."""
        text = json.dumps(params)
        for part, start in enumerate(range(0, len(text), _SHARED_LENGTH)):
            shared = text[start : start + _SHARED_LENGTH]
            study._storage.set_trial_system_attr(
                trial._trial_id,
                f"{_SHARED}:{part}",
                shared,
            )


def _row(trial: FrozenTrial, space: Space) -> Row | None:
    """A running trial: what is set, and what it or another process shared of what will be; None if not all is known."""
    params = trial.params
    if any(name not in params for name in space):
        params = {**_shared(trial), **params}
        if any(name not in params for name in space):
            return None
    return tuple(kind.to_internal_repr(params[name]) for name, kind in space.items())


def _shared(trial: FrozenTrial) -> dict[str, Any]:
    text = ""
    for part in itertools.count():
        more = trial.system_attrs.get(f"{_SHARED}:{part}")
        if more is None:
            break
        text += more
    try:
        shared: dict[str, Any] = json.loads(text) if text else {}
    except json.JSONDecodeError:  # another process is writing it
        return {}
    return shared


def _merged(one: tuple[Array, Numbers], other: tuple[Array, Numbers]) -> Array:
    """The points of both in order of their trials' numbers."""
    points, numbers = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    return np.asarray(points[np.argsort(numbers, kind="stable")])


def _reason(draws: Sequence[_Draw], details: Mapping[str, Any]) -> Reason:
    """What a proposal rests on, over all groups of parameters that were drawn one after the other."""
    size = sum(len(draw.space) for draw in draws)
    prior = sum(draw.prior * len(draw.space) for draw in draws) / size
    log_ratio = sum(draw.log_ratio for draw in draws)
    last = draws[-1]
    phase = "explore" if prior > 0.5 else "exploit"
    nearest = _nearest(draws)
    good = len(last.view.good)
    best = "the best trial" if good == 1 else f"the {good} best trials"
    where = f"away from {best}" if phase == "explore" else f"close to {best}"
    text = f"{phase}: {where} of {last.view.finished}; among those its values are {_times(log_ratio)} as likely as "
    text += "among the others"
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


def _times(log_ratio: float) -> str:
    ratio = math.exp(min(log_ratio, 700))
    return "over 1,000 times" if ratio > 1_000 else f"{ratio:.3g} times"


def _nearest(draws: Sequence[_Draw]) -> list[dict[str, Any]]:
    """The modelled trials nearest to a proposal: the root of the mean square over parameters, as parts of the range."""
    space = {name: kind for draw in draws for name, kind in draw.space.items()}
    point = {name: value for draw in draws for name, value in draw.point.items()}
    view = draws[-1].view
    columns = {name: np.concatenate([view.bad.column(name), view.good.column(name)]) for name in space}
    numbers = np.concatenate([view.bad.numbers, view.good.numbers])
    apart = np.stack([_apart(kind, point[name], columns[name]) for name, kind in space.items()])
    distances = np.sqrt(np.mean(apart**2, axis=0))
    nearest = np.lexsort((numbers, distances))[:_NEAREST]
    return [
        {
            "trial": int(numbers[place]),
            "values": [value if math.isfinite(value) else None for value in _values(view, place)],
            "distance": float(distances[place]),
            "good": bool(place >= len(view.bad)),
        }
        for place in nearest
    ]


def _values(view: Split, place: int) -> Sequence[float]:
    seen = view.bad[place] if place < len(view.bad) else view.good[place - len(view.bad)]
    return seen.values or ()


def _apart(kind: BaseDistribution, value: float, others: Array) -> Array:
    """How far apart, 0 ... 1; a parameter that a trial does not have is as far as can be."""
    if not isinstance(kind, FloatDistribution | IntDistribution):
        apart = (others != value).astype(float)
    elif kind.log:
        apart = np.abs(np.log(others / value)) / math.log(kind.high / kind.low)
    else:
        apart = np.abs(others - value) / (kind.high - kind.low)
    return np.where(np.isnan(others), 1.0, apart)
