"""The output of a gang's processes in the trial's log, each line with its process.

In the process that runs the trial. Imports Ray to read files of other nodes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from tunesvc.errors import BadReport
from tunesvc.execution.gang.gang_output import GangProcess
from tunesvc.execution.output.output_capture import BATCH_S
from tunesvc.execution.output.remote_spools import Positions, SpoolId, read_on_nodes
from tunesvc.execution.output.spool import STREAMS, Remains, read_remains

LINE_CHARS_MAX = 4_096
"""A longer line is cut into several, so that an endless one takes no memory."""
_REMOTE_S = 10.0
"""Timeout for reading the files of all other nodes, which may be gone."""

Log = Callable[[str, str], None]
"""Receives `stdout` or `stderr` and text."""
ReadOnNodes = Callable[[Mapping[SpoolId, Positions], float], Mapping[SpoolId, Remains]]
"""Reads spools of other nodes within a time in seconds, see `read_on_nodes`."""


@dataclass(slots=True)
class _Member:
    """The received part of one process's output."""

    process: GangProcess
    positions: dict[str, int]
    unfinished: dict[str, str] = field(default_factory=lambda: dict.fromkeys(STREAMS, ""))
    """The last line of each stream, as far as it is there."""


class GangLog:
    """Puts the output of a gang's processes into a log. Any thread may use it."""

    def __init__(self, log: Log, read_on_nodes: ReadOnNodes = read_on_nodes) -> None:
        """Write to `log`. `read_on_nodes` reads the files of other nodes."""
        self._log = log
        self._read_on_nodes = read_on_nodes
        self._lock = threading.Lock()
        self._members: dict[SpoolId, _Member] = {}
        self._is_closed = False

    def add(self, process: GangProcess, stream: str, text: str, end: int) -> None:
        """Add output of a process, which ends at this position of its spool. Repeatable.

        Raises:
            BadReport: the attempt has ended.
        """
        with self._lock:
            if self._is_closed:
                raise BadReport("the trial's attempt has ended")
            key = process.node_id, process.spool
            begins = {stream: process.begins.get(stream, 0) for stream in STREAMS}
            member = self._members.setdefault(key, _Member(process, begins))
            member.process = process
            if end > member.positions[stream]:
                member.positions[stream] = end
                self._write(member, stream, text)

    def close(self, node_id: str) -> None:
        """Add what the processes have written until now.

        Waits up to 10 s for other nodes, which may be gone.

        Args:
            node_id: this node, whose files can be read at once.
        """
        with self._lock:
            nodes = {node for node, _ in self._members}
        if nodes - {node_id}:
            time.sleep(2 * BATCH_S)  # the living ones send it
        with self._lock:
            self._is_closed = True
        # From here on only this thread has the members, and late calls are refused at once.
        remains = self._remains(node_id)
        for spool, member in self._members.items():
            for stream, text in remains.get(spool, Remains()).output.items():
                self._write(member, stream, text)
            for stream in STREAMS:
                if member.unfinished[stream]:
                    self._write(member, stream, "\n")

    def _remains(self, node_id: str) -> dict[SpoolId, Remains]:
        """Return the output that was not received, as far as it can be read."""
        received = {spool: member.positions for spool, member in self._members.items()}
        away = {spool: positions for spool, positions in received.items() if spool[0] != node_id}
        found: dict[SpoolId, Remains] = {}
        if away:
            with suppress(Exception):  # Ray is gone, and the outcome matters more
                found |= self._read_on_nodes(away, _REMOTE_S)
        for spool in received.keys() - away.keys():
            found[spool] = read_remains(spool[1], received[spool])
        return found

    def _write(self, member: _Member, stream: str, text: str) -> None:
        """Write whole lines, and keep the rest."""
        *lines, rest = (member.unfinished[stream] + text).split("\n")
        if len(rest) > LINE_CHARS_MAX:
            lines, rest = [*lines, rest], ""
        member.unfinished[stream] = rest
        if lines:
            label = member.process.label
            self._log(stream, "".join(f"[{label}] {line}\n" for line in lines))
