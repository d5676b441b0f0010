"""Proposals that are drawn before they are needed, and their number."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from tests.support.recorded_changes import take_changes
from tests.support.specs import make_spec
from tests.unit.test_optimizer import make_optimizer
from tunesvc.coordinator.prefetch import ProposalPrefetch
from tunesvc.db.trial_changes import TrialChanges
from tunesvc.search.optimizer import Optimizer, Proposal
from tunesvc.search.prefetched_proposals import DRAWN_AT
from tunesvc.search.samplers.auto_sampler import PARAMETERS_MAX
from tunesvc.testing.simulated_executor import VirtualClock

AT = "2026-01-01T00:00:00+00:00"


def optimizer_of(sampler: str, trials: int = 0) -> Optimizer:
    optimizer = make_optimizer(make_spec(sampler={"name": sampler, "seed": 3}))
    for _ in range(trials):
        finish(optimizer, optimizer.ask())
    return optimizer


def finish(optimizer: Optimizer, proposal: Proposal) -> None:
    x: Any = proposal.params["x"]
    optimizer.tell(proposal.number, TrialState.COMPLETE, [(x - 0.3) ** 2])


@pytest.mark.parametrize("sampler", ["gp", "tpe", "auto"])
def test_what_is_drawn_ahead_is_what_would_have_been_drawn_and_is_recorded_when_it_is_taken(
    sampler: str,
) -> None:
    ahead, plain = optimizer_of(sampler, 14), optimizer_of(sampler, 14)
    take_changes(ahead.memory)
    changes = ahead.memory.changes
    assert ahead.prefetch(AT, lasting=2)
    assert ahead.prefetch(AT, lasting=2)
    assert ahead.memory.recorded == TrialChanges()
    assert ahead.memory.changes == changes
    assert (len(ahead.trials), ahead.prefetched) == (14, 2)
    taken, asked = [ahead.ask(), ahead.ask()], [plain.ask(), plain.ask()]
    assert [(one.number, one.params, one.reason) for one in taken] == [
        (a.number, a.params, a.reason) for a in asked
    ]
    assert [one.details[DRAWN_AT] for one in taken] == [AT, AT]
    batch = take_changes(ahead.memory)
    assert [trial.number for trial in batch.trials] == [14, 15]
    assert {(param.number, param.name) for param in batch.params} == {
        (n, p) for n in (14, 15) for p in ("x", "n")
    }


def test_what_is_drawn_while_a_step_is_written_rests_on_that_step() -> None:
    optimizer = optimizer_of("tpe", 14)
    assert optimizer.prefetch("before", lasting=9)
    assert optimizer.prefetch(None, lasting=9)
    optimizer.stamp_prefetched(AT)
    assert [optimizer.ask().details[DRAWN_AT] for _ in range(2)] == ["before", AT]
    assert optimizer.prefetch(None, lasting=9)
    optimizer.stamp_prefetched("")  # the time of its commit is unknown
    assert optimizer.prefetched == 0
    assert DRAWN_AT not in optimizer.ask().details


def test_a_proposal_that_has_missed_too_much_is_replaced() -> None:
    optimizer = optimizer_of("gp", 14)
    running = [optimizer.ask(), optimizer.ask()]
    assert optimizer.prefetch(AT, lasting=2)
    finish(optimizer, running[0])
    assert DRAWN_AT in optimizer.ask().details, (
        "one result behind is as good as any that runs beside others"
    )
    assert optimizer.prefetch(AT, lasting=1)
    finish(optimizer, running[1])
    fresh = optimizer.ask()
    assert DRAWN_AT not in fresh.details
    assert fresh.details["fresh"], "so that replay learns again too"
    assert fresh.number == 17


WIDE = {f"x{i}": {"type": "float", "min": 0.0, "max": 1.0} for i in range(PARAMETERS_MAX + 1)}
"""A space in which `auto` asks TPE from the start."""


def end_by_number(optimizer: Optimizer, proposal: Proposal) -> None:
    """Most trials are pruned, at different steps, and teach by their forecasts."""
    x: Any = proposal.params["x0"]
    is_pruned = proposal.number % 4 > 0 and proposal.number > 12
    steps = 1 + proposal.number % 7 if is_pruned else 9
    for step in range(steps):
        optimizer.report(proposal.number, step, (x - 0.3) ** 2 + math.exp(-step / (1 + 3 * x)))
    last = optimizer.trial(proposal.number).intermediate_values[steps - 1]
    optimizer.tell(proposal.number, TrialState.PRUNED if is_pruned else TrialState.COMPLETE, [last])


@settings(max_examples=5, deadline=None)
@given(
    before=st.lists(
        st.sampled_from(["ask", "ask", "ahead", "tell", "tell"]), min_size=30, max_size=70
    ),
    after=st.lists(st.sampled_from(["ask", "tell"]), max_size=30),
    dropped=st.integers(1, 2),
)
def test_one_that_threw_proposals_away_and_one_that_begins_with_its_trials_continue_alike(
    before: list[str], after: list[str], dropped: int
) -> None:
    """Forecasts of pruned trials at their end, and on the way to discarded proposals, leave no
    trace."""
    spec = make_spec(sampler={"name": "auto", "seed": 3}, parameters=WIDE)
    optimizer = make_optimizer(spec)
    running: list[Proposal] = []
    for deed in ["ask", "tell"] * 20 + before:
        if deed == "ahead":
            optimizer.prefetch(AT, lasting=1)
        elif deed == "ask":
            running.append(optimizer.ask())
        elif running:
            end_by_number(optimizer, running.pop(0))
    for _ in range(dropped):
        optimizer.prefetch(AT, lasting=9)
    optimizer._drop_prefetched()
    begun = make_optimizer(spec, trials=optimizer.trials)
    assert "as likely as" in both_ask(optimizer, begun), "TPE models, from the ten first on"
    for deed in after:
        if deed == "ask":
            both_ask(optimizer, begun)
        elif running:
            ended = running.pop(0)
            end_by_number(optimizer, ended)
            end_by_number(begun, ended)


def both_ask(one: Optimizer, other: Optimizer) -> str:
    """Both propose the same, and say the same of it."""
    asked = one.ask()
    assert asked == other.ask()
    return asked.reason


def test_what_was_tried_stays_tried_when_the_same_is_drawn_ahead_and_thrown_away() -> None:
    parameters = {"x": {"type": "int", "min": 0, "max": 1}}
    optimizer = make_optimizer(make_spec(sampler={"name": "tpe", "seed": 3}, parameters=parameters))
    for _ in range(12):
        finish(optimizer, optimizer.ask())
    assert optimizer._covered
    assert optimizer.prefetch(AT, lasting=9)
    optimizer.enqueue({"x": 0})
    assert optimizer.prefetched == 0
    assert optimizer._covered


@settings(max_examples=40, deadline=None)
@given(
    deeds=st.lists(st.sampled_from(["ahead", "ask", "enqueue", "tell", "withdraw"]), max_size=25)
)
def test_numbers_have_no_gap_whatever_comes_between(deeds: list[str]) -> None:
    optimizer = optimizer_of("tpe")
    running: list[Proposal] = []
    enqueued: list[int] = []
    for deed in deeds:
        if deed == "ahead":
            optimizer.prefetch(AT, lasting=1)
        elif deed == "ask":
            running.append(optimizer.ask())
            if enqueued:
                assert running[-1].number == enqueued.pop(0)
        elif deed == "enqueue":
            enqueued.append(optimizer.enqueue({"x": 0.5}))
        elif deed == "tell" and running:
            finish(optimizer, running.pop(0))
        elif deed == "withdraw" and enqueued:
            optimizer.cancel(enqueued.pop())
        recorded = [trial.number for trial in optimizer.memory.recorded.trials]
        assert recorded == list(range(len(optimizer.trials)))
        assert not (optimizer.prefetched and enqueued)


@pytest.mark.parametrize("sampler", ["random", "qmc", "cmaes", "nsga2", "grid", "brute"])
def test_samplers_that_remember_what_they_were_asked_are_not_asked_ahead(sampler: str) -> None:
    parameters = {
        "x": {"type": "int", "min": 0, "max": 9},
        "n": {"type": "int", "min": 1, "max": 8},
    }
    optimizer = make_optimizer(make_spec(sampler={"name": sampler}, parameters=parameters))
    assert not optimizer.prefetch(AT, lasting=2)
    assert len(optimizer.memory.get_all_trials(optimizer.memory.study_id)) == 0


class Slow(Optimizer):
    """Takes a second to draw."""

    clock: VirtualClock

    def prefetch(self, moment: str | None, lasting: int) -> bool:
        self.clock.advance(self.clock.now() + 1.0)
        return super().prefetch(moment, lasting)


def prefetch_of() -> tuple[ProposalPrefetch, VirtualClock, Optimizer]:
    optimizer = optimizer_of("tpe", 3)
    optimizer.__class__ = Slow
    optimizer.clock = clock = VirtualClock()  # type: ignore[attr-defined]
    return ProposalPrefetch(optimizer, clock.now), clock, optimizer


def fill(prefetch: ProposalPrefetch, left: int = 100) -> int:
    filled = 0
    while prefetch.fill(4, left, AT):
        filled += 1
    return filled


def test_one_proposal_is_ready_when_workers_end_one_at_a_time_and_one_for_each_when_they_end_together() -> (
    None
):
    prefetch, clock, optimizer = prefetch_of()
    assert fill(prefetch) == 1
    for _ in range(6):
        clock.advance(clock.now() + 100.0)
        prefetch.freed(1)
    optimizer.ask()
    assert fill(prefetch) == 1
    prefetch.freed(4)
    assert fill(prefetch) == 3
    assert optimizer.prefetched == 4


def test_no_more_is_drawn_than_may_still_be_asked_for_nor_at_a_moment_that_is_not_known() -> None:
    prefetch, _, _ = prefetch_of()
    prefetch.freed(4)
    assert not prefetch.fill(4, 10, "")
    assert fill(prefetch, left=0) == 0
    assert fill(prefetch, left=1) == 1


def test_quick_draws_may_run_while_the_database_works_however_slow_the_first_one_was() -> None:
    optimizer, clock = optimizer_of("tpe", 3), VirtualClock()
    prefetch = ProposalPrefetch(optimizer, clock.now)
    assert not prefetch.is_quick, "not known yet"
    for took_s, is_quick in [
        (0.4, False),
        (0.001, False),
        (0.001, True),
        (0.3, False),
        (0.001, True),
    ]:
        draw = optimizer._propose

        def slow(took_s: float = took_s, draw: Any = draw) -> Proposal:
            clock.advance(clock.now() + took_s)
            return draw()

        optimizer._propose = slow  # type: ignore[method-assign]
        finish(optimizer, prefetch.ask())
        optimizer._propose = draw  # type: ignore[method-assign]
        assert prefetch.is_quick == is_quick
