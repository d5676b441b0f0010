"""Progress of a member of a population through the stretch of training that its attempt runs.

The attempt ends with the first report at or after the stretch's end, but not before the checkpoint
of that step is saved: a copy could start from nothing else. Imports no Ray.
"""

from __future__ import annotations

from tunesvc.errors import BadReport
from tunesvc.execution.executor import Stretch


class StretchProgress:
    """Reports and checkpoints of an attempt's stretch; without a stretch it never ends."""

    def __init__(self, stretch: Stretch | None) -> None:
        self._stretch = stretch
        self._reported_at: int | None = None
        """Step of the first report at or after the end."""
        self._is_saved = False

    @property
    def is_over(self) -> bool:
        """True if the attempt should end."""
        return self._reported_at is not None and self._is_saved

    def starts(self, step: int) -> bool:
        """Return False if a step about to be reported lies beyond the end of the training.

        Raises:
            BadReport: the checkpoint of the last step of the stretch is missing.
        """
        if self._stretch is None or self._reported_at is None or step <= self._reported_at:
            return True
        if self._is_saved or self._stretch.is_last:
            self._is_saved = True
            return False
        at = self._reported_at
        raise BadReport(
            f"there is no checkpoint of step {at}, and a population copies and resumes trials "
            f"there (search.interval): save the state and call trial.checkpoint(path) after "
            f"trial.report({at}, ...), or before it with step={at}"
        )

    def report(self, step: int) -> None:
        """Note a report."""
        if self._stretch is not None and self._reported_at is None and step >= self._stretch.until:
            self._reported_at = step

    def save(self, step: int) -> None:
        """Note a checkpoint."""
        if self._stretch is not None and step >= self._stretch.until:
            self._is_saved = True
