from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from scipy.special import ndtr

from tests.support.specs import make_spec
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.samplers.gp.acquisitions.acquisition import (
    Acquisition,
    Incumbents,
    _log_improvement,
)
from tunesvc.search.samplers.gp.acquisitions.hypervolume import volume
from tunesvc.search.samplers.gp.gp_sampler import GPSampler
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, Posterior
from tunesvc.search.samplers.gp.model.observations import Observations
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.scale import ValueScale
from tunesvc.search.warm_start import SourceStudy, WarmStart
from tunesvc.space.search_space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

Objective = Callable[[optuna.Trial], float]
UNIT = FloatDistribution(0.0, 1.0)


def run(objective: Objective, trials: int, seed: int = 0, **options: object) -> optuna.Study:
    study = optuna.create_study(sampler=GPSampler(seed=seed), **options)  # type: ignore[arg-type]
    study.optimize(objective, n_trials=trials)
    return study


def bowl(trial: optuna.Trial) -> float:
    return (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + (trial.suggest_float("y", 0, 1) - 0.7) ** 2


def test_it_finds_the_bottom_of_a_bowl() -> None:
    assert run(bowl, 30).best_value < 1e-4


def test_maximising_is_minimising_the_negative() -> None:
    down, up = run(bowl, 18), run(lambda trial: -bowl(trial), 18, direction="maximize")
    assert [trial.params for trial in down.trials] == [trial.params for trial in up.trials]


def test_choices_and_conditional_parameters() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["poor", "good", "bad"]) == "good":
            return abs(trial.suggest_float("x", 0, 1) - 0.2)
        return 1.0 + trial.suggest_int("n", 0, 9)

    assert run(objective, 35).best_value < 0.02


def test_proposals_depend_on_seed_number_and_history_alone() -> None:
    """So a coordinator that is started again, or a replay, proposes the same."""
    first = run(bowl, 15, seed=4)
    again = optuna.create_study(sampler=GPSampler(seed=4))
    again.add_trials(first.trials[:14])
    asked = again.ask()
    assert {name: asked.suggest_float(name, 0, 1) for name in ("x", "y")} == first.trials[14].params
    assert run(bowl, 15, seed=5).trials[14].params != first.trials[14].params


def test_parallel_proposals_differ() -> None:
    study = run(bowl, 15)
    asked = [study.ask({"x": UNIT, "y": UNIT}) for _ in range(6)]
    places = np.array([[trial.params["x"], trial.params["y"]] for trial in asked])
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(6)
    assert apart.min() > 5e-5  # the bottom is known to a thousandth by then


def test_after_pruned_trials_around_the_optimum_it_asks_there() -> None:
    """Optuna's GPSampler never looks at pruned trials, and goes on searching elsewhere."""
    study = optuna.create_study(sampler=GPSampler(seed=0))
    rng = np.random.default_rng(0)

    def add(x: float, state: TrialState) -> None:
        curve = {
            step: (x - 0.8) ** 2 + 1.0 / (step + 1)
            for step in range(10 if state == TrialState.COMPLETE else 5)
        }
        value = curve[9] if state == TrialState.COMPLETE else None
        trial = create_trial(
            state=state,
            params={"x": x},
            distributions={"x": UNIT},
            value=value,
            intermediate_values=curve,
        )
        study.add_trial(trial)

    for x in rng.uniform(0.0, 0.5, 10):
        add(x, TrialState.COMPLETE)
    for x in rng.normal(0.8, 0.03, 30).clip(0, 1):
        add(x, TrialState.PRUNED)
    first = study.ask({"x": UNIT}).params["x"]
    assert abs(first - 0.8) < 0.05
    beside = [study.ask({"x": UNIT}).params["x"] for _ in range(3)]
    assert min(beside) > 0.6, beside  # and where nothing is known yet, up to 1


def test_infeasible_regions_are_left() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("memory", x - 0.5)
        return -x

    study = run(objective, 40)
    later = [trial.params["x"] for trial in study.trials[20:]]
    assert np.mean([x > 0.5 for x in later]) <= 0.5  # the best lies on the border
    assert max(x for x in later if x <= 0.5) > 0.47


def two_losses(trial: optuna.Trial) -> tuple[float, float]:
    """ZDT1: the front is at y = z = 0, a corner of the space."""
    x, y, z = (trial.suggest_float(name, 0, 1) for name in "xyz")
    g = 1 + 4.5 * (y + z)
    return x, g * (1 - np.sqrt(x / g))


def test_of_two_objectives_the_whole_front_is_found() -> None:
    study = optuna.create_study(sampler=GPSampler(seed=0), directions=["minimize"] * 2)
    study.optimize(two_losses, n_trials=30)
    found = np.array([trial.values for trial in study.best_trials])
    assert 1.21 - 1 / 3 - volume(found, np.array([1.1, 1.1])) < 0.06


