"""Output and exit codes of the command line."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime

import pytest
import typer
from rich.console import Console

from tunesvc import errors
from tunesvc.cli.commands import control, doctor
from tunesvc.cli.exits import ExitCode, code_of, explained
from tunesvc.util import formatting
from tunesvc.views import terminal


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0s"),
        (9.96, "10.0s"),
        (59.4, "59s"),
        (187, "3m 07s"),
        (7500, "2h 05m"),
        (273600, "3d 04h"),
    ],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_numbers_that_are_none_are_shown_as_they_are() -> None:
    assert [formatting.number(value) for value in (None, math.nan, math.inf, 0.12345678)] == [
        "–",
        "nan",
        "inf",
        "0.123457",
    ]


def test_json_is_strict_and_keeps_nan_as_a_word() -> None:
    shown = terminal.to_json(
        {"value": math.nan, "at": datetime(2026, 1, 1, tzinfo=UTC), "code": ExitCode.BUSY}
    )
    assert json.loads(shown) == {"value": "NaN", "at": "2026-01-01T00:00:00+00:00", "code": 4}


def test_text_from_a_study_is_no_markup() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    made = terminal.table("name")
    made.add_row(*terminal.cells("[bold red]x[/]"))
    console.print(made)
    assert "[bold red]x[/]" in console.export_text()


def test_a_table_leaves_out_the_last_spare_columns_until_it_fits() -> None:
    console = Console(width=21, record=True, file=io.StringIO())
    made = terminal.fitted(
        ["name", "first", "second", "third"],
        [["n", "1", "2", "3"]],
        21,
        ["first", "second", "third"],
    )
    console.print(made)
    head = console.export_text().splitlines()[0].split()
    assert head == ["name", "first", "+2", "more"]


def test_a_table_that_fits_keeps_every_column() -> None:
    made = terminal.fitted(["name", "first"], [["n", "1"]], 80, ["first"])
    assert len(made.columns) == 2


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-cmd|' /C calc'!A0", "@SUM(A1)", "\tx", "\r=1", "\n=1"]
)
def test_a_formula_becomes_text_in_csv(text: str) -> None:
    """Fault 42."""
    assert formatting.escape_csv_formula(text) == "'" + text


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+1e-3", "adam", "", None, 3])
def test_numbers_and_plain_words_stay_as_they_are_in_csv(value: object) -> None:
    assert formatting.escape_csv_formula(value) == value


def test_assignments_are_read_as_json_or_as_words() -> None:
    pairs = ["lr=0.1", "n=3", "on=true", "name=adam", "path=a=b", 'word="1"']
    assert dict(map(control.parse_assignment, pairs)) == {
        "lr": 0.1,
        "n": 3,
        "on": True,
        "name": "adam",
        "path": "a=b",
        "word": "1",
    }


@pytest.mark.parametrize("text", ["lr", "=1", ""])
def test_an_assignment_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
        control.parse_assignment(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SpecError("x"), 2),
        (errors.StudyNotFound("x"), 3),
        (errors.StudyBusy("x"), 4),
        (errors.StudyExists("x"), 5),
        (errors.UnsatisfiableRequest("x"), 6),
        (errors.SchemaVersionError("x"), 7),
        (errors.ExecutorError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: errors.TuneError, code: int) -> None:
    assert code_of(error) == code


def test_every_exit_code_is_explained() -> None:
    assert all(f"{code.value}  {code.meaning}" in explained() for code in ExitCode)


def test_a_tune_command_of_another_package_is_noticed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    script = tmp_path_factory.mktemp("bin") / "tune"
    script.write_text("#!/usr/bin/python\nfrom ray.tune.scripts import cli\n")
    finding = doctor.command_name(str(script))
    assert finding.verdict == "warn"
    assert "tunesvc" in finding.text
    script.write_text("#!/usr/bin/python\nfrom tunesvc.__main__ import main\n")
    assert doctor.command_name(str(script)).verdict == "ok"
    assert doctor.command_name(None).verdict == "warn"
