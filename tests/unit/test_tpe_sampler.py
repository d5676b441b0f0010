"""Our TPE:

Optuna's proposals while the history is short, a bounded model when it is long, and its reasons.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc import TPESampler
from tunesvc.search import explanations
from tunesvc.search.explanations import Explainable
from tunesvc.search.samplers.tpe import tpe_sampler
from tunesvc.search.samplers.tpe.parzen import Parzen
from tunesvc.search.study_storage import FAILURE, RecordingStorage

SamplerFactory = Callable[[], BaseSampler]
Objective = Callable[[optuna.Trial], Any]
SPACE = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}


@pytest.mark.filterwarnings("ignore::UserWarning:optuna")
class TestOptunasSuites(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return partial(TPESampler, n_startup_trials=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:optuna")
class TestOptunasSuitesWithoutGroups(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return partial(TPESampler, n_startup_trials=0, group=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:optuna")
class TestOptunasSuitesOneByOne(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return partial(TPESampler, n_startup_trials=0, multivariate=False)


def flat(trial: optuna.Trial) -> float:
    x, lr = trial.suggest_float("x", -3, 3), trial.suggest_float("lr", 1e-5, 1, log=True)
    layers, kind = (
        trial.suggest_int("layers", 1, 8),
        trial.suggest_categorical("kind", ["a", "b", "c"]),
    )
    return x**2 + (np.log10(lr) + 3) ** 2 + layers + (kind == "a")


def conditional(trial: optuna.Trial) -> float:
    if trial.suggest_categorical("model", ["net", "tree"]) == "tree":
        return float(trial.suggest_int("depth", 1, 9))
    return trial.suggest_float("lr", 0, 1) + trial.suggest_float("momentum", 0, 1)


def pruned(trial: optuna.Trial) -> float:
    loss = flat(trial)
    for step in range(1 + trial.number % 4):
        trial.report(loss + 1 / (1 + step), step)
    if trial.number % 3 == 0:
        raise optuna.TrialPruned
    return loss


def constrained(trial: optuna.Trial) -> float:
    loss = flat(trial)
    trial.set_constraint("memory", trial.params["layers"] - 4.0)
    return loss


def two(trial: optuna.Trial) -> tuple[float, float]:
    loss = flat(trial)
    return loss, -trial.params["layers"]


def failing(trial: optuna.Trial) -> float:
    return float("nan") if trial.number % 4 == 0 else flat(trial)


def point(trial: FrozenTrial) -> dict[str, float]:
    return {
        name: kind.to_internal_repr(trial.params[name])
        for name, kind in trial.distributions.items()
    }


@pytest.mark.filterwarnings("ignore::UserWarning:optuna")
@pytest.mark.parametrize("objective", [flat, conditional, pruned, constrained, two, failing])
@pytest.mark.parametrize("options", [{}, {"group": False}, {"constant_liar": False}])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_short_history_gives_the_proposals_of_optuna(
    objective: Objective, options: dict[str, bool], seed: int
) -> None:
    directions = ["minimize", "maximize"] if objective is two else ["minimize"]
    same = {"multivariate": True, "group": True, "constant_liar": True, **options, "seed": seed}
    theirs = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(**same))  # type: ignore[arg-type]
    ours = optuna.create_study(directions=directions, sampler=TPESampler(**same))  # type: ignore[arg-type]
    for study in (theirs, ours):
        study.optimize(objective, n_trials=60)
    for one, other in zip(ours.trials, theirs.trials, strict=True):
        assert point(one) == pytest.approx(point(other), rel=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_short_history_gives_the_proposals_of_optuna_one_parameter_at_a_time(seed: int) -> None:
    """Numbers only: alone, two choices that did equally well are a tie, which rounding decides."""
    theirs = optuna.create_study(sampler=optuna.samplers.TPESampler(multivariate=False, seed=seed))
    ours = optuna.create_study(sampler=TPESampler(multivariate=False, group=False, seed=seed))
    for study in (theirs, ours):
        study.optimize(
            lambda t: t.suggest_float("x", -3, 3) ** 2 + t.suggest_float("lr", 1e-5, 1, log=True),
            n_trials=60,
        )
    for one, other in zip(ours.trials, theirs.trials, strict=True):
        assert point(one) == pytest.approx(point(other), rel=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_parallel_trials_get_the_proposals_of_optuna(seed: int) -> None:
    theirs = optuna.create_study(
        sampler=optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    )
    ours = optuna.create_study(sampler=TPESampler(seed=seed))
    order = np.random.default_rng(seed)
    running: list[int] = []
    for _ in range(60):
        asked = [study.ask(SPACE) for study in (theirs, ours)]
        assert asked[1].params == pytest.approx(asked[0].params, rel=1e-6)
        running.append(asked[0].number)
        if len(running) > 6:
            number = running.pop(int(order.integers(len(running))))  # they finish out of order
            for study in (theirs, ours):
                params = study.trials[number].params
                study.tell(number, params["x"] + params["y"])
    assert ours.sampler.explain(59).details["running"] == 6  # type: ignore[attr-defined]


def test_hyperbands_brackets_give_the_proposals_of_optuna() -> None:
    def stopped(trial: optuna.Trial) -> float:
        for step in range(1, 5):
            trial.report(flat(trial) / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return flat(trial)

    make_pruner = partial(optuna.pruners.HyperbandPruner, max_resource=4)
    optunas = optuna.samplers.TPESampler(multivariate=True, group=True, seed=1)
    theirs = optuna.create_study(study_name="same", sampler=optunas, pruner=make_pruner())
    ours = optuna.create_study(study_name="same", sampler=TPESampler(seed=1), pruner=make_pruner())
    for study in (theirs, ours):
        study.optimize(stopped, n_trials=50)
    assert [trial.state for trial in ours.trials] == [trial.state for trial in theirs.trials]
    for one, other in zip(ours.trials, theirs.trials, strict=True):
        assert point(one) == pytest.approx(point(other), rel=1e-6)


def test_what_a_running_trial_will_get_is_known_to_a_sampler_in_another_process() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = filled(
        optuna.create_study(storage=storage, study_name="shared", sampler=TPESampler(seed=1)), 30
    )
    study.ask(SPACE)
    drawn_only = storage.create_new_trial(study._study_id)
    frozen = storage.get_trial(drawn_only)
    far = study.sampler.sample_relative(study, frozen, dict(SPACE))
    other = optuna.load_study(study_name="shared", storage=storage, sampler=TPESampler(seed=2))
    asked = other.ask(SPACE)
    assert storage.get_trial(drawn_only).params == {}
    assert far.keys() == SPACE.keys()
    assert other.sampler.explain(asked.number).details["running"] == 2  # type: ignore[attr-defined]
    assert json.loads(storage.get_trial(drawn_only).system_attrs["tpe:relative_params:0"]) == far


def filled(study: optuna.Study, trials: int) -> optuna.Study:
    rng = np.random.default_rng(0)
    for _ in range(trials):
        x, y = rng.random(2)
        study.add_trial(
            create_trial(
                params={"x": x, "y": y}, distributions=SPACE, values=[x + y] * len(study.directions)
            )
        )
    return study


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_long_history_is_modelled_by_a_bounded_number_of_kernels(
    objectives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels: list[int] = []

    class Counted(Parzen):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            kernels.append(self.kernels)

    monkeypatch.setattr(tpe_sampler, "Parzen", Counted)
    study = optuna.create_study(
        directions=["minimize"] * objectives, sampler=TPESampler(seed=1, history=100)
    )
    asked = []
    for _ in range(4):
        filled(study, 150)
        study.ask(SPACE)
        asked.append(sum(kernels))
        kernels.clear()
    priors = 2
    assert asked == [100 + priors + running for running in range(4)]


def test_with_a_long_history_parallel_proposals_keep_away_from_each_other() -> None:
    """Asks share the kernels of finished trials and add those of running ones."""
    apart = {}
    for is_liar in (True, False):
        study = filled(
            optuna.create_study(sampler=TPESampler(seed=1, constant_liar=is_liar)), 1_000
        )
        asked = np.array([list(study.ask(SPACE).params.values()) for _ in range(40)])
        between = np.abs(asked[:, None] - asked[None]).max(axis=2) + np.eye(40)
        apart[is_liar] = np.median(between.min(axis=1))
    assert apart[True] > 1.2 * apart[False]


def test_proposals_from_a_long_history_are_those_of_a_sampler_that_kept_nothing() -> None:
    studies = [filled(optuna.create_study(sampler=TPESampler(seed=1)), 800) for _ in range(2)]
    for number in range(30):
        for study in studies:
            trial = study.ask(SPACE)
            if number % 3 == 0:
                study.tell(trial, sum(trial.params.values()))
        studies[0].sampler = pickle.loads(pickle.dumps(studies[0].sampler))  # noqa: S301
    assert [trial.params for trial in studies[0].trials] == [
        trial.params for trial in studies[1].trials
    ]


def test_more_running_trials_than_the_history_holds_are_not_all_modelled() -> None:
    study = filled(optuna.create_study(sampler=TPESampler(seed=1, history=100)), 20)
    for _ in range(130):
        trial = study.ask(SPACE)
    assert study.sampler.explain(trial.number).details["running"] <= 100  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]), max_size=40
    ),
    st.integers(0, 99),
)
def test_a_sampler_that_was_pickled_continues_as_the_one_that_was_not(
    states: list[TrialState], seed: int
) -> None:
    studies = [
        optuna.create_study(sampler=TPESampler(seed=seed, n_startup_trials=3)) for _ in range(2)
    ]
    for state in states:
        for study in studies:
            trial = study.ask(SPACE)
            study.tell(trial, trial.params["x"] if state == TrialState.COMPLETE else None, state)
        studies[0].sampler = pickle.loads(pickle.dumps(studies[0].sampler))  # noqa: S301
    assert [trial.params for trial in studies[0].trials] == [
        trial.params for trial in studies[1].trials
    ]


def test_one_sampler_serves_several_studies() -> None:
    sampler = TPESampler(seed=1)
    one, other = (optuna.create_study(sampler=sampler) for _ in range(2))
    for _ in range(30):
        one.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        other.optimize(lambda trial: trial.suggest_int("n", 5, 9), n_trials=1)
    assert one.trials[-1].params.keys() == {"x"}
    assert other.trials[-1].params.keys() == {"n"}
    assert one.best_value < 0.1


def test_a_sampler_does_not_keep_a_study_alive() -> None:
    sampler = TPESampler(seed=1)
    optuna.create_study(sampler=sampler).optimize(flat, n_trials=12)
    assert len(sampler._studies) == 0


def test_trials_that_failed_because_of_their_parameters_are_avoided() -> None:
    memory = RecordingStorage("oom", [StudyDirection.MINIMIZE])
    study = optuna.load_study(study_name="oom", storage=memory, sampler=TPESampler(seed=1))
    for _ in range(80):
        trial = study.ask(SPACE)
        if trial.params["x"] < 0.5:  # where the loss would be lowest, memory ends
            memory.set_trial_system_attr(trial.number, FAILURE, "gpu_oom")
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, trial.params["x"] + trial.params["y"])
    late = [trial.state for trial in study.trials[50:]]
    assert late.count(TrialState.FAIL) < 0.35 * len(late)


def test_it_asks_near_an_optimum_around_which_all_trials_were_pruned() -> None:
    study = optuna.create_study(sampler=TPESampler(seed=1, constant_liar=False))
    rng = np.random.default_rng(1)
    for number in range(60):
        x, y = rng.random(2) if number % 2 else 0.8 + 0.05 * rng.random(2)
        curve = {0: abs(x - 0.825) + abs(y - 0.825)}
        pruned_one = {"state": TrialState.PRUNED, "intermediate_values": curve}
        study.add_trial(create_trial(params={"x": x, "y": y}, distributions=SPACE, **pruned_one))
    asked = [study.ask(SPACE).params for _ in range(10)]
    assert (
        np.median([abs(params["x"] - 0.825) + abs(params["y"] - 0.825) for params in asked]) < 0.25
    )  # at random: 0.66


def test_reasons_name_phase_and_sets_and_keep_the_neighbours() -> None:
    sampler = TPESampler(seed=5)
    assert isinstance(sampler, Explainable)
    study = optuna.create_study(sampler=sampler)
    study.optimize(flat, n_trials=40)
    first, last = sampler.explain(0), sampler.explain(39)
    assert first is not None
    assert last is not None
    assert first.details["phase"] == "start"
    assert last.details["phase"] in ("explore", "exploit")
    assert (last.details["good"], last.details["bad"], last.details["finished"]) == (4, 35, 39)
    assert (last.details["sampler"], last.details["version"]) == ("tpe", tpe_sampler.VERSION)
    distances = [near["distance"] for near in last.details["nearest"]]
    assert distances == sorted(distances)
    assert all(
        study.trials[near["number"]].values == near["values"] for near in last.details["nearest"]
    )
    assert "the 4 best trials of 39; among those its values are" in last.text
    json.dumps([first.details, last.details], allow_nan=False)


def test_reasons_fit_into_json_whatever_the_values_and_the_ranges() -> None:
    study = optuna.create_study(sampler=TPESampler(seed=1))
    for number in range(20):
        params = {"x": number / 20, "y": 0.5}
        study.add_trial(
            create_trial(
                params=params, distributions=SPACE, value=float("inf") if number % 2 else 0.0
            )
        )
    trial = study.ask(SPACE)
    reason = study.sampler.explain(trial.number)  # type: ignore[attr-defined]
    json.dumps(reason.details, allow_nan=False)


def test_a_proposal_beside_the_good_trials_exploits_and_one_from_the_prior_explores() -> None:
    study = optuna.create_study(sampler=TPESampler(seed=1))
    rng = np.random.default_rng(0)
    for _ in range(300):
        x = float(rng.normal(0.3, 0.005))
        study.add_trial(
            create_trial(params={"x": x}, distributions={"x": SPACE["x"]}, value=abs(x - 0.3))
        )
    phases = {}
    for _ in range(20):
        trial = study.ask({"x": SPACE["x"]})
        phases[trial.params["x"]] = study.sampler.explain(trial.number).details["phase"]  # type: ignore[attr-defined]
    assert {phase for x, phase in phases.items() if abs(x - 0.3) > 0.2} == {"explore"}
    assert {phase for x, phase in phases.items() if abs(x - 0.3) < 0.003} <= {"exploit"}


def test_reasons_of_the_long_past_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "RECENT_MAX", 5)
    sampler = TPESampler(seed=1)
    optuna.create_study(sampler=sampler).optimize(flat, n_trials=12)
    assert [number for number in range(13) if sampler.explain(number)] == [7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    "options", [{"n_startup_trials": -1}, {"n_ei_candidates": 0}, {"history": 99}]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TPESampler(**options)  # type: ignore[arg-type]