def test_maximising_an_objective_is_minimising_its_negative() -> None:
    def turned(trial: optuna.Trial) -> tuple[float, float]:
        first, second = two_losses(trial)
        return first, -second

    studies = []
    for direction, objective in (("minimize", two_losses), ("maximize", turned)):
        study = optuna.create_study(sampler=GPSampler(seed=0), directions=["minimize", direction])
        study.optimize(objective, n_trials=13)
        studies.append([trial.params for trial in study.trials])
    assert studies[0] == studies[1]


def test_a_penalty_in_all_objectives_does_not_hide_the_front() -> None:
    def penalised(trial: optuna.Trial) -> tuple[float, float]:
        losses = two_losses(trial)
        return (1e6, 1e6) if trial.params["z"] > 0.6 else losses

    study = optuna.create_study(sampler=GPSampler(seed=0), directions=["minimize"] * 2)
    study.optimize(penalised, n_trials=30)
    found = np.array([trial.values for trial in study.best_trials])
    assert 1.21 - 1 / 3 - volume(found, np.array([1.1, 1.1])) < 0.1


def test_parallel_proposals_for_several_objectives_differ() -> None:
    study = optuna.create_study(sampler=GPSampler(seed=0), directions=["minimize"] * 2)
    study.optimize(two_losses, n_trials=20)
    asked = [study.ask(dict.fromkeys("xyz", UNIT)).params["x"] for _ in range(5)]
    assert np.diff(sorted(asked)).min() > 0.005
    assert isinstance(study.sampler, GPSampler)
    reason = study.sampler.explain(24)
    assert reason is not None
    assert reason.text.endswith(" are expected")
    assert len(reason.details["means"]) == 2


@pytest.mark.parametrize("value", [float("inf"), -1e300, 0.0])
def test_strange_values_do_no_harm(value: float) -> None:
    def objective(trial: optuna.Trial) -> float:
        return value if trial.number % 3 else bowl(trial)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(run(objective, 14).trials) == 14


def test_reasons() -> None:
    study = run(bowl, 20)
    sampler = study.sampler
    assert isinstance(sampler, GPSampler)
    start, late = sampler.explain(3), sampler.explain(19)
    assert start is not None
    assert late is not None
    assert start.details["phase"] == "start"
    assert late.details["phase"] in ("explore", "exploit")
    assert late.details["deviation"] > 0
    assert late.details["nearest"][0]["number"] < 19
    assert abs(late.details["mean"] - study.trials[19].values[0]) < 0.5
    assert sampler.explain(99) is None
    json.dumps([start.details, late.details])


def test_a_long_history_is_thinned_to_the_best_the_newest_and_an_even_rest() -> None:
    values = np.random.default_rng(0).permutation(1000.0 * np.ones(1000).cumsum())
    zeros = np.zeros(1000)
    numbers = np.arange(1000)
    scale = ValueScale(1.0, False, 0.0, 1.0)
    seen = Observations(
        numbers, zeros[:, None], values, values, zeros, numbers, zeros == 0, 1.0, 0.0, scale
    ).thinned(300)
    assert len(seen) == 300
    assert set(np.sort(values)[:100]) <= set(seen.values)
    assert set(range(950, 1000)) <= set(seen.numbers)
    assert np.isclose(
        np.median(seen.values[seen.values > np.sort(values)[100]]), np.median(values), rtol=0.2
    )


@pytest.mark.parametrize("z", [-40.0, -6.0, -5.001, -4.999, -1.0, 0.0, 3.0])
def test_the_logarithm_of_the_expected_improvement(z: float) -> None:
    value = float(_log_improvement(np.array([z]))[0])
    if z > -6:
        exact = np.log(z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))
        assert value == pytest.approx(exact, abs=0.15 if z < -5 else 1e-6)
    assert np.isfinite(value)


def test_a_point_is_measured_again_only_where_there_is_noise() -> None:
    points, values = np.linspace(0, 1, 9)[:, None], (np.linspace(0, 1, 9) - 0.4) ** 2
    best = points[[int(np.argmin(values))]]

    def gain_of_repeating(noise: float) -> float:
        known = Hyperparameters(np.array([4.0]), signal=1.0, own=1e-4, noise=noise)
        posterior = Posterior(known, np.zeros(1), points, values, np.zeros(9))
        means = posterior.mean(points)
        incumbents = Incumbents.of(points, means)
        acquisition = Acquisition(posterior, incumbents, seed=99, tried=points, failed=points[:0])
        elsewhere = acquisition.log_value(np.linspace(0, 1, 101)[:, None]).max()
        return float(acquisition.log_value(best)[0] - elsewhere)

    assert gain_of_repeating(1e-7) == -np.inf
    assert gain_of_repeating(0.3) > -1


