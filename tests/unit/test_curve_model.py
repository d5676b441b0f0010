"""Forecasts of final values from partial curves."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.support.learning_curves import STEPS, curve, make_study, make_trial
from tests.support.study_strategies import DEEDS, followed
from tunesvc.search.pruners.curve.curve_model import FINISHED_MIN, CurveForecast, CurveModel
from tunesvc.search.pruners.curve.encoding import Encoder
from tunesvc.search.pruners.curve.features import CurveDataset
from tunesvc.search.tracking.scale import BEST, WORST, ValueScale

MINIMIZE, MAXIMIZE = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


def model_of(trials: list[FrozenTrial], direction: StudyDirection = MINIMIZE) -> CurveModel:
    model = CurveModel(direction)
    model.update(trials)
    return model


def forecast_of(
    trials: list[FrozenTrial], trial: FrozenTrial, direction: StudyDirection = MINIMIZE
) -> CurveForecast:
    forecast = model_of(trials, direction).forecast(trial)
    assert forecast is not None
    return forecast


def scaled(trial: FrozenTrial, factor: float) -> FrozenTrial:
    out = copy.deepcopy(trial)
    out.intermediate_values = {
        step: factor * value for step, value in trial.intermediate_values.items()
    }
    if trial.value is not None:
        out.value = factor * trial.value
    return out


def test_final_values_lie_in_their_intervals_about_as_often_as_promised() -> None:
    inside = [
        low <= curve(x, seed=seed)[STEPS - 1] <= high
        for seed in range(6)
        for model in [model_of(list(make_study(seed=seed)))]
        for x in np.linspace(0.02, 0.98, 25)
        for low, high in [model.forecast(make_trial(99, x, curve(x, 6, seed=seed))).interval(0.8)]  # type: ignore[union-attr]
    ]
    assert 0.65 <= np.mean(inside) <= 1.0


def test_a_forecast_grows_sharper_as_a_curve_continues_and_as_trials_finish() -> None:
    trials = list(make_study(finished=20))
    early, late = (forecast_of(trials, make_trial(99, 0.5, curve(0.5, n))) for n in (2, 20))
    assert late.deviation < early.deviation
    few = forecast_of(
        list(make_study(finished=FINISHED_MIN, pruned=0)), make_trial(99, 0.5, curve(0.5, 20))
    )
    assert late.deviation < few.deviation


def test_a_forecast_beats_the_last_value() -> None:
    trials = list(make_study(finished=15))
    errors = [
        (
            forecast_of(trials, make_trial(99, x, curve(x, 5))).value - curve(x)[STEPS - 1],
            curve(x)[4] - curve(x)[26],
        )
        for x in np.linspace(0.05, 0.95, 15)
    ]
    by_model, by_last = np.abs(errors).mean(axis=0)
    assert by_model < 0.3 * by_last


def test_pruned_curves_teach() -> None:
    """No trial finished where x is large; the partial curves of pruned trials improve forecasts
    there."""
    finished = [
        make_trial(i, x, curve(x), TrialState.COMPLETE)
        for i, x in enumerate(np.linspace(0.0, 0.4, 6))
    ]
    pruned = [
        make_trial(20 + i, x, curve(x, 22), TrialState.PRUNED)
        for i, x in enumerate(np.linspace(0.5, 1.0, 12))
    ]
    partial = [make_trial(99, x, curve(x, 5)) for x in np.linspace(0.55, 0.95, 5)]
    error = {}
    for name, trials in (("without", finished), ("with", finished + pruned)):
        forecasts = model_of(trials).forecasts(partial)
        error[name] = np.mean(
            [
                abs(f.value - curve(t.params["x"])[STEPS - 1])
                for f, t in zip(forecasts, partial, strict=True)
                if f
            ]
        )
    assert error["with"] < error["without"]


def test_there_is_no_forecast_before_enough_have_finished_or_anything_was_reported() -> None:
    few = list(make_study(finished=FINISHED_MIN - 1))
    assert model_of(few).forecast(make_trial(99, 0.5, curve(0.5, 5))) is None
    assert model_of(list(make_study())).forecast(make_trial(99, 0.5, {})) is None
    assert model_of([]).forecasts([]) == []


@settings(max_examples=15, deadline=None)
@given(
    factor=st.sampled_from([1e-8, 0.01, 3.0, 1e9]), seed=st.integers(0, 50), maximize=st.booleans()
)
def test_scale_and_sign_of_the_objective_change_no_chance(
    factor: float, seed: int, maximize: bool
) -> None:
    trials, running = list(make_study(seed=seed)), make_trial(99, 0.6, curve(0.6, 7, seed=seed))
    best = min(trial.value for trial in trials[:12])  # type: ignore[type-var]
    assert best is not None
    signed = -factor if maximize else factor
    other = forecast_of(
        [scaled(t, signed) for t in trials],
        scaled(running, signed),
        MAXIMIZE if maximize else MINIMIZE,
    )
    same = forecast_of(trials, running)
    assert other.chance_of_better(signed * best) == pytest.approx(
        same.chance_of_better(best), rel=1e-6, abs=1e-9
    )
    assert other.value == pytest.approx(signed * same.value, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(9)))
def test_the_order_in_which_reports_arrived_changes_nothing(order: list[int]) -> None:
    trials = list(make_study())
    points = curve(0.6, 9)
    shuffled = {step: points[step] for step in order}
    model = model_of(trials)
    assert model.forecast(make_trial(99, 0.6, shuffled)) == model.forecast(
        make_trial(99, 0.6, points)
    )


def test_nan_infinities_and_outliers_leave_other_forecasts_usable() -> None:
    trials = list(make_study(finished=15))
    wild = [
        make_trial(50, 0.9, {0: 1.0, 1: math.nan, 2: math.nan}, TrialState.FAIL),
        make_trial(51, 0.95, {**curve(0.95, 5), 5: math.inf}, TrialState.RUNNING),
        make_trial(52, 0.97, {**curve(0.97), STEPS - 1: 1e30}, TrialState.COMPLETE),
    ]
    calm, stormy = (
        forecast_of(study, make_trial(99, 0.4, curve(0.4, 12))) for study in (trials, trials + wild)
    )
    assert stormy.value == pytest.approx(calm.value, abs=0.1)
    lost = forecast_of(trials + wild, make_trial(99, 0.4, {0: math.nan}))
    assert math.isfinite(lost.value)
    assert math.isfinite(lost.deviation)


def test_curves_of_different_lengths_and_strides_are_compared_by_step() -> None:
    trials = [
        make_trial(
            i,
            x,
            {s: v for s, v in curve(x, 27 - i % 3).items() if s % (1 + i % 2) == 0},
            TrialState.COMPLETE,
        )
        for i, x in enumerate(np.linspace(0, 1, 12))
    ]
    sparse = make_trial(99, 0.5, {s: v for s, v in curve(0.5, 13).items() if s % 4 == 0})
    assert forecast_of(trials, sparse).value == pytest.approx(curve(0.5)[26], abs=0.1)


@settings(max_examples=25, deadline=None)
@given(
    firsts=st.lists(st.integers(0, STEPS - 1), min_size=20, max_size=20), seed=st.integers(0, 99)
)
def test_trials_whose_first_report_comes_late_teach_where_they_reported(
    firsts: list[int], seed: int
) -> None:
    """As when a second objective is measured from some epoch on only."""
    trials = [*make_study(finished=12, pruned=8, seed=seed)]
    for trial, first in zip(trials, firsts, strict=True):
        points = {step: value for step, value in trial.intermediate_values.items() if step >= first}
        trial.intermediate_values = points
    model = CurveModel(StudyDirection.MINIMIZE)
    model.update(trials)
    forecasts = model.forecasts([*trials, *make_study(finished=0, pruned=3, seed=seed + 1)])
    assert all(
        math.isfinite(made.z) and made.deviation_z > 0 for made in forecasts if made is not None
    )
    assert all(
        made.step >= min(t.intermediate_values)
        for made, t in zip(forecasts, trials, strict=False)
        if made
    )


def test_when_the_best_value_counts_what_is_reached_is_certain() -> None:
    rising = {s: v + 0.03 * max(0, s - 10) for s, v in curve(0.3).items()}
    trials = [
        make_trial(
            i, x, points := {s: v + 0.03 * max(0, s - 10) for s, v in curve(x).items()}, TrialState.COMPLETE,
            min(points.values()),
        )
        for i, x in enumerate(np.linspace(0, 1, 10))
    ]  # fmt: skip
    forecast = forecast_of(trials, make_trial(99, 0.3, rising))
    assert forecast.value <= min(rising.values()) + 1e-9
    assert forecast.chance_of_better(min(rising.values()) + 0.05) == 1.0


def test_conditional_parameters_and_widened_ranges_are_encoded() -> None:
    net = create_trial(
        value=1.0,
        params={"model": "net", "lr": 0.1},
        distributions={
            "model": CategoricalDistribution(["net", "tree"]),
            "lr": FloatDistribution(0.01, 1.0, log=True),
        },
    )
    tree = create_trial(
        value=1.0,
        params={"model": "tree"},
        distributions={"model": CategoricalDistribution(["net", "tree"])},
    )
    encoded = Encoder([net, tree]).encode([net, tree])
    assert encoded.shape[0] == 2
    assert 0.5 in encoded[0]
    assert not np.array_equal(encoded[0], encoded[1])
    assert Encoder([]).encode([net]).shape == (1, 0)


def test_penalties_near_the_largest_float_are_set_apart() -> None:
    values = [1e308, 1e308, 1e308, 1.0, 2.0, 3.0, 4.0]
    scale = ValueScale.of(values, StudyDirection.MINIMIZE)
    assert 1.0 <= scale.centre <= 4.0


@given(
    finals=st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30),
    maximize=st.booleans(),
)
def test_the_scale_is_monotone_and_finite(finals: list[float], maximize: bool) -> None:
    scale = ValueScale.of(finals, MAXIMIZE if maximize else MINIMIZE)
    z = scale.to(np.array(sorted(finals)))
    assert np.isfinite(z).all()
    assert (np.diff(z) * (-1 if maximize else 1) >= 0).all()
    assert scale.to(math.nan) >= z.max()
    inside = (z > BEST) & (z < WORST)
    back = scale.back(z)[inside]
    assert back == pytest.approx(
        np.array(sorted(finals))[inside], rel=1e-6, abs=1e-6 * max(map(abs, finals))
    )


# --- following a study
# ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    deeds=DEEDS,
    objective=st.sampled_from([None, 0, 1]),
    every=st.integers(1, 4),
    knows_resumed=st.booleans(),
)
def test_a_model_that_followed_a_study_learns_what_one_made_now_learns(
    deeds: list[tuple[str, int, float]], objective: int | None, every: int, knows_resumed: bool
) -> None:
    following = CurveModel(MINIMIZE, objective)
    start = [("new", k, 0.0) for k in range(4)] + [("report", k % 4, k / 7) for k in range(12)]
    start += [("end", k, float(k)) for k in range(3)]
    for i, (memory, trials) in enumerate(followed([*start, *deeds], 1 if objective is None else 2)):
        if i % every:
            continue
        following.forget()
        following.update(trials, memory.resumed if knows_resumed else None)
        new = CurveModel(MINIMIZE, objective)
        new.update(trials)
        assert following.levels == new.levels
        assert following.forecasts(trials) == new.forecasts(trials)


def test_of_many_trials_those_are_used_from_which_a_level_learns() -> None:
    trials = [trial for trial in make_study(finished=40, pruned=260) if trial.number]
    random.Random(1).shuffle(trials)
    few, all_of_them = (
        CurveDataset(1.0, None, 60, FINISHED_MIN, all_max=most) for most in (0, 1_000)
    )
    taught = []
    for lessons in (few, all_of_them):
        lessons.update(trials)
        taught.append(lessons.learn(trials))
    used, known = taught
    assert used is not None
    assert known is not None
    assert len(used.trials) < len(known.trials)
    assert used.levels == known.levels
    assert used.finals.tolist() == known.finals.tolist()
    for k in range(len(used.levels)):
        for is_finished in (True, False):
            newest = [
                [
                    t.number
                    for t, s, f in zip(of.trials, of.summaries, of.finished, strict=True)
                    if f == is_finished and there(s, k)
                ]
                for of in (used, known)
            ]
            assert newest[0][-60:] == newest[1][-60:]


def there(summaries: np.ndarray, level: int) -> bool:
    return not np.isnan(summaries[level:, 0]).all()


def test_a_study_with_changed_ranges_is_examined_again() -> None:
    trials = list(make_study())
    following = model_of(trials)
    for trial in trials:
        trial.distributions = {"x": FloatDistribution(0.0, 4.0)}
    following.invalidate()
    following.forget()
    following.update(trials)
    assert following.forecasts(trials) == model_of(trials).forecasts(trials)
