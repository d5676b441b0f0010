"""When a worker looks for garbage, and what it notes about memory that it keeps."""

from __future__ import annotations

from collections.abc import Iterator

from tunesvc.execution.worker.garbage import KEEPS_MEMORY, Garbage
from tunesvc.testing.simulated_executor import VirtualClock


def test_memory_that_no_collection_frees_is_noted_once_for_each_doubling() -> None:
    held: Iterator[int] = iter([2**28, 2**29, 2**29 + 2**28, 2**30, 2**30 + 2**29, 2**31, 2**31])
    clock = VirtualClock()
    now = {"bytes": 0}
    garbage = Garbage(clock, lambda: now["bytes"])
    noted = []
    for number, now["bytes"] in enumerate(held):
        clock.advance(number + 1.0)
        garbage.collect()
        noted.append(garbage.note())
    assert [bool(note) for note in noted] == [False, True, False, True, False, True, False]
    assert noted[1].startswith(
        f"{KEEPS_MEMORY}: it holds 0.5 GiB, and held 0.2 GiB after its first."
    )


def test_short_attempts_wait_for_no_collection_unless_memory_grows() -> None:
    clock = VirtualClock()
    now = {"bytes": 2**28}
    garbage = Garbage(clock, lambda: now["bytes"])
    assert garbage.is_due
    garbage.collect()
    clock.advance(0.5)
    assert not garbage.is_due
    now["bytes"] += 2**26
    assert garbage.is_due
    garbage.collect()
    clock.advance(1.5)
    assert garbage.is_due