def test_trials_that_failed_because_of_their_parameters_are_learned_from() -> None:
    """As the optimizer tells them: out of GPU memory above x = 0.5, where values would be best."""
    space = Space(make_spec(parameters={"x": {"type": "float", "min": 0.0, "max": 1.0}}).parameters)
    memory = RecordingStorage("memory", [optuna.study.StudyDirection.MINIMIZE])
    sampler = GPSampler(seed=1, search_space=space.distributions)
    pruner = optuna.pruners.NopPruner()
    optimizer = Optimizer(memory, space, Strategy(sampler, pruner, "gp", "none", 1))
    xs = []
    for _ in range(30):
        proposal = optimizer.ask()
        x = float(proposal.params["x"])  # type: ignore[arg-type]
        xs.append(x)
        if x > 0.5:
            optimizer.tell(proposal.number, TrialState.FAIL, failure="gpu_oom")
        else:
            optimizer.tell(proposal.number, TrialState.COMPLETE, [-x])
    assert np.mean([x > 0.5 for x in xs[15:]]) <= 0.7  # the best lies on the border
    assert max(x for x in xs if x <= 0.5) > 0.45


def test_what_a_seed_does_to_all_trials_alike_does_not_mislead() -> None:
    """A seed shifts every value ten times as far as the best is from what lies beside it; noise
    like that is fatal."""
    does = np.random.default_rng(1).normal(0.0, 1.0, 5)

    def found(shared: int | None) -> list[float]:
        sampler = GPSampler(seed=0, shared_blocks=shared)
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: bowl(trial) + does[trial.number % 5], n_trials=40)
        return [bowl(optuna.trial.FixedTrial(trial.params)) for trial in study.trials[30:]]

    assert np.median(found(5)) < 0.01
    assert np.median(found(5)) < 0.2 * np.median(found(None))


def test_a_trial_is_repeated_with_a_seed_that_it_did_not_have() -> None:
    rng = np.random.default_rng(0)
    shifts, own = rng.normal(0.0, 0.3, 4), rng.normal(0.0, 0.3, (3, 4))
    study = optuna.create_study(sampler=GPSampler(seed=0, shared_blocks=4))

    def objective(trial: optuna.Trial) -> float:
        x, seed = trial.suggest_int("x", 0, 2), trial.number % 4
        return abs(x - 1) * 0.2 + shifts[seed] + own[x, seed]

    study.optimize(objective, n_trials=20)
    assert (
        len({(trial.params["x"], trial.number % 4) for trial in study.trials}) >= 11
    )  # of twelve that there are
    assert isinstance(study.sampler, GPSampler)
    repeated = study.sampler.explain(19)
    assert repeated is not None
    assert "again with fold or seed 3 of 4, to tell its value from noise" in repeated.text


def test_running_trials_are_expected_to_come_out_as_their_seed_does() -> None:
    """Else each of them would look like a result that contradicts what is known of its seed."""
    study = optuna.create_study(sampler=GPSampler(seed=0, shared_blocks=2))
    study.optimize(lambda trial: bowl(trial) + (5.0 if trial.number % 2 else 0.0), n_trials=24)
    alone = study.ask({"x": UNIT, "y": UNIT}).params
    beside = [study.ask({"x": UNIT, "y": UNIT}).params for _ in range(5)]
    assert all(bowl(optuna.trial.FixedTrial(params)) < 0.05 for params in (alone, *beside))


@pytest.mark.parametrize(("optimum", "size"), [(0.3, 40), (0.9, 40), (0.9, 200)])
def test_an_earlier_study_helps_where_it_agrees_and_is_left_where_it_does_not(
    optimum: float, size: int
) -> None:
    """Its optimum is at 0.3. The first three trials of this study are its best ones."""

    def value(params: Mapping[str, Any]) -> float:
        return (params["x"] - optimum) ** 2 + 0.1 * (params["y"] - 0.5) ** 2

    kinds = {name: {"type": "float", "min": 0.0, "max": 1.0} for name in ("x", "y")}
    spec = make_spec(parameters=kinds)
    space = Space(spec.parameters)
    rng = np.random.default_rng(1)
    earlier = []
    for number, (x, y) in enumerate(rng.random((size, 2))):
        loss = (x - 0.3) ** 2 + 0.1 * (y - 0.5) ** 2
        trial = create_trial(params={"x": x, "y": y}, distributions=space.distributions, value=loss)
        trial.number = number
        earlier.append(trial)
    memory = RecordingStorage("s", [StudyDirection.MINIMIZE])
    strategy = Strategy(GPSampler(seed=0), optuna.pruners.NopPruner(), "gp", "none", 0)
    warm_start = WarmStart(spec, space, [SourceStudy("before", spec, earlier)])
    optimizer = Optimizer(memory, space, strategy, warm_start=warm_start)
    optimizer.warm_up()
    losses, correlations = [], []
    for _ in range(14):
        proposal = optimizer.ask()
        losses.append(value(proposal.params))
        optimizer.tell(proposal.number, TrialState.COMPLETE, [losses[-1]])
        if "correlations" in proposal.details:
            correlations.append(proposal.details["correlations"]["before"])
            assert re.search(r"; values correlate by 0\.\d\d with those of before", proposal.reason)
    if optimum == 0.3:
        assert min(losses[:6]) < 1e-3
        assert correlations[-1] > 0.85
    else:
        assert min(losses) < 5e-3
        assert correlations[-1] < 0.8
