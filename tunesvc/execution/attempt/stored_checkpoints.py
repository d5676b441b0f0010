"""Checkpoints of one attempt in an object store.

The objective continues while a thread uploads: a checkpoint waits on the worker's disk meanwhile,
and counts once the store has it. So a store that is slow or away delays checkpoints, not training.
Imports no Ray.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

from tunesvc.artifacts.trial_checkpoints import Manifest, TrialCheckpoints
from tunesvc.errors import ArtifactDamaged, ArtifactMissing, ArtifactStoreError
from tunesvc.execution.attempt.checkpoints import (
    CheckpointFile,
    OnKept,
    checkpoint_name,
    parse_checkpoint,
    select_kept,
)
from tunesvc.spec.goals import Goal, orient
from tunesvc.spec.sections.execution_keys import Keep

T = TypeVar("T")

RETRY_S = (1.0, 30.0)
"""Shortest and longest delay before an upload is tried again."""
WAIT_S = 300.0
"""Time that an ended attempt waits for its checkpoints, and a new one for its start."""
DELETE_S = 5.0
"""Time to wait for the last deletion."""

Note = Callable[[str], None]
"""Adds a line to the attempt's output."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A checkpoint that is not stored yet."""

    file: CheckpointFile
    """Its path is the copy on this disk."""
    on_kept: OnKept


