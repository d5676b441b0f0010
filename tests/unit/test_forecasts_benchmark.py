"""The benchmark of forecasts: states of studies, and how their next proposals are judged."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import forecasts
from benchmarks.curve_tables import EPOCHS
from benchmarks.curves import curves_of, finals_of


def test_a_state_is_judged_by_the_proposals_that_followed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecasts, "MARKS", (300,))
    monkeypatch.setattr(forecasts, "END", 420)
    (state,) = forecasts.states_of("breast_cancer", "last", 1)
    assert sum(len(trial.intermediate_values) for trial in state.trials) == 300
    assert len(state.following) > 0
    judged = forecasts.judge(state, "breast_cancer", "last")
    assert judged is not None
    assert judged.chances.shape == (len(state.following), len(judged.levels))
    best = min(trial.values[0] for trial in state.trials if trial.values)
    finals = finals_of(curves_of("breast_cancer"), "last")[list(state.following)]
    assert judged.improves.tolist() == (finals < best).tolist()
    assert np.isfinite(judged.scores).any()
    assert "| all |" in forecasts.report([judged])


def test_a_proposal_stops_at_the_first_level_with_a_small_chance() -> None:
    chances = np.array([[0.2, 0.01, 0.3], [0.04, 0.2, 0.2], [0.5, 0.5, 0.5]])
    judged = forecasts.Judged(
        np.array([1, 4, 9]), chances, np.zeros((3, 3)), np.array([True, False, True])
    )
    assert judged.stopped_at(0.05).tolist() == [4, 1, EPOCHS]
    assert f"| 0.05 | {(4 + 1 + EPOCHS) / 3:.1f} | 0.500 |" in forecasts.report([judged])
