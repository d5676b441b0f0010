"""Trial ids: one integer of study and number, so that no look-up is needed.

`trial_id = study_id * 2^32 + number`. Optuna needs one integer per trial. Deriving it lets the
coordinator name a trial before the database has it, and insert thousands without reading ids back.
Up to two million studies the ids stay below 2^53, which JavaScript represents exactly.
"""

from __future__ import annotations

_SHIFT = 32


def trial_id(study_id: int, number: int) -> int:
    """Return the id of a study's trial."""
    return (study_id << _SHIFT) | number


def study_of(trial_id: int) -> int:
    """Return the study of a trial."""
    return trial_id >> _SHIFT


def number_of(trial_id: int) -> int:
    """Return a trial's number in its study."""
    return trial_id & ((1 << _SHIFT) - 1)
