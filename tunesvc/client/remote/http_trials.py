"""Trials of a study, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tunesvc.client.remote.connection import ServerConnection, study_path
from tunesvc.client.wire_format import decode
from tunesvc.queries.rows import (
    AttemptRow,
    DecisionRow,
    LogRow,
    ReportCurve,
    RowPage,
    TrialDetail,
    TrialRow,
)

if TYPE_CHECKING:
    from tunesvc.client.interface import ExportFormat
    from tunesvc.queries.checkpoint_files import KeptCheckpoint
    from tunesvc.queries.comparison import Fact


class HttpTrials:
    """See `TrialOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def page(
        self,
        study: str,
        *,
        where: str = "",
        sort: str = "number",
        after: str = "",
        limit: int = 100,
    ) -> RowPage[TrialRow]:
        """Return trials that match a filter, in an order."""
        return self._connection.get(
            RowPage[TrialRow],
            study_path(study, "trials"),
            where=where,
            sort=sort,
            after=after,
            limit=limit,
        )

    def count(self, study: str, *, where: str = "") -> int:
        """Count the trials that match a filter."""
        return self._connection.get(int, study_path(study, "count"), where=where)

    def get(self, study: str, number: int) -> TrialDetail:
        """Return a trial with its attempts, decisions and attributes."""
        return self._connection.get(TrialDetail, study_path(study, "trials", number))

    def curve(self, study: str, number: int) -> ReportCurve:
        """Return the reports of a trial by step."""
        return self._connection.get(ReportCurve, study_path(study, "trials", number, "curve"))

    def curves(
        self,
        study: str,
        *,
        max_points: int | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[ReportCurve]:
        """Return the curves of the next `limit` trials."""
        return self._connection.get(
            RowPage[ReportCurve],
            study_path(study, "curves"),
            max_points=max_points,
            after=after,
            limit=limit,
        )

    def attempts(
        self,
        study: str,
        *,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[AttemptRow]:
        """Return the attempts of the next `limit` trials."""
        path = study_path(study, "attempts")
        return self._connection.get(RowPage[AttemptRow], path, after=after, limit=limit)

    def decisions(
        self,
        study: str,
        *,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[DecisionRow]:
        """Return decisions about the study and its trials, the oldest first."""
        path = study_path(study, "decisions")
        return self._connection.get(RowPage[DecisionRow], path, after=after, limit=limit)

    def logs(
        self,
        study: str,
        number: int,
        *,
        attempt: int | None = None,
        after: str = "",
        limit: int = 1_000,
    ) -> RowPage[LogRow]:
        """Return a trial's output in order, of one attempt or of all."""
        return self._connection.get(
            RowPage[LogRow],
            study_path(study, "trials", number, "logs"),
            attempt=attempt,
            after=after,
            limit=limit,
        )

    def follow(
        self,
        study: str,
        number: int,
        *,
        attempt: int | None = None,
        after: str = "",
    ) -> Iterator[LogRow]:
        """Yield a trial's output as it comes, until the trial has finished."""
        path = study_path(study, "trials", number, "logs", "stream")
        for event in self._connection.events(path, after, attempt=attempt):
            if event.name == "end":
                return
            if event.name == "log":
                yield decode(LogRow, event.data)

    def export(
        self,
        study: str,
        format: ExportFormat,
        *,
        where: str = "",
        sort: str = "number",
        limit: int | None = None,
    ) -> Iterator[bytes]:
        """Return trials as a file in pieces."""
        path = study_path(study, f"trials.{format}")
        stack = ExitStack()
        opened = self._connection.stream(path, where=where, sort=sort, limit=limit)
        response = stack.enter_context(opened)

        def pieces() -> Iterator[bytes]:
            with stack:
                yield from response.iter_bytes()

        return pieces()

    def compare(self, study: str, numbers: Sequence[int]) -> tuple[Fact, ...]:
        """Return results, parameters and execution of several trials by key."""
        from tunesvc.queries.comparison import Fact

        path = study_path(study, "comparison")
        return self._connection.get(tuple[Fact, ...], path, number=list(numbers))

    def best_checkpoint(self, study: str, number: int | None = None) -> KeptCheckpoint:
        """Return the best checkpoint of the best trial, or of a trial."""
        from tunesvc.queries.checkpoint_files import KeptCheckpoint

        path = study_path(study, "checkpoint")
        return self._connection.get(KeptCheckpoint, path, number=number)

    def checkpoints(self, study: str, number: int | None = None) -> tuple[KeptCheckpoint, ...]:
        """Return the kept checkpoints of a trial, oldest first, or of the newest trials."""
        from tunesvc.queries.checkpoint_files import KeptCheckpoint

        path = study_path(study, "checkpoints")
        return self._connection.get(tuple[KeptCheckpoint, ...], path, number=number)

    def fetch_checkpoint(self, study: str, number: int, checkpoint: str, folder: Path) -> Path:
        """Copy a checkpoint's file or folder into a folder; return the copy's path."""
        from tunesvc.artifacts.checkpoint_archive import unpack_into

        path = study_path(study, "trials", number, "checkpoints", quote(checkpoint, safe=""))
        with self._connection.stream(path) as response:
            return unpack_into(response.iter_bytes(), folder)
