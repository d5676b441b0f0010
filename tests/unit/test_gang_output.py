"""Output that a gang's process sends, to attempts that are lists of calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from tunesvc.errors import BadReport
from tunesvc.execution.executor import AttemptId
from tunesvc.execution.gang.gang_home import GangHome
from tunesvc.execution.gang.gang_output import GangProcess, ProcessOutput
from tunesvc.execution.output.spool import Spool


@dataclass(frozen=True)
class Home(GangHome):
    """Keeps the calls, after it has raised the given errors."""

    name: str = "trial"
    namespace: str = ""
    node_id: str = "here"
    errors: list[Exception] = field(default_factory=list)
    calls: list[tuple[GangProcess, str]] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def call_attempt(self, attempt: AttemptId, verb: str, *values: Any) -> Any:
        """Keep the process and its text, without announcements."""
        process, _, text, _ = values
        if not text:
            return
        self.before()
        if self.errors:
            raise self.errors.pop(0)
        self.calls.append((process, text))


@pytest.fixture
def output(tmp_path: Path) -> ProcessOutput:
    return ProcessOutput("here", Spool(tmp_path))


def texts(home: Home) -> list[str]:
    return [text for _, text in home.calls]


def test_a_lost_connection_silences_no_process(output: ProcessOutput) -> None:
    home = Home(errors=[ActorUnavailableError("no answer", None), ConnectionError()])
    output.send_to(home, AttemptId(1, 1), "bundle 1")
    output.send("stdout", "one\n", 4)
    output.send("stdout", "two\n", 8)
    assert texts(home) == ["one\n", "two\n"]


@pytest.mark.parametrize("error", [BadReport("the attempt has ended"), ActorDiedError()])
def test_a_process_whose_trial_has_ended_sends_nothing_more(
    output: ProcessOutput, error: Exception
) -> None:
    home = Home(errors=[error])
    output.send_to(home, AttemptId(1, 1), "bundle 1")
    for end in (4, 8):
        output.send("stdout", "text", end)
    assert texts(home) == []
    assert home.errors == []


def test_the_end_of_a_trial_leaves_the_next_one_its_output(output: ProcessOutput) -> None:
    """A task of the next gang begins while a call to the first one is on its way."""
    second = Home()
    first = Home(
        errors=[BadReport("the attempt has ended")],
        before=lambda: output.send_to(second, AttemptId(2, 1), "bundle 0"),
    )
    output.send_to(first, AttemptId(1, 1), "bundle 1")
    output.send("stdout", "late", 4)
    output.send("stdout", "next", 8)
    assert (texts(first), texts(second)) == ([], ["next"])


def test_a_process_of_another_gang_has_its_bundle_and_output_from_then_on(
    output: ProcessOutput, tmp_path: Path
) -> None:
    first, second = Home(), Home()
    output.send_to(first, AttemptId(1, 1), "bundle 1")
    output.label = "rank 1"
    output.send_to(first, AttemptId(1, 1), "bundle 1")
    output.send("stdout", "one", 3)
    (tmp_path / "stdout").write_text("one")
    output.send_to(second, AttemptId(2, 1), "bundle 0")
    output.send("stdout", "two", 6)
    ((one, _),), ((two, _),) = first.calls, second.calls
    assert (one.label, two.label) == ("rank 1", "bundle 0")
    assert two.begins == {"stdout": 3}
