"""What a process writes, caught: in processes of their own, for their descriptors 1 and 2 are taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLOSING = """
import os, sys, threading
from tunesvc.execute.capture import OutputCapture

capture, caught = OutputCapture(), []
with capture.into(lambda stream, text: caught.append((stream, text))):
    os.write(1, b"before")
    os.close(1)
    os.write(2, b"after")
with capture.into(lambda stream, text: caught.append((stream, text))):
    os.write(2, b"again")
os.close(2)
(reader,) = [thread for thread in threading.enumerate() if thread.name == "tunesvc-output"]
reader.join(20)
with open(sys.argv[1], "w") as out:
    out.write(repr((caught, reader.is_alive())))
"""


def test_who_closes_its_output_leaves_no_thread_that_reads_its_end_for_ever(tmp_path: Path) -> None:
    told = tmp_path / "told"
    subprocess.run([sys.executable, "-c", CLOSING, str(told)], check=True, timeout=60)
    caught, is_alive = eval(told.read_text())  # noqa: S307  # our own
    assert caught == [("stdout", "before"), ("stderr", "after"), ("stderr", "again")]
    assert not is_alive
