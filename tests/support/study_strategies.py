"""Studies that go through anything that may happen to one, for tests of what follows their
trials as they end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.study_storage import RecordingStorage

N, X = IntDistribution(1, 3), FloatDistribution(0.0, 1.0)
DEED = st.sampled_from(
    ["new", "new", "report", "report", "report", "pause", "resume", "end", "fail", "take back"]
)
VALUE = st.floats(-5, 5) | st.sampled_from([0.0, 1.0, math.nan, math.inf])
DEEDS = st.lists(st.tuples(DEED, st.integers(0, 30), VALUE), min_size=15, max_size=45)


def followed(
    deeds: Sequence[tuple[str, int, float]], objectives: int = 1
) -> Iterator[tuple[RecordingStorage, list[FrozenTrial]]]:
    """The study after each deed, and its trials as a storage shows them."""
    memory = RecordingStorage(
        "any", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE][:objectives]
    )
    for deed, which, value in deeds:
        _do(memory, deed, which, value, objectives)
        yield memory, memory.get_all_trials(memory.study_id, deepcopy=False)


def _do(memory: RecordingStorage, deed: str, which: int, value: float, objectives: int) -> None:
    trials = [memory.get_trial(number) for number in range(memory.count)]
    running = [
        t.number for t in trials if t.state == TrialState.RUNNING and t.number not in memory.masked
    ]
    if deed == "new" or not running:
        number = memory.create_new_trial(memory.study_id)
        memory.set_trial_param(number, "n", 1 + which % 3, N)
        if which % 2:
            memory.set_trial_param(number, "x", which / 30, X)
        return
    number = running[which % len(running)]
    step = len(memory.get_trial(number).intermediate_values)
    if deed == "report":
        memory.set_trial_intermediate_value(number, step, value)
        if objectives > 1:
            memory.set_others(number, step, [value / 2])
    elif deed == "pause" and step:
        memory.pause(number)
    elif deed == "resume" and memory.masked:
        number = sorted(memory.masked)[which % len(memory.masked)]
        memory.resume(number)
        memory.truncate_curve(number, which % 3)
    elif deed == "end":
        memory.set_trial_system_attr(number, "constraints:c", which % 4 - 2.0)
        values = [0.0 if math.isnan(value) else value, float(which % 3)]
        memory.set_trial_state_values(number, TrialState.COMPLETE, values[:objectives])
    elif deed == "fail":
        memory.set_trial_state_values(number, TrialState.FAIL)
    elif deed == "take back" and number == memory.count - 1 and not step:
        memory.pop_last(1)
