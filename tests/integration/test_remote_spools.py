"""Spools that tasks of a real Ray read: of this node, of one that is gone, and of one that hangs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.processes import processes
from tunesvc.execution.output.remote_spools import read_on_nodes


@pytest.mark.slow
def test_the_spools_of_a_node_that_does_not_answer_are_absent(
    local_ray: None, tmp_path: Path
) -> None:
    import ray

    here, gone = ray.get_runtime_context().get_node_id(), "ab" * 28
    (tmp_path / "stdout").write_text("received, and not")
    received = {"stdout": len("received, "), "stderr": 0}
    wanted = dict.fromkeys([(here, str(tmp_path)), (gone, "/spool")], received)
    found = read_on_nodes(wanted, 20.0)
    assert {spool: remains.output for spool, remains in found.items()} == {
        (here, str(tmp_path)): {"stdout": "and not", "stderr": ""}
    }

    (tmp_path / "stuck").mkdir()
    os.mkfifo(tmp_path / "stuck" / "stdout")
    assert read_on_nodes({(here, str(tmp_path / "stuck")): received}, 0.5) == {}
    deadline_s = time.monotonic() + 20
    while any(one.command.startswith("ray::_read") for one in processes()):
        assert time.monotonic() < deadline_s, "its task was not canceled"
        time.sleep(0.05)
