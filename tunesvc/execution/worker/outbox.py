"""The outbox of an attempt: its events, numbered 1, 2, 3, ..., kept until they are acknowledged.

`put` never blocks, and memory is bounded. If an attempt reports faster than reports can be
recorded, every second pending report is dropped; if it writes too much output, the middle is
dropped. The attempt's log mentions both.

Imports no Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from tunesvc.execution.executor import (
    Outcome,
    OutputLogged,
    Payload,
    Reported,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.execution.worker.batching import BatchSignal
from tunesvc.execution.worker.int_ranges import IntRangeSet

Numbered = tuple[int, Payload]

PENDING_REPORTS_MAX = 50_000
PENDING_LOG_CHARS_MAX = 2**20
UNACKNOWLEDGED_MAX = 20_000
"""No more events are handed out while this many wait for their acknowledgement."""
TAKE_MAX = 2_000
"""Events per `take`."""


class Outbox:
    """Events of one attempt.

    Any thread may put and take. Each reader gets all events above its own `after`.
    """

    def __init__(
        self,
        signal: BatchSignal | None = None,
        *,
        pending_reports_max: int = PENDING_REPORTS_MAX,
        pending_log_chars_max: int = PENDING_LOG_CHARS_MAX,
    ) -> None:
        """Make an empty outbox. Every event notifies `signal`."""
        self._signal = signal or BatchSignal()
        self._lock = self._signal.lock
        self._reports_max = pending_reports_max
        self._log_chars_max = pending_log_chars_max
        self._pending: deque[Payload] = deque()
        self._unacknowledged: deque[Numbered] = deque()
        self._last_seq = 0
        self._closed = False
        self._steps = IntRangeSet()
        self._pending_reports = 0
        self._pending_log_chars = 0
        self._dropped_reports = 0

    def put(self, payload: Payload) -> None:
        """Add an event. An outcome closes the outbox: later events are ignored."""
        with self._lock:
            if self._closed:
                return
            if isinstance(payload, Outcome):
                self._log_dropped_reports()
                self._closed = True
            self._add(payload)
            if isinstance(payload, (Outcome, SuggestRequested, StudyRequested)):
                self._signal.notify_urgent()

    def report(self, report: Reported) -> None:
        """Add a report, unless its step was reported before."""
        with self._lock:
            if self._closed or not self._steps.add(report.step):
                return
            self._pending_reports += 1
            if self._pending_reports > self._reports_max:
                self._thin_out()
            self._add(report)

    def log(self, stream: str, text: str, end: int = 0) -> None:
        """Add a piece of output, which ends at position `end` of the spool."""
        with self._lock:
            if self._closed:
                return
            self._pending_log_chars += len(text)
            self._add(OutputLogged(stream, text, end))
            if self._pending_log_chars > self._log_chars_max:
                self._cut_log()

    def acknowledge(self, acknowledged: int) -> None:
        """Forget the events up to this number. They are recorded."""
        with self._lock:
            while self._unacknowledged and self._unacknowledged[0][0] <= acknowledged:
                self._unacknowledged.popleft()

    def count(self, after: int) -> int:
        """Return how many events above `after` could be taken now."""
        with self._lock:
            room = UNACKNOWLEDGED_MAX - len(self._unacknowledged)
            return self._last_seq - after + min(len(self._pending), room)

    @property
    def is_closed(self) -> bool:
        """True if the outcome was put."""
        with self._lock:
            return self._closed

    @property
    def is_recorded(self) -> bool:
        """True if all events so far have been recorded."""
        with self._lock:
            return not self._pending and not self._unacknowledged

    @property
    def is_full(self) -> bool:
        """True if no more events are handed out before an acknowledgement."""
        with self._lock:
            return len(self._unacknowledged) >= UNACKNOWLEDGED_MAX

    def take(self, after: int) -> Sequence[Numbered]:
        """Return events above `after`.

        Repeatable: the same `after` returns the same events and later ones.
        """
        with self._lock:
            self._hand_out()
            above = (event for event in self._unacknowledged if event[0] > after)
            return list(islice(above, TAKE_MAX))

    def _hand_out(self) -> None:
        """Number pending events, as many as may be unacknowledged."""
        room = UNACKNOWLEDGED_MAX - len(self._unacknowledged)
        for _ in range(min(TAKE_MAX, len(self._pending), room)):
            payload = self._pending.popleft()
            self._last_seq += 1
            self._unacknowledged.append((self._last_seq, payload))
            if isinstance(payload, Reported):
                self._pending_reports -= 1
            elif isinstance(payload, OutputLogged):
                self._pending_log_chars -= len(payload.text)

    def _add(self, payload: Payload) -> None:
        self._pending.append(payload)
        self._signal.notify()

    def _thin_out(self) -> None:
        """Drop every second pending report. A curve keeps its shape at half the resolution."""
        thinned: deque[Payload] = deque()
        odd = False
        for payload in self._pending:
            odd ^= isinstance(payload, Reported)
            if odd or not isinstance(payload, Reported):
                thinned.append(payload)
        left_out = len(self._pending) - len(thinned)
        self._pending = thinned
        self._pending_reports -= left_out
        self._dropped_reports += left_out

    def _cut_log(self) -> None:
        """Drop the middle of the pending output.

        About a quarter of the bound stays at either end.
        """
        margin, total = self._log_chars_max // 4, self._pending_log_chars
        cut: deque[Payload] = deque()
        before = left_out = gap_at = 0
        for payload in self._pending:
            chars = len(payload.text) if isinstance(payload, OutputLogged) else 0
            after = before + chars
            is_in_middle = before >= margin and total - after >= margin
            if isinstance(payload, OutputLogged) and is_in_middle:
                left_out += payload.left_out or len(payload.text)
                self._pending_log_chars -= len(payload.text)
                gap_at = gap_at or len(cut)
            else:
                cut.append(payload)
            before = after
        if left_out:
            gap = OutputLogged.gap(left_out)
            cut.insert(gap_at, gap)
            self._pending_log_chars += len(gap.text)
            self._pending = cut

    def _log_dropped_reports(self) -> None:
        if self._dropped_reports:
            self._log_note(
                f"{self._dropped_reports} reports came faster than they could be recorded and were"
                " left out",
            )

    def _log_note(self, text: str) -> None:
        note = OutputLogged("stderr", f"[tunesvc: {text}]\n")
        self._pending_log_chars += len(note.text)
        self._add(note)
