"""Reports of a program: JSON lines on a named pipe.

    {"step": 1, "val_error": 0.3}               a report; without `step` they are numbered from 0
    {"final": {"val_error": 0.2}}               the result; without it the curve counts
    {"checkpoint": "model.pt", "step": 9}       a file or folder below TUNE_CHECKPOINT_DIR
    {"user_attrs": {"note": "warm"}}            text, numbers or other JSON to store on the trial

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
from tunesvc.trial import Trial, as_metrics, as_result

LINE_BYTES_MAX = 2**20


class LineReports:
    """Applies a program's lines to its trial."""

    def __init__(
        self,
        trial: Trial,
        checkpoints: Path,
        objectives: tuple[str, ...],
        *,
        is_one_step: bool = False,
    ) -> None:
        """`is_one_step`: the program is a fold of its trial, and its last report the fold's
        result."""
        self.final: dict[str, float] = {}
        self._is_one_step = is_one_step
        self._trial = trial
        self._objectives = objectives
        self._checkpoints = checkpoints

    def take(self, line: bytes) -> None:
        """Apply one line.

        Raises:
            BadReport: the line is not a report. The text quotes it.
        """
        try:
            self._take(_parse(line))
        except BadReport as error:
            raise BadReport(f"{error} (in the line {_quoted(line)})") from None

    def _take(self, message: Mapping[str, Any]) -> None:
        fields = dict(message)
        if "final" in fields:
            final = _as_object(fields["final"])
            self.final, attributes = as_result(final, self._objectives)
            self._set_user_attrs(attributes)
            return
        if isinstance(fields.get("user_attrs"), Mapping):
            self._set_user_attrs(fields.pop("user_attrs"))
        step = fields.pop("step", None)
        if "checkpoint" in fields:
            self._keep(str(fields.pop("checkpoint")), step)
        if fields and self._is_one_step:
            self.final = as_metrics(fields, self._objectives)
        elif fields:
            # not `report`, which raises `Pruned` on a stop request: that is for the program
            self._trial._send(step, fields, {})
        elif "checkpoint" not in message and "user_attrs" not in message:
            raise BadReport("no metric")

    def _set_user_attrs(self, attributes: Mapping[str, object]) -> None:
        for name, value in attributes.items():
            self._trial.set_user_attr(name, value)

    def _keep(self, name: str, step: object) -> None:
        path = self._checkpoints / name
        try:
            # not `checkpoint`, which raises `Pruned` at the end of a stretch
            self._trial._save(path, step)  # type: ignore[arg-type]  # checked by as_step
        except OSError as error:
            raise BadReport(f"checkpoint {name!r} cannot be kept: {error}") from None
        if path.parent.parent == self._checkpoints / HANDED_OVER:
            shutil.rmtree(path.parent, ignore_errors=True)


class ReportPipe:
    """A named pipe to which any number of processes may write lines."""

    def __init__(self, path: Path, reports: LineReports) -> None:
        os.mkfifo(path, 0o600)
        # Open for writing too: then the pipe does not end with its last writer, and opening never
        # blocks.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._reports = reports
        self._rest = b""
        self.error: BadReport | None = None
        """The first line that could not be read."""

    def read(self) -> bool:
        """Apply the available lines. Return True if there were any bytes."""
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
        """Apply all remaining lines, including a last one without a newline."""
        while self.read():
            pass
        self._take(self._rest)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there are lines."""
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
    return _as_object(message)


def _as_object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise BadReport('a report is no JSON object such as {"step": 1, "loss": 0.3}')


def _quoted(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
