"""Stopping trials of several objectives: by the front that they would have to extend."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.study._multi_objective import _is_pareto_front
from optuna.trial import TrialState

import tunesvc
from tests.support.recorded_changes import take_changes
from tests.support.two_objectives import STEPS, make_trial, make_trials, points, study_of, swapped
from tunesvc.search.pruners.audit import AUDIT, false_prunes
from tunesvc.search.pruners.curve.study_forecasts import models_of
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.objectives import OTHERS, cut, points_of, seen_by
from tunesvc.search.tracking.pareto import chance_to_extend, ranked

AshaPruner, CurvePruner = tunesvc.AshaPruner, tunesvc.CurvePruner
MINIMIZE, MAXIMIZE = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


def rows(n: int, k: int) -> st.SearchStrategy[np.ndarray]:
    """Up to n rows of k coarse values, so that ties occur."""
    row = st.lists(st.integers(0, 5).map(float), min_size=k, max_size=k)
    return st.lists(row, min_size=1, max_size=n).map(np.array)


@settings(max_examples=25, deadline=None)
@given(front=rows(6, 3), seed=st.integers(0, 99))
def test_the_chance_to_extend_a_front_is_the_share_of_draws_that_it_does_not_dominate(
    front: np.ndarray, seed: int
) -> None:
    below = front / 5
    drawn = np.random.default_rng(seed).random((20_000, 3))
    share = 1 - (drawn[:, None, :] >= below).all(axis=2).any(axis=1).mean()
    assert chance_to_extend(below) == pytest.approx(share, abs=0.02)
    assert chance_to_extend(below[:, [2, 0, 1]]) == pytest.approx(
        chance_to_extend(below), abs=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(costs=rows(12, 2))
def test_ranks_put_dominators_first_ties_together_and_do_not_depend_on_the_objectives_order(
    costs: np.ndarray,
) -> None:
    place = ranked(costs)
    assert ranked(costs[:, ::-1]).tolist() == place.tolist()
    assert place.min() == 0
    for a, row in enumerate(costs):
        for b, other in enumerate(costs):
            if (row <= other).all():
                assert place[a] <= place[b]
                assert (place[a] == place[b]) == (row == other).all()
    assert 0 in place[_is_pareto_front(costs, assume_unique_lexsorted=False)]


def test_the_first_of_a_front_stand_for_all_of_it() -> None:
    front = np.array([[(i / 10) ** 2, (1 - i / 10) ** 2] for i in range(11)])
    place = ranked(np.vstack([front, [[2.0, math.inf]]]))
    assert np.argsort(place)[:3].tolist() == [5, 0, 10], "the middle, then the ends"
    assert place[11] == 11


@pytest.mark.parametrize("pruner", [CurvePruner(audit=0.0), AshaPruner(min=1, eta=2)])
def test_what_is_worse_in_everything_is_stopped_and_a_compromise_continues(
    pruner: BasePruner,
) -> None:
    study = study_of(make_trials())
    verdicts = {}
    for name, x, spread in (("poor", 0.5, 0.9), ("compromise", 0.45, 0.0)):
        study.add_trial(make_trial(0, x, points(x, spread, 5), spread=spread))
        trial = study.get_trials(deepcopy=False)[-1]
        judged = [pruner.prune(study, cut(trial, step)) for step in trial.intermediate_values]
        verdicts[name] = any(judged)
    assert verdicts == {"poor": True, "compromise": False}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    x=st.floats(0.0, 1.0),
    spread=st.floats(0.0, 0.5),
    step=st.integers(0, STEPS - 1),
)
def test_no_verdict_depends_on_the_order_of_the_metrics(
    seed: int, x: float, spread: float, step: int
) -> None:
    trials = make_trials(seed=seed)
    trial = make_trial(len(trials), x, points(x, spread, step + 1, seed=seed), spread=spread)
    for make in (lambda: CurvePruner(audit=0.0, chance=0.2), lambda: AshaPruner(min=1, eta=2)):
        one, other = make(), make()
        assert one.prune(study_of([*trials, trial]), trial) == other.prune(
            study_of([swapped(t) for t in [*trials, trial]]), swapped(trial)
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), step=st.integers(0, STEPS - 1), chance=st.floats(0.0, 0.99))
def test_what_is_on_the_forecast_front_with_certainty_is_never_stopped(
    seed: int, step: int, chance: float
) -> None:
    """With `take: best` a value once reached is certain: a trial with a value that no other
    reached extends the front."""
    trials = []
    for made in make_trials(seed=seed):
        curve = points_of(made, 2)
        curve[STEPS - 1] = (3.0, 3.0)  # in the end all curves turn bad
        best = [min(values) for values in zip(*curve.values(), strict=True)]
        trials.append(make_trial(made.number, made.params["x"], curve, TrialState.COMPLETE))
        trials[-1].values = best
    least = min(trial.values[1] for trial in trials)
    curve = dict.fromkeys(range(step + 1), (5.0, least - 0.01))
    trial = make_trial(len(trials), 0.9, curve, spread=0.4)
    study = study_of([*trials, trial])
    pruner = CurvePruner(chance=chance, audit=0.0)
    assert not pruner.prune(study, trial)
    reason = pruner.explain(trial.number)
    assert reason is None or reason.details["chance"] == 1.0, reason.text


def test_scales_and_signs_of_the_objectives_change_no_verdict() -> None:
    trials = make_trials(running=6)
    for factors, directions in (
        ((1e6, 1e-6), ("minimize",) * 2),
        ((-1.0, 2.0), ("maximize", "minimize")),
    ):
        changed = []
        for trial in trials:
            curve = {
                s: [f * v for f, v in zip(factors, p, strict=True)]
                for s, p in points_of(trial, 2).items()
            }
            changed.append(
                make_trial(
                    trial.number,
                    trial.params["x"],
                    curve,
                    trial.state,
                    spread=trial.params["spread"],
                )
            )
        for make in (lambda: CurvePruner(audit=0.0), lambda: AshaPruner(min=5, eta=2)):
            before = [make().prune(study_of(trials), trial) for trial in trials[-6:]]
            assert before == [
                make().prune(study_of(changed, directions), trial) for trial in changed[-6:]
            ]


def test_a_verdict_names_the_forecasts_and_the_trials_that_dominate_them() -> None:
    study = study_of(make_trials())
    study.set_metric_names(["loss", "latency"])
    pruner = CurvePruner(audit=0.0)
    trial = make_trial(16, 0.5, points(0.5, 0.9, 6), spread=0.9)
    assert pruner.prune(study, cut(trial, 3)) or pruner.prune(study, trial)
    reason = pruner.explain(16)
    assert reason is not None
    assert "loss" in reason.text
    assert "latency" in reason.text
    assert "chance to join the" in reason.text
    named = [one["number"] for one in reason.details["comparators"]]
    assert named
    assert f"of which {named[0]} (" in reason.text
    assert set(reason.details["metrics"]["loss"]) == {
        "value",
        "predicted",
        "deviation",
        "low",
        "high",
    }
    asha = AshaPruner(min=1, eta=2)
    assert asha.prune(study, cut(trial, 1))
    explanation = asha.explain(16)
    assert explanation is not None
    assert "at the rung of step 1, with" in explanation.text


def test_an_audited_trial_is_held_against_the_front_of_then() -> None:
    study = study_of(make_trials())
    trial = make_trial(16, 0.5, points(0.5, 0.9, 5), spread=0.9)
    study.add_trial(trial)
    assert not CurvePruner(audit=0.999).prune(study, study.trials[-1])
    kept = study.trials[-1].system_attrs[AUDIT]
    assert len(kept["front"]) >= 2
    assert kept["chance"] < 0.05
    ended = [
        make_trial(i, 0.5, {0: values}, TrialState.COMPLETE)
        for i, values in enumerate([(9.0, 9.0), (9.0, 0.0)])
    ]
    for one in ended:
        one.system_attrs[AUDIT] = kept
    found = false_prunes(ended, MINIMIZE, MINIMIZE)
    assert (found.audited, found.wrong) == (2, 1)
    assert false_prunes(ended, MAXIMIZE, MINIMIZE).wrong == 2


def test_with_plain_optuna_nothing_is_stopped() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=8)
    trial = study.ask()
    for pruner in (CurvePruner(), AshaPruner()):
        assert not pruner.prune(study, study.get_trials(deepcopy=False)[trial.number])


def test_memory_keeps_the_other_curves_beside_the_first() -> None:
    memory = RecordingStorage("test", [MINIMIZE, MINIMIZE], metrics=["a", "b"])
    number = memory.create_new_trial(memory.study_id)
    for step in range(4):
        memory.set_trial_intermediate_value(number, step, float(step))
        memory.set_others(number, step, [None if step == 1 else 10.0 + step])
    trial = memory.get_trial(number)
    assert points_of(trial, 2) == {0: (0.0, 10.0), 2: (2.0, 12.0), 3: (3.0, 13.0)}
    assert seen_by(trial, 1).intermediate_values == {0: 10.0, 2: 12.0, 3: 13.0}
    memory.truncate_curve(number, 2)
    assert points_of(memory.get_trial(number), 2) == {0: (0.0, 10.0), 2: (2.0, 12.0)}
    memory.set_others(number, 2, [None])
    assert list(points_of(memory.get_trial(number), 2)) == [0]
    assert not take_changes(memory).attrs, "what reports hold is not stored twice"
    again = RecordingStorage(
        "again", [MINIMIZE, MINIMIZE], [memory.get_trial(number)], others={number: {0: (7.0,)}}
    )
    assert points_of(again.get_trial(number), 2) == {0: (0.0, 7.0)}


def test_every_objective_is_forecast_and_samplers_see_what_pruned_trials_would_have_come_to() -> (
    None
):
    trials = make_trials(finished=20)
    for number in range(20, 26):
        x = number / 40
        trial = make_trial(number, x, points(x, 0.3, 6), TrialState.PRUNED, spread=0.3)
        trials.append(trial)
    study = study_of(trials)
    forecasts = [model.forecast(trials[-1]) for model in models_of(study)]
    ends = points(25 / 40, 0.3)[STEPS - 1]
    for forecast, end in zip(forecasts, ends, strict=True):
        assert forecast is not None
        low, high = forecast.interval(0.99)
        assert low <= end <= high
    assert trials[-1].system_attrs[OTHERS]
    for sampler in (tunesvc.GPSampler(seed=0), tunesvc.AutoSampler(seed=0)):
        study.sampler = sampler
        drawn = study.ask(
            {"x": trials[0].distributions["x"], "spread": trials[0].distributions["spread"]}
        )
        assert drawn.params["spread"] < 0.3
