"""Exceptions that a fold's evaluation sends to the process that fits."""

from __future__ import annotations

import pytest

from tunesvc.integrations.sklearn_search.cross_validation import restored_error


@pytest.mark.parametrize(
    ("kind", "restored"),
    [
        ("KeyError", KeyError),
        ("UnicodeDecodeError", RuntimeError),
        ("exec", RuntimeError),
        ("KeyboardInterrupt", RuntimeError),
        ("no_such_name", RuntimeError),
    ],
)
def test_an_exception_comes_back_and_nothing_of_it_is_executed(
    kind: str, restored: type[Exception]
) -> None:
    error = restored_error([kind, "raise SystemExit", "the traceback"])
    assert type(error) is restored
    assert error.args == ("raise SystemExit",)
    assert error.__notes__ == ["the traceback"]
