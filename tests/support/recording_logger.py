"""A logger that writes lines of JSON into a folder, and can be down, hang or lose an answer.

A study names it as `recording_logger.py:RecordingLogger` when this file lies in its folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tunesvc.integrations.loggers.trial_logger import (
    LoggedPoint,
    LoggedStudy,
    LoggedTrial,
    TrialLogger,
)


class RecordingLogger(TrialLogger):
    """Appends what it gets. A file `down` or `hang` in the folder does that to every call."""

    def __init__(self, folder: str, name: str = "recorder") -> None:
        self.folder = Path(folder)
        self.place = name
        self.lose_answers = False
        """Raise after everything was written."""
        self.refused: set[int] = set()
        """Trials that are refused."""

    def open(self, study: LoggedStudy) -> str:
        self.folder.mkdir(exist_ok=True)
        return self.place

    def recover(self, trial: LoggedTrial, run: str | None) -> tuple[str | None, Collection[int]]:
        self._answer()
        lines = self.lines(trial.number)
        return (f"run {trial.number}" if lines else None), {
            line["step"] for line in lines if "step" in line
        }

    def send(self, run: str | None, trial: LoggedTrial, points: Sequence[LoggedPoint]) -> str:
        self._answer()
        if trial.number in self.refused:
            raise ValueError(f"trial {trial.number} is refused")
        lines: list[dict[str, Any]] = [] if run else [{"opened": dict(trial.params)}]
        lines += [{"step": point.step, **point.metrics} for point in points]
        lines.append({"state": trial.state, **trial.labels, **trial.results})
        with (self.folder / f"{trial.number}.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        if self.lose_answers:
            raise ConnectionError("the answer was lost")
        return f"run {trial.number}"

    def lines(self, number: int) -> list[dict[str, Any]]:
        """Return what the tracker has of a trial."""
        file = self.folder / f"{number}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def steps(self, number: int) -> list[int]:
        """The steps that it has of a trial, in the order in which they came."""
        return [line["step"] for line in self.lines(number) if "step" in line]

    def _answer(self) -> None:
        if (self.folder / "down").exists():
            raise ConnectionError("connection refused")
        while (self.folder / "hang").exists():
            time.sleep(0.1)
