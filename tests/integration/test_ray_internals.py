"""Ray's private interface, as this version of Ray has it: fails on an upgrade that changes it,
and names what changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import ray

import tunesvc
from tunesvc.execution import ray_internals


@ray.remote(num_cpus=0)
class Idle:
    """An actor."""

    def log_folder(self) -> str | None:
        return ray_internals.log_folder()


@pytest.fixture
def actor(local_ray: object) -> Any:
    return Idle.remote()


def test_an_actor_has_a_state_and_finds_the_logs_of_its_node(actor: Any) -> None:
    folder = ray.get(actor.log_folder.remote())
    assert Path(folder).is_dir()
    assert ray_internals.actor_state(actor) == "ALIVE"


def test_a_node_tells_what_it_has_free(local_ray: object) -> None:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    free = ray_internals.free_resources_by_node()
    assert {node["NodeID"] for node in nodes if node["Alive"]} == set(free)
    assert all("CPU" in resources for resources in free.values())


def test_accelerators_are_counted_by_resource() -> None:
    assert set(ray_internals.accelerator_counts()) >= {"GPU", "TPU"}


def test_no_other_module_uses_rays_private_interface() -> None:
    package = Path(tunesvc.__file__).parent
    private = re.compile(r"ray\._private|ray\._raylet")
    users = [file.stem for file in package.rglob("*.py") if private.search(file.read_text())]
    assert users == ["ray_internals"]
