"""Comparisons of versions on a server: one at a time, and only in memory that is free."""

from __future__ import annotations

import threading
import time

import pytest

from tunesvc.champions.served import drift_process
from tunesvc.champions.served.drift_process import DriftTask, compare_apart
from tunesvc.data.prepared_data import part_of_fold
from tunesvc.errors import DataError
from tunesvc.preparation.data_store import DataFile, DataManifest
from tunesvc.spec.sections.watch_keys import Watch


def manifest(version: str) -> DataManifest:
    """A version of a million rows of 26 numbers."""
    return DataManifest(
        version=version,
        created_at="",
        source="rows.parquet",
        settings={},
        inputs=(),
        code="",
        scikit_learn="",
        parts={
            "train": DataFile("", 1, rows=800_000),
            "validation": DataFile("", 1, rows=200_000),
            part_of_fold("train", 0): DataFile("", 1, rows=500_000),
        },
        raw=DataFile("", 180_000_000),
        preparation=DataFile("", 1),
        feature_types={},
        columns=(),
        schema={f"c{number}": "double" for number in range(26)},
    )


TASK = DriftTask("file:///nowhere", manifest("1f3a9c20"), manifest("2e4b8d31"), Watch())


def test_versions_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_process, "_compare_in_process", lambda *_: None)
    monkeypatch.setattr(drift_process, "free_memory", lambda: 833_000_000)
    assert compare_apart(TASK, threading.Event()) is None
    monkeypatch.setattr(drift_process, "free_memory", lambda: 831_000_000)
    with pytest.raises(DataError, match="1f3a9c20 and 2e4b8d31 of the data are too large to comp"):
        compare_apart(TASK, threading.Event())


def test_one_pair_is_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    most = 0

    def compare(*_: object) -> None:
        nonlocal compared, most
        compared += 1
        most = max(most, compared)
        time.sleep(0.05)
        compared -= 1

    monkeypatch.setattr(drift_process, "_compare_in_process", compare)
    monkeypatch.setattr(drift_process, "free_memory", lambda: 10**12)
    interrupt = threading.Event()
    threads = [threading.Thread(target=compare_apart, args=(TASK, interrupt)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_comparison_that_waits_for_another_one_can_be_interrupted() -> None:
    interrupt = threading.Event()
    interrupt.set()
    with drift_process._ONE_AT_A_TIME:
        assert compare_apart(TASK, interrupt) is None
