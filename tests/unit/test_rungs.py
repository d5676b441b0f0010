"""Trials at a rung, updated as trials end: equal to examining every trial each time."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.pruners.asha import AshaPruner
from tunesvc.search.pruners.rungs import RungTable
from tunesvc.search.study_storage import shown_as_pruned

VALUES = st.floats(-5, 5) | st.sampled_from([0.0, 1.0, math.nan])
DEED = st.tuples(
    st.sampled_from(["new", "report", "pause", "resume", "end", "take back"]),
    st.integers(0, 9),
    VALUES,
)


def make_trial(number: int) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = number
    return trial


def plainly(trials: Sequence[FrozenTrial], rung: int, sign: float) -> list[tuple[float, int]]:
    """Loss and number of the trials that came there, the best first."""
    came = []
    for trial in trials:
        steps = [step for step in trial.intermediate_values if step >= rung]
        if steps:
            cost = sign * trial.intermediate_values[min(steps)]
            came.append((math.inf if math.isnan(cost) else cost, trial.number))
    return sorted(came)


@settings(max_examples=60, deadline=None)
@given(
    deeds=st.lists(DEED, max_size=60), sign=st.sampled_from([1.0, -1.0]), is_counted=st.booleans()
)
def test_what_is_kept_is_what_a_look_at_all_trials_would_tell(
    deeds: list[tuple[str, int, float]], sign: float, is_counted: bool
) -> None:
    rungs = RungTable(np.array([sign]))
    trials: list[FrozenTrial] = []  # as a storage shows them
    real: list[FrozenTrial] = []
    for version, (deed, which, value) in enumerate(deeds):
        rungs.version = version if is_counted else None
        number = which % max(len(trials), 1)
        if deed == "new" or not trials:
            real.append(make_trial(len(real)))
            trials.append(real[-1])
        elif (
            deed == "take back"
            and trials[-1].state == TrialState.RUNNING
            and not trials[-1].intermediate_values
        ):
            real.pop(), trials.pop()
        elif deed == "report" and trials[number].state == TrialState.RUNNING:
            real[number].intermediate_values[1 + len(real[number].intermediate_values)] = value
        elif deed == "pause" and trials[number].state == TrialState.RUNNING:
            trials[number] = shown_as_pruned(real[number])
        elif deed == "resume" and trials[number] is not real[number]:
            trials[number] = real[number]
        elif deed == "end" and trials[number].state == TrialState.RUNNING:
            real[number].state = TrialState.COMPLETE
        for rung in (1, 2, 4):
            standing, _ = rungs.ranking_at(trials, rung)
            ranked = [(one.losses[0], one.number) for one in standing]
            assert ranked == plainly(trials, rung, sign)
            assert [standing.rank_of(one) for one in standing] == [
                sum(cost < one.losses[0] for cost, _ in ranked) for one in standing
            ]


def test_a_trial_counts_as_it_is_asked_about_and_not_as_it_has_become() -> None:
    trials = [make_trial(0), make_trial(1)]
    trials[0].intermediate_values = {1: 0.5}
    trials[1].intermediate_values = {1: 0.1, 2: 0.1}
    asked = copy.copy(trials[1])
    asked.intermediate_values = {1: 0.9}
    standing, own = RungTable(np.array([1.0])).ranking_at(trials, 1, asked)
    assert own is not None
    assert [one.losses for one in standing] == [(0.5,), (0.9,)]
    assert (standing.index_of(own), standing.rank_of(own)) == (1, 1)


@pytest.mark.parametrize("directions", [["minimize"], ["minimize", "maximize"]])
def test_a_pruner_that_was_asked_all_along_decides_as_a_new_one(directions: list[str]) -> None:
    """A restart, and a pickled copy, know what the one before knew."""
    study = optuna.create_study(directions=directions)
    asked_all_along = AshaPruner(min=1, eta=2)
    draw = np.random.default_rng(3)
    for _ in range(30):
        trial = study.ask()
        for step in (1, 2, 3):
            if len(directions) == 1:
                trial.report(float(draw.normal()), step)
            frozen = study.get_trials(deepcopy=False)[trial.number]
            verdict = asked_all_along.prune(study, frozen)
            assert verdict == AshaPruner(min=1, eta=2).prune(study, frozen)
            assert verdict == copy.deepcopy(asked_all_along).prune(study, frozen)
        study.tell(trial, [0.0] * len(directions))
