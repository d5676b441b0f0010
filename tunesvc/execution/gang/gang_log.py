"""The output of a gang's processes in the trial's log, each line with its process.

In the process that runs the trial. Imports Ray to read files of other nodes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tunesvc.errors import BadReport
from tunesvc.execution.gang.gang_output import GangProcess
from tunesvc.execution.output.output_capture import BATCH_S
from tunesvc.execution.output.spool import STREAMS, Remains, read_remains

LINE_CHARS_MAX = 4_096
"""A longer line is cut into several, so that an endless one takes no memory."""
_REMOTE_S = 10.0
"""Timeout for reading the output of a process on another node, which may be gone too."""

Log = Callable[[str, str], None]
"""Receives `stdout` or `stderr` and text."""


@dataclass(slots=True)
class _Member:
    """What was received of one process."""

    process: GangProcess
    positions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    unfinished: dict[str, str] = field(default_factory=lambda: dict.fromkeys(STREAMS, ""))
    """The last line of each stream, as far as it is there."""


class GangLog:
    """Puts the output of a gang's processes into a log. Any thread may use it."""

    def __init__(self, log: Log) -> None:
        """Write to `log`."""
        self._log = log
        self._lock = threading.Lock()
        self._members: dict[tuple[str, str], _Member] = {}
        self._is_closed = False

    def add(self, process: GangProcess, stream: str, text: str, end: int) -> None:
        """Add output of a process, which ends at this position of its spool.

        Raises:
            BadReport: the attempt has ended.
        """
        with self._lock:
            if self._is_closed:
                raise BadReport("the trial's attempt has ended")
            key = process.node_id, process.spool
            member = self._members.setdefault(key, _Member(process))
            member.process = process
            member.positions[stream] = max(end, member.positions[stream])
            self._write(member, stream, text)

    def close(self, node_id: str, *, is_failed: bool) -> None:
        """Add what the processes have written until now.

        Args:
            node_id: this node, whose files can be read at once.
            is_failed: true if processes on other nodes may have died with unsent output.
        """
        if any(key[0] != node_id for key in self._members):
            time.sleep(2 * BATCH_S)  # the living ones send it
        with self._lock:
            self._is_closed = True
            for member in self._members.values():
                is_here = member.process.node_id == node_id
                if is_here or is_failed:
                    remains = _read(member, is_here=is_here)
                    for stream, text in remains.output.items():
                        self._write(member, stream, text)
                for stream in STREAMS:
                    if member.unfinished[stream]:
                        self._write(member, stream, "\n")

    def _write(self, member: _Member, stream: str, text: str) -> None:
        """Write whole lines, and keep the rest."""
        *lines, rest = (member.unfinished[stream] + text).split("\n")
        if len(rest) > LINE_CHARS_MAX:
            lines, rest = [*lines, rest], ""
        member.unfinished[stream] = rest
        if lines:
            label = member.process.label
            self._log(stream, "".join(f"[{label}] {line}\n" for line in lines))


def _read(member: _Member, *, is_here: bool) -> Remains:
    """Return what a process has written after the received part, as far as it can be read."""
    process, positions = member.process, dict(member.positions)
    if is_here:
        return read_remains(process.spool, positions)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    read = ray.remote(read_remains).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    with suppress(Exception):  # its node is gone
        remains: Remains = ray.get(read.remote(process.spool, positions), timeout=_REMOTE_S)
        return remains
    return Remains()
