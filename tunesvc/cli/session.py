"""Run studies with a suitable view and an orderly Ctrl-C. Owns the choice of the view, and the
signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from tunesvc.cli.exits import ExitCode

if TYPE_CHECKING:
    from tunesvc.coordinator.progress_events import Observer
    from tunesvc.spec import StudySpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Observers:
    """Observers of a session."""

    whole: Observer
    """Observer of events that concern all studies."""
    each: Mapping[str, Observer]
    """Observers by study name."""


def title_of(spec: StudySpec) -> str:
    """Return the heading of a study's view."""
    pruner = f" · {spec.pruner.name}" if spec.pruner.name != "none" else ""
    return f"{spec.name} · {spec.sampler.name}{pruner}"


Start = Callable[[Observers, threading.Event], T]
"""A function that runs something under a view, until the event is set."""


def run_session(
    titles: Mapping[str, str],
    start: Start[T],
    *,
    as_json: bool,
    quiet: bool,
) -> tuple[T, threading.Event]:
    """Run studies with a suitable view and an orderly Ctrl-C.

    Returns the result, and the event that is set if the session was interrupted. `titles` has the
    heading of each study's view, by its name.
    """
    interrupt = threading.Event()
    with ExitStack() as stack:
        observers = stack.enter_context(
            opened_view(
                titles,
                interrupt,
                as_json=as_json,
                quiet=quiet,
            )
        )
        stack.enter_context(_ctrl_c(interrupt))
        _silence_optuna()
        return start(observers, interrupt), interrupt


def _silence_optuna() -> None:
    """Silence Optuna's own messages, which would break the view; the view has events of its own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def opened_view(
    titles: Mapping[str, str],
    interrupt: threading.Event,
    *,
    as_json: bool,
    quiet: bool,
) -> Iterator[Observers]:
    """Open the view that suits the output: live, lines, JSON or none."""
    from tunesvc.cli.views.multi_study import MultiStudyView
    from tunesvc.coordinator.progress_events import SilentObserver
    from tunesvc.views.lines import JsonLines, PlainLines
    from tunesvc.views.live import LiveView
    from tunesvc.views.terminal import out

    names = list(titles)
    only = names[0] if len(names) == 1 else None
    if as_json:
        yield Observers(JsonLines(only), {name: JsonLines(name) for name in names})
    elif quiet:
        yield Observers(SilentObserver(), dict.fromkeys(names, SilentObserver()))
    elif not out().is_terminal or out().is_dumb_terminal:
        yield Observers(PlainLines(), {name: PlainLines("" if only else name) for name in names})
    elif only:
        with LiveView(titles[only], out(), interrupt) as view:
            yield Observers(view, {only: view})
    else:
        with MultiStudyView(names, out(), interrupt) as view:
            yield Observers(view, {name: view.observer_of(name) for name in names})


@contextmanager
def _ctrl_c(interrupt: threading.Event) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM: the first one requests a clean end, the second one exits at
    once."""
    from tunesvc.views.live import STOPPING

    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        # Not by the event: this may interrupt another handler, which then holds the event's lock.
        if received:
            # the terminal's cursor is hidden by the live view
            os.write(2, b"\x1b[?25h\n" if sys.stderr.isatty() else b"")
            os.write(
                2,
                b"Killed. Recorded results are kept; run `tune resume` in a few seconds.\n",
            )
            os._exit(ExitCode.INTERRUPTED)
        received.append(number)
        interrupt.set()
        if not sys.stdout.isatty():  # the live view shows it by itself, and would draw over it
            os.write(2, f"{STOPPING}\n".encode())

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
