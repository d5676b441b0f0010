"""Output of a gang's processes in the trial's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesvc.errors import BadReport
from tunesvc.execution.gang.gang_log import LINE_CHARS_MAX, GangLog
from tunesvc.execution.gang.gang_output import GangProcess


class Log:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {"stdout": "", "stderr": ""}

    def __call__(self, stream: str, text: str) -> None:
        self.texts[stream] += text


def process(folder: Path, rank: int = 0, node: str = "here") -> GangProcess:
    return GangProcess(f"rank {rank}", node, str(folder / f"{rank}"))


def test_each_line_has_its_process_and_none_is_torn(tmp_path: Path) -> None:
    log = Log()
    gang = GangLog(log)
    gang.add(process(tmp_path, 0), "stdout", "one\ntw", 6)
    gang.add(process(tmp_path, 1), "stdout", "other\n", 6)
    gang.add(process(tmp_path, 1), "stderr", "\nerror\n", 7)
    gang.add(process(tmp_path, 0), "stdout", "o\n", 8)
    assert log.texts["stdout"] == "[rank 0] one\n[rank 1] other\n[rank 0] two\n"
    assert log.texts["stderr"] == "[rank 1] \n[rank 1] error\n"


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    log = Log()
    GangLog(log).add(process(tmp_path), "stdout", "x" * (LINE_CHARS_MAX + 1), LINE_CHARS_MAX + 1)
    assert log.texts["stdout"] == f"[rank 0] {'x' * (LINE_CHARS_MAX + 1)}\n"


def test_what_a_process_here_has_not_sent_is_read_from_its_files_once(tmp_path: Path) -> None:
    log = Log()
    gang = GangLog(log)
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / "stdout").write_text("sent\nnot sent\nnor this")
    (folder / "stderr").write_text("killed")
    gang.add(process(tmp_path), "stdout", "sent\n", 5)
    gang.close("here", is_failed=False)
    assert log.texts["stdout"] == "[rank 0] sent\n[rank 0] not sent\n[rank 0] nor this\n"
    assert log.texts["stderr"] == "[rank 0] killed\n"
    with pytest.raises(BadReport, match="has ended"):
        gang.add(process(tmp_path), "stdout", "not sent\n", 14)


def test_a_process_that_is_labelled_late_keeps_its_place(tmp_path: Path) -> None:
    """Ray Train knows the rank when the process has written already."""
    log = Log()
    gang = GangLog(log)
    early = GangProcess("bundle 1", "here", str(tmp_path / "0"))
    gang.add(early, "stdout", "begin\n", 6)
    gang.add(process(tmp_path), "stdout", "train\n", 12)
    gang.close("here", is_failed=False)
    assert log.texts["stdout"] == "[bundle 1] begin\n[rank 0] train\n"
