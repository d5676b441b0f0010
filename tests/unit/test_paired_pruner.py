"""The pruner of trials whose steps are folds: with plain Optuna, and in studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.support.specs import make_spec
from tunesvc import GPSampler, PairedPruner
from tunesvc.search.pruners.audit import AUDIT
from tunesvc.search.pruners.curve.block_effects import learn_effects, shared_variance
from tunesvc.search.pruners.curve.block_model import BlockModel
from tunesvc.search.pruners.curve.study_forecasts import model_of
from tunesvc.search.registry.pruner_registry import make_pruner
from tunesvc.spec import Evaluation

EFFECTS = np.array([0.3, -0.2, 0.0, -0.4, 0.3])
"""Effects of folds on all trials alike: far more than trials differ."""


def losses_of(mean: float, seed: int, deviation: float = 0.01) -> list[float]:
    rests = np.random.default_rng(seed).normal(0, deviation, len(EFFECTS))
    return list(mean + EFFECTS + rests)


def add(study: optuna.Study, losses: Sequence[float]) -> None:
    study.add_trial(
        create_trial(
            value=float(np.mean(losses)), intermediate_values=dict(enumerate(map(float, losses)))
        )
    )


def study_of(
    means: Sequence[float], pruner: PairedPruner, direction: str = "minimize"
) -> optuna.Study:
    sign = 1 if direction == "minimize" else -1
    study = optuna.create_study(direction=direction, pruner=pruner)
    for number, mean in enumerate(means):
        add(study, [sign * loss for loss in losses_of(mean, number)])
    return study


def stops_after(study: optuna.Study, losses: Sequence[float]) -> int | None:
    """Number of folds after which a new trial is stopped; None if it runs to its end."""
    trial = study.ask()
    for fold, loss in enumerate(losses):
        trial.report(loss, fold)
        if trial.should_prune():
            return fold + 1
    return None


MEANS = (0.5, 0.52, 0.55, 0.6, 0.7, 0.9)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_one_fold_suffices_for_a_clearly_poor_trial(direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    study = study_of(MEANS, PairedPruner(5, audit=0.0), direction)
    poor = [sign * loss for loss in losses_of(0.7, 10)]
    assert stops_after(study, poor) == 1
    assert stops_after(study, [sign * loss for loss in losses_of(0.45, 11)]) is None


def test_a_hard_fold_is_no_reason_to_stop() -> None:
    """The first fold alone would look worse than the best trial's mean."""
    study = study_of(MEANS, PairedPruner(5, audit=0.0))
    good = losses_of(0.48, 12)
    assert good[0] > study.best_value
    assert stops_after(study, good) is None


def test_nothing_stops_before_enough_trials_have_finished() -> None:
    for finished in range(5):
        study = study_of(MEANS[:finished], PairedPruner(5, audit=0.0))
        assert stops_after(study, losses_of(5.0, 10)) is None
    assert stops_after(study_of(MEANS[:5], PairedPruner(5, audit=0.0)), losses_of(5.0, 10)) == 1


@pytest.mark.parametrize("failed", [math.nan, math.inf, -math.inf])
def test_a_fold_without_a_finite_value_ends_a_trial(failed: float) -> None:
    study = study_of(MEANS, PairedPruner(5, audit=0.0))
    assert stops_after(study, [failed, 0.1, 0.1, 0.1, 0.1]) == 1
    study = study_of(MEANS, PairedPruner(5, audit=0.0))
    study.add_trial(create_trial(value=0.4, intermediate_values={0: failed, 1: 0.4}))
    assert stops_after(study, losses_of(0.9, 10)) == 1, "such a trial teaches nothing"


def test_the_reason_names_folds_and_chance() -> None:
    pruner = PairedPruner(5, audit=0.0)
    study = study_of(MEANS, pruner)
    assert stops_after(study, losses_of(0.7, 10)) == 1
    reason = pruner.explain(len(MEANS))
    assert reason is not None
    assert reason.text.startswith("forecast after 1 of 5 folds: final value 0.")
    assert "the best of 6 finished trials: " in reason.text
    assert reason.details["chance"] < reason.details["allowed"] == 0.05
    low, high = reason.details["low"], reason.details["high"]
    assert low < 0.7 < high


def test_an_audited_trial_runs_to_its_end() -> None:
    study = study_of(MEANS, PairedPruner(5, audit=0.99))
    trial = study.ask()
    for fold, loss in enumerate(losses_of(0.9, 10)):
        trial.report(loss, fold)
        assert not trial.should_prune()
    assert study.trials[-1].system_attrs[AUDIT]["step"] == 0


def test_a_trial_is_compared_on_its_own_folds_where_each_has_two() -> None:
    """Folds in turns: the best trial had the easy ones, and a hard pair is not held against."""
    pruner = PairedPruner(5, per_trial=2, audit=0.0)
    study = optuna.create_study(pruner=pruner)
    for number, mean in enumerate([0.5, 0.51, 0.52, 0.53, 0.5, 0.6, 0.55, 0.51, 0.52, 0.5]):
        blocks = list(pruner.evaluation.block_indices(number))
        add(study, np.array(losses_of(mean, number))[blocks].tolist())
    blocks = list(pruner.evaluation.block_indices(10))
    assert blocks == [0, 1]
    assert study.best_value < 0.4
    assert stops_after(study, np.array(losses_of(0.48, 20))[blocks].tolist()) is None
    blocks = list(pruner.evaluation.block_indices(11))
    assert stops_after(study, np.array(losses_of(0.7, 21))[blocks].tolist()) == 1


