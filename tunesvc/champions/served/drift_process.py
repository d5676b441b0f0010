"""Compares versions of data in a process of its own, which a server can end.

Two versions of a million rows take most of a gigabyte, and a minute in which Python's lock is held
for seconds. The process reads only what the artifact store has, and no code of a study.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from tunesvc.drift.drift_report import DriftReport, read_report
from tunesvc.errors import ArtifactMissing, DataError, TuneError
from tunesvc.execution.supervision.connected_process import connected_process
from tunesvc.preparation.data_store import DataManifest
from tunesvc.preparation.free_memory import free_memory
from tunesvc.spec.sections.watch_keys import Watch
from tunesvc.util.formatting import size as as_size

_POLL_S = 0.1
_ONE_AT_A_TIME = threading.Lock()
COPIES = 2
"""Memory of a comparison by that of both versions: two of a million rows of 26 numbers, 416 MB,
took 690 MB."""
_VALUE_BYTES = 8


@dataclass(frozen=True, slots=True)
class DriftTask:
    """The message to the process."""

    store: str
    """Address of the artifact store."""
    before: DataManifest
    after: DataManifest
    options: Watch


def compare_apart(task: DriftTask, interrupt: threading.Event) -> DriftReport | None:
    """Return the drift between two versions; None at an interrupt.

    A server compares one pair at a time.

    Raises:
        ArtifactMissing: rows of a version were removed.
        DataError: the process has died, or cannot read the rows, or they need too much memory.
    """
    while not _ONE_AT_A_TIME.acquire(timeout=_POLL_S):
        if interrupt.is_set():
            return None
    try:
        _require_memory(task)
        return _compare_in_process(task, interrupt)
    finally:
        _ONE_AT_A_TIME.release()


def _require_memory(task: DriftTask) -> None:
    """Refuse versions that do not fit into memory, before the machine ends a process for them.

    Raises:
        DataError: they do not.
    """
    needed = COPIES * (_bytes_of(task.before) + _bytes_of(task.after))
    free = free_memory()
    if needed > free:
        raise DataError(
            f"versions {task.before.version} and {task.after.version} of the data are too large to "
            f"compare here: this takes about {as_size(needed)}, and {as_size(free)} of memory are "
            "free. Give servers more memory, or let `tune watch` run on a larger machine"
        )


def _bytes_of(manifest: DataManifest) -> int:
    """Return the size of a version's rows in memory; less than that for long text."""
    rows = sum(part.rows for part in manifest.whole_parts.values())
    return max(manifest.raw.bytes, rows * len(manifest.schema) * _VALUE_BYTES)


def _compare_in_process(task: DriftTask, interrupt: threading.Event) -> DriftReport | None:
    environment = {name: text for name, text in os.environ.items() if name != "TMPDIR"}
    with connected_process(__name__, environment) as (connection, _):
        try:
            connection.send(task)
            while not connection.poll(_POLL_S):
                if interrupt.is_set():
                    return None
            answer = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            raise DataError(
                "the process that compares two versions of the data has died, perhaps because "
                "memory ran out"
            ) from None
    if "missing" in answer:
        raise ArtifactMissing(answer["missing"])
    if "failure" in answer:
        raise DataError(answer["failure"])
    return read_report(answer["drift"])


def main(descriptor: int) -> None:
    """Do the task that arrives at a descriptor, and answer as JSON."""
    from tunesvc.champions.version_drift import compare_versions
    from tunesvc.preparation.data_store import DataStore

    connection = Connection(descriptor)
    task: DriftTask = connection.recv()
    try:
        store = DataStore.open(task.store)
        drift = compare_versions(store, task.before, task.after, task.options)
        answer: dict[str, Any] = {"drift": asdict(drift)}
    except ArtifactMissing as error:
        answer = {"missing": str(error)}
    except TuneError as error:
        answer = {"failure": str(error)}
    connection.send_bytes(json.dumps(answer).encode())
