"""Views of a run: the live view, plain lines and JSON lines."""

from __future__ import annotations

import io
import json
import math
from threading import Event

import pytest
from rich.console import Console

from tunesvc.coordinator.progress_events import BestTrial, LiveTrial, Progress, ProgressEvent
from tunesvc.views.lines import JsonLines, PlainLines
from tunesvc.views.live import LiveView


def progress(running: int = 2, elapsed_s: float = 60.0, **changes: object) -> Progress:
    values: dict[str, object] = {
        "study": "digits",
        "state": "running",
        "reason": "",
        "complete": 10,
        "pruned": 5,
        "failed": 1,
        "stopped": 0,
        "paused": 0,
        "running": tuple(live(number) for number in range(min(running, 6))),
        "queued": tuple(live(number) for number in range(6, running)),
        "budget_trials": 40,
        "fraction": 0.4,
        "elapsed_s": elapsed_s,
        "left_s": 90.0,
        "gpu_hours": 0.5,
        "gpus_busy": 1.5,
        "gpus_total": 2.0,
        "best": BestTrial(3, (0.0123,), {"lr": 0.01, "name": "[red]x[/]"}),
    }
    return Progress(**(values | changes))  # type: ignore[arg-type]


def live(number: int) -> LiveTrial:
    return LiveTrial(number, 1, number > 5, {"lr": 0.1}, 3, 0.5, 12.0, ("0",))


def seen(view: LiveView, width: int, height: int = 30) -> str:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(view.render())
    return console.export_text()


def a_view(width: int = 110, height: int = 30) -> LiveView:
    return LiveView("digits · tpe", Console(width=width, height=height, file=io.StringIO()))


def test_the_address_of_a_dashboard_stays_in_view_and_is_a_line_elsewhere() -> None:
    view, event = a_view(), ProgressEvent("dashboard", "http://127.0.0.1:8088/enter?key=abc")
    view.on_event(event)
    assert f"dashboard {event.text}" in seen(view, 110)
    view.progress(progress())
    assert f"dashboard {event.text}" in seen(view, 110)
    plain, lines = io.StringIO(), io.StringIO()
    PlainLines(stream=plain).on_event(event)
    JsonLines("digits", lines).on_event(event)
    assert plain.getvalue() == f"dashboard {event.text}\n"
    assert json.loads(lines.getvalue()) == {
        "event": "note",
        "study": "digits",
        "kind": "dashboard",
        "text": event.text,
        "number": None,
    }


def test_the_view_shows_the_phase_until_there_is_progress() -> None:
    view = a_view()
    view.on_event(ProgressEvent("phase", "starting Ray"))
    assert "starting Ray" in seen(view, 80)
    view.progress(progress())
    assert "starting Ray" not in seen(view, 80)


def test_the_view_shows_budget_counts_best_gpus_and_running_trials() -> None:
    view = a_view()
    view.progress(progress())
    text = seen(view, 110)
    for part in (
        "40%",
        "1m 30s left",
        "16 of 40 trials",
        "5 pruned",
        "1 failed",
        "GPUs 1.5 of 2 busy",
        "0.0123",
    ):
        assert part in text
    assert "name=[red]x[/]" in text, "values are no markup"


def test_queued_trials_are_distinguished_from_running_ones() -> None:
    """Attempts that wait in a worker do not run: at most `parallelism` run at a time."""
    view, stream, lines = a_view(), io.StringIO(), io.StringIO()
    for watcher in (view, PlainLines(stream=stream), JsonLines("digits", lines)):
        watcher.progress(progress(running=8))
    for text in (seen(view, 110), stream.getvalue()):
        assert "6 running, 2 queued" in text
    output = json.loads(lines.getvalue())
    assert [len(output[name]) for name in ("running", "queued")] == [6, 2]


def test_many_running_trials_leave_room_for_the_rest() -> None:
    view = a_view(height=24)
    view.progress(progress(running=100))
    text = seen(view, 110, height=24)
    assert len(text.splitlines()) <= 24
    assert "+" in text


def test_paused_trials_are_counted_and_pauses_and_promotions_are_printed() -> None:
    view, stream = a_view(), io.StringIO()
    plain = PlainLines(stream=stream)
    assert "paused" not in seen(view, 110)
    for watcher in (view, plain):
        watcher.progress(progress(elapsed_s=20.0, paused=7))
        watcher.on_event(ProgressEvent("paused", "number 4 of 9 at rung 3", 12))
        watcher.on_event(ProgressEvent("promoted", "number 1 of 9 at rung 3", 11))
    live, lines = seen(view, 110), stream.getvalue()
    assert "7 paused" in live
    assert "7 paused" in lines
    assert "trial 12 paused: number 4 of 9 at rung 3" in live
    assert "trial 11 continues: number 1 of 9 at rung 3" in live
    assert "paused   trial 12: number 4 of 9 at rung 3" in lines
    assert "promoted trial 11: number 1 of 9 at rung 3" in lines


def test_the_view_says_that_a_stop_was_asked_for() -> None:
    interrupt = Event()
    view = LiveView("digits", Console(file=io.StringIO()), interrupt)
    view.progress(progress())
    assert "press Ctrl-C again" not in seen(view, 110)
    interrupt.set()
    assert "press Ctrl-C again" in seen(view, 110)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_the_view_keeps_to_a_narrow_terminal(width: int) -> None:
    view = a_view(width)
    view.progress(progress())
    view.on_event(ProgressEvent("complete", "val_error = 0.1 " * 20, 3))
    assert max(len(line) for line in seen(view, width).splitlines()) <= width


def test_plain_lines_tell_every_happening_and_progress_now_and_then() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream=stream)
    lines.on_event(ProgressEvent("phase", "starting Ray"))
    for elapsed_s in (1.0, 11.0, 12.0, 21.5):
        lines.progress(progress(elapsed_s=elapsed_s))
    lines.on_event(ProgressEvent("failed", "boom\nand more", 7))
    printed = stream.getvalue().splitlines()
    assert [line.split()[0] for line in printed] == ["phase", "progress", "progress", "failed"]
    assert printed[1].startswith(
        "progress 40%, 16/40 trials (5 pruned, 1 failed), 2 running, best 0.0123 (trial 3)"
    )
    assert printed[-1] == "failed   trial 7: boom and more"


def test_json_lines_are_json_even_with_nan() -> None:
    stream = io.StringIO()
    lines = JsonLines("digits", stream)
    lines.on_event(ProgressEvent("best", "x", 3))
    lines.progress(progress(best=BestTrial(3, (math.nan,), {})))
    note, shown = map(json.loads, stream.getvalue().splitlines())
    assert note == {"event": "note", "study": "digits", "kind": "best", "text": "x", "number": 3}
    assert shown["event"] == "progress"
    assert shown["best"]["values"] == ["NaN"]
    assert shown["running"][0]["devices"] == ["0"]
