"""Leases of live attempts: renewed by heartbeats, and expired without them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tunesvc.coordinator.attempt_state.live_attempts import Ending, LiveAttempt, OpenTrials
from tunesvc.coordinator.post_commit_actions import PostCommitActions
from tunesvc.coordinator.study_context import StudyContext
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.study_changes import HeartbeatRecord
from tunesvc.execution.executor import AttemptId, Lost

LEASE_SLACK = 0.1
"""Share of `limits.stall` that a lease lasts longer; a lease is renewed once it has lost that."""


class Leases:
    """Renews the leases of live attempts, and ends attempts with an expired lease."""

    def __init__(self, context: StudyContext, live_attempts: OpenTrials) -> None:
        self._live = live_attempts
        self._study_id = context.study_id
        self._stall_s = context.spec.limits.stall
        self._clock = context.clock
        self._round = 0

    @property
    def lease_s(self) -> float:
        """Duration of a new or renewed lease."""
        return (1 + LEASE_SLACK) * self._stall_s

    def record_heartbeats(self, alive: Iterable[AttemptId]) -> None:
        """Record that these attempts live; adopted ones among them do run."""
        for attempt in alive:
            if (live := self._live.get(attempt)) is not None:
                self._live.record_heartbeat(live)

    def renewals(self, alive: Iterable[AttemptId] | None) -> list[HeartbeatRecord]:
        """Return the leases to renew: those of `alive` that have lost their slack.

        Args:
            alive: attempts with a heartbeat; None to renew all, when silence proves nothing.
        """
        now = self._clock.now()
        due_s = now - (self.lease_s - self._stall_s)
        self._round += 1
        renewed = []
        for live in self._with_heartbeat(alive):
            live.heartbeat_round = self._round
            if alive is None or live.leased_s <= due_s:
                live.leased_s = now
                renewed.append(HeartbeatRecord(*live.key(), self.lease_s))
        return renewed

    def _with_heartbeat(self, alive: Iterable[AttemptId] | None) -> Iterable[LiveAttempt]:
        if alive is None:
            return self._live
        return filter(None, map(self._live.get, alive))

    def expire(
        self,
        stalled: Iterable[tuple[int, int]],
        actions: PostCommitActions,
    ) -> list[Ending]:
        """End attempts with an expired lease; their later events are refused.

        One with a heartbeat in this round has its lease renewed instead: its renewal was
        not due yet.

        Args:
            stalled: trial number and attempt number of each.
        """
        ended = []
        for number, attempt in stalled:
            live = self._live.get(AttemptId(trial_id(self._study_id, number), attempt))
            if live is None:
                continue
            if live.heartbeat_round == self._round:
                live.leased_s = -math.inf
            elif not live.finished:
                live.finished = True
                actions.kills.append(live.id)
                reason = f"no heartbeat from its worker for {self._stall_s:g} s (limits.stall)"
                ended.append(Ending(live, Lost(reason, "stalled")))
        return ended
