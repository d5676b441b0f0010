"""Log records: their events, destinations and formats."""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from tests.support.simulation import Recorder
from tunesvc.cli import app
from tunesvc.coordinator.progress_events import ProgressEvent
from tunesvc.runtime.logging_observer import LoggingObserver
from tunesvc.util import logs


@pytest.fixture(autouse=True)
def package_logger() -> Iterator[logging.Logger]:
    """Restore the package's logger."""
    logger = logging.getLogger("tunesvc")
    handlers, level, propagate = [*logger.handlers], logger.level, logger.propagate
    yield logger
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def test_events_are_logged_with_study_and_trial_and_still_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    observer = LoggingObserver(recorder, "digits")
    with caplog.at_level(logging.INFO, logger="tunesvc"):
        observer.on_event(ProgressEvent("complete", "trial 3: loss = 0.5", 3))
        observer.on_event(ProgressEvent("failed", "trial 4: ValueError", 4))
    assert [(record.levelname, record.study, record.trial) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("INFO", "digits", 3),
        ("WARNING", "digits", 4),
    ]
    assert recorder.texts("complete") == ["trial 3: loss = 0.5"]


def test_nothing_is_printed_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure({})
    logs.get_logger("tunesvc.test").warning("not configured")
    assert capsys.readouterr().err == ""


def test_text_names_the_fields_behind_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure({logs.LEVEL: "info"})
    logs.get_logger("tunesvc.test").info("lost", extra={"study": "digits", "trial": 0})
    assert capsys.readouterr().err.endswith("INFO    tunesvc.test: lost study=digits trial=0\n")


def test_json_has_a_record_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure({logs.LEVEL: "warning", logs.FORMAT: "json"})
    logs.get_logger("tunesvc.test").info("unimportant")
    logs.get_logger("tunesvc.test").warning("lost\nfor good", extra={"study": "digits", "trial": 0})
    record = json.loads(capsys.readouterr().err)
    assert (record["message"], record["study"], record["trial"]) == ("lost\nfor good", "digits", 0)


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        (logs.LEVEL, "loud", "use one of debug, info, warning, error"),
        (logs.FORMAT, "xml", "use text or json"),
    ],
)
def test_a_level_or_a_format_that_does_not_exist_is_named_with_the_known_ones(
    variable: str, value: str, remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        logs.configure({logs.LEVEL: "info", variable: value})


def test_records_of_another_process_arrive_formatted_and_with_their_fields(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[bytes] = []
    monkeypatch.setenv(logs.LEVEL, "info")
    logs.forward(lambda record: sent.append(pickle.dumps(record)))
    logger = logs.get_logger("tunesvc.test")
    logger.debug("unimportant")
    logger.info("worker %s is up", threading.Lock(), extra={"study": "digits"})
    logs.configure()
    for record in sent:
        logs.receive(pickle.loads(record))  # noqa: S301  # our own
    (line,) = capsys.readouterr().err.splitlines()
    assert "INFO    tunesvc.test: worker <unlocked _thread.lock" in line
    assert line.endswith("is up study=digits")


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_secret_is_logged_not_in_a_traceback_either(
    capsys: pytest.CaptureFixture[str], format: str
) -> None:
    secret = "tune_token_" + "x" * 43
    logs.configure({logs.LEVEL: "info", logs.FORMAT: format})
    try:
        raise ValueError(f"cannot reach postgresql://ada:hunter2@db/tune with {secret}")
    except ValueError:
        logs.get_logger("tunesvc.test").exception("failed with %s", secret)
    shown = capsys.readouterr().err
    assert "xxx" not in shown
    assert "hunter2" not in shown
    assert "failed with tune_token_***" in shown


def test_the_command_lines_format_holds_without_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tune serve` logs at a level of its own, so the format alone is enough."""
    monkeypatch.delenv(logs.LEVEL, raising=False)
    monkeypatch.setenv(logs.FORMAT, "text")
    assert CliRunner().invoke(app, ["--log-format", "json", "schema"]).exit_code == 0
    assert os.environ[logs.FORMAT] == "json"


def test_an_unknown_format_is_refused_without_a_level_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logs.LEVEL, raising=False)
    monkeypatch.setenv(logs.FORMAT, "text")
    refused = CliRunner().invoke(app, ["--log-format", "xml", "schema"])
    assert refused.exit_code == 2
    assert "use text or json" in refused.output
