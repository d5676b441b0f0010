"""Expected gains of paused trials, kept as long as they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tests.support.study_strategies import DEEDS, followed
from tunesvc.search.pruners.curve.curve_model import CurveModel
from tunesvc.search.pruners.curve.resume_candidates import ResumeCandidates
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.study_history import StudyHistory

START = [("new", k, 0.0) for k in range(8)] + [
    ("report", k % 8, k % 8 + 1 / (1 + k)) for k in range(32)
]
START += [("end", k, float(k)) for k in (0, 1, 2)] + [("pause", k, 0.0) for k in (3, 4, 5, 6)]


AGAIN = [("resume", 0, 0.0), *[("report", 0, -3.0)] * 4, ("pause", 0, 0.0)]
"""One goes on, gets much better, and is paused again, where no model learns."""


class Known:
    """All that promises rest on, as of now."""

    def __init__(self, objectives: int) -> None:
        self._several = objectives > 1
        self.models = [
            CurveModel(StudyDirection.MINIMIZE, k if self._several else None)
            for k in range(objectives)
        ]
        self.history = StudyHistory(np.array([1.0, -1.0][:objectives]))

    def look(self, memory: RecordingStorage, trials: list[FrozenTrial]) -> None:
        for model in self.models:
            model.update(trials, memory.resumed)
        self.history.update(trials, memory.resumed)

    def update(
        self,
        promises: ResumeCandidates,
        memory: RecordingStorage,
        trials: list[FrozenTrial],
        *,
        knows_resumed: bool,
    ) -> None:
        paused = dict.fromkeys(reversed(memory.masked), 0)
        resumed = memory.resumed if knows_resumed else None
        promises.update(trials, paused, self.models, self.history.front, resumed)


@settings(max_examples=12, deadline=None)
@given(
    deeds=DEEDS,
    objectives=st.integers(1, 2),
    knows_resumed=st.booleans(),
    chance=st.sampled_from([0.0, 0.05, 0.3]),
)
@example(deeds=AGAIN, objectives=1, knows_resumed=True, chance=0.0)
def test_what_is_kept_chooses_as_what_is_worked_out_now(
    deeds: list[tuple[str, int, float]], objectives: int, knows_resumed: bool, chance: float
) -> None:
    known, kept = Known(objectives), ResumeCandidates()
    for memory, trials in followed([*START, *deeds], objectives):
        known.look(memory, trials)
        if not known.history.front or not memory.masked:
            continue
        known.update(kept, memory, trials, knows_resumed=knows_resumed)
        known.update(now := ResumeCandidates(), memory, trials, knows_resumed=False)
        assert kept.together == pytest.approx(now.together, rel=1e-9, abs=1e-12)
        ours, theirs = kept.best(chance), now.best(chance)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours.gain_per_step == pytest.approx(theirs.gain_per_step, rel=1e-9)
            assert ours.trial is trials[ours.trial.number]
