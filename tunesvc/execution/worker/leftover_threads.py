"""Threads that an objective leaves running.

Their worker is replaced, so that they do not disturb later trials.

Daemon threads are usual for libraries and harmless. So are idle pools, which libraries such as
joblib keep for the next call. Imports no Ray.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Sequence

_END_S = 0.5
"""Grace period for threads that are about to end. Starting a new worker takes longer."""


def find_leftovers(before: Collection[threading.Thread]) -> list[threading.Thread]:
    """Return new threads that are neither daemons nor idle in a pool nor about to end."""
    deadline_s = time.monotonic() + _END_S
    leftovers = []
    for thread in threading.enumerate():
        if thread in before or thread.daemon or _is_idle_in_pool(thread):
            continue
        thread.join(max(0.0, deadline_s - time.monotonic()))
        if thread.is_alive() and not _is_idle_in_pool(thread):
            leftovers.append(thread)
    return leftovers


def describe(leftovers: Sequence[threading.Thread]) -> str:
    """Return a note for the log of the trial that left these threads behind."""
    names = ", ".join(repr(thread.name) for thread in leftovers)
    return (
        f"[tunesvc: this trial left threads running: {names}. "
        "A new worker replaces this one, which costs the next trial seconds. "
        "End the threads before the trial ends, or start them with daemon=True]\n"
    )


def _is_idle_in_pool(thread: threading.Thread) -> bool:
    """Return True for a thread of `concurrent.futures` or loky that waits for work."""
    if type(thread).__name__ == "_ExecutorManagerThread":  # of a pool of processes
        return not getattr(thread, "pending_work_items", True)
    pool = sys.modules.get("concurrent.futures.thread")
    frame = sys._current_frames().get(thread.ident or 0)
    if pool is None or frame is None:
        return False
    return frame.f_code is pool._worker.__code__
