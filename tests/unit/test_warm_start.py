"""Trials of an earlier study that fit, and how the sampler sees them."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.support.specs import make_spec
from tunesvc.search.tracking.pausing import PAUSED
from tunesvc.search.warm_start import (
    BEST,
    ENQUEUED_FROM,
    TRANSFERRED_MAX,
    SourceStudy,
    WarmStart,
    fitting,
)
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec


def finished(space: Space, number: int, value: float, **params: Any) -> FrozenTrial:
    kinds = {name: space.distributions[name] for name in params}
    trial = create_trial(params=params, distributions=kinds, value=value)
    trial.number = number
    return trial


def earlier_of(spec: StudySpec, *values: float) -> SourceStudy:
    space = Space(spec.parameters)
    trials = [
        finished(space, i, value, x=(i + 1) / (len(values) + 1), n=1)
        for i, value in enumerate(values)
    ]
    return SourceStudy("before", spec, trials)


SPEC = make_spec()


@pytest.mark.parametrize(
    ("changes", "fits", "why"),
    [
        ({}, 3, {}),
        (
            {"parameters": {"x": {"type": "float", "min": 0.0, "max": 0.6}}},
            2,
            {"x out of range": 1},
        ),
        (
            {"parameters": {"x": {"type": "float", "min": 0.0, "max": 1.0}}, "constants": {"n": 1}},
            3,
            {},
        ),
        (
            {"parameters": {"x": {"type": "float", "min": 0.0, "max": 1.0}}, "constants": {"n": 2}},
            0,
            {"another n": 3},
        ),
        ({"parameters": {"y": {"type": "float", "min": 0.0, "max": 1.0}}}, 0, {"no y": 3}),
        ({"metrics": [{"name": "loss", "goal": "maximize"}]}, 0, {"another metric": 3}),
    ],
)
def test_trials_that_are_no_configuration_of_the_space_are_left_out(
    changes: dict[str, Any], fits: int, why: dict[str, int]
) -> None:
    spec = make_spec(**changes)
    found, left_out = fitting(earlier_of(SPEC, 0.3, 0.1, 0.2), spec, Space(spec.parameters))
    assert (len(found), dict(left_out)) == (fits, why)


def test_a_constant_of_the_earlier_study_is_a_parameter_of_this_one() -> None:
    before = make_spec(
        parameters={"x": {"type": "float", "min": 0.0, "max": 1.0}}, constants={"n": 4}
    )
    trial = finished(Space(before.parameters), 0, 1.0, x=0.5)
    (one,), _ = fitting(SourceStudy("before", before, [trial]), SPEC, Space(SPEC.parameters))
    assert one.params == {"x": 0.5, "n": 4}


def test_the_best_are_run_first_and_tell_how_all_values_follow_from_the_earlier_ones() -> None:
    space = Space(SPEC.parameters)
    warm_start = WarmStart(SPEC, space, [earlier_of(SPEC, 0.4, 0.1, 0.3, 0.2)])
    first = warm_start.first()
    assert [one.value for one in first] == [0.1, 0.2, 0.3]

    run = [
        create_trial(
            state=TrialState.RUNNING, system_attrs={ENQUEUED_FROM: [one.study, one.number]}
        )
        for one in first
    ]
    assert [(trial.number, trial.state) for trial in warm_start.shown(run)] == [
        (number, TrialState.WAITING) for number in (-4, -3, -2, -1)
    ]
    for trial, value in zip(run, (5.1, 5.2, 5.6), strict=True):
        trial.state, trial.values = TrialState.COMPLETE, [value]
    shown = warm_start.shown(run)
    values = sorted(trial.values[0] for trial in shown)
    assert values[1] == pytest.approx(5.3), "the line goes through the middle"
    assert values[0] < values[1] < values[2] < values[3]
    assert [trial.number for trial in shown] == [-4, -3, -2, -1]
    best = min(shown, key=lambda trial: trial.values[0])
    assert warm_start.origin(best.number) == ("before", 1)
    assert warm_start.origin(0) is None
    assert warm_start.shown([]) is shown, "what a sampler has seen does not change any more"


def test_nothing_is_concluded_as_long_as_all_that_were_run_first_are_paused() -> None:
    """At the first rung of a pruner that promotes, the best of the earlier study wait for each
    other."""
    warm_start = WarmStart(SPEC, Space(SPEC.parameters), [earlier_of(SPEC, 0.4, 0.1, 0.3, 0.2)])
    run = [
        create_trial(
            state=TrialState.PRUNED,
            system_attrs={ENQUEUED_FROM: [one.study, one.number], PAUSED: 1},
        )
        for one in warm_start.first()
    ]
    assert {trial.state for trial in warm_start.shown(run)} == {TrialState.WAITING}
    run[0].state, run[0].values = TrialState.COMPLETE, [5.1]
    del run[0].system_attrs[PAUSED]
    shown = warm_start.shown(run)
    assert {trial.state for trial in shown} == {TrialState.COMPLETE}
    assert min(trial.values[0] for trial in shown) == pytest.approx(5.1)


def test_of_a_large_study_the_best_and_some_of_the_others_are_shown() -> None:
    warm_start = WarmStart(
        SPEC, Space(SPEC.parameters), [earlier_of(SPEC, *(float(i) for i in range(1000)))]
    )
    values = [one.value for one in warm_start.transferred]
    assert len(values) <= TRANSFERRED_MAX
    assert values[:BEST] == [0.0, 1.0, 2.0]
    assert max(values) > 900


@pytest.mark.parametrize(
    ("goals", "fits", "why"),
    [
        (["minimize"], 3, {}),
        (["maximize"], 0, {"another goal": 3}),
        (["minimize"] * 2, 0, {"another goal": 3}),
    ],
)
def test_a_study_of_plain_optuna_teaches_where_it_has_the_same_one_goal(
    goals: list[Any], fits: int, why: dict[str, int]
) -> None:
    """Case A13: its metric has no name, and all its trials were left out as another metric's."""
    trials = earlier_of(SPEC, 0.3, 0.1, 0.2).trials
    found, left_out = fitting(
        SourceStudy("before", None, trials, goals), SPEC, Space(SPEC.parameters)
    )
    assert (len(found), dict(left_out)) == (fits, why)


def test_a_study_that_teaches_nothing_is_warned_about() -> None:
    other = make_spec(metrics=[{"name": "time"}])
    silent, useful = earlier_of(other, 0.3, 0.1), earlier_of(SPEC, 0.3)
    warm_start = WarmStart(SPEC, Space(SPEC.parameters), [silent, useful])
    assert (
        warm_start.warning
        == "warm start: nothing is transferred: 0 trials from before (left out: 2 another metric)"
    )
    assert WarmStart(SPEC, Space(SPEC.parameters), [useful]).warning == ""
