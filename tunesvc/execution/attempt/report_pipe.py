"""Reports of a program: JSON lines on a named pipe.

    {"step": 1, "val_error": 0.3}               a report; without `step` they are numbered from 0
    {"final": {"val_error": 0.2}}               the result; without it the curve counts
    {"checkpoint": "model.pt", "step": 9}       the file or folder, relative to TUNE_CHECKPOINT_DIR, is the state now
    {"user_attrs": {"note": "warm"}}            text, numbers or other JSON that is kept on the trial

Imports no Ray.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesvc.errors import BadReport
from tunesvc.subprocess_trial import HANDED_OVER
from tunesvc.trial import Trial, as_result

LINE_BYTES_MAX = 2**20


class LineReports:
    """Takes a program's lines into its trial."""

    def __init__(self, trial: Trial, checkpoints: Path, objectives: tuple[str, ...]) -> None:
        self.final: dict[str, float] = {}
        self._trial = trial
        self._objectives = objectives
        self._checkpoints = checkpoints

    def take(self, line: bytes) -> None:
        """One line.

        Raises:
            BadReport: it cannot be read; the text quotes it.
        """
        try:
            self._take(_parse(line))
        except BadReport as error:
            raise BadReport(f"{error} (in the line {_quoted(line)})") from None

    def _take(self, message: Mapping[str, Any]) -> None:
        fields = dict(message)
        if "final" in fields:
            final = fields["final"] if isinstance(fields["final"], Mapping) else _no_object()
            self.final, attributes = as_result(final, self._objectives)
            self._set_user_attrs(attributes)
            return
        if isinstance(fields.get("user_attrs"), Mapping):
            self._set_user_attrs(fields.pop("user_attrs"))
        step = fields.pop("step", None)
        if "checkpoint" in fields:
            self._keep(str(fields.pop("checkpoint")), step)
        if fields:
            self._trial._take(step, fields, {})  # a request to stop is for the program, not for its pipe
        elif "checkpoint" not in message and "user_attrs" not in message:
            raise BadReport("no metric")

    def _set_user_attrs(self, attributes: Mapping[str, object]) -> None:
        for name, value in attributes.items():
            self._trial.set_user_attr(name, value)

    def _keep(self, name: str, step: object) -> None:
        path = self._checkpoints / name
        try:
            self._trial.checkpoint(path, step)  # type: ignore[arg-type]  # checked by as_step
        except OSError as error:
            raise BadReport(f"checkpoint {name!r} cannot be kept: {error}") from None
        if path.parent.parent == self._checkpoints / HANDED_OVER:
            shutil.rmtree(path.parent, ignore_errors=True)


class ReportPipe:
    """A named pipe that any number of processes may write lines to."""

    def __init__(self, path: Path, reports: LineReports) -> None:
        os.mkfifo(path, 0o600)
        # open for writing too, so that it never ends when a writer closes, and no opening ever waits
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._reports = reports
        self._rest = b""
        self.error: BadReport | None = None
        """The first line that could not be read."""

    def read(self) -> bool:
        """Take the lines that are there; whether there were any bytes."""
        try:
            data = os.read(self._descriptor, 2**16)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._take(line)
        return True

    def finish(self) -> None:
        """Take what is left, a last line without its end included."""
        while self.read():
            pass
        self._take(self._rest)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """The descriptor, readable when there are lines."""
        return self._descriptor

    def _take(self, line: bytes) -> None:
        if not line.strip() or self.error:
            return
        try:
            self._reports.take(line)
        except BadReport as error:
            self.error = error


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise BadReport("a report is no JSON object on one line") from None
    return message if isinstance(message, dict) else _no_object()


def _no_object() -> Any:
    raise BadReport('a report is no JSON object such as {"step": 1, "loss": 0.3}')


def _quoted(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
