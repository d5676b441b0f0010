"""Text about families that servers watch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rich.padding import Padding
from rich.text import Text

from tunesvc.champions.watch_result import OUTCOMES
from tunesvc.db.champions.served_watches import ServedWatch
from tunesvc.util import formatting
from tunesvc.util.characters import visible
from tunesvc.views import terminal


def print_registered(watch: ServedWatch, server: str) -> None:
    """Print what servers do with a watch that was just registered."""
    family = shlex.quote(watch.family)
    snapshot = f", with snapshot {watch.snapshot[:12]} of its folder" if watch.snapshot else ""
    _print(
        f"The servers at {server} look at {watch.family} {describe_interval(watch)}{snapshot}.\n"
        f"The first look begins now: `tune champion show {family}` shows it, "
        f"`tune champion unwatch {family}` ends the watch."
    )


def print_removed(watch: ServedWatch) -> None:
    """Print that a watch was removed, and which study of it continues."""
    _print(f"Servers no longer watch {watch.family}; its champion stays.")
    if watch.waits_for:
        study = shlex.quote(watch.waits_for)
        _print(f"Its study {watch.waits_for} continues: `tune stop {study}` stops it.")


def print_watches(watches: Sequence[ServedWatch]) -> None:
    """Print the families that servers watch."""
    heads = ("family", "looks", "last look", "outcome", "next look", "user")
    lines = [
        (
            visible(one.family),
            describe_interval(one),
            formatting.ago(one.looked_at) if one.looked_at else "–",
            one.outcome or "–",
            describe_next(one),
            visible(one.submitted_by),
        )
        for one in watches
    ]
    console = terminal.out()
    console.print(terminal.fitted(heads, lines, console.width, ("user", "last look")))
    for one in watches:
        if one.problem:
            console.print(Text(f"! {visible(one.family)}: {visible(one.problem)}"))


def print_watch(watch: ServedWatch) -> None:
    """Print how servers watch a family."""
    console = terminal.out()
    grid = terminal.table("", "")
    grid.show_header = False
    for label, text in describe_watch(watch):
        grid.add_row(*terminal.cells(label, text))
    console.print(grid)
    if watch.reason:
        console.print(Padding(Text(visible(watch.reason), style="dim"), (0, 0, 0, 2)))


def describe_watch(watch: ServedWatch) -> Iterator[tuple[str, str]]:
    """Yield the facts of a watch, each with its label."""
    yield "watched", f"{describe_interval(watch)}, for {visible(watch.submitted_by)}"
    if watch.looked_at is not None:
        outcome = OUTCOMES.get(watch.outcome, watch.outcome)
        yield "last look", f"{formatting.ago(watch.looked_at)}: {outcome}"
    yield "next look", describe_next(watch)
    if watch.problem:
        yield "problem", visible(watch.problem)


def describe_waiting(watch: ServedWatch) -> str:
    """Return why the hooks of a family whose watch was stopped are not called, and the remedy."""
    family = shlex.quote(watch.family)
    return (
        f"its hooks wait, since its watch was stopped ({visible(watch.problem)}): "
        "`tune watch FILE --server URL` by a user who may submit starts it again, or "
        f"`tune champion deliver {family}` beside the database calls them"
    )


def describe_interval(watch: ServedWatch) -> str:
    """Return how often servers look."""
    if watch.interval_s is None:
        return "once"
    return f"every {formatting.duration(watch.interval_s)}"


def describe_next(watch: ServedWatch) -> str:
    """Return when the next look begins, or what the one under way waits for."""
    if watch.waits_for:
        version = f" on data {watch.data_version}" if watch.data_version else ""
        return f"under way{version}, waits for study {visible(watch.waits_for)}"
    if watch.look_at is None:
        return "stopped" if watch.problem else "none"
    return formatting.until(watch.look_at)


def _print(text: str) -> None:
    terminal.out().print(text, markup=False, highlight=False)
