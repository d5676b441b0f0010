"""Optuna's private interface, as this version of Optuna has it: fails on an upgrade that changes
it, and names what changed."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

import tunesvc
from tunesvc.search.seeding import reseed
from tunesvc.util import optuna_internals, optuna_keys
from tunesvc.util.optuna_internals import EditableStorage, StudyProxy, TrialProxy

RANGE = FloatDistribution(0.0, 1.0)

EXCEPTIONS = {
    "optuna_internals: _": "it is the adapter",
    "optuna_storage: _get_stale_trial_ids": "an abstract method of `BaseHeartbeat`",
}
"""Reasons why a module may use a private name; uses start with one of these."""


@pytest.fixture
def storage() -> EditableStorage:
    return EditableStorage()


@pytest.fixture
def study(storage: EditableStorage) -> optuna.Study:
    return optuna.create_study(storage=storage)


def complete(x: float) -> FrozenTrial:
    return create_trial(value=x, params={"x": x}, distributions={"x": RANGE})


# --- studies and trials --------------------------------------------------------------------------


def test_a_study_has_a_storage_and_an_id(study: optuna.Study, storage: EditableStorage) -> None:
    assert optuna_internals.storage_of(study) is storage
    found = storage.get_study_id_from_name(study.study_name)
    assert optuna_internals.id_of(study) == found


def test_a_trial_has_an_id_which_can_change(study: optuna.Study, storage: EditableStorage) -> None:
    study.add_trial(complete(0.5))
    trial = study.trials[0]
    found = storage.get_trial_id_from_study_id_trial_number(optuna_internals.id_of(study), 0)
    assert optuna_internals.trial_id_of(trial) == found
    optuna_internals.renumber(trial, 7, 70)
    assert (trial.number, optuna_internals.trial_id_of(trial)) == (7, 70)


def test_a_system_attribute_can_be_set_on_a_frozen_trial(study: optuna.Study) -> None:
    study.ask()
    optuna_internals.set_system_attr(study, study.trials[0], "key", [1])
    assert study.trials[0].system_attrs["key"] == [1]


def test_trials_are_cached_until_the_cache_is_cleared(
    study: optuna.Study,
    storage: EditableStorage,
) -> None:
    cached = optuna_internals.cached_trials(study)
    storage.create_new_trial(optuna_internals.id_of(study))
    assert cached == optuna_internals.cached_trials(study) == []
    optuna_internals.clear_trial_cache(study)
    assert len(optuna_internals.cached_trials(study)) == 1


def test_stop_can_be_called_seen_and_undone(study: optuna.Study) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        study.stop()
    optuna_internals.allow_stop(study)
    assert not optuna_internals.was_stopped(study)
    study.stop()
    assert optuna_internals.was_stopped(study)
    optuna_internals.undo_stop(study)
    assert not optuna_internals.was_stopped(study)


class Completed(StudyProxy):
    """Shows all trials as complete."""

    def shown(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        return [complete(0.5) for _ in trials]


def test_samplers_read_what_a_proxy_shows(study: optuna.Study) -> None:
    study.add_trial(create_trial(state=TrialState.PRUNED))
    proxy = Completed(study)
    assert [trial.state for trial in proxy.get_trials()] == [TrialState.COMPLETE]
    assert proxy.get_trials(states=[TrialState.PRUNED]) == []
    sampler = optuna.samplers.TPESampler(multivariate=True)
    assert sampler.infer_relative_search_space(proxy, study.trials[0]) == {"x": RANGE}


class Fixed(TrialProxy):
    """A trial whose values are fixed."""

    def _value_of(self, name: str, distribution: BaseDistribution) -> Any:
        return {"x": 0.0, "n": 1, "kind": "a"}[name]


def test_every_suggestion_comes_from_the_proxy(study: optuna.Study) -> None:
    trial = Fixed(study, study.ask()._trial_id)
    assert trial.suggest_float("x", 0.0, 1.0) == 0.0
    assert trial.suggest_int("n", 1, 3) == 1
    assert trial.suggest_categorical("kind", ["a", "b"]) == "a"
    assert trial.params == {"x": 0.0, "n": 1, "kind": "a"}
    assert set(trial.distributions) == {"x", "n", "kind"}


# --- names that are stored -----------------------------------------------------------------------


def test_optuna_stores_under_these_names(study: optuna.Study, storage: EditableStorage) -> None:
    study.enqueue_trial({"x": 0.5})
    trial = study.ask({"x": RANGE})
    trial.set_constraint("size", 2.0)
    attrs = study.trials[0].system_attrs
    assert attrs[optuna_keys.FIXED_PARAMS] == {"x": 0.5}
    assert attrs[optuna_keys.CONSTRAINT + "size"] == 2.0
    storage.set_study_system_attr(optuna_internals.id_of(study), optuna_keys.METRIC_NAMES, ["loss"])
    assert study.metric_names == ["loss"]


def test_optunas_tpe_shares_parameters_under_this_name(study: optuna.Study) -> None:
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=1, multivariate=True, constant_liar=True, seed=1
    )
    study.add_trial(complete(0.5))
    study.ask().suggest_float("x", 0.0, 1.0)
    assert any(
        name.startswith(optuna_keys.RELATIVE_PARAMS) for name in study.trials[1].system_attrs
    )


def test_older_versions_constraints_are_still_read() -> None:
    trial = create_trial(value=1.0, system_attrs={optuna_keys.OLD_CONSTRAINTS: [0.5]})
    assert list(trial.constraints.values()) == [0.5]


# --- samplers ------------------------------------------------------------------------------------


def test_hyperband_shows_a_trial_its_own_bracket(study: optuna.Study) -> None:
    study.add_trial(complete(0.5))
    trial = study.trials[0]
    assert optuna_internals.study_of_bracket(study, trial) is study
    study.pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    shown = optuna_internals.study_of_bracket(study, trial)
    assert shown is not study
    assert shown.study_name == study.study_name


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (RANGE, 0.5, 1.5),
        (IntDistribution(1, 3), 2, 4),
    ],
)
def test_a_distribution_holds_its_values(
    distribution: BaseDistribution,
    inside: float,
    outside: float,
) -> None:
    assert optuna_internals.holds(distribution, inside)
    assert not optuna_internals.holds(distribution, outside)


def test_a_choice_that_does_not_exist_has_no_form_in_the_storage() -> None:
    with pytest.raises(ValueError, match="not in"):
        optuna_internals.holds(CategoricalDistribution(["a"]), "b")


class Drawn(optuna.samplers.RandomSampler):
    """A user's sampler with generators of NumPy and of the standard library."""

    def __init__(self) -> None:
        super().__init__()
        self.numpy, self.plain = np.random.default_rng(), random.Random()

    def sample_independent(self, *_: Any) -> float:
        return (self.numpy.random() + self.plain.random()) / 2


