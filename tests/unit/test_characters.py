"""Characters that cannot be stored or shown."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tunesvc
from tunesvc.util.characters import (
    find_invisible,
    find_unstorable,
    left_to_right,
    storable,
    strip_control,
    visible,
)

BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
EVERY = [chr(code) for code in range(0x110000)]


def test_what_cannot_be_stored_is_found_and_replaced() -> None:
    assert find_unstorable("fine") is None
    assert find_unstorable("ab\x00") == find_unstorable("ab\ud800") == 2
    assert storable("a\x00b\ud800") == "a\ufffdb\ufffd"


@given(st.text(alphabet=st.characters(codec=None)))
def test_storable_text_can_always_be_encoded_and_holds_no_nul(text: str) -> None:
    safe = storable(text)
    assert "\x00" not in safe.encode().decode()
    assert storable(safe) == safe


def test_control_and_bidirectional_characters_are_invisible() -> None:
    control = {char for char in EVERY if unicodedata.category(char) == "Cc"}
    bidirectional = {char for char in EVERY if unicodedata.bidirectional(char) in BIDI}
    separators = {char for char in EVERY if unicodedata.category(char) in ("Zl", "Zp")}
    assert {char for char in EVERY if left_to_right(char) != char} == bidirectional
    assert {char for char in EVERY if visible(char) != char} == control - {*"\n\t"} | bidirectional
    named = {char for char in EVERY if find_invisible(char) == 0}
    assert named == control | separators | bidirectional


def test_text_from_a_study_moves_no_cursor_and_turns_no_line_around() -> None:
    assert visible("a\x1b[2Jb\x07c\u202ed") == "a\ufffd[2Jb\ufffdc\ufffdd"


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
    assert strip_control(written) == shown


@given(st.text(alphabet="a\r\n\x1b[]0;mA\x07\u202e\x00\x9b", max_size=60))
def test_whatever_is_written_nothing_in_it_can_act(text: str) -> None:
    assert not set(strip_control(text)) & set("\r\x1b\x07\u202e\x00\x9b")


def test_no_other_module_lists_such_characters() -> None:
    package = Path(tunesvc.__file__).parent
    listed = re.compile(r"\\u202[a-e]|\\u206[6-9]|\\ud800|bidirectional\(|\"Cc\"")
    users = [file.stem for file in package.rglob("*.py") if listed.search(file.read_text())]
    assert users == ["characters"]
