"""The live view of a running study on a terminal. Implements `progress_events.Observer`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from threading import Event
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tunesvc.coordinator.progress_events import LiveTrial, Progress, ProgressEvent
from tunesvc.util.characters import visible
from tunesvc.util.formatting import duration, number, parameters
from tunesvc.views.terminal import STYLES, cells

STOPPING = "stopping once everything is recorded; press Ctrl-C again to force it"
RECENT = 4
"""Finished trials that stay in view."""
SCROLLED = {"best", "failed", "retry", "warning", "study", "over", "error"}
"""Events printed permanently above the view; other trials that end appear only briefly."""
_MARKS = {
    "best": "★",
    "complete": "✓",
    "pruned": "✂",
    "paused": "‖",
    "promoted": "↑",
    "failed": "✗",
    "retry": "↻",
    "warning": "!",
    "study": "•",
    "over": "■",
    "error": "✗",
}
_COLOURS = {
    **STYLES,
    "retry": "yellow",
    "warning": "yellow",
    "study": "bold",
    "over": "bold",
    "error": "red",
}
_MIN_ROWS = 4


class RedrawnView(ABC):
    """A context manager that redraws itself a few times a second while it is entered."""

    def __init__(self, console: Console, interrupt: Event | None) -> None:
        """`interrupt`: set when a stop is requested."""
        self._console = console
        self._interrupt = interrupt or Event()
        self._phase = "starting"
        self._dashboard = ""
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=8,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def _address(self) -> list[Text]:
        """Return the dashboard's address, if there is one."""
        if not self._dashboard:
            return []
        return [Text.assemble(("dashboard ", "dim"), self._dashboard, overflow="fold")]

    @abstractmethod
    def render(self) -> RenderableType:
        """Return the current view."""


class LiveView(RedrawnView):
    """View of one study."""

    def __init__(
        self,
        title: str,
        console: Console,
        interrupt: Event | None = None,
    ) -> None:
        """Create a view.

        Args:
            title: heading, such as the study and its sampler.
            console: the terminal.
            interrupt: set when a stop is requested.
        """
        self._title = title
        self._progress: Progress | None = None
        self._recent: deque[ProgressEvent] = deque(maxlen=RECENT)
        super().__init__(console, interrupt)  # last: it is drawn at once

    def progress(self, progress: Progress) -> None:
        """Show this progress from the next redraw on."""
        self._progress = progress
        self._phase = ""

    def on_event(self, event: ProgressEvent) -> None:
        """Show an event: permanently above the view, or among the recent ones."""
        if event.kind == "phase":
            self._phase = event.text
        elif event.kind == "dashboard":
            self._dashboard = event.text
        elif event.kind in SCROLLED:
            self._console.print(line(event))
        else:
            self._recent.append(event)

    def render(self) -> RenderableType:
        """Return the current view."""
        where = self._address()
        if self._progress is None:
            return Group(*where, self._waiting())
        p = self._progress
        parts: list[RenderableType] = [
            Text(),
            self._headline(p),
            _budget(p),
            _counts(p),
        ]
        if p.best:
            parts.append(_best(p))
        if p.forecast:
            parts.append(Text(p.forecast, "dim", no_wrap=True, overflow="ellipsis"))
        parts += where
        if p.live:
            parts += [Text(), self._trials(p)]
        if self._recent:
            parts += [Text(), *(line(event, style="dim") for event in self._recent)]
        if self._interrupt.is_set():
            parts += [Text(), Text(STOPPING, "yellow")]
        if self._phase:
            parts.append(self._waiting())
        return Group(*parts)

    def _waiting(self) -> RenderableType:
        self._spinner.update(text=Text(self._phase + " …", "dim"))
        return self._spinner

    def _headline(self, p: Progress) -> Text:
        reason = (f"  {visible(p.reason)}", "dim") if p.reason else ""
        return Text.assemble(
            (visible(self._title), "bold"),
            "  ",
            (p.state, STYLES.get(p.state, "")),
            reason,
        )

    def _trials(self, p: Progress) -> Table:
        """Return a table of as many running and queued trials as fit."""
        room = max(_MIN_ROWS, self._console.height - 14 - len(self._recent))
        shown = p.live if len(p.live) <= room else p.live[: room - 1]
        wide = self._console.width >= 90
        made = Table(box=None, pad_edge=False, header_style="dim", expand=wide)
        for name in ("trial", "step", "value", "time"):
            made.add_column(name, justify="right", no_wrap=True)
        made.add_column("device", no_wrap=True)
        if wide:
            made.add_column("parameters", ratio=1, no_wrap=True, overflow="ellipsis")
        for trial in shown:
            made.add_row(*_trial_cells(trial, wide))
        if len(shown) < len(p.live):
            made.add_row(Text(f"+{len(p.live) - len(shown)}", "dim"))
        return made


