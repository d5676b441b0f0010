"""The outbox of an attempt: what it said, numbered 1, 2, 3, ..., kept until it is acknowledged.

Putting never waits and memory is bounded: when an attempt reports faster than anyone can record, every second
report that was not handed out yet is left out; output beyond the bound is dropped. Both are said in the attempt's log.

Imports no Ray.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice

from tunesvc.execute.executor import Asked, Logged, Outcome, Payload, Reported
from tunesvc.execute.steps import Steps

Numbered = tuple[int, Payload]

PENDING_REPORTS_MAX = 50_000
PENDING_LOG_CHARS_MAX = 2**20
UNACKNOWLEDGED_MAX = 20_000
"""Nothing more is handed out while so many events wait for their acknowledgement."""
FULL_WAIT_S = 0.2
"""How long a listener waits then."""
TAKE_MAX = 2_000
"""Events per `take`."""
GATHER_MAX = 200
"""So many events do not wait for more."""
GATHER_S = 0.02
"""How long what is said travels together with what follows it. A call costs as much as a hundred events in it."""


class Outbox:
    """One attempt's events. Any thread may put and take; of two listeners, both get everything above their `after`."""

    def __init__(
        self,
        *,
        pending_reports_max: int = PENDING_REPORTS_MAX,
        pending_log_chars_max: int = PENDING_LOG_CHARS_MAX,
        gather_s: float = 0.0,
    ) -> None:
        self._gather_s = gather_s
        self._reports_max = pending_reports_max
        self._log_chars_max = pending_log_chars_max
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._urgently = threading.Condition(lock)
        self._is_urgent = False
        self._pending: deque[Payload] = deque()
        self._kept: deque[Numbered] = deque()
        self._last_seq = 0
        self._closed = False
        self._steps = Steps()
        self._pending_reports = 0
        self._pending_log_chars = 0
        self._thinned_reports = 0
        self._dropped_log_chars = 0

    def put(self, payload: Payload) -> None:
        """Add an event. An outcome is the last; whatever comes after it is refused."""
        with self._changed:
            if self._closed:
                return
            if isinstance(payload, Outcome):
                self._say_what_is_missing()
                self._closed = True
            self._add(payload)
            if isinstance(payload, (Outcome, Asked)):
                self._is_urgent = True
                self._urgently.notify_all()

    def report(self, report: Reported) -> None:
        """Add a report, unless its step was reported before: the first one stands."""
        with self._changed:
            if self._closed or not self._steps.add(report.step):
                return
            self._pending_reports += 1
            if self._pending_reports > self._reports_max:
                self._thin_out()
            self._add(report)

    def log(self, stream: str, text: str) -> None:
        """Add a piece of output, or drop it when too much waits already."""
        with self._changed:
            if self._closed:
                return
            if self._pending_log_chars + len(text) > self._log_chars_max:
                self._dropped_log_chars += len(text)
                return
            self._say_what_was_dropped()
            self._pending_log_chars += len(text)
            self._add(Logged(stream, text))

    def take(self, after: int, acknowledged: int, timeout_s: float) -> Sequence[Numbered]:
        """Events numbered above `after`; waits up to `timeout_s` for the first, and a little for those that follow it,
        unless somebody waits for what they mean.

        Events up to `acknowledged` are forgotten. Repeatable: the same `after` gives the same events again.
        """
        with self._changed:
            while self._kept and self._kept[0][0] <= acknowledged:
                self._kept.popleft()
            if len(self._kept) >= UNACKNOWLEDGED_MAX:
                timeout_s = min(timeout_s, FULL_WAIT_S)  # what is recorded meanwhile is told with the next call only
            if self._changed.wait_for(lambda: self._hand_out(after), timeout_s) and self._has_time(after):
                self._urgently.wait_for(lambda: self._is_urgent, self._gather_s)
                self._hand_out(after)
            self._is_urgent = self._closed
            return list(islice((event for event in self._kept if event[0] > after), TAKE_MAX))

    def _has_time(self, after: int) -> bool:
        """Whether what there is may wait for more."""
        return not self._is_urgent and self._last_seq - after < GATHER_MAX

    def _hand_out(self, after: int) -> bool:
        """Number what is pending; whether there is anything above `after`."""
        for _ in range(min(TAKE_MAX, len(self._pending), UNACKNOWLEDGED_MAX - len(self._kept))):
            payload = self._pending.popleft()
            self._last_seq += 1
            self._kept.append((self._last_seq, payload))
            if isinstance(payload, Reported):
                self._pending_reports -= 1
            elif isinstance(payload, Logged):
                self._pending_log_chars -= len(payload.text)
        return self._last_seq > after

    def _add(self, payload: Payload) -> None:
        self._pending.append(payload)
        self._changed.notify_all()

    def _thin_out(self) -> None:
        """Leave out every second report that waits; a curve keeps its shape at half its resolution."""
        thinned: deque[Payload] = deque()
        odd = False
        for payload in self._pending:
            odd ^= isinstance(payload, Reported)
            if odd or not isinstance(payload, Reported):
                thinned.append(payload)
        left_out = len(self._pending) - len(thinned)
        self._pending = thinned
        self._pending_reports -= left_out
        self._thinned_reports += left_out

    def _say_what_is_missing(self) -> None:
        self._say_what_was_dropped()
        if self._thinned_reports:
            self._note(f"{self._thinned_reports} reports came faster than they could be recorded and were left out")

    def _say_what_was_dropped(self) -> None:
        if self._dropped_log_chars:
            self._note(f"{self._dropped_log_chars} characters of output came too fast and were dropped")
            self._dropped_log_chars = 0

    def _note(self, text: str) -> None:
        note = Logged("stderr", f"[tunesvc: {text}]\n")
        self._pending_log_chars += len(note.text)
        self._add(note)
