"""Text for terminal and page."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.util import formatting


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain\n", "plain\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("10%\r50%\r100%\nnext", "100%\nnext"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("a\x00b\u202ec\x07", "a\ufffdb\ufffdc\ufffd"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_output_is_shown_as_plain_text(written: str, shown: str) -> None:
    assert formatting.strip_control(written) == shown


@given(st.text(alphabet="a\r\n\x1b[]0;mA\x07\u202e\x00\x9b", max_size=60))
def test_whatever_is_written_nothing_in_it_can_act(text: str) -> None:
    assert not set(formatting.strip_control(text)) & set("\r\x1b\x07\u202e\x00\x9b")


def test_a_violation_names_the_bound_and_by_how_much() -> None:
    broken = {"cost.max": 0.25, "auc.min": 1e-9, "c0": 2.0, "cost.min": math.inf}
    assert formatting.violations(broken) == (
        "cost is 0.25 above its maximum, auc is 1e-09 below its minimum, constraint c0 is 2 above 0, "
        "cost.min is not finite"
    )
