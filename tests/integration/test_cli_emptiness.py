"""Commands that have nothing to print say so on standard error, and keep standard output as
programs expect it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.cli import app
from tunesvc.db import study_records
from tunesvc.db.engine.database import open_database


@pytest.fixture
def url(database_url: str) -> str:
    """A study without trials, and one whose trials have written nothing."""
    with open_database(database_url, migrate=False) as database:
        with database.engine.begin() as connection:
            study_records.create(connection, make_spec(name="empty"))
        Simulation(database, make_spec(seed=1, budget={"trials": 2})).run()
    return database_url


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("trials empty", "study empty has no trials yet"),
        ("trials empty --csv", "study empty has no trials yet"),
        ("trials test --where number>5", "none of the 2 trials of test matches"),
        ("export empty", "study empty has no trials yet"),
        ("export test --where number>5", "none of the 2 trials of test matches"),
        ("logs test 1", "trial 1 has written nothing"),
        ("logs test 1 --attempt 1", "attempt 1 of trial 1 has written nothing"),
    ],
)
def test_a_command_that_finds_nothing_says_so(url: str, command: str, expected: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--database-url", url])
    assert done.exit_code == 0, done.output
    assert " ".join(done.stderr.split()) == expected
    assert len(done.stdout.splitlines()) == ("export" in command or "--csv" in command), (
        "the heads of a CSV alone"
    )


def test_json_of_nothing_is_an_empty_list(url: str) -> None:
    done = CliRunner().invoke(app, ["trials", "empty", "--json", "--database-url", url])
    assert done.stdout == "[]\n"
