"""Stopping what will not be best, and asha's rungs; with plain Optuna and after restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

import tunesvc
from tests.support.learning_curves import STEPS, curve, make_study, make_trial
from tunesvc.search.explanations import Explainable
from tunesvc.search.pruners.audit import AUDIT, false_prunes, is_audited
from tunesvc.search.pruners.curve.study_forecasts import model_of

AshaPruner, CurvePruner = tunesvc.AshaPruner, tunesvc.CurvePruner
PRUNERS: dict[str, type[BasePruner]] = {"curve": CurvePruner, "asha": AshaPruner}


def study_of(trials: Sequence[FrozenTrial], direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    study.add_trials(list(trials))
    return study


def running(study: optuna.Study, x: float, points: dict[int, float]) -> FrozenTrial:
    study.add_trial(make_trial(0, x, points))
    return study.get_trials(deepcopy=False)[-1]


def ladder(values: Sequence[float], steps: int = 4, sign: float = 1.0) -> list[FrozenTrial]:
    """Trials with flat curves at these values."""
    return [
        make_trial(i, 0.5, dict.fromkeys(range(1, steps + 1), sign * v), TrialState.COMPLETE)
        for i, v in enumerate(values)
    ]


@pytest.mark.parametrize("maximize", [False, True])
def test_a_hopeless_trial_is_stopped_and_a_promising_one_continues(maximize: bool) -> None:
    sign = -1 if maximize else 1
    trials = make_study(finished=14)
    for trial in trials:
        trial.intermediate_values = {s: sign * v for s, v in trial.intermediate_values.items()}
        trial.values = None if trial.value is None else [sign * trial.value]
    study = study_of(trials, "maximize" if maximize else "minimize")
    pruner = CurvePruner(audit=0.0)
    poor, good = (
        running(study, x, {s: sign * v for s, v in curve(x, 9).items()}) for x in (0.95, 0.3)
    )
    verdicts = {trial.number: pruner.prune(study, trial) for trial in (poor, good)}
    assert verdicts == {poor.number: True, good.number: False}


@pytest.mark.parametrize("name", PRUNERS)
def test_the_first_trial_and_one_that_reported_nothing_continue(name: str) -> None:
    study = study_of([])
    assert not PRUNERS[name]().prune(study, running(study, 0.9, curve(0.9, 5)))
    assert not PRUNERS[name]().prune(study, running(study, 0.9, {}))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000), step=st.integers(0, STEPS - 2), name=st.sampled_from(sorted(PRUNERS))
)
def test_a_trial_that_leads_at_its_step_is_never_stopped(seed: int, step: int, name: str) -> None:
    trials = make_study(finished=10, seed=seed)
    lead = {
        s: min(t.intermediate_values.get(s, math.inf) for t in trials) - 0.01
        for s in range(step + 1)
    }
    study = study_of(trials)
    assert not PRUNERS[name]().prune(study, running(study, 0.9, lead))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    steps=st.integers(1, STEPS - 2),
    factor=st.sampled_from([-1e6, -1.0, 1e-6]),
)
def test_scale_and_sign_of_the_objective_change_no_verdict(
    seed: int, steps: int, factor: float
) -> None:
    verdicts = []
    for f in (1.0, factor):
        trials = make_study(finished=10, seed=seed)
        for trial in trials:
            trial.intermediate_values = {s: f * v for s, v in trial.intermediate_values.items()}
            trial.values = None if trial.value is None else [f * trial.value]
        study = study_of(trials, "minimize" if f > 0 else "maximize")
        cut = running(study, 0.8, {s: f * v for s, v in curve(0.8, steps, seed=seed).items()})
        verdicts.append([make().prune(study, cut) for make in PRUNERS.values()])
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize("name", PRUNERS)
def test_a_restart_decides_alike(name: str) -> None:
    """A new pruner reads the same trials, in the order in which they are stored."""
    study = study_of(make_study(finished=10))
    trials = [running(study, float(x), curve(float(x), 9)) for x in np.linspace(0, 1, 30)]
    one = PRUNERS[name]()
    assert [one.prune(study, t) for t in trials] == [
        PRUNERS[name]().prune(study, t) for t in trials
    ]


@pytest.mark.parametrize("name", PRUNERS)
def test_nan_is_no_obstacle(name: str) -> None:
    wild = [make_trial(90, 0.9, {0: math.nan, 1: math.nan, 2: math.inf}, TrialState.FAIL)]
    study = study_of([*make_study(finished=10), *wild])
    assert PRUNERS[name]().prune(study, running(study, 0.9, dict.fromkeys(range(9), math.nan))) in (
        True,
        False,
    )
    assert AshaPruner().prune(study, running(study, 0.9, {0: 1.0, 1: math.nan}))


@pytest.mark.parametrize("name", PRUNERS)
def test_verdicts_are_explained(name: str) -> None:
    study = study_of(make_study(finished=10))
    trial = running(study, 0.95, curve(0.95, 9))
    pruner = PRUNERS[name]()
    assert isinstance(pruner, Explainable)
    assert pruner.explain(trial.number) is None
    trial.intermediate_values = {
        s: v for s, v in trial.intermediate_values.items() if s <= (8 if name == "curve" else 4)
    }
    for step in list(trial.intermediate_values):
        cut = make_trial(
            trial.number, 0.95, {s: v for s, v in trial.intermediate_values.items() if s <= step}
        )
        pruner.prune(study, cut)
    reason = pruner.explain(trial.number)
    assert reason is not None
    wanted = {
        "curve": {"predicted", "low", "high", "chance", "best"},
        "asha": {"rung", "rank", "of", "threshold"},
    }
    assert wanted[name] <= set(reason.details)
    assert f"{reason.details['best' if name == 'curve' else 'threshold']:.4g}"[:4] in reason.text


def test_an_audited_trial_is_let_finish_and_not_asked_about_again() -> None:
    study = study_of(make_study(finished=14))
    eager, strict = CurvePruner(audit=0.999), CurvePruner(audit=0.0)
    trial = running(study, 0.95, curve(0.95, 12))
    stopped = []
    for step in range(12):
        cut = study.get_trials()[-1]
        cut.intermediate_values = {s: v for s, v in trial.intermediate_values.items() if s <= step}
        assert not eager.prune(study, cut)
        stopped.append(strict.prune(study, cut))
    assert any(stopped)
    kept = study.get_trials()[-1].system_attrs[AUDIT]
    assert kept["step"] == stopped.index(True)
    assert kept["best"] == study.best_value
    reason = eager.explain(trial.number)
    assert reason is not None
    assert reason.details["audit"]


@given(seed=st.integers(0, 2**31), number=st.integers(0, 10_000))
def test_the_audited_trials_follow_from_seed_and_number(seed: int, number: int) -> None:
    assert is_audited(seed, number, 0.3) == is_audited(seed, number, 0.3)
    assert not is_audited(seed, number, 0.0)
    assert is_audited(seed, number, 0.3) <= is_audited(seed, number, 0.6)


def test_the_audit_tells_the_false_prune_rate_with_an_interval() -> None:
    audited = ladder([0.5, 0.7, 0.9, 1.1])
    for trial in audited:
        trial.system_attrs[AUDIT] = {"step": 2, "best": 0.6, "chance": 0.01}
    found = false_prunes([*audited, *make_study()], StudyDirection.MINIMIZE)
    assert (found.audited, found.wrong, found.rate) == (4, 1, 0.25)
    assert found.low < 0.01
    assert 0.7 < found.high < 0.85
    assert false_prunes(audited, StudyDirection.MAXIMIZE).wrong == 3
    nothing = false_prunes([], StudyDirection.MINIMIZE)
    assert (nothing.low, nothing.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("make", "options"), [(CurvePruner, {"chance": 1.5}), (CurvePruner, {"audit": -0.1}), (CurvePruner, {"startup": 0}),
                          (AshaPruner, {"min": 0}), (AshaPruner, {"eta": 1}), (AshaPruner, {"min": 9, "max": 3})],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(
    make: type[BasePruner], options: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=next(reversed(options))):
        make(**options)


@pytest.mark.parametrize("name", PRUNERS)
def test_plain_optuna_prunes_with_it_and_finds_the_best(name: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        points = curve(x)
        for step, value in points.items():
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return points[STEPS - 1]

    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=2), pruner=PRUNERS[name]()
    )
    study.optimize(objective, n_trials=60)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) > 15
    assert study.best_value < 0.13


def test_asha_lets_the_best_part_of_each_rung_continue() -> None:
    values = [0.1 * k for k in range(1, 16)]
    for own, stopped in ((0.15, False), (0.25, False), (0.35, False), (0.45, True), (1.4, True)):
        study = study_of(ladder(values))
        assert AshaPruner(eta=4).prune(study, running(study, 0.5, {1: own})) is stopped, own


def test_asha_judges_at_rungs_only_and_not_from_its_max_on() -> None:
    study = study_of(ladder([0.1] * 7, steps=20))
    pruner = AshaPruner(min=2, max=16, eta=2)
    flat = dict.fromkeys(range(1, 21), 1.0)
    judged = [
        step
        for step in flat
        if pruner.prune(study, running(study, 0.5, {s: 1.0 for s in flat if s <= step}))
    ]
    assert judged == [2, 4, 8]


def test_asha_counts_late_reports_at_the_rung_to_which_they_belong() -> None:
    """A trial that reports 1 after 4 is ranked at rung 1 by its value at 1."""
    late = [make_trial(i, 0.5, {4: 9.0, 1: 0.1 * (i + 1)}, TrialState.COMPLETE) for i in range(3)]
    study = study_of(late)
    assert AshaPruner(eta=2).prune(study, running(study, 0.5, {1: 1.0}))
    assert not AshaPruner(eta=2).prune(study, running(study, 0.5, {1: 0.15}))


def diverging(steps: int, worst: float = 13.0) -> dict[int, float]:
    """A loss that runs away, as with too large a learning rate."""
    return {s: min(worst, 2.3 * 1.25**s) for s in range(steps)}


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("finished", [3, 6, 20])
def test_a_diverged_curve_is_forecast_to_stay_where_it_is_and_is_pruned(
    finished: int, maximize: bool
) -> None:
    """Case S12: it was to end at 43.82 (90 %: 0.098 to 3.2e+161), and went on."""
    sign = -1.0 if maximize else 1.0
    trials = make_study(finished=finished, pruned=0)
    for trial in trials:
        trial.intermediate_values = {
            step: sign * value for step, value in trial.intermediate_values.items()
        }
        trial.values = [sign * value for value in trial.values]
    study = study_of(trials, "maximize" if maximize else "minimize")
    pruner = CurvePruner(audit=0.0)
    steps = next(steps for steps in range(10, 14) if _is_judged(pruner, study, steps))
    trial = running(study, 0.5, {step: sign * value for step, value in diverging(steps).items()})
    assert pruner.prune(study, trial)
    reason = pruner.explain(trial.number)
    assert reason is not None
    costs = [sign * reason.details[name] for name in ("predicted", "low", "high")]
    assert 1.0 < costs[0] <= 13.0
    assert max(costs) <= 13.0
    assert reason.details["chance"] < 0.03


def _is_judged(pruner: CurvePruner, study: optuna.Study, steps: int) -> bool:
    """Return whether a trial is judged after so many steps."""
    pruner.prune(study, running(study, 0.5, curve(0.5, steps)))
    return max(model_of(study).levels) >= steps - 1 and steps - 1 in model_of(study).levels