class StoredCheckpoints:
    """Uploads an attempt's checkpoints, and deletes those that need not be kept."""

    def __init__(
        self,
        root: str,
        trial_number: int,
        attempt_number: int,
        keep: Keep | None = None,
        *,
        goal: Goal = "minimize",
        start: str | None = None,
        directory: Callable[[], Path] | None = None,
        note: Note = lambda text: None,
    ) -> None:
        """Store checkpoints below `root`.

        Args:
            root: address of the checkpoints of the study.
            trial_number: the trial.
            attempt_number: the attempt, from 1.
            keep: number of latest and of best checkpoints to keep.
            goal: of the metric that the values are of.
            start: location of the checkpoint that the attempt starts from.
            directory: returns the attempt's scratch folder.
            note: adds a line to its output.
        """
        self._root, self._trial = root, trial_number
        self._attempt = attempt_number
        self._keep = keep or Keep()
        self._orientation = orient(goal)
        is_own = start is not None and self._is_own(start)
        self._start = _name_of(start) if start is not None and is_own else None
        """Name of the checkpoint that the first one is based on."""
        self._directory = directory
        self._note = note
        self._numbers = count(1)
        self._values: dict[int, float] = {}
        """Values reported by this attempt, by step."""
        self._base: Manifest | None = None
        """The newest stored checkpoint."""
        self._opened: TrialCheckpoints | None = None
        self._changed = threading.Condition()
        """Guards what follows."""
        self._waiting: list[_Waiting] = []
        self._recorded: str | None = None
        """Location of a checkpoint that was recorded, until older ones are deleted."""
        self._kept: frozenset[str] = frozenset()
        """Names of checkpoints that are not deleted."""
        self._thread: threading.Thread | None = None
        self._gives_up_at_s = math.inf
        self._is_closed = False
        """True if the attempt has ended: nothing more may be said in its name."""

    def note(self, step: int, value: float | None) -> None:
        """Remember the value reported at a step. Checkpoints are compared by it."""
        if value is not None and not math.isnan(value):
            self._values.setdefault(step, value)

    def keep(self, path: Path, step: int, on_kept: OnKept) -> None:
        """Copy a file or folder, upload it, and then call `on_kept` with its location and step.

        Returns once it is copied. While the store is slow, as many checkpoints wait as are kept.

        Raises:
            ArtifactStoreError: the store's library is not installed.
        """
        self._store()
        name = checkpoint_name(self._attempt, step, next(self._numbers))
        source = path.resolve()
        staged = self._scratch() / "checkpoints" / name / source.name
        staged.parent.mkdir(parents=True)
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, staged)
        file = parse_checkpoint(staged)
        if file is None:
            raise RuntimeError(f"{name} is no name of a checkpoint")
        with self._changed:
            self._waiting.append(_Waiting(file, on_kept))
            dropped = self._drop_superfluous()
            self._wake()
        for waiting in dropped:
            _remove(waiting)

    def forget_before(self, recorded: str, kept: Collection[str] = ()) -> None:
        """Apply `keep` to a checkpoint that is now recorded and to all older ones, in a while.

        Of an attempt that has ended, it waits for that: its worker may end next.
        """
        with self._changed:
            self._recorded = recorded
            self._kept = frozenset(map(_name_of, kept))
            self._wake()
            if self._is_closed:
                self._changed.wait_for(lambda: self._thread is None, timeout=DELETE_S)

    def close(self) -> None:
        """Wait until all checkpoints are stored, for five minutes at most."""
        with self._changed:
            self._gives_up_at_s = time.monotonic() + WAIT_S
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, timeout=WAIT_S + 1)
            self._is_closed = True

    def restore(self, location: str) -> Path | None:
        """Copy a checkpoint to this machine and return its path; an older one if it is damaged.

        Returns None if there is none. While the store is away, it waits for five minutes.

        Raises:
            ArtifactStoreError: the store did not answer.
        """
        if not self._is_own(location):
            return self._copied(location)
        checkpoint = _name_of(location)
        for name in [checkpoint, *self._retried(lambda: self._older(checkpoint))]:
            there = self._scratch() / "restored" / name
            try:
                path = self._retried(lambda: _fetched(self._store(), name, there))  # noqa: B023  # called now
                # Only what was read is known to be whole: the next checkpoint is based on it.
                self._start = name
                return path
            except (ArtifactDamaged, ArtifactMissing) as error:
                shutil.rmtree(there, ignore_errors=True)
                self._say(f"checkpoint {name} cannot be used: {error}")
        self._start = None
        return None

    # --- restoring ------------------------------------------------------------------------------

    def _is_own(self, location: str) -> bool:
        """Return False for a checkpoint of another trial, which this one began as a copy of."""
        return location.startswith(f"{self._root}/{self._trial}/")

    def _copied(self, location: str) -> Path | None:
        """Copy a checkpoint of another trial to this machine; None if it is gone or damaged."""
        store, name = TrialCheckpoints.of(location)
        there = self._scratch() / "restored" / name
        try:
            return self._retried(lambda: _fetched(store, name, there))
        except (ArtifactDamaged, ArtifactMissing) as error:
            self._say(f"checkpoint {location} cannot be used: {error}")
            return None

    def _older(self, checkpoint: str) -> list[str]:
        newest = _file(checkpoint)
        known = [_file(name) for name in self._store().names()]
        older = [one for one in known if one is not None and newest is not None and one < newest]
        return [one.path.parent.name for one in sorted(older, reverse=True)]

    def _retried(self, call: Callable[[], T]) -> T:
        """Repeat a call while the store does not answer."""
        deadline_s = time.monotonic() + WAIT_S
        delays_s = _delays()
        while True:
            try:
                return call()
            except (ArtifactDamaged, ArtifactMissing):
                raise
            except ArtifactStoreError as error:
                if time.monotonic() >= deadline_s:
                    raise
                self._say(f"the start waits for the checkpoint store: {error}")
            time.sleep(next(delays_s))

    # --- in the thread --------------------------------------------------------------------------

    def _wake(self) -> None:
        """Start the thread, unless it runs. The caller holds the lock."""
        self._changed.notify_all()
        if self._thread is None:
            # A daemon: it is none of the objective's, see `leftover_threads`.
            self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Upload what waits, oldest first, and delete. Ends when there is nothing left to do."""
        while True:
            with self._changed:
                if not self._waiting and self._recorded is None:
                    self._thread = None
                    self._changed.notify_all()
                    return
                waiting = self._waiting[0] if self._waiting else None
                recorded, self._recorded = self._recorded, None
            if waiting is not None:
                self._upload(waiting)
            if recorded is not None:
                self._delete(recorded)

    def _upload(self, waiting: _Waiting) -> None:
        manifest = self._put_at_last(waiting.file)
        _remove(waiting)
        with self._changed:
            self._waiting.remove(waiting)
            if manifest is not None and not self._is_closed:
                waiting.on_kept(self._store().location(manifest), waiting.file.step)
            self._changed.notify_all()

    def _put_at_last(self, file: CheckpointFile) -> Manifest | None:
        """Store a checkpoint, however often that takes; None when there is no more time."""
        delays_s, noted = _delays(), ""
        while True:
            try:
                return self._put(file)
            except (ArtifactStoreError, OSError) as error:
                if str(error) != noted:
                    noted = str(error)
                    self._say(f"a checkpoint waits on this machine's disk: {error}")
            with self._changed:
                left_s = self._gives_up_at_s - time.monotonic()
                if left_s <= 0:
                    self._say("a checkpoint is lost: the store did not take it in time")
                    return None
                self._changed.wait(min(next(delays_s), left_s))

    def _put(self, file: CheckpointFile) -> Manifest:
        store = self._store()
        if self._base is None and self._start is not None:
            self._base = _manifest(store, self._start)
        value = self._values.get(file.step)
        name = file.path.parent.name
        self._base = store.put(file.path, name, value=value, base=self._base)
        return self._base

    def _delete(self, recorded: str) -> None:
        """Delete what need not be kept. What cannot be deleted now is deleted with the next one."""
        newest = _file(_name_of(recorded))
        store = self._store()
        try:
            names = [one for one in map(_file, store.names()) if one is not None]
            known = sorted(one for one in names if newest is not None and one <= newest)
            stays = select_kept(known, self._valued(known), self._keep, self._orientation)
            gone = [file.path.parent.name for file in known if file not in stays]
            gone = [name for name in gone if name not in self._kept]
            store.delete(gone, [file.path.parent.name for file in known])
        except ArtifactStoreError as error:
            self._say(f"older checkpoints are not deleted yet: {error}")

    def _valued(self, known: Sequence[CheckpointFile]) -> Mapping[CheckpointFile, float]:
        values = {}
        for file in known:
            value = self._values.get(file.step) if file.attempt == self._attempt else None
            if value is None:
                found = _manifest(self._store(), file.path.parent.name)
                value = None if found is None else found.value
            if value is not None:
                values[file] = value
        return values

    def _say(self, text: str) -> None:
        if not self._is_closed:
            self._note(f"[tunesvc: {text}]\n")

    # --- waiting checkpoints --------------------------------------------------------------------

    def _drop_superfluous(self) -> list[_Waiting]:
        """Drop waiting checkpoints that would not be kept, but the one that is uploaded now.

        The caller holds the lock.
        """
        rest = {waiting.file: waiting for waiting in self._waiting[1:]}
        values = {file: self._values[file.step] for file in rest if file.step in self._values}
        kept = select_kept(sorted(rest), values, self._keep, self._orientation)
        dropped = [waiting for file, waiting in rest.items() if file not in kept]
        self._waiting = [one for one in self._waiting if not any(one is gone for gone in dropped)]
        return dropped

    def _scratch(self) -> Path:
        if self._directory is None:
            raise RuntimeError("checkpoints are saved in the process of the objective")
        return self._directory()

    def _store(self) -> TrialCheckpoints:
        if self._opened is None:
            self._opened = TrialCheckpoints.open(self._root, self._trial)
        return self._opened


def _name_of(location: str) -> str:
    return location.rsplit("/", 2)[1]


def _fetched(store: TrialCheckpoints, checkpoint: str, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return store.get(checkpoint, folder)


def _file(checkpoint: str) -> CheckpointFile | None:
    return parse_checkpoint(Path(checkpoint) / "content")


def _manifest(store: TrialCheckpoints, checkpoint: str) -> Manifest | None:
    try:
        return store.find(checkpoint)
    except (ArtifactMissing, ArtifactDamaged):
        return None


def _remove(waiting: _Waiting) -> None:
    shutil.rmtree(waiting.file.path.parent, ignore_errors=True)


def _delays() -> Iterator[float]:
    delay_s, longest_s = RETRY_S
    while True:
        yield delay_s
        delay_s = min(2 * delay_s, longest_s)
