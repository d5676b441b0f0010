"""The output of an attempt that is stored: what a database would hold after each piece."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesvc.coordinator.attempt_state.log_window import LogWindow
from tunesvc.execution.executor import OutputLogged

KEPT = 100
lines = st.integers(0, 60).map(lambda chars: OutputLogged("stdout", "x" * chars))
pieces = st.one_of(lines, st.integers(1, 5000).map(OutputLogged.gap))


@given(st.lists(pieces, max_size=200))
def test_beginning_and_end_are_stored_and_what_is_left_out_is_counted(
    written: list[OutputLogged],
) -> None:
    window = LogWindow(KEPT)
    stored: dict[int, OutputLogged] = {}
    for seq, piece in enumerate(written, 1):
        stored[seq] = piece
        if gap := window.add(seq, piece):
            for number in range(gap.first, gap.last + 1):
                stored.pop(number, None)
            stored[gap.first] = OutputLogged.gap(gap.chars)
    assert sum(map(chars, stored.values())) == sum(map(chars, written))
    assert not stored or next(iter(stored.values())) == written[0]
    assert not stored or stored[len(written)] == written[-1]
    assert sum(len(piece.text) for piece in stored.values()) <= 2 * KEPT + 3 * len(
        OutputLogged.gap(10**6).text
    )


def chars(piece: OutputLogged) -> int:
    """Return how many characters an attempt wrote for it."""
    return piece.left_out or len(piece.text)
