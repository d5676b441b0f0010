"""Follows a study through a client, and reports its progress to an observer as a run does.

It only reads: the study continues when following ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from tunesvc.client.interface import PAGE_MAX, TuneClient
from tunesvc.coordinator.progress_events import (
    BestTrial,
    LiveTrial,
    Observer,
    Progress,
    ProgressEvent,
)
from tunesvc.errors import DatabaseUnavailable, ServerError
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.util import formatting

INTERVAL_S = 1.0
"""Time between two steps."""
_CANDIDATES = 20
"""So many best trials are looked at for one that satisfies all constraints."""


class Follower:
    """Follows one study, a step at a time."""

    def __init__(self, client: TuneClient, study: str, observer: Observer) -> None:
        """Follow a study from its current state on; trials that have ended are not reported."""
        self.view: StudyView | None = None
        """The study at the last step; None before it."""
        self._client = client
        self._study = study
        self._observer = observer
        self._states: dict[int, str] = {}
        """The last seen states of unfinished trials."""
        self._next = 0
        """Number of the first trial that has not been seen."""
        self._is_first = True
        self._best_value: float | None = None
        self._best: BestTrial | None = None
        self._phase = ""

    def step(self) -> StudyView | None:
        """Report what has changed; return the study once it has ended or is paused.

        A server or database that is away is reported as a phase, and asked again by the next step.

        Raises:
            StudyNotFound: the study was deleted.
        """
        try:
            return self._step()
        except (ServerError, DatabaseUnavailable) as error:
            self._report_phase(f"trying again: {error}")
            return None

    def _step(self) -> StudyView | None:
        self.view = view = self._client.studies.get(self._study)
        unfinished = [row for row in self._changed() if not row.is_finished]
        self._report_phase(_waiting(view))
        if view.counts.total or view.queued is None:
            self._observer.progress(self._progress(view, unfinished))
        return view if view.is_at_rest else None

    def _report_phase(self, phase: str) -> None:
        is_new = phase != self._phase
        self._phase = phase
        if phase and is_new:
            self._observer.on_event(ProgressEvent("phase", phase))

    def _changed(self) -> list[TrialRow]:
        """Return the trials that had not ended at the step before, and report their changes."""
        first = min(self._states, default=self._next)
        rows = list(self._rows(f"number >= {first}"))
        for row in rows:
            is_new = row.number >= self._next
            before = "running" if is_new else self._states.get(row.number)
            if not self._is_first and before is not None and row.state != before:
                self._report(row)
        self._next = max([self._next, *(row.number + 1 for row in rows)])
        self._states = {row.number: row.state for row in rows if not row.is_finished}
        self._is_first = False
        return rows

    def _rows(self, where: str) -> Iterator[TrialRow]:
        after: str | None = ""
        while after is not None:
            page = self._client.trials.page(
                self._study, where=where, after=after or "", limit=PAGE_MAX
            )
            yield from page.rows
            after = page.after

    def _report(self, row: TrialRow) -> None:
        if row.state in ("complete", "pruned", "paused", "failed"):
            self._observer.on_event(ProgressEvent(row.state, _describe(row), row.number))

    def _progress(self, view: StudyView, unfinished: list[TrialRow]) -> Progress:
        counts = view.counts
        budget = None if view.budget is None else view.budget.trials
        return Progress(
            study=view.name,
            state=str(view.state),
            reason=view.reason,
            complete=counts.complete,
            pruned=counts.pruned,
            failed=counts.failed,
            stopped=counts.stopped,
            paused=counts.paused,
            running=tuple(_live(row) for row in unfinished if row.state == "running"),
            queued=tuple(_live(row) for row in unfinished if row.state == "queued"),
            budget_trials=budget,
            fraction=view.fraction,
            elapsed_s=view.active_s,
            left_s=view.left_s,
            gpu_hours=view.gpu_hours,
            gpus_busy=0.0,
            gpus_total=0.0,
            best=self._best_of(view),
            cost=view.cost_text,
        )

    def _best_of(self, view: StudyView) -> BestTrial | None:
        """Return the best trial, and report a better one than before."""
        if view.best_value is None or view.best_value == self._best_value:
            return self._best
        sort = "-value" if view.objectives[0].maximize else "value"
        page = self._client.trials.page(
            self._study, where="state == complete", sort=sort, limit=_CANDIDATES
        )
        row = next((row for row in page.rows if row.feasible and row.values is not None), None)
        if row is not None and row.values is not None:
            if self._best is not None and row.number != self._best.number:
                self._observer.on_event(ProgressEvent("best", _describe(row), row.number))
            self._best = BestTrial(row.number, row.values, row.params)
            self._best_value = view.best_value
        return self._best


def _waiting(view: StudyView) -> str:
    queued = view.queued
    return "" if queued is None else f"place {queued.position} in the queue: {queued.reason}"


def _live(row: TrialRow) -> LiveTrial:
    began = row.started_at
    elapsed_s = 0.0 if began is None else (datetime.now(UTC) - began).total_seconds()
    return LiveTrial(
        number=row.number,
        attempt=max(1, row.attempts),
        queued=row.state == "queued",
        params=row.params,
        step=row.last_step,
        value=row.last_value,
        elapsed_s=max(0.0, elapsed_s),
        devices=(),
    )


def _describe(row: TrialRow) -> str:
    params: Mapping[str, object] = row.params
    if row.state == "failed":
        return row.failure or "no result"
    values = row.values or ((row.last_value,) if row.last_value is not None else ())
    shown = ", ".join(formatting.number(value) for value in values)
    return f"{shown}  {formatting.parameters(params)}".strip()
