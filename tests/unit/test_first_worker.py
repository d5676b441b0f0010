"""The worker that a local Ray starts before there is an attempt for it: on workers whose answers are given by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.executors import make_job, make_launch
from tests.fleets import ScriptedFleet, hear_until
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.spec import Resources


def warmed_up(folder: Path, *, shared: bool = False, **changes: Any) -> tuple[RayExecutor, ScriptedFleet]:
    fleet = ScriptedFleet(make_job(folder, **changes))
    fleet.shared = shared
    executor = RayExecutor(fleet.job, fleet=fleet)
    executor.warm_up()
    return executor, fleet


def test_the_first_attempt_gets_the_worker_that_is_there_and_the_second_a_new_one(tmp_path: Path) -> None:
    executor, fleet = warmed_up(tmp_path)
    (first,) = fleet.workers.values()
    executor.launch(make_launch(0))
    assert list(fleet.workers.values()) == [first]
    executor.launch(make_launch(1))
    assert len(fleet.workers) == 2
    first.answer("info")
    hear_until(executor, lambda _: first.launches)


def test_on_a_cluster_none_is_started_for_its_name_says_whose_it_is(tmp_path: Path) -> None:
    _, fleet = warmed_up(tmp_path, shared=True)
    assert not fleet.workers


def test_none_is_started_for_a_request_that_cannot_be_met(tmp_path: Path) -> None:
    executor, fleet = warmed_up(tmp_path, resources=Resources(cpu=3))
    assert not fleet.workers
    with pytest.raises(UnsatisfiableRequest):
        executor.slots()


def test_one_that_does_not_come_up_is_replaced_when_there_is_an_attempt(tmp_path: Path) -> None:
    executor, fleet = warmed_up(tmp_path)
    (first,) = fleet.workers.values()
    first.fail("info", RuntimeError("it died"))
    hear_until(executor, lambda _: first.is_ended)
    executor.launch(make_launch())
    assert len(fleet.workers) == 2
