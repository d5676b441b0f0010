"""Record of a study, updated as its trials end: equal to examining every trial each time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study._multi_objective import _is_pareto_front
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.support.study_strategies import DEEDS, followed
from tunesvc.search.tracking.study_history import RankAt, StudyHistory, history_of

SIGNS = np.array([1.0, -1.0])


def comparable(trials: Sequence[FrozenTrial], objectives: int) -> list[FrozenTrial]:
    return [
        t
        for t in trials
        if t.state == TrialState.COMPLETE
        and all(map(math.isfinite, t.values))
        and all(excess <= 0 for excess in t.constraints.values())
        and len(t.values) == objectives
    ]


def front_of(trials: Sequence[FrozenTrial], objectives: int) -> list[int]:
    """Numbers; of one objective the first best."""
    if not trials:
        return []
    costs = SIGNS[:objectives] * np.array([t.values for t in trials])
    numbers = [
        trials[i].number
        for i in np.flatnonzero(_is_pareto_front(costs, assume_unique_lexsorted=False))
    ]
    return numbers[:1] if objectives == 1 else numbers


def place_of(trials: Sequence[FrozenTrial], number: int, step: int, value: float) -> RankAt:
    others = [t for t in trials if step in t.intermediate_values and t.number != number]
    costs = np.array([t.intermediate_values[step] for t in others])
    known = costs[~np.isnan(costs)]
    finished = np.array(
        [t.intermediate_values[step] for t in others if t.state == TrialState.COMPLETE]
    )
    finished = finished[~np.isnan(finished)]
    cost = math.inf if math.isnan(value) else value
    return RankAt(
        rank=1 + int((known < cost).sum()),
        of=len(others) + 1,
        rank_finished=1 + int((finished < cost).sum()),
        finished=len(finished),
        best=float(known.min()) if len(known) else None,
    )


@settings(max_examples=80, deadline=None)
@given(
    deeds=DEEDS, objectives=st.integers(1, 2), knows_resumed=st.booleans(), every=st.integers(1, 4)
)
def test_what_is_kept_is_what_a_look_at_all_trials_would_tell(
    deeds: list[tuple[str, int, float]], objectives: int, knows_resumed: bool, every: int
) -> None:
    history = StudyHistory(SIGNS[:objectives])
    for i, (memory, trials) in enumerate(followed(deeds, objectives)):
        if i % every:
            continue
        history.update(trials, memory.resumed if knows_resumed else None)
        assert history.ended == sum(t.state.is_finished() for t in trials)
        assert history.comparable == len(comparable(trials, objectives))
        assert [t.number for t in history.front] == front_of(
            comparable(trials, objectives), objectives
        )
        for params in ({"n": 1}, {"n": 2, "x": 1 / 30}, {}):
            assert sorted(history.numbers_of(params)) == [
                t.number for t in trials if t.params == params
            ]
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                for step, value in trial.intermediate_values.items():
                    assert history.rank_at(trial.number, step, value) == place_of(
                        trials, trial.number, step, value
                    )


def test_trials_that_another_study_lends_count_as_long_as_they_are_lent() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0))
    lent = create_trial(
        value=0.0,
        params={"x": 0.5},
        distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
    )
    lent.number = -1
    own = study.get_trials(deepcopy=False)
    history = history_of(study, [lent, *own])
    assert (history.ended, list(history.numbers_of({"x": 0.5}))) == (2, [-1])
    history = history_of(study, own)
    assert (history.ended, list(history.numbers_of({"x": 0.5}))) == (1, [])


def test_choices_may_be_anything() -> None:
    with pytest.warns(UserWarning, match="persistent storage"):
        kind = optuna.distributions.CategoricalDistribution(([1], [2]))  # type: ignore[arg-type]
    history, trial = (
        StudyHistory(SIGNS[:1]),
        create_trial(value=0.0, params={"c": [2]}, distributions={"c": kind}),
    )
    trial.number = 0
    history.update([trial])
    assert list(history.numbers_of({"c": [2]})) == [0]
    assert not list(history.numbers_of({"c": [1]}))
