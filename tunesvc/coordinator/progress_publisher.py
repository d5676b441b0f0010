"""Publishes snapshots of a running study to its observer, at a limited rate."""

from __future__ import annotations

from tunesvc.coordinator.attempt_state.live_attempts import OpenTrials
from tunesvc.coordinator.progress_events import Observer
from tunesvc.coordinator.study_progress import RunStatus, StudyProgress
from tunesvc.policy import Usage
from tunesvc.util.clock import Clock

PUBLISH_S = 0.2
"""Shortest interval of snapshots while only the reports of running trials change."""
PUBLISH_SHARE_MAX = 0.03
"""Largest share of time for snapshots, which are large when thousands of trials run."""


class ProgressPublisher:
    """Decides when the observer gets the next snapshot."""

    def __init__(
        self,
        progress: StudyProgress,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._observer = observer
        self._last: tuple[object, ...] = ()
        self._last_s = -1e9
        self._took_s = 0.0

    def publish(
        self,
        live_attempts: OpenTrials,
        usage: Usage,
        status: RunStatus,
        *,
        gpus_total: float,
        is_last: bool,
    ) -> None:
        """Send a snapshot if one is due, or if it is the last."""
        summary = status, self._progress.ended, len(live_attempts)
        began_s = self._clock.now()
        interval_s = self._took_s / PUBLISH_SHARE_MAX
        if summary == self._last:
            interval_s = max(interval_s, PUBLISH_S)
        if began_s - self._last_s < interval_s and not is_last:
            return
        snapshot = self._progress.snapshot(
            live_attempts,
            usage,
            status,
            now_s=began_s,
            gpus_total=gpus_total,
        )
        self._observer.progress(snapshot)
        self._last, self._last_s = summary, began_s
        self._took_s = self._clock.now() - began_s
