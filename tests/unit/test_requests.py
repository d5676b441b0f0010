"""Resource requests against what a cluster has."""

from __future__ import annotations

import pytest

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.requests import capacity_of, slots_on
from tunesvc.spec import Resources

BIG = {"CPU": 8.0, "GPU": 2.0, "memory": 16e9, "node:10.0.0.1": 1.0, "accelerator_type:A100": 1.0, "licence": 3.0}
SMALL = {"CPU": 4.0, "memory": 8e9, "node:10.0.0.2": 1.0}


@pytest.mark.parametrize(
    ("asked", "slots"),
    [
        (Resources(cpu=1), 12),
        (Resources(cpu=3), 3),
        (Resources(cpu=1, gpu=0.5), 4),
        (Resources(cpu=1, gpu=0.4), 4),
        (Resources(cpu=0.1, gpu=0.1), 20),
        (Resources(cpu=1, gpu=2), 1),
        (Resources(cpu=1, memory=4_000_000_000), 6),
        (Resources(cpu=0, custom={"licence": 1}), 3),
        (Resources(cpu=0), 12),
        (Resources(cpu=2, workers=3), 2),
    ],
)
def test_slots_are_what_fits_on_each_node(asked: Resources, slots: int) -> None:
    assert slots_on([BIG, SMALL], asked) == slots


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Resources(gpu=99), r"1 CPU, 99 GPU, which no node .* largest has 2 GPU \(in all: 2 nodes, 12 CPU, 2 GPU"),
        (Resources(cpu=10), r"10 CPU, which no node .* largest has 8 CPU"),
        (Resources(memory=64_000_000_000), r"64\.0 GB memory, which no node .* largest has 16\.0 GB memory"),
        (Resources(cpu=4, workers=4), r"a gang of 4 × \(4 CPU\), but the cluster holds 3 of these"),
        (Resources(cpu=0, custom={"tpu": 1}), r"1 tpu, .* largest has 0 tpu"),
    ],
)
def test_what_can_never_fit_is_refused_with_what_there_is(asked: Resources, message: str) -> None:
    """Fault 17."""
    with pytest.raises(UnsatisfiableRequest, match=message):
        slots_on([BIG, SMALL], asked)


def test_capacity_adds_the_nodes_up_without_rays_own_markers() -> None:
    capacity = capacity_of([BIG, SMALL])
    assert str(capacity) == "2 nodes, 12 CPU, 2 GPU, 24.0 GB memory, 3 licence"
