"""Fair shares: the rule itself, and which job may start a worker or must end one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs_and_events import make_job, make_launch
from tests.support.scripted_workers import ScriptedBackend, ScriptedWorker
from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import Finished, NodeInfo, Started, StoppedEarly
from tunesvc.execution.ray.fair_share import (
    GRACE_S,
    TURN_S,
    FairShares,
    Member,
    ShareClaim,
    fair_slots,
)
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.execution.worker.worker_protocol import PollResponse
from tunesvc.spec import Resources
from tunesvc.testing.simulated_executor import VirtualClock

claims = st.lists(
    st.builds(
        ShareClaim,
        slots_alone=st.integers(1, 40),
        demand=st.integers(0, 50),
        held=st.integers(0, 40),
        turns=st.integers(0, 5),
    ),
    max_size=12,
)


@given(claims)
def test_shares_fit_the_resources_and_no_job_gets_more_than_it_wants(
    claims: list[ShareClaim],
) -> None:
    shares = fair_slots(claims)
    assert (
        sum(share / claim.slots_alone for share, claim in zip(shares, claims, strict=True))
        <= 1 + 1e-6
    )
    assert all(
        0 <= share <= min(claim.demand, claim.slots_alone)
        for share, claim in zip(shares, claims, strict=True)
    )


@given(claims)
def test_nothing_is_left_over_that_a_job_wants(claims: list[ShareClaim]) -> None:
    shares = fair_slots(claims)
    left = 1 - sum(share / claim.slots_alone for share, claim in zip(shares, claims, strict=True))
    for share, claim in zip(shares, claims, strict=True):
        assert share == min(claim.demand, claim.slots_alone) or 1 / claim.slots_alone > left - 1e-6


@given(claims)
def test_no_job_has_less_by_a_slot_than_another_that_wants_as_much(
    claims: list[ShareClaim],
) -> None:
    """Max-min: a job that has less than another could not have one slot more, or does not want
    it, or has it next."""
    claims = [ShareClaim(8, claim.demand, claim.held, claim.turns) for claim in claims]
    shares = fair_slots(claims)
    for share, claim in zip(shares, claims, strict=True):
        if share < min(claim.demand, claim.slots_alone):
            assert max(shares) <= share + 1


@given(claims)
def test_a_job_that_wants_and_gets_nothing_has_had_no_less_than_one_that_gets_something(
    claims: list[ShareClaim],
) -> None:
    claims = [ShareClaim(3, claim.demand, claim.held, claim.turns) for claim in claims]
    shares = fair_slots(claims)
    served = [claim.turns for share, claim in zip(shares, claims, strict=True) if share]
    for share, claim in zip(shares, claims, strict=True):
        if claim.demand and not share:
            assert claim.turns >= max(served)


@given(st.integers(2, 7), st.integers(1, 3))
def test_more_jobs_than_slots_all_get_their_turn(jobs: int, slots: int) -> None:
    had = [0] * jobs
    for _ in range(3 * jobs):
        for index, share in enumerate(
            fair_slots([ShareClaim(slots, 4, turns=turns) for turns in had])
        ):
            had[index] += share
    assert max(had) - min(had) <= 1


def test_a_gang_that_needs_all_of_the_cluster_gets_it_when_its_turn_has_come() -> None:
    assert fair_slots([ShareClaim(1, 1, turns=1), ShareClaim(64, 64, turns=0)]) == [0, 64]
    assert fair_slots([ShareClaim(1, 1, turns=0), ShareClaim(64, 64, turns=1)]) == [1, 0]


def test_a_job_that_wants_less_leaves_the_rest_to_others() -> None:
    assert fair_slots([ShareClaim(12, 2), ShareClaim(12, 12), ShareClaim(12, 12)]) == [2, 5, 5]


# --- jobs that may start, and jobs that yield
# ---------------------------------------------------------------------


def node(name: str, **amounts: float) -> NodeInfo:
    return NodeInfo(name, name, name, amounts, amounts)


def a_member(
    shares: FairShares,
    alone: int,
    *,
    attempts: int = 0,
    cpu: float = 1,
    gpu: float = 0,
    **workers: int,
) -> Member:
    member = Member(Resources(cpu=cpu, gpu=gpu), lambda: None, slots_alone=alone)
    shares.join(member)
    shares.slots(member, alone)
    member.attempts, member.workers, member.has_begun = attempts, Counter(workers), attempts > 0
    return member


def test_a_job_alone_may_start_any_number_and_sees_all_slots() -> None:
    shares = FairShares()
    member = a_member(shares, 4, attempts=9, one=4)
    assert shares.may_start(member)
    assert shares.slots(member, 4) == 4
    assert not shares.should_release(member, "one")


def test_a_job_takes_what_is_free_and_gives_it_back_when_another_lacks_it() -> None:
    shares = FairShares()
    shares.set_nodes([node("one", CPU=4.0)])
    greedy = a_member(shares, 4, attempts=8, one=3)
    late = a_member(shares, 4)
    shares.update()
    assert shares.may_start(greedy)
    greedy.workers["one"] = 4
    late.attempts, late.has_begun = 2, True
    shares.update()
    assert (greedy.fair_share, late.fair_share) == (2, 2)
    assert not shares.may_start(late)
    assert shares.should_release(greedy, "one")
    greedy.workers["one"] = 3
    shares.update()
    assert not shares.may_start(greedy)
    assert shares.may_start(late)
    assert not shares.should_release(greedy, "one")


def test_a_job_sees_its_share_and_one_more() -> None:
    shares = FairShares()
    shares.set_nodes([node("one", CPU=8.0)])
    first, second = a_member(shares, 8), a_member(shares, 8)
    shares.update()
    assert (shares.slots(first, 8), shares.slots(second, 8)) == (5, 5)
    first.attempts, first.has_begun = 2, True  # its parallelism
    second.attempts, second.has_begun = 5, True
    shares.update()
    assert shares.slots(second, 8) == 7


def test_jobs_that_ask_for_different_things_leave_each_other_alone() -> None:
    shares = FairShares()
    shares.set_nodes([node("one", CPU=10.0, GPU=2.0)])
    on_gpus = a_member(shares, 2, attempts=3, gpu=1, one=2)
    on_cpus = a_member(shares, 10, attempts=9, one=7)
    shares.update()
    assert shares.may_start(on_cpus)
    assert not shares.should_release(on_gpus, "one")


def test_no_job_yields_to_one_that_cannot_run_at_all() -> None:
    """Its node has gone, and may come back."""
    shares = FairShares()
    shares.set_nodes([node("one", CPU=4.0)])
    others = a_member(shares, 4, attempts=6, one=4)
    stranded = a_member(shares, 2, attempts=2, gpu=1)
    stranded.can_run = False
    shares.update()
    assert others.fair_share == 4
    assert not shares.should_release(others, "one")


def test_fractions_of_a_device_have_room_beside_each_other() -> None:
    shares = FairShares()
    shares.set_nodes([node("one", CPU=4.0, GPU=1.0)])
    a_member(shares, 2, attempts=2, gpu=0.5, one=1)
    second = a_member(shares, 2, attempts=2, gpu=0.5)
    shares.update()
    assert shares.may_start(second)


def test_room_in_pieces_is_joined_on_the_node_where_the_least_has_to_end() -> None:
    """Small workers at their share, spread over the nodes: without this the large one would wait
    for ever."""
    shares = FairShares()
    shares.set_nodes([node("one", CPU=4.0), node("two", CPU=4.0)])
    small = a_member(shares, 8, attempts=8, one=2, two=1)
    large = a_member(shares, 2, attempts=1, cpu=4)
    shares.update()
    assert small.held <= small.fair_share
    assert not shares.may_start(large)
    assert not shares.may_start(small)
    assert shares.should_release(small, "two")
    assert not shares.should_release(small, "one")
    del small.workers["two"]
    assert shares.may_start(large)


def test_turns_pass_when_there_are_more_jobs_than_slots() -> None:
    clock = VirtualClock()
    shares = FairShares(clock)
    shares.set_nodes([node("one", CPU=1.0)])
    first = a_member(shares, 1, attempts=1, one=1)
    second = a_member(shares, 1, attempts=1)
    shares.update()
    assert (first.fair_share, second.fair_share) == (1, 0)
    clock.advance(TURN_S)
    shares.update()
    assert (first.fair_share, second.fair_share) == (0, 1)
    assert shares.should_release(first, "one")
    third = a_member(
        shares, 1, attempts=1
    )  # has had as little as the second, which was there before
    shares.update()
    assert (second.fair_share, third.fair_share) == (1, 0)


def test_a_job_between_two_trials_keeps_its_worker_for_the_grace_time() -> None:
    """With one trial at a time a job has no attempt while it asks for the next one."""
    clock = VirtualClock()
    shares = FairShares(clock)
    shares.set_nodes([node("one", CPU=1.0)])
    first = a_member(shares, 1, attempts=1, one=1)
    a_member(shares, 1, attempts=1)
    shares.update()
    first.attempts = 0
    shares.update()
    assert not shares.should_release(first, "one")
    clock.advance(GRACE_S)
    shares.update()
    assert shares.should_release(first, "one")


def test_a_new_attempt_within_the_grace_time_begins_the_next_one_from_zero() -> None:
    clock = VirtualClock()
    shares = FairShares(clock)
    member = a_member(shares, 4, attempts=3, one=3)
    for now_s, attempts in ((0.0, 2), (0.6, 3), (1.2, 2)):
        clock.advance(now_s * GRACE_S)
        member.attempts = attempts
        shares.update()
    clock.advance(2.0 * GRACE_S)
    shares.update()
    assert member.recent_attempts == 3
    clock.advance(2.3 * GRACE_S)
    shares.update()
    assert member.recent_attempts == 2


# --- executors that share
# -----------------------------------------------------------------------------


@pytest.fixture
def pair(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[RayExecutor], list[ScriptedBackend]]:
    """Two executors on a node of two CPUs, as a driver has them."""
    event_loop, shares = EventLoop(), FairShares()
    fleets = [ScriptedBackend(make_job(tmp_path_factory.mktemp("job"))) for _ in range(2)]
    executors = [
        RayExecutor(backend.job, backend=backend, event_loop=event_loop, fair_shares=shares)
        for backend in fleets
    ]
    for executor in executors:
        executor.warm_up()
    return executors, fleets


def living(backend: ScriptedBackend) -> list[ScriptedWorker]:
    return [worker for worker in backend.workers.values() if not worker.is_ended]


def test_a_starting_worker_yields_to_another_job_and_the_next_one_is_that_jobs(
    pair: tuple[list[RayExecutor], list[ScriptedBackend]],
) -> None:
    (first, second), (its, others) = pair
    for number in range(4):
        first.launch(make_launch(number))
    assert len(living(its)) == 2
    second.launch(make_launch(9))
    first.events(0.0)
    assert (len(living(its)), len(living(others))) == (1, 1)


def test_a_worker_yields_at_its_attempts_end_and_lives_until_that_is_recorded(
    pair: tuple[list[RayExecutor], list[ScriptedBackend]],
) -> None:
    """Attempts queued at it are cancelled, and wait."""
    (first, second), (its, others) = pair
    for number in range(4):
        first.launch(make_launch(number))
    for worker in living(its):
        worker.answer("info")
    first.events(0.0)
    assert [len(worker.launches) for worker in living(its)] == [2, 2]
    second.launch(make_launch(9))
    first.events(0.0)
    assert (len(living(its)), len(living(others))) == (2, 0), "what runs is let run"
    for worker in living(its):
        worker.reply(PollResponse(absent=[order.attempt for order in worker.orders("cancel")]))
    first.events(0.0)
    worker = living(its)[0]
    attempt = worker.launches[0].attempt
    worker.say(attempt, (1, Started("node", 1)), (2, Finished({"loss": 1.0})))
    first.events(0.0)
    first.launch(make_launch(5))
    assert not worker.is_ended, "its end is not recorded yet"
    first.acknowledge({attempt: 2})
    first.events(0.0)
    assert worker.is_ended
    assert len(worker.launches) == 2, "nothing else began"
    assert (len(living(its)), len(living(others))) == (1, 1)


def test_a_stop_of_what_is_asked_back_is_not_forgotten(
    pair: tuple[list[RayExecutor], list[ScriptedBackend]],
) -> None:
    (first, second), (its, _) = pair
    for number in range(4):
        first.launch(make_launch(number))
    for worker in living(its):
        worker.answer("info")
    first.events(0.0)
    in_line = living(its)[0].launches[1].attempt
    first.stop(in_line)
    second.launch(make_launch(9))
    first.events(0.0)
    living(its)[0].reply(PollResponse(absent=[in_line]))
    assert [(event.attempt, event.payload) for event in first.events(0.0)] == [
        (in_line, StoppedEarly())
    ]


def test_what_a_job_that_leaves_had_goes_to_the_others(
    pair: tuple[list[RayExecutor], list[ScriptedBackend]],
) -> None:
    (first, second), (its, others) = pair
    for number in range(4):
        first.launch(make_launch(number))
        second.launch(make_launch(number))
    first.events(0.0)
    assert (len(living(its)), len(living(others))) == (1, 1)
    first.close()
    second.events(0.0)
    assert (len(living(its)), len(living(others))) == (0, 2)
    assert second.slots() == 2


@pytest.mark.parametrize("order", [(0, 8), (8, 0)])
def test_nodes_of_one_machine_share_an_address_and_all_of_them_count(
    order: tuple[int, int],
) -> None:
    shares = FairShares(VirtualClock())
    nodes = [NodeInfo(str(i), "10.0.0.1", "box", {"CPU": cpus}, {}) for i, cpus in enumerate(order)]
    shares.set_nodes(nodes)
    first, second = (Member(Resources(cpu=1), lambda: None, slots_alone=8) for _ in range(2))
    shares.join(first)
    shares.join(second)
    assert shares.may_start(second)