def _trial_cells(trial: LiveTrial, wide: bool) -> list[Text]:
    name = str(trial.number)
    if trial.attempt > 1:
        name += f".{trial.attempt}"
    step = Text(step_text(trial), "dim" * trial.queued)
    device = "" if trial.queued else "cpu"
    if trial.devices and not trial.queued:
        device = f"gpu {','.join(trial.devices)}"
    made = cells(name, step, number(trial.value), duration(trial.elapsed_s), device)
    return [*made, *cells(parameters(trial.params))] if wide else made


def step_text(trial: LiveTrial) -> str:
    """Return the newest step of a running or queued trial."""
    if trial.queued:
        return "queued"
    return "–" if trial.step is None else str(trial.step)


def _budget(p: Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    times = f"{p.fraction:.0%} · {duration(p.elapsed_s)}"
    if p.left_s is not None:
        times += f" · {duration(p.left_s)} left"
    grid.add_row(
        ProgressBar(
            total=1.0,
            completed=p.fraction,
            complete_style="cyan",
            finished_style="green",
        ),
        times,
    )
    return grid


def _counts(p: Progress) -> Text:
    of = f" of {p.budget_trials}" if p.budget_trials else ""
    line = Text(f"{p.done}{of} trials: ") + Text(f"{p.complete} complete", STYLES["complete"])
    for name, count, style in (
        ("pruned", p.pruned, "pruned"),
        ("failed", p.failed, "failed"),
    ):
        line += Text(", ") + Text(f"{count} {name}", STYLES[style] if count else "dim")
    if p.stopped:
        line += Text(f", {p.stopped} stopped", STYLES["stopped"])
    line += Text(f", {len(p.running)} running", STYLES["running"])
    if p.queued:
        line += Text(f", {len(p.queued)} queued", STYLES["queued"])
    if p.paused:
        line += Text(f", {p.paused} paused", STYLES["paused"])
    if p.gpus_total:
        line += Text(f" · GPUs {p.gpus_busy:g} of {p.gpus_total:g} busy, {p.gpu_hours:.2f} h")
    if p.cost:
        line += Text(f" · {p.cost}")
    return line


def _best(p: Progress) -> Text:
    if p.best is None:
        return Text()
    values = ", ".join(number(value) for value in p.best.values)
    trial = f"  trial {p.best.number}  "
    params = visible(parameters(p.best.params))
    parts = (("best ", "dim"), (values, STYLES["best"]), (trial, "dim"), params)
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def line(event: ProgressEvent, *, study: str = "", style: str = "") -> Text:
    """Format an event in one line; `study`: its study's name, if several are shown."""
    mark = _MARKS.get(event.kind, "•")
    prefix = f"{visible(study)}  " if study else ""
    parts = (
        (f"{mark} ", _COLOURS.get(event.kind, "")),
        (prefix, "bold"),
        (describe(event), style),
    )
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def in_one_line(text: str) -> str:
    """Return text without line breaks and control characters."""
    return " ".join(visible(text).split())


def describe(event: ProgressEvent) -> str:
    """Describe an event in one line."""
    text = in_one_line(event.text)
    if event.number is None:
        return text
    return f"trial {event.number}{_VERBS.get(event.kind, '')}: {text}"


_VERBS = {
    "best": " is the best",
    "pruned": " pruned",
    "paused": " paused",
    "promoted": " continues",
    "failed": " failed",
}
"""Verbs for events with a text that lacks one."""
