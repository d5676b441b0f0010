"""Monitors the executor: its errors, its capacity, and gaps in which it may have missed reports."""

from __future__ import annotations

from collections.abc import Sequence

from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.executor import Executor, NodeInfo
from tunesvc.util.clock import Clock

SLOTS_S = 2.0
"""Interval of asking for the study's slots: nodes and other studies come and go."""
NODES_S = 10.0
"""Interval of recording the cluster's nodes."""
GAP_S = 5.0
"""Longest time between two steps without suspecting that reports were missed."""
SETTLE_S = 15.0
"""Time after such a gap in which silence proves nothing; every live worker reports within it."""


class ExecutorMonitor:
    """Health and capacity of the executor, as one coordinator sees them."""

    def __init__(self, executor: Executor, clock: Clock, observer: Observer) -> None:
        self._executor = executor
        self._clock = clock
        self._observer = observer
        self.health_error = ""
        """Reason why nothing can be launched now, Ray's absence; empty when all is well."""
        self.capacity_error = ""
        """Reason why the cluster cannot hold a trial; empty when it can."""
        self.gpus_total = executor.capacity().gpu
        self.listened_s = clock.now()
        """Time at which the last step took its events."""
        self._trusted_from_s = self.listened_s
        self._slots = 1
        self._slots_s = self._nodes_s = -1e9

    def on_listened(self) -> None:
        """Detect a gap since the last step: an outage, a freeze, a slow step, or Ray's absence."""
        now = self._clock.now()
        if now - self.listened_s > GAP_S or self.health_error:
            self.distrust_silence()
        self.listened_s = now

    def distrust_silence(self) -> None:
        """Conclude nothing from silence for a while: missed reports have to arrive first."""
        self._trusted_from_s = self._clock.now() + SETTLE_S

    @property
    def trusts_silence(self) -> bool:
        """True if an attempt without a heartbeat can be taken for lost."""
        return self._clock.now() >= self._trusted_from_s

    def check_health(self) -> None:
        """Ask the executor for its state, and report a change."""
        error = self._executor.health_error()
        if error == self.health_error:
            return
        self.health_error = error
        if error:
            self._observer.on_event(ProgressEvent("warning", error))
        else:
            self._observer.on_event(ProgressEvent("study", "Ray is back"))

    def nodes_if_due(self) -> Sequence[NodeInfo] | None:
        """Return the cluster's nodes if they are due to be recorded."""
        now = self._clock.now()
        if now - self._nodes_s < NODES_S or self.health_error:
            return None
        self._nodes_s = now
        return self._executor.capacity().by_node

    def slots(self) -> int:
        """Return how many attempts the cluster can run at a time for this study."""
        now = self._clock.now()
        if now - self._slots_s >= SLOTS_S:
            self._slots_s = now
            self._slots = self._count_slots()
        return self._slots

    def _count_slots(self) -> int:
        try:
            slots = self._executor.slots()
        except UnsatisfiableRequest as error:
            # The request could be met when the run began: nodes have gone, and may come back.
            if str(error) != self.capacity_error:
                self._observer.on_event(ProgressEvent("warning", str(error)))
            self.capacity_error = str(error)
            return self._slots
        self.capacity_error = ""
        return slots
