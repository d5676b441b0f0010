"""TensorBoard: an event file per trial, and the sessions of its HParams page.

Written by `tensorboardX`, which Ray brings; TensorBoard itself is needed only to look at them.
"""

from __future__ import annotations

import json
import os
import re
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

_STATUS = {"failed": "STATUS_FAILURE", "stopped": "STATUS_FAILURE"}


class TensorBoardLogger(TrialLogger):
    """Logs to `LOGDIR/STUDY/trial-7`; `tensorboard --logdir LOGDIR` shows them.

    Args:
        logdir: folder, relative to the study's.
    """

    def __init__(self, logdir: str = "runs") -> None:
        self._logdir = Path(logdir).absolute()
        self._files: dict[str, _EventFile] = {}

    def open(self, study: LoggedStudy) -> str:
        """Make the study's folder."""
        safe = re.sub(r"[^\w.\- ]", "_", study.name).strip(". ") or "study"
        self._folder = self._logdir / safe
        self._folder.mkdir(parents=True, exist_ok=True)
        return str(self._folder)

    def recover(self, trial: LoggedTrial, run: str | None) -> tuple[str | None, Collection[int]]:
        """Delete what an interrupted call has written: the trial is sent again as a whole."""
        if (file := self._files.pop(trial.name, None)) is not None:
            file.close()
        for written in (self._folder / trial.name).glob("events.out.tfevents.*"):
            written.unlink()
        return run, ()

    def send(self, run: str | None, trial: LoggedTrial, points: Sequence[LoggedPoint]) -> str:
        """Append to the trial's file, which is closed when the trial has finished."""
        file = self._files.get(trial.name)
        if file is None:
            file = self._files[trial.name] = _EventFile(self._folder / trial.name)
            file.write_start(trial)
        for point in points:
            file.write_scalars(point.metrics.items(), point.step, point.at.timestamp())
        if trial.is_finished:
            ended = (trial.ended_at or trial.started_at).timestamp()
            file.write_scalars(trial.results.items(), trial.last_step, ended)
            file.write_end(trial, ended)
        file.flush()
        if trial.is_finished:
            self._files.pop(trial.name).close()
        return trial.name

    def close(self) -> None:
        """Close the files of trials that still run."""
        for file in self._files.values():
            file.close()
        self._files.clear()


class _EventFile:
    """An event file of this process; TensorBoard reads all of a folder as one run."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        suffix = f".{os.getpid()}.{time.time_ns()}"
        self._writer = EventsWriter(str(folder / "events"), suffix)

    def write_scalars(self, values: Any, step: int, at: float) -> None:
        from tensorboardX.summary import scalar

        for name, value in values:
            self._write(scalar(name, value), at, step)

    def write_start(self, trial: LoggedTrial) -> None:
        """Write the row of the HParams page."""
        from tensorboardX.proto.plugin_hparams_pb2 import SessionStartInfo

        at = trial.started_at.timestamp()
        started = SessionStartInfo(
            group_name=f"{trial.study.name}/{trial.name}", start_time_secs=at
        )
        for name, value in trial.params.items():
            if isinstance(value, bool):
                started.hparams[name].bool_value = value
            elif isinstance(value, (int, float)):
                started.hparams[name].number_value = value
            else:
                started.hparams[name].string_value = str(value)
        self._write(_hparams("session_start_info", started), at)

    def write_end(self, trial: LoggedTrial, at: float) -> None:
        """Write the row's status, and everything that is text."""
        from tensorboardX.proto.api_pb2 import Status
        from tensorboardX.proto.plugin_hparams_pb2 import SessionEndInfo
        from tensorboardX.summary import text

        status = Status.Value(_STATUS.get(trial.state, "STATUS_SUCCESS"))
        ended = SessionEndInfo(status=status, end_time_secs=at)
        self._write(_hparams("session_end_info", ended), at)
        texts = {**trial.labels, "tags": ", ".join(trial.tags)}
        texts |= {name: json.dumps(value, default=str) for name, value in trial.attrs.items()}
        rows = [f"| {name} | {_cell(value)} |" for name, value in texts.items() if value]
        self._write(text("trial", "\n".join(["| | |", "|-|-|", *rows])), at)

    def _write(self, summary: Any, at: float, step: int = 0) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(summary=summary, wall_time=at, step=step))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _cell(text: str) -> str:
    """Return a text for a table's cell, where a line break or a bar would end it."""
    return " ".join(text.split()).replace("|", "\\|")


def _hparams(name: str, message: Any) -> Any:
    """Return a message of the HParams plugin as a summary. Its fields are named as its tags."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    content = HParamsPluginData(version=0, **{name: message}).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    metadata = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=f"_hparams_/{name}", metadata=metadata)])
