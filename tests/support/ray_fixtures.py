"""One local Ray per test session, with two GPUs that exist in name only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tunesvc.execution.ray.cluster_connection import LocalResources, connect

LOCAL = LocalResources(cpu=4, gpu=2, custom={"licence": 2})


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """The Ray that every executor of this process uses and none of them ends."""
    connection = connect("local", LOCAL)
    yield
    connection.close()


def address_of_local_ray() -> str:
    """Return the address by which another process may join it."""
    import ray

    address: str = ray.get_runtime_context().gcs_address
    return address
