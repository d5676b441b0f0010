"""Messages between a coordinator and a worker.

One poll carries all pending commands, its response all new events.

A poll may get lost, or arrive after a later one. Each command is therefore repeated until the
worker has confirmed it. It keeps the number of the first poll that carried it, so the worker
executes it once and in order.

Values only. Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesvc.execution.executor import AttemptId
from tunesvc.execution.worker.outbox import Numbered

CommandKind = Literal["run", "cancel", "stop", "answer", "forget"]
"""Commands about an attempt.

run      begin it when the attempts before it have ended; carries the `Launch`
cancel   do not begin it, if it has not begun
stop     ask it to stop at its next report
answer   the value that it asked for; carries the parameter's name and the value
forget   all its events are recorded
"""


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """A command to a worker about one attempt."""

    kind: CommandKind
    attempt: AttemptId
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class PollRequest:
    """Commands for a worker, and a request for the events of attempts."""

    number: int
    """1, 2, 3, ... under a token. A newer poll makes the older one return at once, empty."""
    commands: Sequence[tuple[int, WorkerCommand]]
    """Unconfirmed commands, each with the number of the first poll that carried it."""
    cursors: Mapping[AttemptId, tuple[int, int]]
    """Last received and last recorded event of each attempt, in order of assignment."""


@dataclass(frozen=True, slots=True)
class PollResponse:
    """New events of a worker's attempts."""

    events: Sequence[tuple[AttemptId, Sequence[Numbered]]] = ()
    """Events in order: an attempt's outcome precedes the start of the next one."""
    absent: Sequence[AttemptId] = ()
    """Attempts that the worker does not have: canceled, or never begun because it was not reusable.
    """
    is_reusable: bool = True
    """True if the worker may run another attempt."""
    is_refused: bool = False
    """True if a coordinator with a higher token has the worker."""


@dataclass(frozen=True, slots=True)
class AdoptResponse:
    """A worker's answer to a new coordinator."""

    attempts: Sequence[AttemptId]
    """Its attempts in the order in which they run: finished ones, the running one, its backlog."""
    is_refused: bool = False
    """True if a coordinator with a higher token has the worker."""
