"""Resource requests compared with a cluster's nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.executor import NodeInfo
from tunesvc.execution.ray.ray_resources import (
    amounts_of,
    capacity_of,
    gangs_in,
    slots_on,
    why_waits,
)
from tunesvc.spec import Resources


def node(name: str, total: dict[str, float], free: dict[str, float] | None = None) -> NodeInfo:
    return NodeInfo(name, name, name, amounts_of(total), total if free is None else free)


BIG = node(
    "big",
    {
        "CPU": 8.0,
        "GPU": 2.0,
        "memory": 16e9,
        "node:10.0.0.1": 1.0,
        "accelerator_type:A100": 1.0,
        "licence": 3.0,
    },
)
SMALL = node("small", {"CPU": 4.0, "memory": 8e9, "node:10.0.0.2": 1.0})


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
        (Resources(cpu=2, workers=3, strategy="SPREAD"), 2),
        (Resources(cpu=2, workers=3, strategy="STRICT_PACK"), 1),
        (Resources(cpu=2, workers=2, strategy="STRICT_SPREAD"), 2),
        (Resources(cpu=8, workers=1), 1),
    ],
)
def test_slots_are_what_fits_on_each_node(asked: Resources, slots: int) -> None:
    assert slots_on([BIG, SMALL], asked) == slots


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            Resources(gpu=99),
            r"1 CPU, 99 GPU, which no node .* largest has 2 GPU \(in all: 2 nodes, 12 CPU, 2 GPU",
        ),
        (Resources(cpu=10), r"10 CPU, which no node .* largest has 8 CPU"),
        (
            Resources(memory=64_000_000_000),
            r"64\.0 GB memory, which no node .* largest has 16\.0 GB memory",
        ),
        (Resources(cpu=4, workers=4), r"a gang of 4 × \(4 CPU\), but the cluster holds 3 of these"),
        (
            Resources(cpu=1, workers=9, strategy="STRICT_PACK"),
            r"9 × \(1 CPU\) on one node, but the largest node holds 8 .* write `strategy: PACK`",
        ),
        (
            Resources(cpu=1, workers=3, strategy="STRICT_SPREAD"),
            r"3 × \(1 CPU\), each on its own node, but .* room for one is 2 .* write `strategy: SPREAD`",
        ),
        (Resources(cpu=0, custom={"tpu": 1}), r"1 tpu, .* largest has 0 tpu"),
    ],
)
def test_what_can_never_fit_is_refused_with_what_there_is(asked: Resources, message: str) -> None:
    """Fault 17."""
    with pytest.raises(UnsatisfiableRequest, match=message):
        slots_on([BIG, SMALL], asked)


@given(
    counts=st.lists(st.integers(0, 6), max_size=6),
    workers=st.integers(2, 5),
    gangs=st.integers(1, 8),
)
def test_gangs_fit_with_each_worker_on_its_own_node_exactly_if_they_can_be_placed(
    counts: list[int], workers: int, gangs: int
) -> None:
    """Placing each gang on the nodes with the most room left finds a placement if there is one."""
    left = sorted(counts)
    for _ in range(gangs):
        left = sorted([*left[:-workers], *(count - 1 for count in left[-workers:])])
    is_placed = len(counts) >= workers and min(left) >= 0
    request = Resources(workers=workers, strategy="STRICT_SPREAD")
    assert (gangs_in(counts, request) >= gangs) == is_placed


def test_capacity_adds_the_nodes_up_without_rays_own_markers() -> None:
    capacity = capacity_of([BIG, SMALL])
    assert str(capacity) == "2 nodes, 12 CPU, 2 GPU, 24.0 GB memory, 3 licence"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Resources(cpu=1, gpu=4), "which no node of the cluster can meet"),
        (
            Resources(cpu=1, gpu=1),
            "asks for 1 CPU, 1 GPU; the most that is free on one node is 6 CPU, 0.5 GPU",
        ),
        (
            Resources(cpu=1, gpu=0.5, workers=3),
            "asks for 3 × (1 CPU, 0.5 GPU) at a time; 0 of these are free",
        ),
        (
            Resources(cpu=2, workers=4, strategy="STRICT_PACK"),
            "asks for 4 × (2 CPU) at a time; 3 of these are free on one node",
        ),
        (
            Resources(cpu=1, workers=2, strategy="STRICT_SPREAD"),
            "asks for 2 × (1 CPU) at a time; the number of nodes with one free is 1",
        ),
        (Resources(cpu=2), "there is room for it: its worker is starting"),
        (Resources(cpu=0), "there is room for it: its worker is starting"),
    ],
)
def test_the_reason_why_an_attempt_waits_follows_from_free_resources(
    asked: Resources, why: str
) -> None:
    busy = [
        node("big", dict(BIG.total), {"CPU": 6.0, "GPU": 0.5}),
        node("small", dict(SMALL.total), {}),
    ]
    assert why in why_waits(busy, asked)


def test_without_a_word_from_the_cluster_the_reason_is_not_known() -> None:
    assert why_waits([], Resources()) == "the cluster's resources are not known yet"