@pytest.mark.slow
def test_false_prunes_are_rarer_than_the_chance() -> None:
    """Trials better than the best of ten, by far less than folds differ."""
    false, stopped = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        study = study_of([], PairedPruner(5, audit=0.0))
        for number in range(10):
            add(study, losses_of(rng.normal(0.5, 0.02), 1_000 * seed + number))
        losses = losses_of(rng.normal(0.5, 0.02), 1_000 * seed + 10)
        if stops_after(study, losses) is not None:
            stopped += 1
            false += float(np.mean(losses)) < study.best_value
    assert stopped > 100
    assert false / stopped < 0.05


# --- the model ------------------------------------------------------------------------------------


def test_effects_of_folds_are_found() -> None:
    losses = np.array([losses_of(mean, seed) for seed, mean in enumerate(MEANS * 4)])
    learned = learn_effects(np.tile(np.arange(5), (len(losses), 1)), losses, 5)
    assert learned is not None
    assert np.abs(learned.effects - (EFFECTS - EFFECTS.mean())).max() < 0.01
    assert 0.006 < math.sqrt(learned.variance) < 0.014


def test_effects_are_found_where_trials_have_folds_in_turns() -> None:
    evaluation = Evaluation(repeats=5, per_trial=2)
    blocks = np.array([evaluation.block_indices(number) for number in range(60)])
    means = np.random.default_rng(1).normal(0.5, 0.05, 60)
    whole = np.array([losses_of(mean, seed) for seed, mean in enumerate(means)])
    learned = learn_effects(blocks, np.take_along_axis(whole, blocks, axis=1), 5)
    assert learned is not None
    assert np.abs(learned.effects - (EFFECTS - EFFECTS.mean())).max() < 0.05


def test_too_few_trials_teach_nothing() -> None:
    blocks = np.tile(np.arange(5), (2, 1))
    assert learn_effects(blocks, np.ones((2, 5)), 5) is None


@given(st.floats(3.0, 30.0), st.integers(2, 8))
def test_the_prior_of_variances_is_found(dof: float, own_dof: int) -> None:
    rng = np.random.default_rng(1)
    variances = 2.0 * dof / rng.chisquare(dof, 4_000)
    samples = variances * rng.chisquare(own_dof, 4_000) / own_dof
    variance, found = shared_variance(samples, own_dof)
    assert abs(math.log(variance / 2.0)) < 0.3
    assert found > dof / 2


def test_equal_variances_have_a_prior_without_doubt() -> None:
    assert shared_variance(np.ones(9), 4) == (1.0, math.inf)
    assert shared_variance(np.zeros(9), 4) == (0.0, math.inf)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), st.floats(-1e3, 1e3))
def test_chances_and_gains_are_in_their_bounds(losses: list[float], bar: float) -> None:
    model = BlockModel(StudyDirection.MINIMIZE, Evaluation(folds=5))
    model.update(study_of(MEANS, PairedPruner(5)).trials)
    forecast = model.forecast(running(losses))
    assert forecast is not None
    assert 0 <= forecast.chance_of_better(bar) <= 1
    assert forecast.expected_gain(bar) >= 0
    assert forecast.interval()[0] <= forecast.value <= forecast.interval()[1]
    assert forecast.chance_of_better(bar) <= forecast.chance_of_better(bar + 1)


def running(losses: Sequence[float]) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.RUNNING, intermediate_values=dict(enumerate(map(float, losses)))
    )
    trial.number = 99
    return trial


def test_the_forecast_is_surer_with_each_fold() -> None:
    study = study_of(MEANS, PairedPruner(5))
    losses = losses_of(0.6, 30)
    made = [model_of(study).forecast(running(losses[: n + 1])) for n in range(5)]
    deviations = [one.deviation for one in made if one is not None]
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[-1] < 1e-9, "the mean of all folds is known"
    assert made[-1] is not None
    assert made[-1].value == pytest.approx(np.mean(losses))


def test_samplers_learn_from_the_forecast_of_a_stopped_trial() -> None:
    study = optuna.create_study(sampler=GPSampler(seed=1), pruner=PairedPruner(5, audit=0.0))

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        losses = losses_of((x - 0.3) ** 2, trial.number)
        for fold, loss in enumerate(losses):
            trial.report(loss, fold)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(losses))

    study.optimize(objective, n_trials=25)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    expected = model_of(study).expected(study.trials)
    assert len(pruned) > 5
    assert expected.keys() == {trial.number for trial in pruned}
    for trial in pruned:
        assert abs(expected[trial.number] - (trial.params["x"] - 0.3) ** 2) < 0.05
    assert abs(study.best_params["x"] - 0.3) < 0.1


# --- in a study -----------------------------------------------------------------------------------


def test_auto_is_the_paired_pruner_where_folds_are_steps() -> None:
    pruner = make_pruner(make_spec(evaluation={"repeats": 3}, pruner={"name": "auto"}))
    assert isinstance(pruner, PairedPruner)
    assert pruner.evaluation == Evaluation(repeats=3)
    for more in ({}, {"evaluation": {"repeats": 3, "per_trial": 1}}):
        assert not isinstance(make_pruner(make_spec(pruner={"name": "auto"}, **more)), PairedPruner)
    named = make_spec(evaluation={"repeats": 3}, pruner={"name": "paired", "chance": 0.2})
    assert isinstance(make_pruner(named), PairedPruner)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PairedPruner(5, chance=1.0),
        lambda: PairedPruner(5, audit=-0.1),
        lambda: PairedPruner(5, startup=0),
        lambda: PairedPruner(),
        lambda: PairedPruner(5, repeats=5),
        lambda: PairedPruner(5, per_trial=1),
        lambda: PairedPruner(1),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], PairedPruner]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()
