"""A gang's trial in the gang's other processes, on any node: what its pickled parts become.

Each call waits for the process that runs the trial, about a millisecond. In a process that Ray does
not know, such as a child of that process, reports go through its pipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tunesvc.artifacts.checkpoint_archive import unpack
from tunesvc.data.prepared_data import PreparedData
from tunesvc.data.trial_data import TrialData, is_provided, open_data
from tunesvc.execution.executor import AttemptId
from tunesvc.execution.gang.gang_archive import pack_whole
from tunesvc.execution.gang.gang_home import GangHome, is_in_ray
from tunesvc.execution.gang.gang_output import send_output
from tunesvc.execution.gang.shared_parts import provide_shared
from tunesvc.execution.supervision import scratch
from tunesvc.subprocess_trial import PipeChannel
from tunesvc.trial import RestoredState


def open_channel(home: GangHome, attempt: AttemptId, pipe: PipeChannel) -> GangChannel:
    """Return the channel to an attempt, which also gets this process's output from now on."""
    send_output(home, attempt)
    return GangChannel(home, attempt, pipe)


class GangChannel:
    """Passes reports on to the process that runs the trial. Implements `tunesvc.trial.Channel`."""

    def __init__(self, home: GangHome, attempt: AttemptId, pipe: PipeChannel) -> None:
        """Report to an attempt.

        Args:
            home: the process that runs it.
            attempt: the attempt.
            pipe: for processes on its machine that Ray does not know.
        """
        self._home = home
        self._attempt = attempt
        self._pipe = pipe

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without what belongs to this process."""
        return open_channel, (self._home, self._attempt, self._pipe)

    @property
    def stop_requested(self) -> bool:
        """True if the trial has been asked to stop."""
        if not is_in_ray():
            return self._pipe.stop_requested
        return bool(self._home.call_attempt(self._attempt, "stop_requested"))

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on a report."""
        if not is_in_ray():
            self._pipe.report(step, metrics)
            return
        self._home.call_attempt(self._attempt, "report", step, dict(metrics))

    def checkpoint(self, path: Path, step: int | None) -> bool:
        """Store a copy of a file or folder; from another node its bytes travel through Ray.

        Raises:
            BadReport: it is too large for that.
        """
        if not is_in_ray():
            self._pipe.checkpoint(path, step)
            return False
        content = path.resolve() if self._home.is_here else pack_whole(path.resolve())
        is_over = self._home.call_attempt(self._attempt, "checkpoint", content, step)
        return bool(is_over)

    def set_user_attr(self, name: str, value: str) -> None:
        """Pass on an attribute, its value as JSON."""
        if not is_in_ray():
            self._pipe.set_user_attr(name, value)
            return
        self._home.call_attempt(self._attempt, "set_user_attr", name, value)

    @property
    def directory(self) -> Path:
        """The attempt's scratch folder; on another node, a folder of this process."""
        if is_in_ray() and not self._home.is_here:
            return _folder_of(self._attempt)
        return self._pipe.directory


@lru_cache(maxsize=1)
def _folder_of(attempt: AttemptId) -> Path:
    return scratch.make(str(attempt))


@dataclass(frozen=True, slots=True)
class GangState(RestoredState):
    """State that an earlier attempt saved; on another node it is fetched once per process."""

    home: GangHome | None = None
    attempt: AttemptId | None = None

    def open(self) -> Path:
        """Return the path of the file or folder on this node."""
        if self.home is None or self.attempt is None or not is_in_ray() or self.home.is_here:
            return self.path
        return _fetched(self.home, self.attempt)


@lru_cache(maxsize=1)
def _fetched(home: GangHome, attempt: AttemptId) -> Path:
    chunks = home.call_attempt(attempt, "restored")
    return unpack(chunks, scratch.make("restored") / "checkpoint")


@dataclass(frozen=True, slots=True)
class GangData:
    """Opens the study's data in any process of a gang."""

    prepared: PreparedData | None
    fold: int | None
    home: GangHome

    def __call__(self) -> TrialData:
        """Return the data; the first call on a process maps it from Ray's object store."""
        prepared = self.prepared
        if prepared is not None and is_in_ray() and not is_provided(prepared):
            provide_shared(prepared, self.home.call("shared_parts"))
        return open_data(prepared, self.fold)
