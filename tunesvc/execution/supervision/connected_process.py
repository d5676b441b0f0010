"""A supervised process that runs the main function of a module, with a connection to it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from tunesvc.execution.supervision.supervised_process import supervised

_START = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "importlib.import_module(sys.argv[3]).main(int(sys.argv[1]))"
)


@contextmanager
def connected_process(
    module: str, environment: Mapping[str, str]
) -> Iterator[tuple[Connection, Path]]:
    """Start a process that calls a module's `main(descriptor)`; kill it at the end of the block.

    Yields the connection to that descriptor, and a folder that is removed afterwards. It is for the
    temporary files of the process, unless the environment has a `TMPDIR`.
    """
    ours, its = Pipe()
    arguments = [
        sys.executable,
        "-u",
        "-c",
        _START,
        str(its.fileno()),
        json.dumps(sys.path),
        module,
    ]
    with tempfile.TemporaryDirectory(prefix="tunesvc-data-") as scratch:
        # A killed process leaves its temporary files there.
        variables = {"TMPDIR": scratch, **environment}
        with ours, supervised(arguments, variables, Path(scratch), [its.fileno()]):
            its.close()
            yield ours, Path(scratch)
