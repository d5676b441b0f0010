"""Several studies of one command: settings that must agree, their exit code, and their views."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np  # noqa: F401  # brings a BLAS
import pytest
from rich.console import Console
from threadpoolctl import threadpool_info, threadpool_limits

from tests.unit.test_cli_watching import progress
from tunesvc.cli.exits import ExitCode, worst
from tunesvc.cli.several_studies import Changes, StudyLocation, check_together, read_all
from tunesvc.cli.views.multi_study import MultiStudyView
from tunesvc.coordinator.progress_events import ProgressEvent
from tunesvc.errors import SpecError
from tunesvc.util.blas import one_blas_thread
from tunesvc.util.threads import together
from tunesvc.views.lines import JsonLines, PlainLines

STUDY = "name: {}\ncommand: [true]\nmetric: loss\nparameters: {{x: {{min: 0.0, max: 1.0}}}}\nbudget: {{trials: 4}}\n"


def write(folder: Path, name: str, more: str = "") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(name) + more)
    return path


def place(label: str, **changes: Any) -> StudyLocation:
    return StudyLocation(**({"label": f"{label}.yaml", "name": label, "cluster": None} | changes))


def test_what_the_command_line_says_holds_for_each_file(tmp_path: Path) -> None:
    files = [write(tmp_path, "a"), write(tmp_path, "b", "sampler: {name: tpe, seed: 3}\n")]
    a, b = (document.spec for document in read_all(files, Changes(trials=9, parallelism=2, seed=7)))
    assert (a.name, b.name) == ("a", "b")
    assert [(spec.budget.trials, spec.parallelism, spec.seed) for spec in (a, b)] == [(9, 2, 7)] * 2
    assert b.sampler.seed is None


def test_all_mistakes_of_all_files_are_reported_before_anything_starts(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "a", "smapler: tpe\n"),
        write(tmp_path, "b"),
        write(tmp_path, "c", "prunre: asha\n"),
    ]
    with pytest.raises(SpecError, match=r"(?s)a\.yaml.*smapler.*c\.yaml.*prunre"):
        read_all(files, Changes())


def test_two_files_of_one_name_are_both_named() -> None:
    with pytest.raises(
        SpecError, match=r"^a\.yaml and b\.yaml are both named 'a': give one another `name`$"
    ):
        check_together([place("a"), place("b", name="a")])
    with pytest.raises(SpecError, match=r"^a\.yaml is given twice$"):
        check_together([place("a"), place("b"), place("a")])


def test_files_of_different_clusters_are_both_named() -> None:
    with pytest.raises(
        SpecError,
        match=r"a\.yaml runs on no `cluster` and b\.yaml on the cluster at head:6379: give",
    ):
        check_together([place("a"), place("b", cluster="head:6379")])


def test_the_worst_code_is_that_of_all() -> None:
    assert worst([ExitCode.DONE, ExitCode.DONE]) is ExitCode.DONE
    assert worst([ExitCode.DONE, ExitCode.INTERRUPTED]) is ExitCode.INTERRUPTED
    assert worst([ExitCode.INTERRUPTED, ExitCode.EXISTS, ExitCode.DONE]) is ExitCode.EXISTS
    assert worst([ExitCode.FAILED, ExitCode.BUSY]) is ExitCode.FAILED
    assert {worst([code]) for code in ExitCode} == set(ExitCode)


def test_one_that_fails_does_not_keep_the_others_from_their_end() -> None:
    has_failed = threading.Event()

    def fails() -> str:
        has_failed.set()
        raise SpecError("broken")

    def waits() -> str:
        assert has_failed.wait(10)
        return "done"

    ended = together({"waits": waits, "fails": fails})
    assert list(ended) == ["waits", "fails"]
    assert ended["waits"] == "done"
    assert isinstance(ended["fails"], SpecError)


def test_the_limit_of_blas_threads_lasts_until_the_last_has_left() -> None:
    def threads() -> list[int]:
        return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

    with threadpool_limits(2, "blas"):
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(threads()) == {1}
        second.__exit__(None, None, None)
        assert set(threads()) == {2}


# --- watching
# -----------------------------------------------------------------------------------------


def seen(board: MultiStudyView, width: int, height: int = 30) -> str:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(board.render())
    return console.export_text()


def a_board(*studies: str, width: int = 110, height: int = 30) -> MultiStudyView:
    return MultiStudyView(studies, Console(width=width, height=height, file=io.StringIO()))


def test_the_board_has_a_line_for_each_study() -> None:
    board = a_board("digits", "bowl")
    board.on_event(ProgressEvent("phase", "starting Ray"))
    assert "starting Ray …" in seen(board, 110)
    board.observer_of("bowl").progress(progress())
    board.observer_of("digits").on_event(ProgressEvent("phase", "waiting for Ray"))
    text = seen(board, 110)
    (digits,) = [line for line in text.splitlines() if line.startswith("digits")]
    (bowl,) = [line for line in text.splitlines() if line.startswith("bowl")]
    assert "waiting for Ray" in digits
    for part in ("40%", "16/40", "0.0123", "1m 30s"):
        assert part in bowl
    assert "2 studies  2 trials running" in text


def test_events_carry_the_studys_name_and_its_end_stays_in_its_line() -> None:
    board = a_board("digits", "bowl")
    for study in ("digits", "bowl"):
        board.observer_of(study).progress(progress())
    board.observer_of("bowl").on_event(ProgressEvent("complete", "loss = 1", 3))
    board.observer_of("bowl").on_event(ProgressEvent("over", "finished: all 4 trials are done"))
    text = seen(board, 110)
    assert "bowl  trial 3: loss = 1" in text
    assert "finished: all 4 trials are done" in text
    assert "1 over" in text
    assert text.index("digits ") < text.index("finished:"), "what goes on comes first"


@pytest.mark.parametrize("width", [30, 50, 80, 120])
def test_a_board_of_many_studies_keeps_to_its_terminal(width: int) -> None:
    names = [f"a-study-with-a-long-name-{number}" for number in range(50)]
    board = a_board(*names, width=width, height=24)
    for name in names:
        board.observer_of(name).progress(progress())
        board.observer_of(name).on_event(ProgressEvent("complete", "val_error = 0.1 " * 20, 3))
    lines = seen(board, width, height=24).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    assert any("more" in line for line in lines)


def test_lines_of_several_studies_bear_their_names() -> None:
    plain, lines = io.StringIO(), io.StringIO()
    PlainLines("bowl", plain).on_event(ProgressEvent("complete", "loss = 1", 3))
    JsonLines("bowl", lines).on_event(ProgressEvent("complete", "loss = 1", 3))
    JsonLines(None, lines).on_event(ProgressEvent("phase", "starting Ray"))
    assert plain.getvalue() == "bowl: complete trial 3: loss = 1\n"
    assert [json.loads(line)["study"] for line in lines.getvalue().splitlines()] == ["bowl", None]
