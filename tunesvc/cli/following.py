"""Follow studies that servers run, with the views of a run. Ctrl-C leaves the studies running."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING

from tunesvc.cli.exits import ExitCode, worst
from tunesvc.cli.session import opened_view

if TYPE_CHECKING:
    from tunesvc.client.interface import TuneClient
    from tunesvc.queries.rows import StudyView


def follow(
    client: TuneClient,
    studies: Sequence[str],
    *,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Follow studies until all have ended or are paused, and print how; return the exit code.

    Raises:
        StudyNotFound: one was deleted.
    """
    from tunesvc.client.follower import INTERVAL_S, Follower

    ended: dict[str, StudyView] = {}
    try:
        titles = {name: name for name in studies}
        with opened_view(titles, Event(), as_json=as_json, quiet=quiet) as observers:
            followers = {
                name: Follower(client, name, observers.each[name])
                for name in dict.fromkeys(studies)
            }
            while True:
                for name in [name for name in followers if name not in ended]:
                    if (view := followers[name].step()) is not None:
                        ended[name] = view
                if len(ended) == len(followers):
                    break
                time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        if not as_json and not quiet:
            _print_left([name for name in studies if name not in ended])
        return ExitCode.INTERRUPTED
    return _print_ends(ended, as_json=as_json, quiet=quiet)


def _print_left(studies: Sequence[str]) -> None:
    from tunesvc.views import terminal

    for name in studies:
        quoted = shlex.quote(name)
        terminal.err().print(
            f"{name} continues without this terminal: `tune show {quoted}` shows it, "
            f"`tune stop {quoted}` stops it",
            markup=False,
        )


def _print_ends(ended: Mapping[str, StudyView], *, as_json: bool, quiet: bool) -> ExitCode:
    from tunesvc.util.characters import visible
    from tunesvc.util.formatting import duration, number
    from tunesvc.views import terminal
    from tunesvc.views.lines import JsonLines

    codes = []
    for name, view in ended.items():
        code = ExitCode.FAILED if view.is_failure else ExitCode.DONE
        codes.append(code)
        if as_json:
            end = {"state": str(view.state), "reason": view.reason, "best_value": view.best_value}
            counts = terminal.plain(view.counts)
            JsonLines(name).write("end", {**end, "counts": counts, "exit_code": int(code)})
        elif not quiet:
            reason = f": {view.reason}" if view.reason else ""
            best = "" if view.best_value is None else f"; best {number(view.best_value)}"
            state = f"{view.state} after {duration(view.active_s)}{reason}{best}"
            next_one = f"`tune best {shlex.quote(name)}` has the parameters"
            terminal.out().print(
                visible(f"{name} {state}. {next_one}"), markup=False, highlight=False
            )
    return worst(codes)
