"""Samplers to compare, behind ask and tell: ours, Optuna's, and Ax, SMAC and HEBO if installed.

Peers answer with the best value that they observed, as their users do; ours answer with what `tune
best` recommends. Optuna's samplers suggest one parameter after another, as an objective does.
"""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tunesvc.search.analysis.recommend import recommend
from tunesvc.search.exhaustion import repetition
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.registry.pruner_registry import make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

Params = Mapping[str, Any]
OURS = ("auto", "gp", "tpe")
OPTUNA: Mapping[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "optuna-tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "optuna-tpe-mv": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True
    ),
    "optuna-tpe-liar": lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "optuna-gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "optuna-cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}
NEEDS = {"optuna-gp": "torch", "optuna-cmaes": "cmaes", "ax": "ax", "smac": "smac", "hebo": "hebo"}
"""Package without which a peer does not take part."""
PEERS = (*(name for name in OPTUNA if name != "optuna-tpe-liar"), "ax", "smac", "hebo")
"""All but one for many trials at a time, which is TPE where there is one."""


def present(samplers: Sequence[str]) -> list[str]:
    """Return the samplers whose package is installed; name the others."""
    absent = [name for name in samplers if name in NEEDS and not find_spec(NEEDS[name])]
    for name in absent:
        print(f"{name}: left out, {NEEDS[name]} is not installed", flush=True)
    return [name for name in samplers if name not in absent]


class Searcher(Protocol):
    """A sampler in the middle of a study that minimises.

    Ours and Optuna's may be asked several times before they are told: trials end in their order.
    """

    def ask(self) -> Params | None:
        """Return the next configuration; None once every one has been tried."""

    def tell(self, value: float) -> None:
        """Take the value of the first configuration without one; not finite is a failure."""

    def answer(self) -> Params | None:
        """Return the configuration that a user would take now."""


def start(sampler: str, parameters: Mapping[str, Any], seed: int, trials: int) -> Searcher:
    """Begin a study of so many trials; `parameters` are as in a study file."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    if sampler in OURS:
        return _Ours(sampler, parameters, seed, trials)
    space = space_of(parameters)
    if sampler in OPTUNA:
        return _Optuna(OPTUNA[sampler](seed), space)
    from benchmarks.model_peers import AxPeer, HeboPeer, SmacPeer

    peers: dict[str, Callable[[Space, int, int], Searcher]] = {
        "ax": AxPeer,
        "smac": SmacPeer,
        "hebo": HeboPeer,
    }
    return peers[sampler](space, seed, trials)


def answers(
    searcher: Searcher,
    observe: Callable[[Params], float],
    marks: Sequence[int],
    parallel: int = 1,
) -> list[Params | None]:
    """Run a study with so many trials at a time; return its answer after each number of trials.

    Trials end in their order, and the next one is asked for when one ends. A study whose space is
    exhausted keeps its answer.
    """
    found: list[Params | None] = []
    running: deque[Params] = deque()
    for told in range(1, marks[-1] + 1):
        while len(running) < min(parallel, marks[-1] - told + 1):
            params = searcher.ask()
            if params is None:
                break
            running.append(params)
        if not running:
            break
        searcher.tell(observe(running.popleft()))
        if told in marks:
            found.append(searcher.answer())
    return found + [searcher.answer()] * (len(marks) - len(found))


def space_of(parameters: Mapping[str, Any]) -> Space:
    """Return the space of a study file's parameters."""
    return Space(_spec("random", parameters, 0, 1).parameters)


def draws(parameters: Mapping[str, Any], count: int) -> Iterator[Params]:
    """Yield random configurations, always the same."""
    searcher = _Optuna(optuna.samplers.RandomSampler(seed=2**31 - 1), space_of(parameters))
    return (searcher.ask() for _ in range(count))


def _spec(sampler: str, parameters: Mapping[str, Any], seed: int, trials: int) -> StudySpec:
    described = {
        "name": "benchmark",
        "command": ["true"],
        "metrics": [{"name": "loss", "goal": "minimize"}],
        "parameters": parameters,
        "sampler": {"name": sampler},
        "pruner": {"name": "none"},
        "seed": seed,
        "budget": {"trials": trials},
    }
    return StudySpec.model_validate_json(json.dumps(described))


class _Ours:
    """Our optimizer, as a coordinator uses it."""

    def __init__(self, sampler: str, parameters: Mapping[str, Any], seed: int, trials: int) -> None:
        spec = _spec(sampler, parameters, seed, trials)
        space = Space(spec.parameters)
        strategy = Strategy(
            make_sampler(spec, space), make_pruner(spec), spec.sampler.name, "none", spec.seed
        )
        memory = RecordingStorage(spec.name, [StudyDirection.MINIMIZE])
        self._optimizer = Optimizer(memory, space, strategy, trials_max=space.size)
        self._optimizer.repetition = repetition(spec, space)
        self._running: deque[int] = deque()

    def ask(self) -> Params | None:
        if self._optimizer.exhausted:
            return None
        proposal = self._optimizer.ask()
        if proposal.sampler_error is not None:
            raise RuntimeError(proposal.sampler_error)
        self._running.append(proposal.number)
        return proposal.params

    def tell(self, value: float) -> None:
        number = self._running.popleft()
        if np.isfinite(value):
            self._optimizer.tell(number, TrialState.COMPLETE, [float(value)])
        else:
            self._optimizer.tell(number, TrialState.FAIL, failure="nan")
        self._optimizer.on_step_end()

    def answer(self) -> Params | None:
        found = recommend(self._optimizer.trials, "minimize")
        return None if found is None else self._optimizer.trial(found.number).params


class _Optuna:
    """A sampler of Optuna's on a plain study."""

    def __init__(self, sampler: BaseSampler, space: Space) -> None:
        self._study = optuna.create_study(sampler=sampler)
        self._space = space
        self._running: deque[optuna.Trial] = deque()

    def ask(self) -> Params:
        trial = self._study.ask()
        self._running.append(trial)
        params: dict[str, Any] = {}
        for name in self._space.parameters:
            if self._space.active(name, params):
                params[name] = suggest(trial, name, self._space.distributions[name])
        return params

    def tell(self, value: float) -> None:
        trial = self._running.popleft()
        if np.isfinite(value):
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def answer(self) -> Params | None:
        finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return self._study.best_trial.params if finished else None


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """Draw one parameter, as an objective does that suggests it."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"{name}: {distribution}")
