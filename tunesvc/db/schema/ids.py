"""Trial ids: one integer that names study and number, so that no look-up stands between them.

`trial_id = study_id * 2^32 + number`. Optuna wants one integer per trial; deriving it lets the coordinator name a
trial before the database has seen it, and lets a batch insert thousands without asking for ids back. Up to two
million studies the ids stay below 2^53, which JavaScript counts exactly.
"""

from __future__ import annotations

_SHIFT = 32


def trial_id(study_id: int, number: int) -> int:
    """The id of a study's trial."""
    return (study_id << _SHIFT) | number


def study_of(trial_id: int) -> int:
    """The study that a trial belongs to."""
    return trial_id >> _SHIFT


def number_of(trial_id: int) -> int:
    """A trial's number in its study."""
    return trial_id & ((1 << _SHIFT) - 1)