@pytest.mark.parametrize(
    "make",
    [
        optuna.samplers.RandomSampler,
        optuna.samplers.TPESampler,
        optuna.samplers.NSGAIISampler,
        lambda: optuna.samplers.PartialFixedSampler({}, optuna.samplers.RandomSampler()),
        Drawn,
    ],
)
def test_the_generators_of_a_sampler_make_it_reproducible(make: object) -> None:
    def drawn() -> list[float]:
        sampler = make()  # type: ignore[operator]
        assert optuna_internals.random_states(sampler)
        reseed(sampler, 3, 5)
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=20)
        return [trial.params["x"] for trial in study.trials]

    assert drawn() == drawn()


# --- several objectives --------------------------------------------------------------------------


def test_fronts_are_ranked_and_measured() -> None:
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert optuna_internals.non_domination_ranks(losses).tolist() == [0, 0, 1]
    assert optuna_internals.non_domination_ranks(losses, 1).tolist()[:2] == [0, 0]
    assert optuna_internals.hypervolume(losses, np.array([2.0, 2.0])) == pytest.approx(3.0)


def test_the_rows_that_dominate_most_are_selected() -> None:
    losses = np.array([[0.0, 1.0], [0.01, 0.99], [1.0, 0.0]])
    found = optuna_internals.spread_subset(losses, np.array([5, 6, 7]), 2, np.array([2.0, 2.0]))
    assert 7 in found
    assert len(found) == 2


# --- storage in memory ---------------------------------------------------------------------------


