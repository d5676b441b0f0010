"""Output of a gang's processes in the trial's log."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tunesvc.errors import BadReport
from tunesvc.execution.gang.gang_log import LINE_CHARS_MAX, GangLog
from tunesvc.execution.gang.gang_output import GangProcess
from tunesvc.execution.output.remote_spools import Positions, SpoolId
from tunesvc.execution.output.spool import Remains


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


def test_output_that_is_sent_twice_is_logged_once(tmp_path: Path) -> None:
    """The answer to the first call may be lost."""
    log = Log()
    gang = GangLog(log)
    for _ in range(2):
        gang.add(process(tmp_path), "stdout", "one\n", 4)
    assert log.texts["stdout"] == "[rank 0] one\n"


def test_what_a_process_has_written_for_an_earlier_gang_is_left_out(tmp_path: Path) -> None:
    log = Log()
    gang = GangLog(log)
    (tmp_path / "stdout").write_text("earlier\nnow\n")
    reused = GangProcess("rank 0", "here", str(tmp_path), {"stdout": len("earlier\n")})
    gang.add(reused, "stdout", "", 0)
    gang.close("here")
    assert log.texts["stdout"] == "[rank 0] now\n"


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
    gang.close("here")
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
    gang.close("here")
    assert log.texts["stdout"] == "[bundle 1] begin\n[rank 0] train\n"


def test_all_processes_on_other_nodes_are_read_together_and_late_output_is_refused(
    tmp_path: Path,
) -> None:
    """Whatever the outcome: a process may end with output that it has not sent."""
    asked: list[Mapping[SpoolId, Positions]] = []

    def read(received: Mapping[SpoolId, Positions], _: float) -> dict[SpoolId, Remains]:
        asked.append(received)
        with pytest.raises(BadReport, match="has ended"):  # at once, while nodes are read
            gang.add(process(tmp_path, 1, "a"), "stdout", "late\n", 10)
        return {("a", str(tmp_path / "1")): Remains({"stdout": "rest\n"})}

    log = Log()
    gang = GangLog(log, read)
    for rank, node in enumerate(["here", "a", "a", "b"]):
        gang.add(process(tmp_path, rank, node), "stdout", "sent\n", 5)
    gang.close("here")
    received = {"stdout": 5, "stderr": 0}
    places = ((1, "a"), (2, "a"), (3, "b"))
    assert asked == [{(node, str(tmp_path / f"{rank}")): received for rank, node in places}]
    assert log.texts["stdout"].endswith("[rank 3] sent\n[rank 1] rest\n")


def test_a_gang_ends_if_ray_cannot_read_its_output(tmp_path: Path) -> None:
    def read(_: object, __: float) -> dict[SpoolId, Remains]:
        raise ConnectionError

    log = Log()
    gang = GangLog(log, read)
    gang.add(process(tmp_path, 1, "away"), "stdout", "sent", 4)
    gang.close("here")
    assert log.texts["stdout"] == "[rank 1] sent\n"


def test_a_process_whose_output_begins_when_the_gang_ends_does_no_harm(tmp_path: Path) -> None:
    def send() -> None:
        with suppress(BadReport):
            gang.add(process(tmp_path, 2), "stdout", "new\n", 4)

    sender = threading.Thread(target=send)

    class Node(str):
        """A node whose first comparison leaves another process time to send its first output."""

        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            if sender.ident is None:
                sender.start()
                sender.join(0.2)
            return str(self) == other

        def __ne__(self, other: object) -> bool:
            return not self == other

    log = Log()
    gang = GangLog(log)
    for rank in range(2):
        gang.add(process(tmp_path, rank, Node("here")), "stdout", "old\n", 4)
    gang.close("here")
    sender.join()
    assert log.texts["stdout"].startswith("[rank 0] old\n[rank 1] old\n")
