"""The worker that a local Ray starts before there is an attempt.

A test gives the answers by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs_and_events import make_job, make_launch
from tests.support.scripted_workers import ScriptedBackend, hear_until
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.spec import Resources


def warmed_up(
    folder: Path, *, shared: bool = False, **changes: Any
) -> tuple[RayExecutor, ScriptedBackend]:
    backend = ScriptedBackend(make_job(folder, **changes))
    backend.shared = shared
    executor = RayExecutor(backend.job, backend=backend)
    executor.warm_up()
    return executor, backend


def test_the_first_attempt_gets_the_worker_that_is_there_and_the_second_a_new_one(
    tmp_path: Path,
) -> None:
    executor, backend = warmed_up(tmp_path)
    (first,) = backend.workers.values()
    executor.launch(make_launch(0))
    assert list(backend.workers.values()) == [first]
    executor.launch(make_launch(1))
    assert len(backend.workers) == 2
    first.answer("info")
    hear_until(executor, lambda _: first.launches)


def test_on_a_cluster_none_is_started_for_its_name_says_whose_it_is(tmp_path: Path) -> None:
    _, backend = warmed_up(tmp_path, shared=True)
    assert not backend.workers


def test_none_is_started_for_a_request_that_cannot_be_met(tmp_path: Path) -> None:
    executor, backend = warmed_up(tmp_path, resources=Resources(cpu=3))
    assert not backend.workers
    with pytest.raises(UnsatisfiableRequest):
        executor.slots()


def test_one_that_does_not_come_up_is_replaced_when_there_is_an_attempt(tmp_path: Path) -> None:
    executor, backend = warmed_up(tmp_path)
    (first,) = backend.workers.values()
    first.fail("info", RuntimeError("it died"))
    hear_until(executor, lambda _: first.is_ended)
    executor.launch(make_launch())
    assert len(backend.workers) == 2