def test_trials_are_loaded_and_removed(study: optuna.Study, storage: EditableStorage) -> None:
    study_id = optuna_internals.id_of(study)
    assert [storage.load_trial(study_id, complete(x)) for x in (0.5, 0.1, 0.9)] == [0, 1, 2]
    assert storage.count_trials(study_id) == len(study.trials) == 3
    assert study.best_trial.number == 1
    storage.remove_last(study_id, 1)
    assert storage.count_trials(study_id) == len(study.trials) == 2
    assert study.ask().number == 2


def test_distributions_may_change(study: optuna.Study, storage: EditableStorage) -> None:
    study.add_trial(complete(0.5))
    kinds = CategoricalDistribution(["a", "b"]), CategoricalDistribution(["a", "b", "c"])
    study.ask({"kind": kinds[0]})
    with pytest.raises(ValueError, match="CategoricalDistribution"):
        study.ask({"kind": kinds[1]})
    storage.replace_distributions(optuna_internals.id_of(study), {"kind": kinds[1]})
    study.ask({"kind": kinds[1]})


def test_a_masked_trial_is_listed_differently_and_changes_as_itself(
    study: optuna.Study,
    storage: EditableStorage,
) -> None:
    number = study.ask().number
    shown = create_trial(state=TrialState.PRUNED)
    storage.mask(number, shown)
    assert study.trials[number].state == TrialState.PRUNED
    storage.set_trial_user_attr(number, "key", 1)
    assert storage.get_trial(number).user_attrs == {"key": 1}
    assert set(storage.masked) == {number}
    assert storage.unmask(number)
    assert not storage.unmask(number)
    assert study.trials[number].state == TrialState.RUNNING
    assert study.trials[number].user_attrs == {"key": 1}


def test_a_study_in_memory_is_not_announced() -> None:
    announcing = logging.getLogger(optuna.storages.InMemoryStorage.__module__)
    assert announcing.level == logging.WARNING


# --- nothing else uses it ------------------------------------------------------------------------

PUBLIC = (
    optuna.Study,
    optuna.Trial,
    FrozenTrial,
    optuna.storages.InMemoryStorage,
    optuna.distributions.FloatDistribution,
    optuna.distributions.IntDistribution,
    optuna.distributions.CategoricalDistribution,
    optuna.samplers.RandomSampler,
    optuna.pruners.HyperbandPruner,
)
"""Classes whose private names are easily used from outside."""


@functools.cache
def private_names(cls: type) -> frozenset[str]:
    """Return the private methods and attributes that Optuna's classes in its ancestry have."""
    names = set()
    for base in cls.__mro__:
        if base.__module__.startswith("optuna."):
            names |= vars(base).keys() | set(re.findall(r"self\.(\w+)", inspect.getsource(base)))
    return frozenset(name for name in names if re.match("_[^_]", name))


def uses(file: Path) -> Iterator[str]:
    """Yield the private names of Optuna that a module uses."""
    text = file.read_text()
    tree = ast.parse(text)
    yield from re.findall(r"optuna(?:\.\w+)*\.(_[a-z]\w*)", text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
    outside = frozenset().union(*map(private_names, PUBLIC))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in outside and not is_own(node.value):
            yield node.attr
    module = ".".join(file.relative_to(Path(tunesvc.__file__).parents[1]).with_suffix("").parts)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if "integrations" not in file.parts or str(error.name).startswith("tunesvc"):
            raise
        return  # its framework is not installed here
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and hasattr(found, node.name):
            inherited = private_names(getattr(found, node.name))
            for part in ast.walk(node):
                if isinstance(part, ast.Attribute) and is_own(part.value):
                    yield from inherited & {part.attr}
                elif isinstance(part, ast.FunctionDef):
                    yield from inherited & {part.name}


def is_own(value: ast.expr) -> bool:
    """Return True for `self`, `cls` and `super()`."""
    return ast.unparse(value) in {"self", "cls", "super()"}


def test_no_other_module_uses_optunas_private_interface() -> None:
    package = Path(tunesvc.__file__).parent
    files = [file for file in sorted(package.rglob("*.py")) if "optuna" in file.read_text()]
    found = {f"{file.stem}: {name}" for file in files for name in uses(file)}
    allowed = {use for use in found if use.startswith(tuple(EXCEPTIONS))}
    assert found - allowed == set()
    unused = {prefix for prefix in EXCEPTIONS if not any(use.startswith(prefix) for use in found)}
    assert unused == set()
