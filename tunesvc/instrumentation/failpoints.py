"""Failpoints: places at which a test kills, freezes or fails the process that reaches them.

`TUNE_FAILPOINT=committed:kill` kills the process the first time that it has committed and not yet
acted; `committed:kill@3` the third time. With `TUNE_FAILPOINT_MARK=FILE` it happens only in the
first process, which creates the file. Without these variables a failpoint costs one comparison.

Imports nothing of tunesvc.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Literal, get_args

Point = Literal[
    # the coordinator recovers a study
    "leased",  # it holds the lease
    "recovered",  # the recovered state is committed
    "adopted",  # the executor looks for running attempts
    # one step
    "heard",  # events were taken from the executor
    "handled",  # events are handled, the pruner has run
    "decided",  # everything is decided, nothing written
    "advanced",  # the transaction is open, its first statement done
    "written",  # all statements are done, nothing committed
    "committed",  # no action has been performed
    "acknowledged",
    "answered",
    "stopped",
    "killed",
    "launched",
    # submitting
    "uploaded",  # the snapshot is in the artifact store, and no row names it
    "recorded",  # its row is committed, the study is not there
    "submitted",  # the study and its submission are written, nothing committed
    # a server
    "taking",  # it has chosen a study from the queue
    "leaving",  # a coordinator stops in order, its lease is not yet released
    "stored",  # a final model is in the artifact store, and no row says so
    # a worker
    "begun",  # it has an attempt and has not started the objective
    "said",  # a report is in its outbox
    "ending",  # the objective has ended, its outcome is not yet in the outbox
]
POINTS: tuple[Point, ...] = get_args(Point)


class FailpointReached(Exception):
    """Raised by the action `raise`, in place of a mistake in our own code."""


class _Armed:
    """A failpoint and its action when it is reached for the nth time."""

    def __init__(self, point: str, nth: int, act: Callable[[], None]) -> None:
        self.point = point
        self.left = nth
        self._act = act

    @classmethod
    def parse(cls, text: str) -> _Armed:
        """Parse the form of `TUNE_FAILPOINT`."""
        point, _, rest = text.partition(":")
        action, _, nth = rest.partition("@")
        if point not in POINTS or action not in ("kill", "stop", "raise"):
            usage = "write POINT:kill, POINT:stop or POINT:raise; @N for the Nth"
            raise ValueError(f"TUNE_FAILPOINT={text!r}: {usage}")
        return cls(point, int(nth or 1), lambda: _act(action, point))

    def reached(self) -> None:
        self.left -= 1
        if self.left == 0 and _first_of_all():
            self._act()


def reach(point: Point) -> None:
    """Mark that this point is reached."""
    if _armed is not None and _armed.point == point:
        _armed.reached()


def arm(text: str | None) -> None:
    """Arm a failpoint from a text like `committed:kill@3`, as in `TUNE_FAILPOINT`; None: disarm."""
    global _armed
    _armed = None if text is None else _Armed.parse(text)


def interpose(point: Point, nth: int, act: Callable[[], None]) -> None:
    """Call a function when the point is reached for the nth time, as if another process acted."""
    global _armed
    _armed = _Armed(point, nth, act)


def _act(action: str, point: str) -> None:
    if action == "raise":
        raise FailpointReached(point)
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def _first_of_all() -> bool:
    mark = os.environ.get("TUNE_FAILPOINT_MARK")
    if not mark:
        return True
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


_armed: _Armed | None = None
arm(os.environ.get("TUNE_FAILPOINT") or None)
