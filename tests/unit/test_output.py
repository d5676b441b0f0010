"""Capture of a process's output, in processes of their own, because it takes descriptors 1 and
2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesvc.execution.output.spool import REMAINS_BYTES_MAX, Spool, read_remains

CLOSING = """
import os, sys
from pathlib import Path
from tunesvc.execution.output.output_capture import OutputCapture
from tunesvc.execution.output.spool import Spool

capture, caught = OutputCapture(Spool(Path(sys.argv[1]))), []
take = lambda *piece: caught.append(piece)
with capture.into(take):
    os.write(1, b"before")
    os.close(1)
    os.write(2, b"after")
with capture.into(take):
    os.write(2, b"again \\xff")
os.close(2)
with open(sys.argv[2], "w") as out:
    out.write(repr(caught))
"""
DYING = """
import os, signal, sys
from pathlib import Path
from tunesvc.execution.output.output_capture import OutputCapture
from tunesvc.execution.output.spool import Spool

with OutputCapture(Spool(Path(sys.argv[1]))).into(lambda *piece: None):
    print("heard", flush=True)
    print("why", flush=True)
    if os.fork() == 0:
        os._exit(9)
    os.wait()
    {death}
"""


def run(script: str, *arguments: Path) -> None:
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=False, timeout=60)


def test_output_is_caught_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    output = tmp_path / "told"
    run(CLOSING, tmp_path / "spool", output)
    assert eval(output.read_text()) == [  # noqa: S307  # our own
        ("stdout", "before", 6),
        ("stderr", "after", 5),
        ("stderr", "again \ufffd", 12),
    ]


@pytest.mark.parametrize(
    ("death", "end"),
    [
        ("os._exit(3)", "ended with exit code 3"),
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            "was ended by SIGSEGV (segmentation fault); its stack is in the log",
        ),
        ("os.abort()", "was ended by SIGABRT (aborted); its stack is in the log"),
        ("os.kill(os.getpid(), signal.SIGKILL)", ""),
    ],
)
def test_what_a_process_wrote_and_how_it_ended_is_left_when_it_dies(
    tmp_path: Path, death: str, end: str
) -> None:
    run(DYING.format(death=death), tmp_path)
    remains = read_remains(str(tmp_path), {"stdout": len("heard\n")})
    assert remains.output["stdout"] == "why\n"
    assert remains.end == end
    assert ("most recent call first" in remains.output["stderr"]) == ("its stack" in end)


def test_much_that_a_process_left_is_cut_at_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("x" * REMAINS_BYTES_MAX + "the end")
    left = read_remains(str(tmp_path), {}).output["stdout"]
    assert left.startswith("\n[tunesvc: 7 bytes of output are left out here]\nx")
    assert left.endswith("xthe end")


def test_a_spool_gives_back_what_was_read_and_keeps_its_positions(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    reader, writer = spool.open("stdout")
    os.write(writer, b"x" * 2**23)
    spool.free("stdout", 2**23)
    os.write(writer, b"more")
    assert os.pread(reader, 10, 2**23) == b"more"
    assert os.fstat(reader).st_blocks * 512 < 2**20
    os.close(reader)
    os.close(writer)
