"""Finite spaces: everything is tried before anything is repeated, whatever happens to the trials."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tests.support.specs import make_spec
from tunesvc.search.exhaustion import Repetition, repetition, trials_max
from tunesvc.search.explanations import REPEATS, Reason
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.proposals import configuration
from tunesvc.search.registry.pruner_registry import make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.space.search_space import Space
from tunesvc.spec import Evaluation, StudySpec

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACES: Mapping[str, Mapping[str, Any]] = {
    "choices": {"c": {"type": "categorical", "values": list("abcdefg")}},
    "mixed": {
        "c": {"type": "categorical", "values": [True, False, "x"]},
        "n": {"type": "int", "min": 1, "max": 3, "log": True},
        "s": {"type": "float", "min": 0.1, "max": 0.3, "step": 0.1},
    },
    "conditional": {
        "m": {"type": "categorical", "values": ["a", "b"]},
        "d": {"type": "int", "min": 1, "max": 5, "when": {"m": "a"}},
        "o": {"type": "categorical", "values": ["s", "t"], "when": {"m": "b"}},
        "mo": {"type": "int", "min": 0, "max": 3, "when": {"o": "s"}},
    },
}
SIZES = {"choices": 7, "mixed": 27, "conditional": 10}


def opened(
    spec: StudySpec,
    trials: Sequence[FrozenTrial] = (),
    attrs: Mapping[str, Any] | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> Optimizer:
    """An optimizer as a run opens it, with the trials of an earlier run."""
    space = Space(spec.parameters)
    memory = RecordingStorage(spec.name, [StudyDirection.MINIMIZE], trials)
    memory.restore_attrs({}, dict(attrs or {}))
    sampler = sampler or make_sampler(spec, space)
    strategy = Strategy(sampler, make_pruner(spec), spec.sampler.name, "none", 1)
    optimizer = Optimizer(memory, space, strategy, trials_max=trials_max(spec, space))
    optimizer.repetition = repetition(spec, space)
    return optimizer


def restarted(spec: StudySpec, optimizer: Optimizer) -> Optimizer:
    attrs = optimizer.memory.get_study_system_attrs(optimizer.memory.study_id)
    return opened(spec, [copy.deepcopy(trial) for trial in optimizer.trials], dict(attrs))


ENDS = [(TrialState.COMPLETE, None)] * 4 + [
    (TrialState.FAIL, "nan"),
    (TrialState.FAIL, "error"),
    (TrialState.PRUNED, None),
]


def played(spec: StudySpec, parallel: int, restarts: bool) -> list[int]:
    """Run a study to its end, some trials failing or pruned; return all configurations in order."""
    optimizer, rng = opened(spec), np.random.default_rng(spec.budget.trials)
    optimizer.cancel(optimizer.enqueue({}))
    running: list[int] = []
    asked = []
    while True:
        left = (spec.budget.trials or 0) - len(asked)
        while left > 0 and len(running) < parallel and not optimizer.exhausted:
            proposal = optimizer.ask()
            running.append(proposal.number)
            asked.append(configuration(proposal.params))
            left -= 1
            optimizer.prefetch("now", 2)
        if not running:
            return asked
        number = running.pop(rng.integers(len(running)))
        state, failure = ENDS[rng.integers(len(ENDS))]
        values = [float(rng.normal())] if state == TrialState.COMPLETE else None
        optimizer.tell(number, state, values, failure=failure)
        if restarts and rng.random() < 0.3:
            optimizer = restarted(spec, optimizer)


FAST = [("random", "mixed"), ("tpe", "conditional"), ("auto", "conditional"), ("gp", "choices")]
SLOW = set(itertools.product(["random", "tpe", "nsga2", "qmc", "auto", "gp"], SPACES)) - set(FAST)


@pytest.mark.parametrize(
    ("sampler", "space"),
    [*FAST, *(pytest.param(*one, marks=pytest.mark.slow) for one in sorted(SLOW))],
)
def test_everything_is_tried_before_anything_is_repeated(sampler: str, space: str) -> None:
    size = SIZES[space]
    spec = make_spec(
        sampler={"name": sampler, "seed": 1}, parameters=SPACES[space], budget={"trials": size + 5}
    )
    for parallel, restarts in ((1, False), (3, True)):
        asked = played(spec, parallel, restarts)
        assert len(asked) == len(set(asked)) == size


@pytest.mark.parametrize("sampler", ["random", "tpe", "auto"])
def test_a_budget_that_cannot_try_them_all_repeats_none_either(sampler: str) -> None:
    for space, size in SIZES.items():
        budget = min(9, size - 1)
        name = {"name": sampler, "seed": 1}
        spec = make_spec(sampler=name, parameters=SPACES[space], budget={"trials": budget})
        asked = played(spec, 2, True)
        assert len(asked) == len(set(asked)) == budget


def test_a_cancelled_trial_is_no_configuration_after_a_restart() -> None:
    """It has no parameters, and counted as one more that had been tried."""
    spec = make_spec(parameters=SPACES["choices"], budget={"trials": 20})
    optimizer = opened(spec)
    optimizer.cancel(optimizer.enqueue({}))
    for _ in range(6):
        optimizer.tell(optimizer.ask().number, TrialState.COMPLETE, [1.0])
    assert restarted(spec, optimizer).exhausted == optimizer.exhausted == ""


class Repeating(optuna.samplers.RandomSampler):
    """Proposes one configuration again and again, and means it or not."""

    is_meant = True

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return "c"

    def explain(self, number: int) -> Reason:
        return Reason("once more", {REPEATS: 0} if self.is_meant else {})


def test_a_repeat_that_is_meant_is_made_if_the_budget_cannot_try_them_all() -> None:
    few, all_of_them = ({"trials": trials} for trials in (5, 7))
    for budget, is_meant, repeats in ((few, True, 4), (few, False, 0), (all_of_them, True, 0)):
        spec = make_spec(parameters=SPACES["choices"], budget=budget)
        sampler = Repeating()
        sampler.is_meant = is_meant
        optimizer = opened(spec, sampler=sampler)
        asked = [optimizer.ask().params["c"] for _ in range(5)]
        assert asked.count("c") - 1 == repeats


def test_noise_that_is_declared_allows_repeats() -> None:
    spec = make_spec(parameters=SPACES["choices"], budget={"trials": 20})
    space = Space(spec.parameters)
    assert repetition(spec, space) is Repetition.NEVER
    assert (
        repetition(
            spec.model_copy(update={"evaluation": Evaluation(repeats=3, per_trial=1)}), space
        )
        is Repetition.FREE
    )
