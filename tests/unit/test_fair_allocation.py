"""Allocation of the cluster: every property that must hold for any studies and weights."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunesvc.db.schema.states import Priority
from tunesvc.queries.operations.shared_demand import Party, PartyLimits, StudyDemand
from tunesvc.service.fair_allocation import TURN_S, allocate, grantable, slots_to_free

NAMES = ("ann", "bob", "eve")
GPU = {"CPU": 1.0, "GPU": 1.0}


def gpu_study(study_id: int, wanted: int = 100, **fields: object) -> StudyDemand:
    given_fields = {"project": "vision", "user": "ann", "slot": GPU, **fields}
    return StudyDemand(study_id, wanted=wanted, **given_fields)  # type: ignore[arg-type]


@st.composite
def demand_lists(draw: st.DrawFn) -> list[StudyDemand]:
    count = draw(st.integers(0, 6))
    demands = []
    for study_id in range(count):
        slot = {"CPU": draw(st.sampled_from((0.5, 1.0, 2.0)))}
        if draw(st.booleans()):
            slot["GPU"] = draw(st.sampled_from((0.25, 1.0, 2.0)))
        demands.append(
            StudyDemand(
                study_id,
                draw(st.sampled_from(NAMES)),
                draw(st.sampled_from(NAMES)),
                slot,
                draw(st.integers(0, 20)),
                draw(st.sampled_from(list(Priority))),
                running=draw(st.integers(0, 5)),
                held=draw(st.integers(0, 5)),
                granted=draw(st.integers(0, 5)),
            )
        )
    return demands


party_limits = st.builds(
    PartyLimits,
    gpus=st.none() | st.sampled_from((0.0, 1.0, 2.5)),
    trials=st.none() | st.integers(0, 6),
)
parties = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(Party, st.sampled_from(NAMES), st.floats(0.1, 10.0), party_limits),
)
totals = st.fixed_dictionaries({"CPU": st.integers(1, 32), "GPU": st.integers(0, 8)})


@given(totals, demand_lists(), parties, parties)
def test_allocations_fit_the_cluster_the_demand_and_every_limit(total, demands, projects, users):
    found = allocate(total, demands, projects, users)
    used: Counter[str] = Counter()
    for one in demands:
        slots = found[one.study_id].slots
        assert 0 <= slots <= one.wanted
        assert bool(found[one.study_id].reason) == (slots < one.wanted)
        for name, amount in one.slot.items():
            used[name] += slots * amount
    assert all(amount <= total[name] + 1e-6 for name, amount in used.items())
    for attribute, known in (("project", projects), ("user", users)):
        for name, party in known.items():
            own = [one for one in demands if getattr(one, attribute) == name]
            trials = sum(found[one.study_id].slots for one in own)
            gpus = sum(found[one.study_id].slots * one.slot.get("GPU", 0) for one in own)
            assert party.limits.trials is None or trials <= party.limits.trials
            assert party.limits.gpus is None or gpus <= party.limits.gpus + 1e-6


@given(totals, demand_lists())
def test_nothing_that_a_study_could_use_stays_free(total, demands):
    found = allocate(total, demands, {}, {})
    free = {
        name: amount - sum(found[one.study_id].slots * one.slot.get(name, 0) for one in demands)
        for name, amount in total.items()
    }
    for one in demands:
        if found[one.study_id].slots < one.wanted:
            assert any(amount > free[name] + 1e-9 for name, amount in one.slot.items())


@given(st.lists(st.floats(0.2, 5.0), min_size=2, max_size=5), st.integers(8, 64))
def test_projects_get_gpus_in_proportion_to_their_weights(weights, gpus):
    projects = {str(i): Party(str(i), weight) for i, weight in enumerate(weights)}
    demands = [gpu_study(i, project=str(i)) for i in range(len(weights))]
    found = allocate({"CPU": 1000, "GPU": gpus}, demands, projects, {})
    for i, weight in enumerate(weights):
        due = gpus * weight / sum(weights)
        assert math.floor(due) - 1 <= found[i].slots <= math.ceil(due) + 1


def test_a_user_with_many_studies_gets_no_more_than_a_user_with_one():
    many = [gpu_study(i, user="ann") for i in range(5)]
    found = allocate({"CPU": 64, "GPU": 8}, [*many, gpu_study(9, user="bob")], {}, {})
    assert found[9].slots == 4
    assert sorted(found[i].slots for i in range(5)) == [0, 1, 1, 1, 1]


def test_cpu_and_gpu_studies_share_by_what_each_needs_most():
    cpu = gpu_study(1, project="text", slot={"CPU": 1.0})
    found = allocate({"CPU": 16, "GPU": 8}, [gpu_study(0), cpu], {}, {})
    assert (found[0].slots, found[1].slots) == (6, 10)


def test_a_priority_orders_the_studies_of_one_user_alone():
    high = gpu_study(1, user="ann", priority=Priority.HIGH, wanted=3)
    demands = [gpu_study(0, user="ann"), high, gpu_study(2, user="bob")]
    found = allocate({"CPU": 64, "GPU": 8}, demands, {}, {})
    assert [found[i].slots for i in range(3)] == [1, 3, 4]


def test_an_urgent_study_comes_before_everything_but_limits():
    urgent = gpu_study(1, project="text", user="bob", priority=Priority.URGENT, wanted=6)
    demands = [gpu_study(0), urgent]
    found = allocate({"CPU": 64, "GPU": 8}, demands, {}, {})
    assert (found[0].slots, found[1].slots) == (2, 6)
    limited = {"text": Party("text", limits=PartyLimits(gpus=3))}
    found = allocate({"CPU": 64, "GPU": 8}, demands, limited, {})
    assert (found[0].slots, found[1].slots) == (5, 3)
    assert found[1].reason == "project text: at most 3 GPUs at a time"


def test_reasons_name_what_a_study_waits_for():
    spent = {"ann": Party("ann", limits=PartyLimits(exhausted="its 100 GPU hours are used up"))}
    demands = [
        gpu_study(0),
        gpu_study(1, user="bob", wanted=9),
        gpu_study(2, user="bob", slot={"TPU": 1}),
        gpu_study(3, user="eve", wanted=1),
    ]
    found = allocate({"CPU": 64, "GPU": 8}, demands, {}, spent)
    assert found[0].reason == "user ann: its 100 GPU hours are used up"
    assert found[1].reason == "other studies have the right to the GPUs now"
    assert found[2].reason == "the cluster has 0 TPU in all"
    assert found[3].reason == ""


def test_a_study_that_is_alone_is_not_said_to_wait_for_others():
    spent = {"ann": Party("ann", limits=PartyLimits(exhausted="its 100 GPU hours are used up"))}
    demands = [gpu_study(0), gpu_study(1, user="bob", wanted=9)]
    found = allocate({"CPU": 64, "GPU": 8}, demands, {}, spent)
    assert found[1].slots == 8
    assert found[1].reason == "no more of its trials fit into the cluster's 8 GPUs"


@given(totals, demand_lists())
def test_only_urgent_studies_take_slots_and_never_more_than_they_lack(total, demands):
    held = {name: sum(one.running * one.slot.get(name, 0) for one in demands) for name in total}
    assume(all(held[name] <= total[name] for name in total))
    found = allocate(total, demands, {}, {})
    freed = slots_to_free(total, found, demands)
    by_id = {one.study_id: one for one in demands}
    lacking = [
        one
        for one in demands
        if one.priority is Priority.URGENT and found[one.study_id].slots > one.running
    ]
    if not lacking:
        assert freed == {}
    for study_id, count in freed.items():
        one = by_id[study_id]
        assert one.priority is not Priority.URGENT
        assert 0 < count <= one.running - found[study_id].slots


@pytest.mark.parametrize(("low_held", "expected"), [(4, {0: 2}), (1, {0: 1, 1: 1})])
def test_low_priorities_make_room_first(low_held: int, expected: dict[int, int]):
    demands = [
        gpu_study(0, priority=Priority.LOW, running=low_held),
        gpu_study(1, running=8 - low_held),
        gpu_study(2, project="text", user="bob", priority=Priority.URGENT, wanted=2),
    ]
    total = {"CPU": 64, "GPU": 8}
    limited = {"ann": Party("ann", limits=PartyLimits(trials=0))}
    assert slots_to_free(total, allocate(total, demands, {}, limited), demands) == expected


def test_free_resources_are_used_before_a_trial_has_to_go():
    demands = [
        gpu_study(0, running=6),
        gpu_study(1, project="text", user="bob", priority=Priority.URGENT, wanted=2),
    ]
    total = {"CPU": 64, "GPU": 8}
    assert slots_to_free(total, allocate(total, demands, {}, {}), demands) == {}


@given(totals, demand_lists(), parties, parties)
def test_growth_never_exceeds_what_others_leave_of_a_limit(total, demands, projects, users):
    found = allocate(total, demands, projects, users)
    slots = grantable(found, demands, projects, users)
    for attribute, known in (("project", projects), ("user", users)):
        for name, party in known.items():
            own = [one for one in demands if getattr(one, attribute) == party.name == name]
            grown = any(slots[one.study_id] > max(one.granted, one.held) for one in own)
            may_run = [max(slots[one.study_id], one.granted, one.held) for one in own]
            if grown and party.limits.trials is not None:
                assert sum(may_run) <= party.limits.trials
    for one in demands:
        assert slots[one.study_id] <= found[one.study_id].slots


def test_a_study_waits_until_another_has_given_its_part_of_a_limit_up():
    limits = {"ann": Party("ann", limits=PartyLimits(gpus=4))}
    total = {"CPU": 64, "GPU": 8}
    demands = [gpu_study(0, held=4, granted=4), gpu_study(1)]
    found = allocate(total, demands, {}, limits)
    assert [found[i].slots for i in (0, 1)] == [2, 2]
    assert grantable(found, demands, {}, limits) == {0: 2, 1: 0}
    demands = [gpu_study(0, held=3, granted=2), gpu_study(1)]
    assert grantable(found, demands, {}, limits) == {0: 2, 1: 1}


STEP_S = 5


class Rotation:
    """Studies of one GPU a trial on a cluster, each a project; their trials are never stopped."""

    def __init__(self, weights: list[float], lengths: list[int], gpus: int) -> None:
        self.total = {"CPU": 1000.0, "GPU": float(gpus)}
        self.projects = {str(i): Party(str(i), weight) for i, weight in enumerate(weights)}
        self.lengths = lengths
        self.ends: list[list[int]] = [[] for _ in weights]
        self.received = [0.0 for _ in weights]

    def step(self, now: int) -> None:
        self.ends = [[end for end in ends if end > now] for ends in self.ends]
        demands = [
            gpu_study(
                i,
                project=str(i),
                running=len(ends),
                held=len(ends),
                received=({"GPU": self.received[i]},) * 3,
            )
            for i, ends in enumerate(self.ends)
        ]
        found = allocate(self.total, demands, self.projects, {})
        assert sum(one.slots for one in found.values()) == self.total["GPU"]
        for i, ends in enumerate(self.ends):
            while len(ends) < found[i].slots and self.busy < self.total["GPU"]:
                ends.append(now + self.lengths[i])
        assert self.busy == self.total["GPU"]
        for i, ends in enumerate(self.ends):
            self.received[i] += len(ends) * STEP_S

    @property
    def busy(self) -> int:
        return sum(len(ends) for ends in self.ends)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((1.0, 2.0, 3.0)), st.integers(1, 12)), min_size=2, max_size=4
    ),
    st.integers(1, 5),
)
def test_a_remainder_takes_turns_until_all_have_their_share(kinds, gpus):
    weights, lengths = [weight for weight, _ in kinds], [length * STEP_S for _, length in kinds]
    cluster = Rotation(weights, lengths, gpus)
    for now in range(0, 2000, STEP_S):
        cluster.step(now)
    for received, weight in zip(cluster.received, weights, strict=True):
        due = 2000 * gpus * weight / sum(weights)
        turn_s = max(lengths) + TURN_S * max(weights)
        assert abs(received - due) <= turn_s * min(gpus, len(kinds))


def test_two_studies_take_turns_with_one_gpu_and_their_trials_end_first():
    cluster = Rotation([1.0, 1.0], [10, 10], 1)
    turns = []
    for now in range(0, 400, STEP_S):
        cluster.step(now)
        turns.append(next(i for i, ends in enumerate(cluster.ends) if ends))
    assert abs(cluster.received[0] - 200) <= TURN_S
    changes = sum(before != after for before, after in pairwise(turns))
    assert 5 <= changes <= 400 / TURN_S
