"""Follow studies that servers run, with the views of a run. Ctrl-C leaves the studies running."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from tunesvc.cli.exits import ExitCode
from tunesvc.cli.session import Observers, opened_view, title_of

if TYPE_CHECKING:
    from tunesvc.client.followed_study import FollowedStudy
    from tunesvc.client.interface import TuneClient
    from tunesvc.queries.rows import StudyView


def follow(
    client: TuneClient,
    studies: Sequence[StudyView],
    refused: Mapping[str, Exception] | None = None,
    *,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Follow studies until all have ended or are paused, and print how; return the exit code.

    Args:
        client: of the server.
        studies: as they are now.
        refused: errors of studies that could not be submitted with them, by name.
        as_json: print JSON lines.
        quiet: print nothing but errors.

    Raises:
        StudyNotFound: one was deleted.
    """
    from tunesvc.cli.views import summary

    refused = refused or {}
    ended = watch(client, studies, refused, as_json=as_json, quiet=quiet)
    if not as_json and any(end.interrupted for end in ended.values()):
        return ExitCode.INTERRUPTED
    return summary.print_results({**ended, **refused}, as_json=as_json, quiet=quiet)


def watch(
    client: TuneClient,
    studies: Sequence[StudyView],
    refused: Mapping[str, Exception],
    *,
    as_json: bool,
    quiet: bool,
    title: str = "",
) -> dict[str, FollowedStudy]:
    """Show the progress of studies until all have ended or are paused, or until Ctrl-C.

    The view's title describes each study by default.
    """
    from tunesvc.client.followed_study import FollowedStudy

    seen = {view.name: view for view in studies}
    titles = {name: title_of(view.spec) if view.spec else name for name, view in seen.items()}
    titles |= {name: name for name in refused}
    if title:
        titles = dict.fromkeys(titles, title)
    left: list[str] = []
    try:
        with (
            _sigterm_as_ctrl_c(),
            opened_view(titles, Event(), as_json=as_json, quiet=quiet) as observers,
        ):
            _follow(client, seen, refused, observers)
    except KeyboardInterrupt:
        left = [name for name, view in seen.items() if not view.is_at_rest]
        _print_left(left)
    return {
        name: FollowedStudy(client, view, interrupted=name in left) for name, view in seen.items()
    }


def _follow(
    client: TuneClient,
    seen: dict[str, StudyView],
    refused: Mapping[str, Exception],
    observers: Observers,
) -> None:
    """Report the progress of studies until all are at rest; `seen` has each as it was last."""
    from tunesvc.cli.views.summary import describe_error
    from tunesvc.client.follower import INTERVAL_S, Follower
    from tunesvc.coordinator.progress_events import ProgressEvent

    are_several = len(seen) + len(refused) > 1
    for name, error in refused.items():
        observers.each[name].on_event(ProgressEvent("error", describe_error(error)))
    followers = {name: Follower(client, name, observers.each[name]) for name in seen}
    while followers:
        for name, follower in list(followers.items()):
            ended = follower.step()
            seen[name] = follower.view or seen[name]
            if ended is not None:
                del followers[name]
                if are_several:
                    observers.each[name].on_event(ProgressEvent("over", ended.state_and_reason))
        if followers:
            time.sleep(INTERVAL_S)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Have SIGTERM end following as Ctrl-C does, so that the terminal is left in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_left(studies: Sequence[str]) -> None:
    from tunesvc.views import terminal

    for name in studies:
        quoted = shlex.quote(name)
        terminal.err().print(
            f"{name} continues without this terminal: `tune show {quoted} --follow` follows it "
            f"again, `tune stop {quoted}` stops it",
            markup=False,
            soft_wrap=True,
        )
