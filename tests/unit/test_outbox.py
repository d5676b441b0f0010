"""The outbox: numbered, kept until acknowledged, bounded."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from tunesvc.execute.executor import Asked, Finished, Logged, Payload, Reported, Started
from tunesvc.execute.outbox import UNACKNOWLEDGED_MAX, Outbox


def report(step: int, loss: float = 0.0) -> Reported:
    return Reported(step, {"loss": loss})


def test_events_are_given_again_until_they_are_acknowledged() -> None:
    outbox = Outbox()
    outbox.put(Started("here", 1))
    outbox.report(report(0))
    assert [seq for seq, _ in outbox.take(0, 0, 0.0)] == [1, 2]
    assert [seq for seq, _ in outbox.take(0, 0, 0.0)] == [1, 2]
    assert [seq for seq, _ in outbox.take(1, 1, 0.0)] == [2]
    assert [seq for seq, _ in outbox.take(0, 1, 0.0)] == [2]
    assert outbox.take(2, 2, 0.0) == []


def test_the_first_report_of_a_step_stands() -> None:
    """Fault 25."""
    outbox = Outbox()
    for step, loss in [(1, 0.1), (1, 0.2), (2, 0.3), (1, 0.4)]:
        outbox.report(report(step, loss))
    assert [payload for _, payload in outbox.take(0, 0, 0.0)] == [report(1, 0.1), report(2, 0.3)]


def test_what_comes_after_the_outcome_is_refused() -> None:
    """Fault 27."""
    outbox = Outbox()
    outbox.put(Finished())
    outbox.report(report(1))
    outbox.log("stdout", "late")
    outbox.put(Finished({"loss": 1.0}))
    assert outbox.take(0, 0, 0.0) == [(1, Finished())]


def test_a_listener_that_waits_is_woken_by_the_first_event() -> None:
    outbox = Outbox()
    threading.Timer(0.05, outbox.report, [report(1)]).start()
    assert outbox.take(0, 0, 30.0) == [(1, report(1))]


def test_what_follows_soon_travels_together_and_an_end_or_a_question_at_once() -> None:
    for last in (Finished(), Asked("x", "{}")):
        outbox = Outbox(gather_s=30.0)
        outbox.put(Started("here", 1))
        threading.Timer(0.05, outbox.report, [report(1)]).start()
        threading.Timer(0.1, outbox.put, [last]).start()
        assert [payload for _, payload in outbox.take(0, 0, 30.0)] == [Started("here", 1), report(1), last]


def test_nobody_waits_for_what_follows_an_end() -> None:
    outbox = Outbox(gather_s=30.0)
    outbox.put(Finished())
    for _ in range(2):
        assert outbox.take(0, 0, 30.0) == [(1, Finished())]


def test_too_many_reports_are_thinned_out_to_every_second_and_the_last_stays() -> None:
    outbox = Outbox(pending_reports_max=100)
    for step in range(1000):
        outbox.report(report(step))
    outbox.put(Finished())
    events = [payload for _, payload in outbox.take(0, 0, 0.0)]
    steps = [event.step for event in events if isinstance(event, Reported)]
    assert len(steps) <= 100
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] == 999
    assert isinstance(events[-2], Logged)
    assert f"{1000 - len(steps)} reports came faster" in events[-2].text


def test_output_that_comes_too_fast_is_dropped_and_counted() -> None:
    outbox = Outbox(pending_log_chars_max=10)
    for text in ("12345678", "too much", "more"):
        outbox.log("stdout", text)
    outbox.put(Finished())
    events = [payload for _, payload in outbox.take(0, 0, 0.0)]
    assert events[0] == Logged("stdout", "12345678")
    assert isinstance(events[1], Logged)
    assert "12 characters of output came too fast" in events[1].text


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60))))
def test_nothing_is_lost_or_reordered_however_it_is_taken(script: list[tuple[int, int]]) -> None:
    """Puts and takes in any order, with any acknowledgement: every payload once, under its own number."""
    outbox = Outbox()
    put: list[Reported] = []
    got: dict[int, Payload] = {}
    acknowledged = 0
    for puts, after in script:
        for _ in range(puts):
            put.append(report(len(put)))
            outbox.report(put[-1])
        got.update(outbox.take(min(after, len(got)), acknowledged, 0.0))
        acknowledged = min(after, len(got))
    got.update(outbox.take(len(got), acknowledged, 0.0))
    payloads = [got[seq] for seq in sorted(got)]
    assert sorted(got) == list(range(1, len(put) + 1))
    assert payloads == put


def test_a_full_outbox_answers_soon_so_that_it_can_be_told_what_is_recorded() -> None:
    outbox = Outbox()
    for step in range(UNACKNOWLEDGED_MAX + 10):
        outbox.report(Reported(step, {"loss": 0.0}))
    seen = 0
    while events := outbox.take(seen, 0, 5.0):
        seen = events[-1][0]
    assert seen == UNACKNOWLEDGED_MAX
    assert len(outbox.take(seen, seen, 5.0)) == 10
