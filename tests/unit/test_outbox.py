"""The outbox: numbered, kept until acknowledged, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesvc.execution.executor import Finished, OutputLogged, Payload, Reported, Started
from tunesvc.execution.worker.outbox import UNACKNOWLEDGED_MAX, Outbox


def report(step: int, loss: float = 0.0) -> Reported:
    return Reported(step, {"loss": loss})


def test_events_are_given_again_until_they_are_acknowledged() -> None:
    outbox = Outbox()
    outbox.put(Started("here", 1))
    outbox.report(report(0))
    assert [seq for seq, _ in outbox.take(0)] == [1, 2]
    assert [seq for seq, _ in outbox.take(0)] == [1, 2]
    outbox.acknowledge(1)
    assert [seq for seq, _ in outbox.take(1)] == [2]
    assert [seq for seq, _ in outbox.take(0)] == [2]
    outbox.acknowledge(2)
    assert outbox.take(2) == []


def test_the_first_report_of_a_step_stands() -> None:
    """Fault 25."""
    outbox = Outbox()
    for step, loss in [(1, 0.1), (1, 0.2), (2, 0.3), (1, 0.4)]:
        outbox.report(report(step, loss))
    assert [payload for _, payload in outbox.take(0)] == [report(1, 0.1), report(2, 0.3)]


def test_what_comes_after_the_outcome_is_refused() -> None:
    """Fault 27."""
    outbox = Outbox()
    outbox.put(Finished())
    outbox.report(report(1))
    outbox.log("stdout", "late")
    outbox.put(Finished({"loss": 1.0}))
    assert outbox.take(0) == [(1, Finished())]


def test_too_many_reports_are_thinned_out_to_every_second_and_the_last_stays() -> None:
    outbox = Outbox(pending_reports_max=100)
    for step in range(1000):
        outbox.report(report(step))
    outbox.put(Finished())
    events = [payload for _, payload in outbox.take(0)]
    steps = [event.step for event in events if isinstance(event, Reported)]
    assert len(steps) <= 100
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] == 999
    assert isinstance(events[-2], OutputLogged)
    assert f"{1000 - len(steps)} reports came faster" in events[-2].text


def test_of_output_that_comes_too_fast_beginning_and_end_stay_and_the_rest_is_counted() -> None:
    outbox = Outbox(pending_log_chars_max=1000)
    lines = [f"{number:9}\n" for number in range(10_000)]
    for line in lines:
        outbox.log("stdout", line)
    outbox.report(report(0))
    outbox.put(Finished())
    events = [payload for _, payload in outbox.take(0)]
    pieces = [event for event in events if isinstance(event, OutputLogged)]
    at = next(index for index, piece in enumerate(pieces) if piece.left_out)
    beginning, gap, end = pieces[:at], pieces[at], pieces[at + 1 :]
    assert [piece.text for piece in beginning] == lines[:25]
    assert [piece.text for piece in end] == lines[-len(end) :]
    assert 25 <= len(end) <= 75
    assert gap == OutputLogged.gap(10 * (10_000 - 25 - len(end)))
    assert f"[tunesvc: {gap.left_out:,} characters of output are left out here]" in gap.text
    assert events[-2:] == [report(0), Finished()]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60))))
def test_nothing_is_lost_or_reordered_however_it_is_taken(script: list[tuple[int, int]]) -> None:
    """Puts and takes in any order, with any acknowledgement: every payload once, under its own
    number."""
    outbox = Outbox()
    put: list[Reported] = []
    got: dict[int, Payload] = {}
    for puts, after in script:
        for _ in range(puts):
            put.append(report(len(put)))
            outbox.report(put[-1])
        known = min(after, len(got))
        assert outbox.count(known) == len(put) - known
        got.update(outbox.take(known))
        outbox.acknowledge(min(after, len(got)))
    got.update(outbox.take(len(got)))
    payloads = [got[seq] for seq in sorted(got)]
    assert sorted(got) == list(range(1, len(put) + 1))
    assert payloads == put


def test_a_full_outbox_hands_out_nothing_before_an_acknowledgement() -> None:
    outbox = Outbox()
    for step in range(UNACKNOWLEDGED_MAX + 10):
        outbox.report(report(step))
    seen = 0
    while events := outbox.take(seen):
        seen = events[-1][0]
    assert seen == UNACKNOWLEDGED_MAX
    assert outbox.is_full
    assert outbox.count(seen) == 0
    outbox.acknowledge(seen)
    assert outbox.count(seen) == 10
    assert len(outbox.take(seen)) == 10
