"""What a coordinator and a worker tell each other: one call says all there is to say, one answer all there is to hear.

A worker may not get a call, or get it after a later one. So what it is told is repeated until it is known to have it,
under the number of the first call that brought it, and is done once and in order.

Values only; imports no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesvc.execution.attempt.outbox import Numbered
from tunesvc.execution.executor import AttemptId

CommandKind = Literal["run", "cancel", "stop", "answer", "forget"]
"""Run it as soon as none runs before it (with the `Launch`); do not, if it has not begun; have it stop at its next
report; here is what it asked for (with the parameter's name and value); all that it said is recorded."""


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """What a worker is to do about an attempt."""

    kind: CommandKind
    attempt: AttemptId
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class PollRequest:
    """What a worker is told, and what is listened for."""

    number: int
    """1, 2, 3, ... under a token. A call that was overtaken comes back at once with nothing: the newer one listens."""
    commands: Sequence[tuple[int, WorkerCommand]]
    """Those that the worker is not known to have, each with the number of the first call that brought it."""
    cursors: Mapping[AttemptId, tuple[int, int]]
    """Up to where each attempt was heard, and recorded; in the order in which they were given."""


@dataclass(frozen=True, slots=True)
class PollResponse:
    """What the attempts of a worker have said."""

    events: Sequence[tuple[AttemptId, Sequence[Numbered]]] = ()
    """In the order in which they run: an end is among it before the beginning of what follows."""
    absent: Sequence[AttemptId] = ()
    """Those that it does not have: withdrawn, or never begun because it was not fit any more."""
    is_reusable: bool = True
    """Whether it may run another attempt."""
    is_refused: bool = False
    """Whether somebody with a higher token has taken it over."""


@dataclass(frozen=True, slots=True)
class AdoptResponse:
    """What a worker says to a new coordinator."""

    attempts: Sequence[AttemptId]
    """What it runs and what follows that, after those whose end it keeps; in the order in which they run."""
    is_refused: bool = False
    """Whether the coordinator is not the new one at all."""
