"""The live view of several studies on a terminal: a line for each, and recent events. Pure
display."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Event

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunesvc.coordinator.progress_events import Progress, ProgressEvent
from tunesvc.util.characters import visible
from tunesvc.util.formatting import duration, number
from tunesvc.views.live import RECENT, SCROLLED, STOPPING, RedrawnView, line
from tunesvc.views.terminal import STYLES, bar, cells

_NAME_CHARS = 24
_WIDE = 90
_BAR_CHARS = 30
_AROUND = 8
"""Lines of the view besides studies and events."""
_MIN_ROWS = 3


class MultiStudyView(RedrawnView):
    """Observer of events that concern all studies; `observer_of` returns that of one study."""

    def __init__(
        self,
        studies: Sequence[str],
        console: Console,
        interrupt: Event | None = None,
    ) -> None:
        """`interrupt`: set when a stop is requested."""
        self._rows = {study: _Row(self, study) for study in studies}
        self._recent: deque[tuple[str, ProgressEvent]] = deque(maxlen=RECENT)
        super().__init__(console, interrupt)  # last: it is drawn at once

    def observer_of(self, study: str) -> _Row:
        """Return the observer of one study, called from its own thread."""
        return self._rows[study]

    def progress(self, progress: Progress) -> None:
        """Do nothing: each study has its own progress."""

    def on_event(self, event: ProgressEvent) -> None:
        """Show an event that concerns all studies."""
        if event.kind == "dashboard":
            self._dashboard = event.text
        else:
            self._phase = event.text

    def add_event(self, study: str, event: ProgressEvent) -> None:
        """Show an event: permanently above the view, or among the recent ones."""
        if event.kind in SCROLLED:
            self._console.print(line(event, study=study))
        else:
            self._recent.append((study, event))

    def render(self) -> RenderableType:
        """Return the current view."""
        rows = list(self._rows.values())
        parts: list[RenderableType] = [Text(), self._headline(rows)]
        parts += self._address()
        parts += [Text(), self._table(rows)]
        recent = [line(event, study=study, style="dim") for study, event in list(self._recent)]
        if recent:
            parts += [Text(), *recent]
        if self._interrupt.is_set():
            parts += [Text(), Text(STOPPING, "yellow")]
        elif all(row.latest is None for row in rows):
            self._spinner.update(text=Text(self._phase + " …", "dim"))
            parts += [Text(), self._spinner]
        return Group(*parts)

    def _headline(self, rows: Sequence[_Row]) -> Text:
        finished = sum(row.is_over for row in rows)
        active = [row.latest for row in rows if row.latest is not None and not row.is_over]
        text = f"{sum(len(progress.running) for progress in active)} trials running"
        if finished:
            text = f"{finished} over, {text}"
        text = f"  {text}"
        return Text.assemble((f"{len(rows)} studies", "bold"), (text, "dim"))

    def _table(self, rows: Sequence[_Row]) -> Table:
        """Return a table of as many studies as fit, finished ones last."""
        room = max(_MIN_ROWS, self._console.height - _AROUND - len(self._recent))
        ordered = sorted(rows, key=lambda row: row.is_over)
        shown = ordered if len(rows) <= room else ordered[: room - 1]
        wide = self._console.width >= _WIDE
        columns = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        columns.add_column(
            "study",
            no_wrap=True,
            overflow="ellipsis",
            max_width=_NAME_CHARS,
        )
        columns.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
        for name in ("trials", "running", "best", *(("trial", "left") if wide else ())):
            columns.add_column(name, justify="right", no_wrap=True)
        for row in shown:
            columns.add_row(*row.cells(wide))
        if len(shown) < len(rows):
            columns.add_row(Text(f"+{len(rows) - len(shown)} more", "dim"))
        return columns


class _Row:
    """A study in the view. Implements `coordinator.progress_events.Observer`."""

    def __init__(self, view: MultiStudyView, study: str) -> None:
        self._view = view
        self._study = study
        self._phase: Text | None = Text("starting", "dim")
        self.latest: Progress | None = None
        self.is_over = False

    def progress(self, progress: Progress) -> None:
        """Show this progress from the next redraw on."""
        self.latest = progress
        self._phase = None

    def on_event(self, event: ProgressEvent) -> None:
        """Show a phase in the study's line, and any other event below the table."""
        if event.kind in ("over", "error"):
            self.is_over = True
            style = "red" if event.kind == "error" else STYLES.get(event.text.partition(":")[0], "")
            self._phase = Text(visible(" ".join(event.text.split())), style)
        if event.kind == "phase":
            self._phase = Text(visible(event.text), "dim")
        elif event.kind != "over":  # its line says so
            self._view.add_event(self._study, event)

    def cells(self, wide: bool) -> list[Text]:
        """Return name, progress or phase, trials, running trials, best value; if `wide`, its trial
        and time left."""
        p = self.latest
        name = Text(visible(self._study), "dim" if self.is_over else "bold")
        if p is None:
            return [name, self._phase or Text()]
        trials = f"{p.done}/{p.budget_trials}" if p.budget_trials else str(p.done)
        queued = f" +{len(p.queued)}" if p.queued else ""
        running = "" if self.is_over else f"{len(p.running)}{queued}"
        best = Text(
            "–" if p.best is None else number(p.best.values[0]),
            STYLES["best"] if p.best else "dim",
        )
        columns = [
            name,
            self._phase or self._progress_text(p, _BAR_CHARS if wide else 10),
            *cells(trials, running),
            best,
        ]
        left = "" if self.is_over or p.left_s is None else duration(p.left_s)
        if wide:
            columns += cells("" if p.best is None else p.best.number, left)
        return columns

    @staticmethod
    def _progress_text(p: Progress, width: int) -> Text:
        text = Text(bar(p.fraction, width), "cyan")
        if p.state != "running":
            text += Text(f"  {p.state}: {visible(p.reason)}", STYLES.get(p.state, ""))
        return text
